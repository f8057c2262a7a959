"""`tunedesk chat` where its output goes nowhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import build_tiny_model

ROOT = Path(__file__).parents[2]


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_the_output_is_said_in_one_sentence(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "app", "chat", "--model", str(model), "--prompt", "你好", "--max-new-tokens", "5"],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "zh_CN.UTF-8"}, check=False,
        )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == "无法写出回答（磁盘已满）。请腾出空间，或将输出写到别处。\n"
