"""What the entrypoint makes of a volume and says of it, run by itself: as root of this machine, outside any container."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

ENTRYPOINT = ROOT / "assets" / "container" / "entrypoint.sh"
# Ends as on a full disk: with the first file there, and not the others.
FULL = '#!/bin/sh\nmkdir -p "$3" && echo half > "$3/identity.json"\necho "cp: error writing \'$3/x\': No space left on device" >&2\nexit 1\n'
BUNDLED = {path.name for path in (ROOT / "data").iterdir()}


def start(folder: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    found = {"PATH": os.environ["PATH"], "HOME": str(folder), "TUNEDESK_DATA_DIR": str(folder / "data"),
             "TUNEDESK_RUNS_DIR": str(folder / "runs"), "USER": "u", **environment}  # fmt: skip
    words = ["bash", str(ENTRYPOINT), *(command or ["sh", "-c", 'echo "$TUNEDESK_DATA_DIR"'])]
    return subprocess.run(words, env=found, capture_output=True, text=True, timeout=60, check=False)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_empty_volume_gets_the_bundled_datasets_and_nothing_is_said(tmp_path: Path) -> None:
    done = start(tmp_path)
    assert (done.stdout, done.stderr) == (f"{tmp_path / 'data'}\n", "")
    assert names(tmp_path / "data") == BUNDLED


def test_what_a_killed_container_has_left_half_copied_is_copied_whole(tmp_path: Path) -> None:
    (tmp_path / "data" / ".bundled").mkdir(parents=True)
    (tmp_path / "data" / ".bundled" / "identity.json").write_text("half")
    assert start(tmp_path).stderr == ""
    assert names(tmp_path / "data") == BUNDLED
    assert (tmp_path / "data" / "identity.json").read_bytes() == (ROOT / "data" / "identity.json").read_bytes()


def test_a_folder_with_data_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.json").write_text("[]")
    assert start(tmp_path).stderr == ""
    assert names(tmp_path / "data") == {"mine.json"}


@pytest.mark.parametrize(("locale", "words"), [("C.UTF-8", "could not be copied"), ("zh_CN.UTF-8", "无法复制到")])
def test_a_full_disk_leaves_no_half_dataset_and_the_page_has_the_bundled_ones(
    tmp_path: Path, locale: str, words: str
) -> None:
    program = tmp_path / "bin" / "cp"
    program.parent.mkdir()
    program.write_text(FULL)
    program.chmod(0o755)
    done = start(tmp_path, PATH=f"{program.parent}:{os.environ['PATH']}", LANG=locale)
    assert words in done.stderr
    assert "(No space left on device)" in done.stderr.replace("（", "(").replace("）", ")")
    assert done.stdout == f"{ROOT / 'data'}\n"
    assert names(tmp_path / "data") == set(), "the next container would take it for the user's"


@pytest.mark.parametrize(("locale", "words"), [("C", "add --tmpfs /tmp"), ("zh_CN.UTF-8", "请加上 --tmpfs /tmp")])
def test_without_a_folder_for_temporary_files_it_says_so_and_ends(tmp_path: Path, locale: str, words: str) -> None:
    done = start(tmp_path, TMPDIR=str(tmp_path / "none"), LANG=locale)
    assert done.returncode == 1
    assert words in done.stderr
    assert str(tmp_path / "none") in done.stderr
