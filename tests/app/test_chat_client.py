"""The page's side of the chat: with an echoing process for all that is not a model's, and once with the real one."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.chat import ChatProcess, Done
from app.chat_words import status_html
from app.text import Text
from tests.bench import chat_cycles
from tests.tiny import build_hollow_adapter, build_hollow_model, build_tiny_adapter, build_tiny_model
from trainer.problems import LANGUAGES, Problem

pytestmark = pytest.mark.slow

ECHO = (sys.executable, str(Path(__file__).parent / "echo_chat.py"))


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[ChatProcess]:
    client = ChatProcess(tmp_path / "chat.log", ECHO)
    yield client
    client.unload()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build_hollow_model(tmp_path / "model")


def say(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def answer(chat: ChatProcess, text: str, **values: Any) -> tuple[str, Done]:
    *texts, done = chat.generate(say(text), **values)
    assert isinstance(done, Done)
    return "".join(str(part) for part in texts), done


def wait_for_state(chat: ChatProcess, state: str, timeout_s: float = 5) -> None:
    until = time.monotonic() + timeout_s
    while chat.status.state != state:
        assert time.monotonic() < until, chat.status
        time.sleep(0.002)


def caught(code: str, call: Any, *arguments: Any) -> Problem:
    with pytest.raises(Problem) as info:
        call(*arguments)
    assert info.value.code == code
    return info.value


def test_what_a_model_was_loaded_with_a_warning_of_is_part_of_the_status(chat: ChatProcess, tmp_path: Path) -> None:
    chat.load(build_hollow_model(tmp_path / "warned"))
    assert [one.code for one in chat.status.warnings] == ["chat_empty"]
    for language in LANGUAGES:
        shown = status_html(chat.status, Text(language))
        assert chat.status.warnings[0].sentence(language) in shown
        assert shown.count("td-notice") == 1
    chat.load(build_hollow_model(tmp_path / "well"))
    assert "td-notice" not in status_html(chat.status, Text("en"))


def test_a_model_is_loaded_asked_and_unloaded(chat: ChatProcess, model: Path) -> None:
    assert chat.status.state == "unloaded"
    status = chat.load(model)
    assert status == chat.status
    assert (status.state, status.model, status.device, status.memory_gib) == ("ready", model, "echo", 1.5)
    assert status.way == "lean"
    assert answer(chat, "say 你好😀") == ("你好😀", Done("stop", 3))
    assert chat.status.state == "ready"
    assert status.pid is not None
    chat.unload()
    assert not psutil.pid_exists(status.pid)
    assert chat.status.state == "unloaded"


def test_loading_is_followed_by_stage_and_seconds_and_can_be_unloaded(chat: ChatProcess, tmp_path: Path) -> None:
    future = chat.begin_load(build_hollow_model(tmp_path / "hangs"))
    assert chat.status.state == "starting"
    wait_for_state(chat, "loading")
    status = chat.status
    assert status.stage == "loading_model"
    assert status.seconds > 0
    caught("chat_loading", chat.begin_load, tmp_path / "hangs")
    caught("chat_loading", answer, chat, "say x")
    began = time.monotonic()
    chat.unload()
    assert time.monotonic() - began < 3
    assert status.pid is not None
    assert not psutil.pid_exists(status.pid)
    caught("chat_unloaded", future.result)
    chat.load(build_hollow_model(tmp_path / "other"))
    assert answer(chat, "say x")[0] == "x"


def test_a_folder_that_is_no_model_is_refused_without_a_process_and_leaves_all_as_it_was(
    chat: ChatProcess, model: Path, tmp_path: Path
) -> None:
    caught("model_not_found", chat.load, "/no/such/folder")
    assert chat.status.state == "unloaded"
    loaded = chat.load(model)
    caught("model_not_a_model", chat.load, tmp_path)
    caught("adapter_not_an_adapter", chat.load, model, tmp_path)
    assert chat.status == loaded


def test_a_load_that_fails_reports_why_and_leaves_no_process(chat: ChatProcess, tmp_path: Path) -> None:
    caught("chat_empty", chat.load, build_hollow_model(tmp_path / "fails"))
    assert chat.status.state == "unloaded"
    assert chat.status.problem is not None
    assert psutil.Process().children() == []
    chat.load(build_hollow_model(tmp_path / "model"))
    assert chat.status.problem is None


def test_an_adapter_changes_in_the_same_process_and_another_model_in_a_new_one(
    chat: ChatProcess, model: Path, tmp_path: Path
) -> None:
    adapter = build_hollow_adapter(tmp_path / "adapter")
    base = chat.load(model)
    adapted = chat.load(model, adapter)
    assert (adapted.pid, adapted.adapter, base.adapter) == (base.pid, adapter, None)
    assert chat.load(model).adapter is None
    other = chat.load(build_hollow_model(tmp_path / "other"))
    assert other.pid != base.pid
    assert base.pid is not None
    assert not psutil.pid_exists(base.pid)


def test_an_adapter_that_does_not_fit_leaves_the_one_before_it(chat: ChatProcess, model: Path, tmp_path: Path) -> None:
    adapter = build_hollow_adapter(tmp_path / "adapter")
    before = chat.load(model, adapter)
    caught("chat_empty", chat.load, model, build_hollow_adapter(tmp_path / "mismatch"))
    assert (chat.status.state, chat.status.adapter, chat.status.pid) == ("ready", adapter, before.pid)
    assert chat.status.problem is not None
    assert answer(chat, "say x")[0] == "x"


def test_asking_without_a_model_says_to_load_one(chat: ChatProcess) -> None:
    caught("chat_not_loaded", answer, chat, "say x")


def test_a_second_reply_while_one_is_written_is_refused_and_the_first_goes_on(chat: ChatProcess, model: Path) -> None:
    chat.load(model)
    first = chat.generate(say("slow " + "x" * 20))
    next(first)
    caught("chat_busy", answer, chat, "say y")
    caught("chat_busy", chat.load, model)
    assert chat.status.state == "generating"
    assert len(list(first)) == 20
    assert answer(chat, "say y")[0] == "y"


def test_stop_keeps_the_text_and_is_ready_within_200_ms(chat: ChatProcess, model: Path) -> None:
    chat.load(model)
    chat.stop()
    reply = chat.generate(say("slow " + "x" * 500))
    texts = [next(reply) for _ in range(3)]
    began = time.monotonic()
    chat.stop()
    *more, done = reply
    assert time.monotonic() - began < 0.2
    assert chat.status.state == "ready"
    assert isinstance(done, Done)
    assert (done.finish, done.tokens) == ("cancelled", len(texts) + len(more))
    assert answer(chat, "say again")[0] == "again"


def test_stop_is_heeded_within_200_ms_also_where_the_process_does_not_hear_it(chat: ChatProcess, model: Path) -> None:
    chat.load(model)
    for begin in (
        lambda: chat.generate(say("deaf ab")),
        lambda: (part for _, part in chat.compare(say("deaf a"), [None, None])),
    ):
        reply = begin()
        texts = [next(reply), next(reply)]
        began = time.monotonic()
        chat.stop()
        ends = list(reply)
        assert time.monotonic() - began < 0.2
        assert texts in (["a", "b"], ["a0", "a1"])
        assert {end.finish for end in ends if isinstance(end, Done)} == {"cancelled"}
        assert len(ends) == (1 if texts == ["a", "b"] else 2)
        assert (chat.status.state, chat.status.stopping) == ("generating", True)
        assert answer(chat, "say next")[0] == "next", "who asks waits until it hears again"
        assert not chat.status.stopping


def test_a_process_that_goes_on_after_a_stop_is_said_and_loading_begins_anew(
    chat: ChatProcess, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.chat.STOPPING_S", 0.2)
    before = chat.load(model)
    reply = chat.generate(say("deaf x"))
    next(reply)
    os.kill(before.pid or 0, signal.SIGSTOP)
    reply.close()
    assert "0.2 s" in str(caught("chat_not_stopping", answer, chat, "say y"))
    began = time.monotonic()
    caught("chat_not_stopping", answer, chat, "say y")
    assert time.monotonic() - began < 0.1, "it was waited for once"
    assert chat.load(model).pid != before.pid
    assert answer(chat, "say y")[0] == "y"


def test_a_generator_closed_early_ends_the_reply_and_the_next_one_need_not_wait(chat: ChatProcess, model: Path) -> None:
    chat.load(model)
    reply = chat.generate(say("slow " + "x" * 500))
    next(reply)
    reply.close()
    assert answer(chat, "say next") == ("next", Done("stop", 4))


def test_a_problem_in_a_reply_is_raised_and_the_model_stays(chat: ChatProcess, model: Path) -> None:
    chat.load(model)
    caught("chat_not_finite", answer, chat, "problem")
    assert chat.status.state == "ready"
    assert answer(chat, "say x")[0] == "x"


def test_columns_come_side_by_side_each_with_its_number_and_its_end(chat: ChatProcess, model: Path) -> None:
    chat.load(model)
    parts = list(chat.compare(say("say abc"), [None, "/some/adapter", "relative"]))
    assert [text for _, text in parts if isinstance(text, str)] == [
        f"{letter}{n}" for letter in "abc" for n in range(3)
    ]
    assert [part for part in parts if isinstance(part[1], Done)] == [(n, Done("stop", 3)) for n in range(3)]
    assert chat.status.state == "ready"
    assert answer(chat, "say x")[0] == "x"


def test_a_column_that_fails_is_a_problem_of_its_own_and_the_others_go_on(chat: ChatProcess, model: Path) -> None:
    chat.load(model)
    parts = list(chat.compare(say("say abc"), ["/some/broken", None]))
    assert [number for number, part in parts if isinstance(part, Problem)] == [0]
    assert "".join(part for _, part in parts if isinstance(part, str)) == "a1b1c1"
    assert parts[-1] == (1, Done("stop", 3))
    assert (chat.status.state, chat.status.problem) == ("ready", None)
    assert [number for number, _ in chat.compare(say("say abc"), ["/some/broken"])] == [0]
    assert chat.status.state == "ready"


def test_stop_and_unload_end_every_column(chat: ChatProcess, model: Path) -> None:
    chat.load(model)
    for end in (chat.stop, chat.unload):
        parts = chat.compare(say("slow " + "x" * 500), [None, "/some/adapter"])
        next(parts)
        began = time.monotonic()
        end()
        ends = [(number, part.finish) for number, part in parts if isinstance(part, Done)]
        assert time.monotonic() - began < 3
        assert ends == [(0, "cancelled"), (1, "cancelled")]


def test_what_is_wrong_with_the_question_or_the_process_is_raised_for_all_columns(
    chat: ChatProcess, model: Path
) -> None:
    chat.load(model)
    caught("chat_not_finite", list, chat.compare(say("problem"), [None, None]))
    assert chat.status.state == "ready"
    caught("chat_killed", list, chat.compare(say(f"signal {int(signal.SIGKILL)}"), [None, None]))
    assert chat.status.state == "dead"


def test_a_bad_sampling_value_never_reaches_the_process(chat: ChatProcess, model: Path) -> None:
    chat.load(model)
    with pytest.raises(Problem, match="Temperature"):
        answer(chat, "say x", temperature="hot")
    assert chat.status.state == "ready"


@pytest.mark.parametrize(
    ("order", "code", "words"),
    [(f"signal {int(signal.SIGKILL)}", "chat_killed", "SIGKILL"), (f"signal {int(signal.SIGSEGV)}", "chat_died", "SIGSEGV"),
     ("die 3", "chat_died", "exit code 3"), ("die 0", "chat_died", "chat.log")],
)  # fmt: skip
def test_the_death_of_the_process_is_raised_with_its_reason_and_loading_works_again(
    chat: ChatProcess, model: Path, order: str, code: str, words: str
) -> None:
    chat.load(model)
    assert words in str(caught(code, answer, chat, order))
    assert chat.status.state == "dead"
    assert chat.status.model == model
    assert chat.status.problem is not None
    caught("chat_not_loaded", answer, chat, "say x")
    chat.load(model)
    assert answer(chat, "say x")[0] == "x"


def test_death_while_idle_and_while_loading_is_noticed(chat: ChatProcess, model: Path, tmp_path: Path) -> None:
    pid = chat.load(model).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for_state(chat, "dead")
    future = chat.begin_load(build_hollow_model(tmp_path / "hangs"))
    wait_for_state(chat, "loading")
    pid = chat.status.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    assert "SIGTERM" in str(caught("chat_killed", future.result))
    assert chat.status.state == "dead"


def test_want_of_memory_is_told_from_a_kill_by_the_kernels_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from app import chat_death

    monkeypatch.setattr(chat_death, "oom_kills", lambda: 5)
    assert chat_death.reason(-9, 4, Path("log")).code == "out_of_host_memory"
    assert chat_death.reason(-9, 5, Path("log")).code == "chat_killed"


def test_unloading_while_a_reply_is_written_ends_it_as_cancelled(chat: ChatProcess, model: Path) -> None:
    chat.load(model)
    reply = chat.generate(say("slow " + "x" * 500))
    next(reply)
    chat.unload()
    *_, done = reply
    assert isinstance(done, Done)
    assert done.finish == "cancelled"
    assert chat.status.state == "unloaded"


def test_a_process_that_does_not_answer_is_gone_within_3_seconds_of_unloading(chat: ChatProcess, model: Path) -> None:
    pid = chat.load(model).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    chat.unload()
    assert time.monotonic() - began < 3
    assert not psutil.pid_exists(pid)


def test_20_cycles_of_loading_leave_no_thread_file_or_process_behind(chat: ChatProcess, model: Path) -> None:
    me = psutil.Process()

    def held() -> tuple[int, int, int]:
        return threading.active_count(), me.num_fds(), len(me.children())

    chat.load(model)
    chat.unload()
    before = held()
    for number in range(20):
        pid = chat.load(model).pid
        answer(chat, "say x")
        if number % 2 and pid:
            os.kill(pid, signal.SIGKILL)
            wait_for_state(chat, "dead")
        chat.unload()
    until = time.monotonic() + 2
    while held() != before and time.monotonic() < until:
        time.sleep(0.01)
    assert held() == before


def test_many_tabs_at_once_get_whole_replies_or_a_refusal(chat: ChatProcess, model: Path) -> None:
    chat.load(model)
    outcomes: list[str] = []

    def tab(name: str) -> None:
        for _ in range(10):
            try:
                outcomes.append("whole" if answer(chat, f"say {name * 50}")[0] == name * 50 else "torn")
            except Problem as problem:
                outcomes.append(problem.code)

    tabs = [threading.Thread(target=tab, args=(name,)) for name in "abcd"]
    for thread in tabs:
        thread.start()
    for thread in tabs:
        thread.join()
    assert len(outcomes) == 40
    assert set(outcomes) <= {"whole", "chat_busy"}
    assert "whole" in outcomes


def test_the_real_process_loads_answers_stops_swaps_and_gives_its_memory_back(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", layers=8, max_positions=4096)
    adapter = build_tiny_adapter(tmp_path / "adapter", folder)
    chat = ChatProcess(tmp_path / "chat.log")
    try:
        base = chat.load(folder)
        greedy: dict[str, Any] = {"temperature": 0, "max_new_tokens": 24}
        bare = answer(chat, "你好", **greedy)[0]
        assert chat.load(folder, adapter).pid == base.pid
        assert answer(chat, "你好", **greedy)[0] != bare
        chat.load(folder)
        assert answer(chat, "你好", **greedy)[0] == bare
        reply = chat.generate(say("你好"), max_new_tokens=4000)
        next(reply)
        began = time.monotonic()
        chat.stop()
        *_, done = reply
        assert time.monotonic() - began < 0.2
        assert isinstance(done, Done)
        assert done.finish == "cancelled"
        assert base.pid is not None
        os.kill(base.pid, signal.SIGKILL)
        wait_for_state(chat, "dead")
        again = chat.load(folder)
        assert answer(chat, "你好", **greedy)[0] == bare
        assert again.pid is not None
    finally:
        chat.unload()
    assert psutil.Process().children() == []


@pytest.mark.thorough
def test_cycles_of_the_real_process_give_back_memory_threads_and_files(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model")
    before, _, last = chat_cycles.run(folder, 2, tmp_path / "chat.log")
    assert (last.threads, last.files, last.processes) == (before.threads, before.files, before.processes)
    # Loading takes hundreds of MiB; what the page's own process allocates on the way is some.
    assert last.rss_mib - before.rss_mib < 4
