"""Chromium, and the page as a person meets it: by labels and button texts, not by internals."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import Server, start_server
from tests.tiny import build_tiny_adapter, build_tiny_model
from trainer import run_folder
from trainer.events import EventLog
from trainer.run_folder import Identity
from trainer.settings import parse
from trainer.settings_file import to_yaml

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright, and Debian's chromium")

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# Walks that `make faults` takes, with FAULTS=all: together they are longer than the whole suite may be. Of them every
# run of the tests takes those marked `everyday`.
LONG_WALKS = {"test_proxies.py", "test_runs.py", "test_compare.py", "test_hostile_content.py", "test_chat.py"}
SLOW = Path(__file__).parent / "slow"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = Path(str(item.fspath))
        if "browser" in path.parts:
            item.add_marker(pytest.mark.browser)
            long = path.name in LONG_WALKS and not item.get_closest_marker("everyday")
            if long and os.environ.get("FAULTS") != "all":
                item.add_marker(pytest.mark.skip("NOT TESTED: a long walk through the page, taken by `make faults`"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        pytest.fail("the browser tests need Debian's chromium: apt-get install chromium fonts-noto-cjk")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Walker:
    """A page in Chromium that notes script errors and requests to other hosts."""

    def __init__(self, page: Any, address: str, screenshots: Path | None) -> None:
        self.page, self.address, self._screenshots = page, address, screenshots
        self.errors: list[str] = []
        self.foreign: list[str] = []
        host = urlsplit(address).netloc
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("requestfinished", lambda request: self._note(request.url, host))
        page.on("requestfailed", lambda request: request.failure == "csp" or self._note(request.url, host))

    def _note(self, url: str, host: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != host:
            self.foreign.append(url)

    def open(self, query: str = "") -> "Walker":
        self.page.goto(self.address + query)
        self.page.wait_for_selector("#start")
        self.wait(lambda: self.field("output_dir").input_value() != "", "the page to fill in its fields")
        return self

    def field(self, elem_id: str) -> Any:
        return self.page.locator(f"#{elem_id} input, #{elem_id} textarea").first

    def fill(self, elem_id: str, value: str) -> None:
        self.field(elem_id).fill(value)
        self.field(elem_id).blur()

    def click(self, name: str) -> None:
        """The visible button of that name."""
        self.page.get_by_role("button", name=name, exact=True).locator("visible=true").first.click()

    def unfold(self, name: str) -> None:
        self.page.locator("button.label-wrap", has_text=name).click()
        self.page.wait_for_timeout(400)  # what is inside exists only from now on

    def choose(self, elem_id: str, option: str | re.Pattern[str]) -> None:
        """Picks an option of a dropdown, as a person does."""
        self.field(elem_id).click()
        self.page.get_by_role("option", name=option).first.click()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def text(self, elem_id: str) -> str:
        return self.page.locator(f"#{elem_id}").inner_text()

    def wait_text(self, elem_id: str, words: str, timeout_s: float = 30) -> str:
        self.wait(
            lambda: words in self.text(elem_id), f"{words!r} in #{elem_id}", timeout_s, lambda: self.text(elem_id)
        )
        return self.text(elem_id)

    def wait(
        self, condition: Callable[[], bool], what: str, timeout_s: float = 30, seen: Callable[[], Any] = lambda: ""
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout_s} s for {what}; instead: {seen()}")
            # Looking costs what the trainer computes with: whoever may wait long looks twice a second.
            self.page.wait_for_timeout(50 if timeout_s <= 60 else 500)

    def picture(self, name: str, full: bool = True) -> None:
        if self._screenshots is not None:
            self._screenshots.mkdir(parents=True, exist_ok=True)
            self.page.wait_for_timeout(600)  # let transitions and the chart settle
            self.page.screenshot(path=self._screenshots / f"{name}.png", full_page=full)


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that never chooses a control token, so that a reply does not end."""
    folder = tmp_path_factory.mktemp("endless") / "tiny"
    from safetensors.torch import load_file, save_file

    build_tiny_model(folder, max_positions=16384)
    weights = load_file(folder / "model.safetensors")
    for token in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]:
        weights["model.embed_tokens.weight"][token["id"]] = 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def training_run(tmp_path_factory: pytest.TempPathFactory, endless: Path) -> Path:
    """A run of `model` that trains now, as far as its folder tells, and has one checkpoint."""
    folder = tmp_path_factory.mktemp("chat") / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / run_folder.CONFIG).write_text(to_yaml(parse({"model_name_or_path": str(endless)})))
    run_folder.write_identity(folder, Identity.of(os.getpid()))
    log = EventLog(folder / run_folder.EVENTS)
    log.append("stage", stage="training", step=0, total_steps=50)
    log.append("step", step=5, total_steps=50, loss=1.0, learning_rate=1e-4, grad_norm=1.0, epoch=0.1, memory_gib=3.5)
    build_tiny_adapter(folder / "checkpoint-5", endless, scale=2.0)
    return folder.parent


@pytest.fixture(scope="session")
def chat_server(endless: Path, training_run: Path) -> Iterator[Server]:
    """One for all walks that talk to the endless model, so that it is loaded once. It writes some 30 parts of an answer a
    second, whatever the machine."""
    (training_run.parent / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(SLOW), os.environ.get("PYTHONPATH")])))
        flags = ("--allow-path", str(training_run.parent), "--allow-path", "/nowhere")
        started = start_server(training_run, "--model", str(endless), *flags)
    yield started
    started.stop()


@pytest.fixture
def walk(browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Walker]]:
    """Opens pages: `walk(address, "zh")`."""
    folder = request.config.getoption("--screenshots")
    contexts: list[Any] = []

    def start(address: str, language: str = "zh", width: int = 1400, height: int = 900) -> Walker:
        locale = {"zh": "zh-CN", "en": "en-US"}[language]
        contexts.append(browser.new_context(locale=locale, viewport={"width": width, "height": height}))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        return Walker(page, address, Path(folder) if folder else None)

    yield start
    for context in contexts:
        context.close()
