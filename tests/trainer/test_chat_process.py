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

from tests.tiny import CHATML, build_tiny_adapter, build_tiny_model, edit_json

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WITH_TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}" + CHATML
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

    def text(self, column: int = 0) -> str:
        deltas = (event for event in self.events if event["event"] == "delta")
        return "".join(event["text"] for event in deltas if event["column"] == column)

    def compare(self, request: Any, columns: int) -> dict[int, dict[str, Any]]:
        """Each column's last event; all the others are in `events`."""
        self.send(request)
        found: dict[int, dict[str, Any]] = {}
        before: list[dict[str, Any]] = []
        while len(found) < columns:
            last = self.until("done", "problem")
            before += self.events
            found[last["column"]] = last
        self.events = before
        return found

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
    build_tiny_adapter(root / "patterned", root / "model", seed=3)
    edit_json(root / "patterned" / "adapter_config.json", alpha_pattern={"q_proj": 16})  # what only peft knows to do
    build_tiny_model(root / "wide", hidden_size=128)
    build_tiny_model(root / "long", layers=8, hidden_size=256, max_positions=10**5)
    build_tiny_adapter(root / "long-patterned", root / "long")
    edit_json(root / "long-patterned" / "adapter_config.json", alpha_pattern={"q_proj": 16})
    build_tiny_model(root / "with-tools", layers=4, max_positions=4096, chat_template=WITH_TOOLS)
    build_tiny_adapter(root / "adapter-of-wide", root / "wide")
    build_tiny_model(root / "mute", chat_template=None)
    build_tiny_model(root / "short", max_positions=48)
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
    assert [event["stage"] for event in process.events] == ["loading_model", "preparing", "loading_adapter"]
    assert loaded["event"] == "loaded"
    assert (loaded["model"], loaded["adapter"]) == (str(folder / "model"), str(folder / "adapter-1"))
    assert loaded["way"] == "lean"
    assert (loaded["template"], loaded["template_origin"], loaded["warnings"]) == ("auto", "own", [])
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


@pytest.mark.parametrize("adapter", [None, "long-patterned"], ids=["lean", "transformers"])
def test_stop_ends_a_long_prompt_within_200_ms(process: Process, folder: Path, adapter: str | None) -> None:
    assert process.ask(load(folder, adapter, model="long"))["way"] == ("transformers" if adapter else "lean")
    took: list[float] = []
    for _ in range(3):  # the least: other programs take the processor too
        process.send(generate("今天天气很好 " * 5000, max_new_tokens=40))
        time.sleep(0.3)
        began = time.monotonic()
        done = process.ask({"op": "stop"}, "done")
        took.append(time.monotonic() - began)
        assert (done["finish"], done["tokens"], done["first_token_s"]) == ("cancelled", 0, None)
    assert min(took) < 0.2, took


def columns(folder: Path, *names: str | None) -> list[dict[str, Any]]:
    return [{"adapter": name and str(folder / name)} for name in names]


def test_columns_are_written_in_turn_and_say_what_each_says_alone(process: Process, folder: Path) -> None:
    alone = []
    for adapter in (None, "adapter-1", "adapter-2"):
        process.ask(load(folder, adapter))
        process.ask(generate(seed=5, temperature=1.0))
        alone.append(process.text())
    asked = columns(folder, None, "adapter-1", "adapter-2")
    done = process.compare(generate(seed=5, temperature=1.0, columns=asked), 3)
    assert [process.text(number) for number in range(3)] == alone
    assert len(set(alone)) == 3
    order = [event["column"] for event in process.events]
    assert order[:6] == [0, 1, 2, 0, 1, 2]
    for number in range(3):
        assert done[number]["event"] == "done"
        assert done[number]["tokens_per_second"] > 0
        assert 0 < done[number]["first_token_s"] <= done[number]["seconds"]


def test_a_column_goes_on_with_its_own_conversation(process: Process, folder: Path) -> None:
    process.ask(load(folder))
    process.ask(generate(messages=[{"role": "user", "content": "another question"}]))
    alone = process.text()
    asked = columns(folder, None, None)
    asked[1]["messages"] = [{"role": "user", "content": "another question"}]
    process.compare(generate(columns=asked), 2)
    assert process.text(1) == alone
    assert process.text(0) != alone


def test_a_columns_numbers_are_of_its_own_work(process: Process, folder: Path) -> None:
    process.ask(load(folder, model="long"))
    how = {"max_new_tokens": 150, "columns": columns(folder, None, None, None)}
    began = time.monotonic()
    done = process.compare(generate(**how), 3)
    assert sum(done[number]["seconds"] for number in range(3)) <= time.monotonic() - began


def test_adapters_that_need_peft_come_one_after_the_other(process: Process, folder: Path) -> None:
    process.ask(load(folder))
    asked = columns(folder, "patterned", None, "adapter-1")
    done = process.compare(generate(columns=asked), 3)
    assert [done[number]["event"] for number in range(3)] == ["done"] * 3
    order = [event["column"] for event in process.events]
    assert order[:4] == [1, 2, 1, 2]
    assert order.index(0) > max(place for place, column in enumerate(order) if column)
    texts = [process.text(number) for number in range(3)]
    for number, adapter in enumerate(("patterned", None, "adapter-1")):
        assert process.ask(load(folder, adapter))["way"] == ("transformers" if adapter == "patterned" else "lean")
        process.ask(generate())
        assert process.text() == texts[number]


def test_a_column_that_fails_is_a_problem_of_this_column_alone(process: Process, folder: Path) -> None:
    process.ask(load(folder))
    process.ask(generate())
    text = process.text()
    for bad, code in (
        ("adapter-of-wide", "adapter_mismatch"),
        ("nowhere", "model_not_found"),
        ("other", "chat_column_model"),
    ):
        done = process.compare(generate(columns=columns(folder, bad, None)), 2)
        assert (done[0]["event"], done[0]["code"], done[0]["model_kept"]) == ("problem", code, True)
        assert process.text(1) == text


def test_stop_ends_all_columns_also_those_that_have_not_begun(process: Process, folder: Path) -> None:
    process.ask(load(folder))
    asked = columns(folder, None, "adapter-1", "patterned")
    process.send(generate(max_new_tokens=4000, columns=asked))
    process.until("delta")
    began = time.monotonic()
    done = process.compare({"op": "stop"}, 3)
    assert time.monotonic() - began < 0.4
    assert {event["finish"] for event in done.values()} == {"cancelled"}
    assert done[2]["tokens"] == 0


TOOL = {
    "name": "get_weather",
    "description": "",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def test_tools_go_through_the_template_or_are_refused(process: Process, folder: Path) -> None:
    process.ask(load(folder))
    assert process.ask(generate(tools=[TOOL]))["code"] == "tools_unsupported"
    assert process.ask(generate(tools=[]))["event"] == "done"
    process.ask(load(folder, model="with-tools"))
    without = process.ask(generate(max_new_tokens=3))["prompt_tokens"]
    assert process.ask(generate(max_new_tokens=3, tools=[TOOL]))["prompt_tokens"] > without + 20
    assert process.ask(generate(tools=[{"nome": "x"}]))["code"] == "tools_wrong"
    assert process.ask(generate(tools="x"))["code"] == "tools_not_list"


def test_calls_and_what_tools_gave_back_are_part_of_a_conversation(process: Process, folder: Path) -> None:
    process.ask(load(folder, model="with-tools"))
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "北京"}'}}
    history = [
        {"role": "user", "content": "天气？"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "observation", "content": "晴", "tool_call_id": "1"},
    ]
    assert process.ask(generate(messages=history, tools=[TOOL]))["event"] == "done"


@pytest.mark.parametrize(
    ("request_line", "code"),
    [("{", "chat_protocol"), ("[]", "chat_protocol"), ('{"op": "fly"}', "chat_protocol"), ('{"op": ["load"]}', "chat_protocol"),
     (generate(messages="hello"), "chat_protocol"), (generate(messages=[1]), "chat_protocol"),
     (generate(messages=[{"role": "user", "content": ["x"]}]), "chat_protocol"), (generate(messages=[]), "chat_empty"),
     (generate(" \n"), "chat_empty"), (generate(temperature=-1), "setting_range"),
     (generate(columns=[]), "chat_protocol"), (generate(columns=[{"adapter": None}] * 4), "chat_protocol"),
     (generate(columns=[{}]), "chat_protocol"), (generate(columns=[{"adapter": 1}]), "chat_protocol"),
     (generate(messages=[{"role": "assistant", "tool_calls": [{}]}, {"role": "user", "content": "x"}]), "chat_protocol"), (generate("你好" * 5000), "chat_too_long"),
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


def test_half_of_an_emoji_is_read_as_a_question_mark(process: Process, folder: Path) -> None:
    process.ask(load(folder))
    assert process.ask(generate("\ud83d hi"))["event"] == "done"
    cut = process.text()
    process.ask(generate("? hi"))
    assert process.text() == cut


def test_bad_loads_name_what_is_wrong(process: Process, folder: Path) -> None:
    guessed = process.ask(load(folder, model="mute"))
    assert (guessed["template"], guessed["template_origin"]) == ("qwen", "guessed")
    assert [warning["code"] for warning in guessed["warnings"]] == ["template_guessed"]
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


def test_the_terminal_converses_until_the_end_of_input_and_says_when_the_context_is_full(folder: Path) -> None:
    lines = "你好\n\n你好\n/clear\n你好\n/exit\nnever\n"
    result = terminal("--model", str(folder / "short"), "--temperature", "0", input=lines)
    assert result.returncode == 0
    half = result.stdout[: len(result.stdout) // 2]
    assert half
    assert result.stdout == half * 2
    hint, full, too_long, cleared, again = result.stderr.strip().splitlines()
    assert "/exit" in hint
    assert full == again == "The model's context is full. /clear forgets the conversation."
    assert ("the model takes 48" in too_long, cleared) == (True, "Forgotten.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "Model path: nothing given"), (("--model", "/no/such"), "no folder /no/such"),
     (("--model", "MODEL", "--prompt", " "), "The message is empty"),
     (("--model", "MODEL", "--temperature", "hot"), "Temperature: got `hot`"),
     (("--model", "MODEL", "--adapter", "MODEL"), "not a LoRA checkpoint"),
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
