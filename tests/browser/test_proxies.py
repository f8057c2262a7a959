"""The page behind a real nginx in Chromium: prefixes stripped and left, https, cuts, answers held back."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Walker
from tests.browser.gateways import NGINX, gateway
from tests.conftest import Server, start_server
from tests.tiny import build_tiny_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="THE PAGE BEHIND PROXIES IS NOT TESTED: apt-get install nginx-light"),
]
# Of the tiny model: more than the gateway's patience, on a quick machine too.
TOKENS = 2400


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that never choose a control token: replies of exactly as many tokens as are asked for."""
    from safetensors.torch import load_file, save_file

    folder = build_tiny_model(tmp_path_factory.mktemp("model") / "tiny", hidden_size=256, layers=8, max_positions=8192)
    weights = load_file(folder / "model.safetensors")
    for token in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]:
        weights["model.embed_tokens.weight"][token["id"]] = 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def pages(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts a page with flags, or gives the one that was: its model is loaded once."""
    started: dict[tuple[str, ...], Server] = {}

    def page(*flags: str) -> Server:
        if flags not in started:
            started[flags] = start_server(tmp_path_factory.mktemp("page") / "runs", "--model", str(model), *flags)
        return started[flags]

    with ExitStack() as ending:
        yield page
        for server in started.values():
            ending.callback(server.stop)


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[[str], Walker]]:
    """Opens a page at an address, certificates unseen."""
    contexts = []

    def start(address: str) -> Walker:
        contexts.append(browser.new_context(locale="zh-CN", ignore_https_errors=True))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        return Walker(page, address, None).open()

    yield start
    for context in contexts:
        context.close()


def port_and_query(server: Server) -> tuple[int, str]:
    found = re.search(r":(\d+)/.*(\?token=\S+)", server.address)
    assert found
    return int(found[1]), found[2]


def load(walker: Walker) -> None:
    walker.tab("对话")
    if "模型已加载" not in walker.text("chat_status"):
        walker.click("加载模型")
    walker.wait_text("chat_status", "模型已加载", 60)


def ask(walker: Walker, tokens: int) -> None:
    walker.fill("max_new_tokens", str(tokens))
    walker.fill("temperature", "0")
    box = walker.page.locator("#chat_input textarea")
    box.fill("问题")
    box.press("Enter")


def whole_answer(walker: Walker, tokens: int, timeout_s: float) -> None:
    """The answer's numbers stand below it once it is complete."""
    walker.wait(lambda: f"{tokens}" in "".join(walker.page.locator(".td-numbers").all_inner_texts()),
                "the whole answer", timeout_s, lambda: walker.text("chatbot")[-300:])  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "prefix", "flags"),
    [
        ("stripping", "/a/b", ()),
        ("stripping", "/a/b", ("--root-path", "/a/b/")),
        ("stripping_in_silence", "/a/b", ()),
        ("leaving", "/a/b", ()),
        ("leaving_in_silence", "/a/b", ("--root-path", "a/b")),
        pytest.param("https", "/a/b", (), marks=pytest.mark.everyday),
    ],
)
def test_the_page_works_behind_a_prefix_and_https(
    kind: str, prefix: str, flags: tuple[str, ...], pages: Callable[..., Server],
    opened: Callable[[str], Walker], tmp_path: Path,
) -> None:  # fmt: skip
    port, query = port_and_query(pages(*flags))
    with gateway(kind, port, tmp_path / "nginx") as there:
        walker = opened(f"{there.address}{prefix}/{query}")
        assert walker.page.url == f"{there.address}{prefix}/zh/", "redirects lead on behind the proxy"
        [cookie] = [one for one in walker.page.context.cookies() if one["httpOnly"]]
        assert cookie["path"] == prefix
        assert cookie["secure"] == (kind == "https")
        assert f":{port}" not in walker.page.content(), "no address of the server's own"
        walker.page.goto(f"{there.address}{prefix}/zh?view=x")
        assert walker.page.url == f"{there.address}{prefix}/zh/?view=x"
        walker.wait(lambda: walker.field("output_dir").input_value() != "", "the page again")
        walker.click("预览数据集")
        walker.wait(lambda: walker.field("preview_page").input_value() == "1", "the preview")
        walker.click("关闭")
        if kind != "stripping" and not flags:  # streams: once for each way of knowing the prefix
            load(walker)
            ask(walker, 20)
            whole_answer(walker, 20, 60)
        walker.page.get_by_role("link", name="English").click()
        walker.page.wait_for_url(f"{there.address}{prefix}/en/**")
        assert walker.errors == []
        assert walker.foreign == []


def train(walker: Walker, name: str) -> None:
    walker.tab("训练")
    walker.fill("num_train_epochs", "3")
    walker.fill("output_dir", name)
    walker.click("开始")
    walker.wait(lambda: all(words in walker.text("status") for words in ("训练完毕", f"/{name}")),
                "the end of the training", 120, lambda: walker.text("status"))  # fmt: skip
    chart = walker.page.locator("#loss-chart [data-points]").first.get_attribute("data-points")
    assert chart is not None
    assert len(json.loads(chart)["step"]) >= 3


@pytest.mark.parametrize("kind", ["direct", "buffering"])
def test_a_gateway_that_cuts_or_holds_back_loses_nothing(
    kind: str, pages: Callable[..., Server], opened: Callable[[str], Walker], tmp_path: Path
) -> None:
    port, query = port_and_query(pages())
    with gateway(kind, port, tmp_path / "nginx") as there, there.cutting() if kind == "direct" else nullcontext():
        walker = opened(f"{there.address}/{query}")
        loads: list[str] = []
        walker.page.on("load", lambda page: loads.append(page.url))
        load(walker)
        ask(walker, TOKENS)
        walker.wait(lambda: len(walker.text("chatbot")) > 100, "the answer as it is written", 60)
        assert walker.page.locator(".td-numbers").count() == 0, "words are shown before the answer is whole"
        whole_answer(walker, TOKENS, 90)
        if kind == "direct":
            train(walker, kind)
        assert loads == [], "the page was never loaded anew"
        assert walker.errors == []
        requests = there.requests()
        assert "poll=1" in requests or kind != "buffering", "what is held back is asked for part by part"
        assert re.search(r"stream=\w+&from=[1-9]", requests), "the stream went on where it had been cut"
