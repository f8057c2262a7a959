"""The chat process by its protocol, and `tunedesk chat` by its output, each as a real process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import build_tiny_adapter, build_tiny_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TERMINAL = "import sys; from trainer.chat_terminal import run_terminal; sys.exit(run_terminal(sys.argv[1:]))"


class Process:
    """`python -m trainer.chat` with its two pipes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer.chat"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.events: list[dict[str, Any]] = []

    def send(self, request: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write((request if isinstance(request, str) else json.dumps(request)) + "\n")
        self._process.stdin.flush()

    def until(self, *kinds: str) -> dict[str, Any]:
        """The next event of one of `kinds`; those before it are in `events`."""
        assert self._process.stdout is not None
        self.events = []
        for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] in kinds:
                return event
            self.events.append(event)
        raise AssertionError("the process ended")

    def ask(self, request: Any, *kinds: str) -> dict[str, Any]:
        self.send(request)
        return self.until(*(kinds or ("loaded", "done", "problem")))

    def text(self) -> str:
        return "".join(event["text"] for event in self.events if event["event"] == "delta")

    def close(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        code = self._process.wait(5)
        self._process.stdout.close()
        return code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name in ("model", "other"):
        build_tiny_model(root / name, layers=4, max_positions=4096, seed=len(name))
    for number in (1, 2):
        build_tiny_adapter(root / f"adapter-{number}", root / "model", seed=number)
    build_tiny_model(root / "wide", hidden_size=128)
    build_tiny_adapter(root / "adapter-of-wide", root / "wide")
    build_tiny_model(root / "mute", chat_template=None)
    return root


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    running = Process()
    yield running
    running.close()


def load(folder: Path, adapter: str | None = None, model: str = "model", **values: Any) -> dict[str, Any]:
    return {"op": "load", "model": str(folder / model), "adapter": adapter and str(folder / adapter), **values}


def generate(text: str = "你好", **values: Any) -> dict[str, Any]:
    how = {"temperature": 0, "max_new_tokens": 40}
    return {"op": "generate", "id": 1, "messages": [{"role": "user", "content": text}], **how, **values}


def test_stages_come_before_the_loaded_model(process: Process, folder: Path) -> None:
    assert process.ask(generate())["code"] == "chat_not_loaded"
    assert [event.get("stage") for event in process.events] == ["starting"]
    loaded = process.ask(load(folder, "adapter-1"))
    assert [event["stage"] for event in process.events] == ["loading_model", "loading_adapter"]
    assert loaded["event"] == "loaded"
    assert (loaded["model"], loaded["adapter"]) == (str(folder / "model"), str(folder / "adapter-1"))
    assert loaded["memory_gib"] > 0
    assert loaded["seconds"] >= 0


def test_adapters_are_swapped_on_the_base_and_the_bare_base_answers_as_at_first(process: Process, folder: Path) -> None:
    answers = []
    for adapter in (None, "adapter-1", "adapter-2", None, "adapter-1"):
        assert process.ask(load(folder, adapter))["event"] == "loaded"
        process.ask(generate(max_new_tokens=60))
        answers.append(process.text())
    assert answers[0] == answers[3]
    assert answers[1] == answers[4]
    assert len(set(answers)) == 3


def test_a_swap_does_not_load_the_base_again(process: Process, folder: Path) -> None:
    process.ask(load(folder))
    process.ask(load(folder, "adapter-2"))
    assert [event["stage"] for event in process.events] == ["loading_adapter"]


def test_an_adapter_that_does_not_fit_leaves_the_one_before_it(process: Process, folder: Path) -> None:
    process.ask(load(folder, "adapter-1"))
    process.ask(generate())
    before = process.text()
    problem = process.ask(load(folder, "adapter-of-wide"))
    assert (problem["code"], problem["model_kept"], problem["op"]) == ("adapter_mismatch", True, "load")
    process.ask(generate())
    assert process.text() == before


def test_a_reply_streams_and_ends_with_its_numbers(process: Process, folder: Path) -> None:
    process.ask(load(folder))
    done = process.ask(generate(id="any", max_new_tokens=30))
    assert {event["id"] for event in process.events} == {"any"}
    assert len(process.events) > 5
    assert done["tokens"] <= 30
    assert done["seconds"] >= done["first_token_s"] > 0
    assert done["tokens_per_second"] > 0


def test_a_seed_repeats_over_the_protocol(process: Process, folder: Path) -> None:
    process.ask(load(folder))
    texts = []
    for seed in (5, 5, 6):
        process.ask(generate(temperature=1.0, top_p=1.0, seed=seed))
        texts.append(process.text())
    assert texts[0] == texts[1] != texts[2]


def test_stop_ends_a_reply_within_200_ms_also_when_it_is_sent_at_once(process: Process, folder: Path) -> None:
    process.ask(load(folder))
    process.ask(generate("Hello", max_new_tokens=4000), "delta", "done")
    began = time.monotonic()
    assert process.ask({"op": "stop"}, "done")["finish"] == "cancelled"
    assert time.monotonic() - began < 0.2
    process.send(generate("Hello", max_new_tokens=4000))
    assert process.ask({"op": "stop"}, "done")["finish"] == "cancelled"
    process.send({"op": "stop"})
    assert process.ask(generate(max_new_tokens=5))["finish"] != "cancelled"


@pytest.mark.parametrize(
    ("request_line", "code"),
    [("{", "chat_protocol"), ("[]", "chat_protocol"), ('{"op": "fly"}', "chat_protocol"), ('{"op": ["load"]}', "chat_protocol"),
     (generate(messages="hello"), "chat_protocol"), (generate(messages=[1]), "chat_protocol"),
     (generate(messages=[{"role": "user", "content": ["x"]}]), "chat_protocol"), (generate(messages=[]), "chat_empty"),
     (generate(" \n"), "chat_empty"), (generate(temperature=-1), "setting_range"), (generate("你好" * 5000), "chat_too_long"),
     ({"op": "load"}, "model_missing"), ({"op": "load", "model": "/no/such"}, "model_not_found"),
     ({"op": "load", "model": 5}, "model_not_found")],
)  # fmt: skip
def test_a_bad_request_is_a_problem_and_the_model_stays(
    process: Process, folder: Path, request_line: Any, code: str
) -> None:
    process.ask(load(folder))
    problem = process.ask(request_line)
    assert problem.get("code") == code
    assert problem["model_kept"]
    assert process.ask(generate(max_new_tokens=3))["event"] == "done"


def test_bad_loads_name_what_is_wrong(process: Process, folder: Path) -> None:
    assert process.ask(load(folder, model="mute"))["code"] == "template_missing"
    assert process.ask(load(folder, template="nonsense"))["code"] == "setting_choice"
    assert process.ask(load(folder, dtype="fp16"))["code"] == "compute_unsupported"
    assert process.ask(load(folder, model="mute", template="chatml"))["event"] == "loaded"
    assert process.ask(generate(max_new_tokens=3))["event"] == "done"


def terminal(*arguments: str, **values: Any) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-c", TERMINAL, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False, timeout=60, **values,
    )  # fmt: skip


def test_the_terminal_prints_the_reply_alone(process: Process, folder: Path) -> None:
    process.ask(load(folder, "adapter-1"))
    process.ask(generate(max_new_tokens=20))
    result = terminal(
        *("--model", str(folder / "model"), "--adapter", str(folder / "adapter-1"), "--prompt", "你好"),
        *("--temperature", "0", "--max-new-tokens", "20"),
    )
    assert (result.stdout, result.returncode) == (process.text() + "\n", 0)
    assert result.stderr == ""


def test_the_terminal_converses_until_the_end_of_input(folder: Path) -> None:
    lines = "你好\n\n/clear\n你好\n/exit\nnever\n"
    result = terminal("--model", str(folder / "model"), "--temperature", "0", "--max-new-tokens", "8", input=lines)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    half = result.stdout[: len(result.stdout) // 2]
    assert half
    assert result.stdout == half * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "Model path: nothing given"), (("--model", "/no/such"), "no folder /no/such"),
     (("--model", "MODEL", "--prompt", " "), "The message is empty"),
     (("--model", "MODEL", "--temperature", "hot"), "Temperature: got `hot`"),
     (("--model", "MODEL", "--adapter", "MODEL"), "is no LoRA checkpoint"),
     (("--model", "MODEL", "--template", "nonsense"), "Chat template: got")],
)  # fmt: skip
def test_the_terminal_says_in_one_sentence_what_is_wrong(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    began = time.monotonic()
    result = terminal(*(str(folder / "model") if item == "MODEL" else item for item in arguments))
    assert time.monotonic() - began < 5
    assert result.returncode == 2
    assert result.stdout == ""
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_terminals_help_needs_no_torch() -> None:
    code = f"import sys\nsys.argv[1:] = ['--help']\ntry:\n    exec({TERMINAL!r})\nfinally:\n    assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "--max-new-tokens" in result.stdout


def test_ctrl_c_stops_the_reply_not_the_program(folder: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, "--model", str(folder / "model"), "--max-new-tokens", "4000"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write(b"hello\n")
    running.stdin.flush()
    assert running.stdout.read(1)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(b"/exit\n", timeout=20)
    assert (running.returncode, b"Traceback" in errors) == (0, False)


def test_the_process_ends_with_its_page_even_in_the_midst_of_a_reply(process: Process, folder: Path) -> None:
    process.ask(load(folder))
    process.send(generate("Hello", max_new_tokens=4000))
    process.until("delta")
    assert process.close() == 0
