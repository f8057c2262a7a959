"""Datasets, models, runs and answers that hold HTML and script: shown as what they are, or not at all; never executed."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.text import Text
from tests.app.odd_server import OddServer, odd_server
from tests.browser.conftest import Walker
from tests.conftest import Server, start_server
from tests.tiny import build_tiny_model
from trainer.problems import Language

pytestmark = pytest.mark.slow

# Whatever runs sets `taken`. A foreign host must not be asked for anything either.
ATTACKS = [
    "<script>taken=1</script>",
    "<img src=x onerror=taken=2>",
    "<svg onload=taken=3><a xlink:href='javascript:taken=4'><rect width=99 height=99 /></a></svg>",
    "<iframe srcdoc='<script>parent.taken=5</script>'></iframe>",
    "[click](javascript:taken=6)",
    "![x](https://evil.example/pixel.png)",
    "![x](x \"onerror=taken=7\")",
    "<details open ontoggle=taken=8>",
    "```html\n<img src=x onerror=taken=9>\n```",
    "```\"><img src=x onerror=taken=10>\nx\n```",
    "$\\href{javascript:taken=11}{x}$",
    "$$\\unicode{<img src=x onerror=taken=12>}$$",
    "<style>@import 'https://evil.example/x.css'; body{display:none}</style>",
    "<form action=https://evil.example><button id=forged>x</button></form>",
    "<a href='data:text/html,<script>taken=13</script>'>x</a>",
    "</div></main><h1 id=broken>x</h1>",
    "${taken=14}{{taken=15}}<%taken=16%>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=taken=17>",
    "```mermaid\ngraph TD; A[\"<img src=x onerror=taken=18>\"]\n```",
    "<base href=https://evil.example/><meta http-equiv=refresh content='0;url=https://evil.example'>",
]  # fmt: skip
ALL = "\n\n".join(ATTACKS)
# As file names they cannot have a slash.
NAME = "<img src=x onerror=taken=20> ${taken=21} `x` [a](javascript:taken=22)"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "<img src=x onerror=taken=30>")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "data"
    folder.mkdir()
    rows = [{"instruction": ALL, "output": ALL}, *({"instruction": one, "output": one} for one in ATTACKS)]
    (folder / f"{NAME}.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: Path, data: Path) -> Iterator[Server]:
    started = start_server(
        failed_run(tmp_path_factory.mktemp("hostile")), "--model", str(model), "--data-dir", str(data)
    )
    yield started
    started.stop()


def failed_run(base: Path) -> Path:
    """The folder of a run that failed, all of whose files speak in script."""
    folder = base / "runs" / NAME
    folder.mkdir(parents=True)
    time = 1_700_000_000.0
    identity = {"pid": 999_999, "started": time, "boot_id": "<b>", "host": "<img src=x onerror=taken=40>"}
    (folder / "run.json").write_text(json.dumps(identity))
    (folder / "config.yaml").write_text(json.dumps({"dataset": [NAME], "template": ALL, "model_name_or_path": ALL}))
    events = [{"event": "stage", "stage": "starting"}, {"event": "stage", "stage": ALL},
              {"event": "warning", "code": ALL, "detail": ALL},
              {"event": "finished", "outcome": "failed", "code": "python_error", "kind": ALL, "detail": ALL}]  # fmt: skip
    (folder / "events.jsonl").write_text("".join(json.dumps({**event, "time": time}) + "\n" for event in events))
    (folder / "train.log").write_text(ALL)
    return folder.parent


@pytest.fixture
def odd() -> Iterator[OddServer]:
    with odd_server() as server:
        yield server


def unharmed(walker: Walker, html: bool = False) -> None:
    """Nothing was executed, nothing asked of others, and no element that could be was made of it.

    `html`: the person has switched HTML on: then pictures and forms may stand there, and lead nowhere.
    """
    page = walker.page
    page.wait_for_timeout(150)
    assert page.evaluate("typeof taken") == "undefined"
    found = page.evaluate(
        """html => [...document.querySelectorAll('*')].filter(one =>
            [...one.attributes].some(a => /^on/.test(a.name) && /taken/.test(a.value)
              || /^(href|src|xlink:href|action)$/.test(a.name) && /javascript:|^data:text/.test(a.value)
              || /^(src|action)$/.test(a.name) && /evil/.test(a.value) && !html)
            || ['SCRIPT', 'STYLE'].includes(one.tagName) && /taken=|evil/.test(one.textContent)
               && !one.textContent.startsWith('window.gradio_config =')
            || ['IFRAME', 'BASE', 'META', 'OBJECT', 'EMBED'].includes(one.tagName) && /evil|taken/.test(one.outerHTML)
            || one.id === 'broken' && !html).map(one => one.outerHTML.slice(0, 200))""",
        html,
    )
    assert found == [], "\n".join(found)
    assert walker.foreign == []
    assert walker.errors == []
    assert page.url.startswith(walker.address.split("?")[0])
    assert page.locator("#start").count() == 1


@pytest.mark.parametrize("language", ["en"])
def test_nothing_that_files_hold_is_executed(language: Language, server: Server, walk: Callable[..., Walker]) -> None:
    text = Text(language)
    walker = walk(server.address, language)
    dialogs: list[Any] = []
    walker.page.on("dialog", lambda dialog: (dialogs.append(dialog), dialog.dismiss()))
    walker.open()
    walker.wait(
        lambda: "python" in walker.text("status").lower() or "taken" in walker.text("status"), "the run's status"
    )
    unharmed(walker)
    walker.page.locator("#dataset input").click()  # it is chosen already, being the only one
    unharmed(walker)
    walker.page.keyboard.press("Escape")
    walker.click(text("preview_dataset"))
    walker.wait_text("samples", "<script>taken=1</script>")
    unharmed(walker)
    walker.click(text("preview.close"))
    for key in ("learning_rate", "model_name_or_path", "output_dir"):
        before = walker.field(key).input_value()
        for attack in (ATTACKS[0], ATTACKS[1], NAME):
            walker.fill(key, attack)
            walker.click(text("start"))
            walker.wait_text("messages", "taken=" if "taken" in attack else "x")
        unharmed(walker)
        walker.fill(key, before)
    walker.unfold(text("log"))
    unharmed(walker)
    walker.tab(text("tab.runs"))
    walker.wait(lambda: "taken=20" in walker.page.locator("body").inner_text(), "the run's name in the list")
    unharmed(walker)
    assert dialogs == []


@pytest.mark.parametrize("language", ["zh"])
def test_nothing_that_an_answer_holds_is_executed(
    language: Language, chat_server: Server, walk: Callable[..., Walker], odd: OddServer
) -> None:
    text = Text(language)
    walker = walk(chat_server.address, language).open()
    walker.tab(text("tab.chat"))
    walker.choose("infer_backend", text("engine.server"))
    walker.fill("server_url", odd.url)
    odd.answers(json.dumps({"data": [{"id": NAME}]}))
    walker.click(text("server.connect"))
    walker.wait(lambda: NAME in walker.field("server_model").input_value(), "the server's models")
    unharmed(walker)
    for escape in (True, False):
        walker.page.locator("#escape_html input").set_checked(escape)
        for attack in (ALL, f"<think>{ALL}</think>{ALL}", _call(ALL)):
            said = {"choices": [{"index": 0, "delta": {"content": attack}, "finish_reason": "stop"}]}
            odd.streams(f"data: {json.dumps(said)}\n\ndata: [DONE]\n\n")
            walker.field("chat_input").fill(attack)
            before = walker.page.locator("#chatbot [data-testid=user]").count()
            walker.click(text("chat.submit"))
            walker.wait(lambda n=before: walker.page.locator("#chatbot [data-testid=user]").count() > n, "the question")
            walker.wait(lambda: walker.field("chat_input").input_value() == "", "the answer")
            unharmed(walker, html=not escape)
        walker.click(text("chat.clear"))
        walker.wait(lambda: walker.page.locator("#chatbot [data-testid=user]").count() == 0, "an empty conversation")
    odd.answers(json.dumps({"error": {"message": ALL}}), status="500 X")
    walker.field("chat_input").fill("x")
    walker.click(text("chat.submit"))
    walker.wait_text("chat_messages", "taken=1")
    unharmed(walker)


def _call(words: str) -> str:
    call = {"name": re.sub(r"\s", "", ATTACKS[1]), "arguments": {words: words}}
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
