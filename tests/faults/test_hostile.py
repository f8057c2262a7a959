"""What an enemy sends: nothing outside the page's folders is read or written, nothing is started, no traceback shown.

The page's process is real and writes down what it does (audited_page.py). Every handler of the page is found by
looking and gets hostile values in every field. `make faults` sends more than `make test`.
"""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.faults.attacked import FLAGS, MARK, TOKEN, Hostile, attacked_page
from tests.faults.conftest import ALL
from trainer.settings_file import to_shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KEY = "sk-planted-key-93aa"


def examples(few: int, many: int) -> Any:
    """The same inputs each time; what fails is told with what was sent."""

    def decorate(test: Any) -> Any:
        chosen = settings(max_examples=many if ALL else few, deadline=None, database=None, print_blob=False,
                          phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
        return seed(20)(chosen(test))

    return decorate


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    with attacked_page(tmp_path_factory.mktemp("hostile")) as page:
        yield page


# What Gradio says of a value that a list does not have: no browser sends one.
CHOICES = "is not in the list of choices"

# ---- what is sent ----

PATHS = ["/etc/passwd", "/etc", "/", "/proc/self/environ", "/root/.ssh/id_rsa", "~", "~root", "~nobody-here/x", "~/x",
         "../outside", "../outside/model", "../../../../../../etc/passwd", "link", "link/model", "models/link",
         "models/../../outside/model", "data/../../outside", "runs/linked", "linked", "linked.yaml", "./../outside/secret.txt",
         "file:///etc/passwd", "http://127.0.0.1:1/x", "\\\\host\\share", "..\\..\\x", "C:\\x", "/dev/zero", "/dev/stdin",
         "a\0b", "\0", "a" * 5000, "a/" * 3000, "\ud800", "\u202egpj", "é́", "模型/../..", "😀", ".", "..", "-rf", "--help",
         "CON", "%2e%2e%2fetc", "//etc//passwd", "\n/etc/passwd", " /etc/passwd "]  # fmt: skip
WORDS = ["$(touch pwned)", "`touch pwned`", "; touch pwned #", "| cat /etc/passwd", "' OR 1=1 --", '"><script>alert(1)</script>',
         "<img src=x onerror=alert(1)>", "{label}", "{0.__class__}", "%s%n", "${7*7}", "{{7*7}}", "__import__('os')",
         "nan", "inf", "-1", "1e400", "9" * 5000, "٣", "0x10", "true", "null", "", " ", "\r\nSet-Cookie: a=b"]  # fmt: skip
JSONS = ['{"resume_from_checkpoint": "../outside"}', '{"resume_from_checkpoint": "/etc"}', '{"deepspeed": "/etc/passwd"}',
         '{"deepspeed": "../outside/secret.json"}', '{"trust_remote_code": true}', '{"output_dir": "/etc/x"}',
         '{"report_to": "http://x"}', '{"__proto__": 1}', "[" * 20000, '{"a":' * 3000, "[1, 2]", '{"seed": 1e999}',
         '{"seed": ' + "9" * 6000 + "}", '{"weight_decay": NaN}', "\ud800", '{"\\ud800": "\\ud800"}']  # fmt: skip
texts = st.one_of(
    st.sampled_from(PATHS), st.sampled_from(WORDS), st.sampled_from(JSONS), st.text(max_size=40),
    st.sampled_from(PATHS).flatmap(lambda start: st.text("./\\~-a\0é", max_size=12).map(lambda end: start + end)),
)  # fmt: skip
files = st.sampled_from(PATHS).map(
    lambda path: {"path": path, "url": f"http://127.0.0.1:1/{path}", "meta": {"_type": "gradio.FileData"}}
)
odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | files,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6,
)  # fmt: skip
# How the JSON of an event is written: as it should be, and as the library reads it as well.
encodings = st.sampled_from(["", "", "", "utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
messages = st.builds(lambda role, content: [{"role": role, "content": content}],
                     st.sampled_from(["user", "assistant", "system", "observation", "x"]), texts | files)  # fmt: skip


@st.composite
def attacks(draw: st.DrawFn, page: Hostile) -> tuple[dict[str, Any], list[Any]]:
    """A handler, and values for it: one to all of them hostile, the others as the page opens."""
    handler = draw(st.sampled_from([one for one in page.handlers if one["inputs"]]))
    values = page.defaults(handler)
    every = draw(st.booleans())
    places = range(len(values)) if every else draw(st.sets(st.integers(0, len(values) - 1), min_size=1, max_size=3))
    for place in places:
        component = page.components[handler["inputs"][place]]
        kind, name = component["type"], component["props"].get("elem_id")
        if kind == "dropdown" and component["props"].get("multiselect"):
            values[place] = draw(st.lists(texts, max_size=3) | odd)
        elif kind == "dropdown" and not component["props"].get("allow_custom_value"):
            known = [value for _, value in component["props"]["choices"]] or [None]
            values[place] = draw(st.sampled_from(known) if draw(st.integers(0, 9)) else texts)
        elif kind in ("state", "browserstate"):
            values[place] = draw(st.lists(texts, max_size=4) | messages | odd)
        elif kind == "checkbox":
            values[place] = draw(st.booleans() | odd)
        elif name == "server_url":
            values[place] = draw(st.sampled_from(["file:///etc/passwd", "http://127.0.0.1:1", "gopher://127.0.0.1:1/",
                                                  "http://user:pass@127.0.0.1:1", "http://127.0.0.1:1/../../x"]))  # fmt: skip
        else:
            values[place] = draw(texts | odd if draw(st.integers(0, 5)) == 0 else texts)
    _never_right(page, handler, values)
    return handler, values


def _never_right(page: Hostile, handler: dict[str, Any], values: list[Any]) -> None:
    """What is right after all would be done, as for anybody: what starts a process gets no data, and no model."""
    for place, number in enumerate(handler["inputs"]):
        name = page.components[number]["props"].get("elem_id")
        if name == "dataset" and values[place] == ["good"]:
            values[place] = ["link"]
        if name == "model_name_or_path" and len(handler["inputs"]) < 10 and str(values[place]).endswith("tiny"):
            values[place] = "../outside/model"


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in sorted(folder.rglob("*"))}  # fmt: skip


def check_answer(said: str, sent: Any) -> None:
    assert "Traceback (most recent" not in said, sent
    assert not re.search(r'File \\?"/[^"]+", line \d+', said), sent
    assert MARK not in said, sent
    assert TOKEN not in said, sent


# ---- the tests ----


def test_no_value_in_any_field_of_any_handler_leads_outside(hostile: Hostile, figure: Callable[[str], None]) -> None:
    before, raw, sent = snapshot(hostile.outside), set(), Counter[str]()

    @examples(40, 400)
    @given(st.data())
    def attack(data: st.DataObject) -> None:
        handler, values = data.draw(attacks(hostile))
        encoding = data.draw(encodings)
        said = hostile.send(handler, values, encoding=encoding)
        sent[handler["api_name"]] += 1
        check_answer(said, (handler["api_name"], values, encoding))
        if '"error":"' in said and CHOICES not in said:
            raw.add((handler["api_name"], said[:200], repr(values)[:200]))
        assert hostile.wrong() == [], (handler["api_name"], values, encoding)

    attack()
    figure(
        f"{sent.total()} events with hostile values to {len(sent)} handlers: no traceback, nothing outside, no process"
    )
    assert snapshot(hostile.outside) == before
    assert not list(hostile.inside.rglob("pwned"))
    assert not raw, "handlers' own errors, of which the page shows the words as they are:\n" + "\n".join(map(str, raw))
    assert not re.search(r'File ".*/(app|trainer)/', hostile.stderr.read_text(errors="replace"))


hostile_yaml = st.one_of(
    st.sampled_from([
        "!!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system", "learning_rate: !!python/none",
        "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n"
                                               for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
        "learning_rate: " + "[" * 3000, "? [a]\n: b", "- a", "x", "\0", "\ufeff", "seed: 99999999999999999999999999",
        "model_name_or_path: /etc/passwd\ndataset_dir: /etc\n", "model_name_or_path: ../outside/model\n", "seed: 2001-99-99",
        "template: ../../outside/secret", "dataset: [../../outside/secret]\ndataset_dir: ../outside\n", "<<: *x", "a: *a",
        "output_dir: /etc\nlearning_rate: 1e-4\n", "adapter_name_or_path: ../outside/model\n", "trust_remote_code: true\n",
        "learning_rate: &x [*x]", "key: " + "a" * 100000,
    ]),
    st.text(max_size=80),
    st.dictionaries(st.sampled_from(["model_name_or_path", "dataset_dir", "output_dir", "deepspeed", "x"]), texts).map(json.dumps),
)  # fmt: skip


def test_no_settings_file_leads_outside(hostile: Hostile, figure: Callable[[str], None]) -> None:
    load = next(one for one in hostile.handlers if one["api_name"] == "_on_load" and len(one["inputs"]) == 1)
    file, tried = hostile.inside / "runs" / "_settings" / "sent.yaml", list[str]()

    @examples(12, 80)
    @given(hostile_yaml)
    def attack(text: str) -> None:
        tried.append(text)
        file.write_bytes(text.encode("utf-8", "replace"))
        said = hostile.send(load, ["sent.yaml"])
        check_answer(said, text)
        assert '"error":"' not in said, text
        assert len(said) < 500_000, text
        assert hostile.wrong() == [], text

    attack()
    assert not list(hostile.inside.rglob("pwned"))
    figure(f"{len(tried)} hostile settings files: no traceback, nothing outside, no process")


entries = st.fixed_dictionaries(
    {"file_name": st.sampled_from(["../../outside/secret.json", "/etc/passwd", "link.json", "../../../etc/passwd.json",
                                   "good.json", "./../data/../../outside/secret.json", "\0.json", "a" * 300 + ".json",
                                   "/proc/self/environ", "/dev/zero.json"]) | texts},
    optional={"columns": odd, "tags": odd, "formatting": odd, "num_samples": odd, "script_url": texts, "hf_hub_url": texts},
)  # fmt: skip
rows = st.lists(st.one_of(
    odd, st.fixed_dictionaries({"instruction": texts, "output": texts}),
    st.fixed_dictionaries({"messages": st.lists(st.fixed_dictionaries({"role": texts, "content": odd}), max_size=2)}),
), max_size=3)  # fmt: skip


def test_no_dataset_leads_outside(hostile: Hostile, figure: Callable[[str], None]) -> None:
    fields = {number: part["props"].get("elem_id") for number, part in hostile.components.items()}
    show = next(one for one in hostile.handlers if [fields[number] for number in one["inputs"]][:1] == ["dataset"]
                and "preview" in {fields[number] for number in one["outputs"]})  # fmt: skip
    usual = {number: hostile.components[number]["props"].get("value") for number in show["inputs"]}
    data, tried = hostile.inside / "sent", list[str]()
    data.mkdir()

    @examples(12, 80)
    @given(entries, rows, texts)
    def attack(entry: Any, found: Any, name: str) -> None:
        name = name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        (data / "good.json").write_text(json.dumps(found))
        (data / "dataset_info.json").write_text(json.dumps({name: entry}))
        if not (data / "link.json").is_symlink():
            (data / "link.json").symlink_to(hostile.outside / "secret.json")
        tried.append(name)
        sent = {"dataset": [name], "dataset_dir": "sent"}
        said = hostile.send(show, [sent.get(fields[number] or "", usual[number]) for number in show["inputs"]])
        check_answer(said, (entry, name))
        assert '"error":"' not in said, (entry, name, found, said[:300])
        assert hostile.wrong() == [], (entry, name)

    attack()
    figure(f"{len(tried)} hostile dataset_info.json and rows: no traceback, nothing outside")


def test_no_request_gets_in_or_past_what_the_page_needs(hostile: Hostile, figure: Callable[[str], None]) -> None:
    """Without the token 401 whatever is asked; with it 404 for uploads, files, proxies and all that is not needed."""
    base = str(hostile.client.base_url)
    names = st.sampled_from(["zh/", "zh/gradio_api/upload", "zh/gradio_api/file=/etc/passwd", "zh/gradio_api/file/etc/passwd",
                             "zh/gradio_api/proxy=http://127.0.0.1:1", "zh/gradio_api/stream/a", "openapi.json", "zh/openapi.json",
                             "zh/static/../../../../etc/passwd", "zh/assets/..%2f..%2fetc/passwd", "zh/monitoring", "docs",
                             "zh/gradio_api/vibe-edit", "zh/gradio_api/component_server", "zh//etc/passwd", "zh/config",
                             "zh/gradio_api/queue/join", "zh/gradio_api/run/predict", "zh/static//etc/passwd"])  # fmt: skip
    printable = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#:@[]\\")
    paths = names | st.text(printable, max_size=30).map(lambda end: f"zh/{end}") | st.text(printable, max_size=20)
    headers = st.dictionaries(
        st.sampled_from(["x-forwarded-prefix", "x-forwarded-host", "x-forwarded-for", "origin", "referer", "range", "cookie",
                         "accept-language", "content-type", "x-forwarded-proto", "authorization", "x-gradio-server"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60).map(str.strip), max_size=3)  # fmt: skip
    bodies = st.binary(max_size=200) | st.sampled_from(
        [
            b"[" * 50000,
            b"{}",
            b'{"fn_index": -1, "data": []}',
            b"\xff\xfe",
            '{"data": ["x"]}'.encode("utf-16"),
            b'["\xed\xa0\x80"]',
        ]
    )
    sent = Counter[bool]()

    @examples(30, 250)
    @given(
        st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]),
        paths,
        headers,
        bodies,
        st.booleans(),
    )
    def attack(method: str, path: str, head: dict[str, str], body: bytes, known: bool) -> None:
        head = {**head, "connection": "close"} if known else {key: head[key] for key in head if key != "authorization"}
        if known:
            head["authorization"] = f"Bearer {TOKEN}"
            head.pop("origin", None)
        answer = httpx.request(method, base + path, headers=head, content=body, timeout=30)
        sent[known] += 1
        check_answer(answer.text, (method, path, head))
        assert answer.status_code in ((200, 204, 303, 304, 307, 400, 404, 405, 416, 422) if known else (401, 403)), (
            method, path, head, answer.status_code, answer.text[:300])  # fmt: skip
        if known and re.search("upload|file[=/]|proxy|stream/|vibe|monitoring|openapi|component_server", path):
            assert answer.status_code in (404, 405, 400), (method, path, answer.status_code)
        assert hostile.wrong() == [], (method, path, head)

    attack()
    figure(
        f"{sent[False]} hostile requests without the token: 401 or 403; {sent[True]} with it: no traceback, nothing outside"
    )


UPLOADS = {"../../x.py": b"x", "x.zip": b"PK\x05\x06" + bytes(18), "/etc/cron.d/x": b"x", "x.html": b"<script>alert(1)</script>",
           "a\0b": b"x", "x" * 300: b"x", "x.tar.gz": b"\x1f\x8b", "large": bytes(2**20)}  # fmt: skip


@pytest.mark.parametrize(
    "path", ["upload", "upload/", "upload?upload_id=x", "upload_progress", "component_server", "call/upload"]
)
def test_what_is_uploaded_is_taken_nowhere(hostile: Hostile, path: str) -> None:
    """The page has nothing to upload to: of whatever name, type and size."""
    before = set(hostile.inside.rglob("*"))
    for name, data in UPLOADS.items():
        answer = hostile.client.post(f"zh/gradio_api/{path}", files={"files": (name, data)})
        assert answer.status_code == 404, (path, name)
    assert set(hostile.inside.rglob("*")) == before
    assert hostile.wrong() == []


@pytest.mark.skipif(not ALL, reason="make faults: tests/app/test_routes.py asks the same of the application in memory")
def test_every_route_of_the_running_page_is_401_without_the_token(
    hostile: Hostile, figure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.arguments import page_parser
    from app.server import create_app
    from tests.app.test_routes import METHODS, filled, paths

    monkeypatch.chdir(hostile.inside)
    app: Any = create_app(page_parser().parse_args(FLAGS), TOKEN)
    while hasattr(app, "_app"):
        app = app._app
    routes = sorted(set(paths(app.routes)))
    assert len(routes) > 100
    with httpx.Client(base_url=hostile.client.base_url, timeout=30) as stranger:
        wrong = [(method, path) for path in routes for method in METHODS
                 if stranger.request(method, filled(path)).status_code != 401]  # fmt: skip
    assert wrong == []
    figure(f"{len(routes)} routes with {len(METHODS)} methods each, without the token: every one 401")


def test_what_is_secret_is_written_nowhere(hostile: Hostile) -> None:
    """The token, and the key of another server, planted: no file, no answer and no message of the process has them."""
    connect = next(one for one in hostile.handlers if one["api_name"] == "_on_connect")
    ask = next(one for one in hostile.handlers if one["api_name"] == "_on_submit")
    values = hostile.defaults(ask)
    for place, number in enumerate(ask["inputs"]):
        name = hostile.components[number]["props"].get("elem_id")
        values[place] = {"chat_input": "hi", "infer_backend": "server", "server_url": "http://127.0.0.1:1", "server_key": KEY,
                         "server_model": "m"}.get(name, values[place])  # fmt: skip
    said = [hostile.send(ask, values)]
    for address in ("http://127.0.0.1:1", f"http://user:{KEY}@127.0.0.1:1/v1", f"http://127.0.0.1:1/?key={KEY}"):
        said.append(hostile.send(connect, [address, KEY, None]))
    assert len(said) == 4
    for words in said:
        assert "process_completed" in words
        assert KEY not in words
    written = [path for path in hostile.inside.rglob("*") if path.is_file()]
    for path in [*written, hostile.stderr]:
        data = path.read_bytes()
        assert KEY.encode() not in data, path
        assert TOKEN.encode() not in data, path


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_path_outside_is_answered_by_the_flags_name(hostile: Hostile, language: str) -> None:
    """Said by Load, by Start, by the preview, and the same of what exists and what does not."""
    handlers = {one["api_name"]: one for one in hostile.handlers}
    said = []
    for path in ("../outside/model", "../outside/nothing"):
        for name in ("_on_load_1", "_on_command", "_open"):
            handler = handlers[name]
            given = {"model_name_or_path": path, "dataset_dir": path, "output_dir": "new"}
            names = [hostile.components[number]["props"].get("elem_id") for number in handler["inputs"]]
            values = [given.get(one, value) for one, value in zip(names, hostile.defaults(handler), strict=True)]
            answer = hostile.send(handler, values, language)
            assert "--allow-path" in answer, (name, path)
            said.append(re.sub(r'"[a-z_]*duration":[^,]*,', "", answer).replace(path, "PATH"))
    assert said[:3] == said[3:]


def test_the_shown_command_gives_each_word_back_in_a_shell() -> None:
    names = [word for word in [*WORDS, *PATHS] if "\0" not in word and word.isprintable() and len(word) < 1000]
    for name in names:
        argv = ["tunedesk", "train", "--output_dir", name, f"--dataset={name}"]
        shell = ["bash", "-c", f"printf '%s\\0' {to_shell(argv)}"]
        done = subprocess.run(shell, capture_output=True, check=True, cwd="/")
        assert done.stdout.decode().split("\0")[:-1] == argv
    assert len(names) > 40
