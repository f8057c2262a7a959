"""The devices on the page: what a tool tells of them, who holds them, and which a run and the chat are started on.

The tool is a script that prints what npu-smi prints; run and chat compute on the processor with its environment set.
"""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.text import Text
from tests.browser.conftest import Walker
from tests.conftest import Server
from trainer import run_folder
from trainer.problems import Language
from trainer.run_folder import Identity

TABLE = Path(__file__).parents[1] / "app" / "smi" / "npu_910b3_24.1.rc3.txt"
VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"


@pytest.fixture
def chips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that npu-smi prints: eight chips, of which 1 and 2 are at work for somebody else."""
    (tmp_path / "bin").mkdir()
    printed, tool = tmp_path / "printed.txt", tmp_path / "bin" / "npu-smi"
    printed.write_text(TABLE.read_text())
    tool.write_text(f"#!/bin/sh\nexec cat {printed}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(VISIBLE, raising=False)
    return printed


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """With a run that trains on chip 5, as far as its folder tells."""
    folder = tmp_path / "runs" / "nightly-qwen"
    folder.mkdir(parents=True)
    run_folder.write_identity(folder, Identity.of(os.getpid(), ("5",)))
    return folder.parent


def environment_of(pid: int) -> dict[str, str]:
    words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def chat_process(server: Server) -> psutil.Process | None:
    for one in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.Error):  # it ends just now
            if "trainer.chat" in one.cmdline():
                return one
    return None


def rows(walker: Walker) -> list[str]:
    cells = walker.page.locator("#device_table tbody tr")
    return [" ".join(cells.nth(number).inner_text().split()) for number in range(cells.count())]


def chosen(walker: Walker) -> str:
    return "".join(walker.page.locator("#devices .token").all_inner_texts())


@pytest.mark.slow
@pytest.mark.parametrize("language", ["zh", pytest.param("en", marks=pytest.mark.thorough)])
def test_devices_are_shown_with_who_holds_them_and_lead_the_command_in_ascending_order(
    serve: Callable[..., Server], walk: Callable[..., Walker], chips: Path, runs_dir: Path, language: Language
) -> None:
    text = Text(language)
    walker = walk(serve(runs_dir=runs_dir).address, language).open()
    assert "8 × 910B3" in walker.page.locator(".td-device").inner_text()
    # A new form begins with those that nobody uses.
    walker.wait(
        lambda: walker.page.locator("#devices .token").count() == 5, "the free devices", 10, lambda: chosen(walker)
    )
    walker.wait(lambda: walker.field("device_count").input_value() == "5", "their number", 10)
    walker.unfold(text("device.panel"))
    walker.wait(lambda: len(rows(walker)) == 8, "the chips", 10)
    first, second, sixth = (rows(walker)[number] for number in (0, 1, 5))
    assert "0 % 3.2 / 64.0 GiB 40 °C · 96 W" in first
    assert first.endswith(text("device.free"))
    assert "97 % 58.0 / 64.0 GiB" in second
    assert "50122 (python3)" in second
    assert sixth.endswith("nightly-qwen")
    choose_two_and_one(walker)
    walker.click(text("preview_command"))
    walker.wait(lambda: f"env {VISIBLE}=1,2 " in walker.field("command").input_value(), "the devices in the command")
    walker.picture(f"devices-{language}-1400")
    chips.write_text(TABLE.read_text().replace("| 97.1        41", "| 97.1        66"))
    walker.wait(lambda: "66 °C" in rows(walker)[1], "a new reading", 15, lambda: rows(walker)[1])
    chips.write_text("dcmi module initialize failed. ret is -8005\n")
    walker.wait_text("device_table", "-8005", 15)
    assert len(rows(walker)) == 8, "the figures before it stay"
    assert (walker.errors, walker.foreign) == ([], [])


def choose_two_and_one(walker: Walker) -> None:
    """The chips that others hold, which no form begins with."""
    walker.page.locator("#devices .remove-all").click()
    for index in "21":
        walker.choose("devices", re.compile(rf"^{index}[:：].*50\d+ \(python3\)"))
    walker.field("devices").press("Escape")


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.usefixtures("chips")
def test_a_run_and_the_chat_get_the_devices_that_are_chosen_for_each(
    serve: Callable[..., Server], walk: Callable[..., Walker], runs_dir: Path
) -> None:
    text, server = Text("zh"), serve(runs_dir=runs_dir)
    walker = walk(server.address, "zh").open()
    walker.wait(lambda: walker.page.locator("#devices .token").count() == 5, "the free devices", 10)
    choose_two_and_one(walker)
    walker.fill("output_dir", "chosen")
    walker.click(text("start"))
    walker.wait(lambda: (runs_dir / "chosen" / run_folder.IDENTITY).exists(), "the run to start")
    identity = run_folder.read_identity(runs_dir / "chosen")
    assert identity
    assert identity.devices == ("1", "2")
    walker.wait(lambda: environment_of(identity.pid).get(VISIBLE) == "1,2", "its environment")
    walker.unfold(text("device.panel"))
    walker.wait(lambda: len(rows(walker)) == 8 and "chosen" in rows(walker)[2], "the run beside its devices", 15)
    psutil.Process(identity.pid).kill()

    walker.tab(text("tab.chat"))
    walker.choose("chat_device", re.compile(r"^5[:：].*nightly-qwen"))
    walker.wait_text("chat_device", text("device.choose.held", run="nightly-qwen"))
    walker.click(text("chat.load"))
    walker.wait_text("memory_words", text("device.held", run="nightly-qwen", index="5"))
    walker.picture("devices-held-1400")
    assert chat_process(server) is None
    walker.choose("chat_device", re.compile(r"^3[:：]"))
    walker.click(text("chat.load"))
    walker.wait(lambda: chat_process(server) is not None, "the chat process")
    process = chat_process(server)
    assert process
    assert environment_of(process.pid)[VISIBLE] == "3"
    walker.tab(text("tab.train"))
    walker.wait(lambda: text("device.chat") in rows(walker)[3], "the chat beside its device", 15)
    assert (walker.errors, walker.foreign) == ([], [])
