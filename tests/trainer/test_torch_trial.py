"""A torch-npu whose import ends, crashes or hangs the program: it is tried in a process of its own, and left out."""

import json
import time
from pathlib import Path

import pytest

from tests.trainer.test_torch_import import NO_HCCL, PREPARED, installed, python, said, torch_release
from trainer.problems import LANGUAGES

ENDS_THE_PROGRAM = f"""
try:
    raise ImportError({NO_HCCL!r})
except ImportError:
    raise SystemExit
"""
RAISES_WHEN_ASKED = """
import torch
torch.accelerator.device_count = lambda: (_ for _ in ()).throw(RuntimeError("drvGetDevNum failed"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (ENDS_THE_PROGRAM, NO_HCCL),  # as releases before 2.1 do, with status 0
        pytest.param(RAISES_WHEN_ASKED, "drvGetDevNum failed", marks=pytest.mark.thorough),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        pytest.param("import os; os._exit(9)", "exit 9", marks=pytest.mark.thorough),
    ],
)
def test_a_torch_npu_that_ends_or_crashes_the_program_is_left_out(tmp_path: Path, body: str, detail: str) -> None:
    site = installed(tmp_path / "site", torch_release(), f"print('a word on stdout')\n{body}\n")
    found = said(PREPARED, site)
    assert (found["code"], found["left"], found["sum"], found["autoload"]) == ("npu_not_loaded", [], 2.0, "0")
    told = found["values"]["detail"]
    assert detail in told if isinstance(told, str) else all(detail in told[language] for language in LANGUAGES)


@pytest.mark.slow
@pytest.mark.thorough
def test_with_a_cann_of_the_table_it_is_imported_at_once_and_may_still_end_the_program(tmp_path: Path) -> None:
    code = f"""
from trainer import cann, torch_import
cann.COMPATIBLE["9.1.0"] += ({torch_release()!r},)
torch_import._trial = lambda: 1 / 0
{PREPARED}
"""
    (tmp_path / "version.cfg").write_text("toolkit_running_version=[9.1.0:9.1.0]\n")
    found = said(
        code, installed(tmp_path / "site", torch_release(), ENDS_THE_PROGRAM), ASCEND_TOOLKIT_HOME=str(tmp_path)
    )
    assert (found["code"], found["values"]["detail"], found["left"]) == ("npu_not_loaded", NO_HCCL, [])


@pytest.mark.slow
def test_a_torch_npu_that_is_half_removed_is_said_to_be(tmp_path: Path) -> None:
    site = installed(tmp_path / "site", torch_release(), "")
    (site / "torch_npu" / "__init__.py").unlink()
    (site / "torch_npu").rmdir()
    assert python("import torch", site).returncode == 1, "torch looks for it all the same"
    assert said(PREPARED, site)["values"]["detail"] == "No module named 'torch_npu'"


@pytest.mark.slow
@pytest.mark.thorough
def test_an_import_that_hangs_is_given_up_once_for_all_processes_of_a_run(tmp_path: Path) -> None:
    site = installed(tmp_path / "site", torch_release(), "import subprocess\nsubprocess.run(['sleep', '60'])\n")
    program = f"from trainer import torch_import\ntorch_import.TRIAL_TIMEOUT_S = 1\n{PREPARED}"
    began = time.monotonic()
    found = said(program, site)
    assert time.monotonic() - began < 20
    assert found["code"] == "npu_not_loaded"
    assert "1 s" in found["values"]["detail"]["en"]
    again = said(f"import os\nos.environ['PATH'] = ''\n{PREPARED}", site,
                 TUNEDESK_NPU_TRIED=json.dumps(found["values"]["detail"]))  # fmt: skip
    assert again["values"] == found["values"]
