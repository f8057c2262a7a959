"""What an enemy sends: nothing outside the page's folders is read or written, nothing is started, no traceback shown.

The page's process is real and writes down what it does (audited_page.py). Every handler of the page is found by
looking and gets hostile values in every field. `make faults` sends more than `make test`.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.conftest import ROOT, START_TIMEOUT_S
from tests.faults.audited_page import PROCESSES
from tests.faults.conftest import ALL
from tests.tiny import build_tiny_model
from trainer.settings_file import to_shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TOKEN, KEY, MARK = "planted-token-6b1f", "sk-planted-key-93aa", "outside-mark-77c2"
# What a process of Python may read wherever it runs; a handler of Gradio's asks for time zones and types of files.
SYSTEM = [sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev", "/usr/share/zoneinfo", "/etc/mime.types", "/etc/ssl",
          "/usr/lib/ssl", "/etc/localtime", str(ROOT / "app"), str(ROOT / "trainer"), str(ROOT / "assets"),
          str(ROOT / ".venv")]  # fmt: skip
MOST_MEMORY = 6 * 2**30
TOOLS = ("nvidia-smi", "npu-smi")


def examples(few: int, many: int) -> Any:
    """The same inputs each time; what fails is told with what was sent."""

    def decorate(test: Any) -> Any:
        chosen = settings(max_examples=many if ALL else few, deadline=None, database=None, print_blob=False,
                          phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
        return seed(20)(chosen(test))

    return decorate


@dataclass
class Hostile:
    """The page under attack. `outside`: a folder beside its own, which holds a secret."""

    client: httpx.Client
    log: Path
    inside: Path
    outside: Path
    stderr: Path
    components: dict[int, dict[str, Any]] = field(default_factory=dict)
    handlers: list[dict[str, Any]] = field(default_factory=list)
    _read: int = 0

    def look(self) -> None:
        config = self.client.get("zh/config").json()
        self.components = {one["id"]: one for one in config["components"]}
        self.handlers = [one for one in config["dependencies"] if one["backend_fn"]]
        first = next(one for one in self.handlers if one["inputs"] and not one["queue"])
        self.send(first, self.defaults(first))  # Gradio imports what it draws with
        self.happened()

    def happened(self) -> list[list[str]]:
        """What the process has done since the last call."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def wrong(self) -> list[list[str]]:
        """Of that what must not be."""
        allowed = [*SYSTEM, str(self.inside), str(Path(os.environ.get("GRADIO_TEMP_DIR", "/nowhere")))]
        found = []
        for event, about in self.happened():
            if event in PROCESSES:
                if Path(about).name not in TOOLS:
                    found.append([event, about])
            elif not any(about == root or about.startswith(f"{root}/") for root in allowed):
                found.append([event, about])
        return found

    def defaults(self, handler: dict[str, Any]) -> list[Any]:
        return [self.components[one]["props"].get("value") for one in handler["inputs"]]

    def send(self, handler: dict[str, Any], values: list[Any], language: str = "zh") -> str:
        """All that the page answers."""
        body = json.dumps({"fn_index": handler["id"], "data": values, "session_hash": "hostile"})
        head = {"content-type": "application/json"}
        if not handler["queue"]:
            return self.client.post(f"{language}/gradio_api/run/predict", content=body, headers=head).text
        joined = self.client.post(f"{language}/gradio_api/queue/join", content=body, headers=head)
        if joined.status_code != 200:
            return joined.text
        said = []
        with self.client.stream("GET", f"{language}/gradio_api/queue/data?session_hash=hostile") as stream:
            for line in stream.iter_lines():
                said.append(line)
                if '"process_completed"' in line or '"close_stream"' in line:
                    break
        return "\n".join(said)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    base = tmp_path_factory.mktemp("hostile")
    inside, outside, elsewhere = base / "inside", base / "outside", base / "elsewhere"
    for folder in (inside / "data", inside / "runs" / "_settings", outside, elsewhere):
        folder.mkdir(parents=True)
    build_tiny_model(inside / "models" / "tiny")
    build_tiny_model(outside / "model")
    (outside / "secret.txt").write_text(MARK)
    (outside / "secret.json").write_text(json.dumps([{"instruction": MARK, "output": MARK}]))
    (outside / ".old.partial").mkdir()
    (outside / ".old.partial" / "events.jsonl").write_text(MARK)
    (inside / "data" / "good.json").write_text(json.dumps([{"instruction": "a", "output": "b"}]))
    (inside / "data" / "link.json").symlink_to(outside / "secret.json")
    (inside / "models" / "link").symlink_to(outside / "model")
    (inside / "link").symlink_to(outside)
    (inside / "runs" / "linked").symlink_to(outside)
    (inside / "runs" / "_settings" / "linked.yaml").symlink_to(outside / "secret.txt")
    log, stderr = base / "audit.jsonl", base / "stderr"
    argv = [sys.executable, "-m", "tests.faults.audited_page", str(log), "--port", "0", "--runs-dir", "runs",
            "--data-dir", "data", "--model", "models/tiny"]  # fmt: skip
    environment = {**os.environ, "TUNEDESK_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "HF_HOME": str(inside / "hub"),
                   "MODELSCOPE_CACHE": str(inside / "hub"), "GRADIO_TEMP_DIR": str(inside / "temporary"),
                   "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(elsewhere)}  # fmt: skip
    with stderr.open("wb") as errors:
        process = subprocess.Popen(argv, cwd=inside, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    resource.prlimit(process.pid, resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
    watchdog.start()
    address = next((found for line in process.stdout if (found := re.search(r"http://[^?\s]+", line))), None)
    watchdog.cancel()
    assert address is not None, stderr.read_text()
    # The server closes what was idle for 5 s, which must not happen to a request just sent.
    idle = httpx.Limits(keepalive_expiry=1)
    head = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=address.group(), headers=head, timeout=60, limits=idle) as client:
        page = Hostile(client, log, inside, outside, stderr)
        page.look()
        yield page
    process.send_signal(signal.SIGTERM)
    process.wait(20)


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
odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6,
)  # fmt: skip
files = st.sampled_from(PATHS).map(
    lambda path: {"path": path, "url": f"http://127.0.0.1:1/{path}", "meta": {"_type": "gradio.FileData"}}
)
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


def test_no_value_in_any_field_of_any_handler_leads_outside(hostile: Hostile) -> None:
    before, raw = snapshot(hostile.outside), set()

    @examples(40, 400)
    @given(st.data())
    def attack(data: st.DataObject) -> None:
        handler, values = data.draw(attacks(hostile))
        said = hostile.send(handler, values)
        check_answer(said, (handler["api_name"], values))
        if '"error":"' in said and CHOICES not in said:
            raw.add((handler["api_name"], said[:200], repr(values)[:200]))
        assert hostile.wrong() == [], (handler["api_name"], values)

    attack()
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


def test_no_settings_file_leads_outside(hostile: Hostile) -> None:
    load = next(one for one in hostile.handlers if one["api_name"] == "_on_load" and len(one["inputs"]) == 1)
    file = hostile.inside / "runs" / "_settings" / "sent.yaml"

    @examples(12, 80)
    @given(hostile_yaml)
    def attack(text: str) -> None:
        file.write_bytes(text.encode("utf-8", "replace"))
        said = hostile.send(load, ["sent.yaml"])
        check_answer(said, text)
        assert '"error":"' not in said, text
        assert len(said) < 500_000, text
        assert hostile.wrong() == [], text

    attack()
    assert not list(hostile.inside.rglob("pwned"))


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


def test_no_dataset_leads_outside(hostile: Hostile) -> None:
    show = next(one for one in hostile.handlers if one["api_name"] == "_open" and len(one["inputs"]) == 2)
    data = hostile.inside / "sent"
    data.mkdir()

    @examples(12, 80)
    @given(entries, rows, texts)
    def attack(entry: Any, found: Any, name: str) -> None:
        name = name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        (data / "good.json").write_text(json.dumps(found))
        (data / "dataset_info.json").write_text(json.dumps({name: entry}))
        if not (data / "link.json").is_symlink():
            (data / "link.json").symlink_to(hostile.outside / "secret.json")
        said = hostile.send(show, ["sent", [name]])
        check_answer(said, (entry, name))
        assert '"error":"' not in said, (entry, name, found, said[:300])
        assert hostile.wrong() == [], (entry, name)

    attack()


def test_no_request_gets_in_or_past_what_the_page_needs(hostile: Hostile) -> None:
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
        [b"[" * 50000, b"{}", b'{"fn_index": -1, "data": []}', b"\xff\xfe"]
    )

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
        check_answer(answer.text, (method, path, head))
        assert answer.status_code in ((200, 204, 303, 304, 307, 400, 404, 405, 416, 422) if known else (401, 403)), (
            method, path, head, answer.status_code, answer.text[:300])  # fmt: skip
        if known and re.search("upload|file[=/]|proxy|stream/|vibe|monitoring|openapi|component_server", path):
            assert answer.status_code in (404, 405, 400), (method, path, answer.status_code)
        assert hostile.wrong() == [], (method, path, head)

    attack()
    upload = hostile.client.post("zh/gradio_api/upload", files={"files": ("../../x.py", b"x" * 1000)})
    assert upload.status_code == 404
    assert not list(hostile.inside.rglob("x.py"))


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
