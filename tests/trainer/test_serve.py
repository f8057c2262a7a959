"""`tunedesk serve` as its users have it: the command, a tiny model, and the official `openai` client."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.tiny import build_hollow_adapter, build_hollow_model, build_tiny_adapter, build_tiny_model
from tests.trainer.scripted import build_scripted_model
from tests.trainer.serving import KEY, serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
USER = {"role": "user", "content": "你好"}
LONG: dict[str, Any] = {"max_tokens": 4000, "temperature": 1, "top_p": 1, "extra_body": {"top_k": 0}}


@dataclass
class Running:
    process: "subprocess.Popen[str]"
    url: str
    key: str
    folder: Path

    def client(self, key: str | None = None) -> Any:
        # Typed loosely: the tests give plain dictionaries where it wants its own.
        return openai.OpenAI(base_url=self.url, api_key=key or self.key, max_retries=0, timeout=30)


def start(*flags: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", "0", *flags],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C.UTF-8", "TUNEDESK_API_KEY": "", **environment},
    )  # fmt: skip


def printed(process: "subprocess.Popen[str]") -> str:
    """What it prints before it serves."""
    assert process.stdout is not None
    lines = ""
    for line in process.stdout:
        lines += line
        if lines.strip() and not line.strip():
            return lines
    raise AssertionError(f"it did not start: {lines}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    build_tiny_model(root / "tiny-base", layers=4, max_positions=4096)
    for number in (1, 2):
        build_tiny_adapter(root / f"adapter-{number}", root / "tiny-base", seed=number)
    return root


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    adapters = [f"--adapter={name}={folder / f'adapter-{number}'}" for number, name in enumerate(("一号", "two"), 1)]
    process = start("--model", str(folder / "tiny-base"), *adapters)
    text = printed(process)
    url, key = re.search(r"http://\S+/v1", text), re.search(r"API key: (\S+)", text)
    assert url is not None
    assert key is not None
    yield Running(process, url.group(), key.group(1), folder)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def ask(client: Any, model: str = "tiny-base", **values: Any) -> Any:
    values = {"temperature": 0, "max_tokens": 30, "messages": [USER], **values}
    return client.chat.completions.create(model=model, **values)


def said(client: Any, model: str = "tiny-base", **values: Any) -> str:
    return ask(client, model, **values).choices[0].message.content


def test_the_base_and_its_adapters_are_listed_and_asked_by_name(running: Running) -> None:
    from trainer import chat_model, sampling

    client = running.client()
    names = [model.id for model in client.models.list()]
    assert names == ["tiny-base", "一号", "two"]
    assert client.models.retrieve("一号").id == "一号"
    model = chat_model.load(None, running.folder / "tiny-base", None, on_stage=lambda stage: None)
    answers = []
    for name, adapter in zip(names, (None, "adapter-1", "adapter-2"), strict=True):
        model.use_adapter(running.folder / adapter if adapter else None)
        parts = model.reply([USER], sampling.Sampling(max_new_tokens=30, temperature=0), threading.Event())
        answers.append("".join(part for part in parts if isinstance(part, str)))
        assert said(client, name) == answers[-1]
    assert len(set(answers)) == 3
    assert said(client) == answers[0]


def test_a_stream_is_the_answer_in_pieces_with_its_usage_at_the_end(running: Running) -> None:
    client = running.client()
    whole = ask(client)
    *chunks, last = ask(client, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert (last.choices, last.usage) == ([], whole.usage)
    assert whole.usage.completion_tokens <= 30


def test_a_seed_repeats(running: Running) -> None:
    client = running.client()
    first, again, other = (said(client, temperature=1, top_p=1, seed=seed) for seed in (5, 5, 6))
    assert first == again != other


def test_errors_are_those_that_the_client_knows(running: Running) -> None:
    with pytest.raises(openai.AuthenticationError, match="API key is missing or wrong"):
        ask(running.client("wrong"))
    client = running.client()
    with pytest.raises(openai.NotFoundError, match="Choose one of: tiny-base, 一号, two"):
        ask(client, "other")
    with pytest.raises(openai.BadRequestError, match="the model takes 4096") as caught:
        ask(client, messages=[{"role": "user", "content": "你好" * 9000}])
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match=r"temperature: got `500`\.") as caught:
        ask(client, temperature=500)
    assert caught.value.param == "temperature"


def test_a_client_that_goes_away_frees_the_engine_within_200_ms(running: Running) -> None:
    client = running.client()
    ask(client, max_tokens=1)
    began = time.monotonic()
    ask(client, max_tokens=1)
    alone_s = time.monotonic() - began
    for _ in range(3):
        stream = ask(client, stream=True, **LONG)
        next(iter(stream))
        began = time.monotonic()
        stream.close()
        ask(client, max_tokens=1)
        assert time.monotonic() - began < alone_s + 0.2


def test_two_clients_at_once_get_what_each_would_get_alone(running: Running) -> None:
    names = ("一号", "two")
    alone = {name: said(running.client(), name) for name in names}
    together: dict[str, list[str]] = {name: [] for name in names}

    def chat(name: str) -> None:
        client = running.client()
        for _ in range(4):
            stream = ask(client, name, stream=True)
            together[name].append("".join(chunk.choices[0].delta.content or "" for chunk in stream))

    threads = [threading.Thread(target=chat, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == {name: [alone[name]] * 4 for name in names}


def test_a_second_turn_computes_its_new_tokens_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer import chat_model
    from trainer.decoder import Decoder

    computed: list[int] = []
    read = Decoder.read

    def counted(decoder: Any, new: Any, *rest: Any) -> Any:
        computed.append(len(new))
        return read(decoder, new, *rest)

    monkeypatch.setattr(Decoder, "read", counted)
    model = chat_model.load(None, folder / "tiny-base", None, on_stage=lambda stage: None)
    with serving(model, {"base": None, "one": folder / "adapter-1"}) as served:
        client: Any = openai.OpenAI(base_url=served.url, api_key=KEY)
        for name in ("base", "one"):
            messages = [{"role": "user", "content": "Hello, who are you? " * 40}]
            computed.clear()
            first = ask(client, name, messages=messages)
            assert computed[0] == first.usage.prompt_tokens
            said(client, "one" if name == "base" else "base")  # another conversation, on another adapter
            messages += [{"role": "assistant", "content": first.choices[0].message.content}, USER]
            computed.clear()
            second = ask(client, name, messages=messages)
            assert second.usage.prompt_tokens > first.usage.prompt_tokens
            assert computed[0] < 0.3 * first.usage.prompt_tokens


WITH_TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PIECES = ["Let me look.", '<tool_call>\n{"name": "weather", ', '"arguments": {"city": "北京"}}', "\n</tool_call>"]
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def test_a_tool_is_called_and_its_answer_taken(tmp_path: Path) -> None:
    from trainer import chat_model

    folder = build_scripted_model(tmp_path / "model", PIECES, WITH_TOOLS)
    model = chat_model.load(None, folder, None, on_stage=lambda stage: None)
    with serving(model, {"base": None}) as served:
        client: Any = openai.OpenAI(base_url=served.url, api_key=KEY, max_retries=0)
        first = ask(client, "base", tools=[WEATHER])
        (choice,) = first.choices
        (call,) = choice.message.tool_calls
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me look.")
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "北京"})
        found = [chunk.choices[0] for chunk in ask(client, "base", tools=[WEATHER], stream=True)]
        assert "".join(choice.delta.content or "" for choice in found) == "Let me look."
        (streamed,) = [choice.delta.tool_calls[0] for choice in found if choice.delta.tool_calls]
        assert json.loads(streamed.function.arguments) == {"city": "北京"}
        assert found[-1].finish_reason == "tool_calls"
        answered = [USER, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "晴"}]
        second = ask(client, "base", tools=[WEATHER], messages=answered)
        assert second.usage.prompt_tokens > first.usage.prompt_tokens
        silent = [USER, choice.message, {"role": "tool", "tool_call_id": call.id, "content": ""}]
        assert ask(client, "base", tools=[WEATHER], messages=silent).usage.completion_tokens > 0
        untold = ask(client, "base").choices[0]
        assert (untold.message.content, untold.finish_reason) == ("".join(PIECES), "stop")


@pytest.mark.parametrize(
    ("template", "code"),
    [("{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}", "serve_nothing_asked"),
     ("{{ raise_exception('no system here') if messages[0].role == 'system' }}{{ messages[-1].content }}", "serve_template")],
)  # fmt: skip
def test_a_conversation_that_the_template_cannot_write_is_refused(tmp_path: Path, template: str, code: str) -> None:
    from trainer import chat_model

    folder = build_tiny_model(tmp_path / "model", chat_template=template)
    model = chat_model.load(None, folder, None, on_stage=lambda stage: None)
    with serving(model, {"base": None}) as served:
        client: Any = openai.OpenAI(base_url=served.url, api_key=KEY, max_retries=0)
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, "base", messages=[{"role": "system", "content": "Be brief."}])
        assert (caught.value.code, caught.value.param) == (code, "messages")
        assert said(client, "base", max_tokens=3)


def test_tools_for_a_template_without_them_are_refused(running: Running) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(running.client(), tools=[WEATHER])
    assert caught.value.code == "tools_unsupported"


def test_ctrl_c_ends_it_while_it_loads(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", "0", "--model", str(folder / "tiny-base")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    process.stderr.readline()  # Loading …
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    output, errors = process.communicate(timeout=10)
    assert time.monotonic() - began < 2
    assert (process.returncode, output, errors) == (130, "", "")


@pytest.mark.parametrize(
    ("flags", "words"),
    [((), "Model path: nothing given"), (("--model", "/no/such"), "no folder /no/such"),
     (("--model", "MODEL", "--adapter", "ADAPTER"), "Write NAME=DIR"),
     (("--model", "MODEL", "--adapter", "a=MODEL"), "is a model of its own"),
     (("--model", "MODEL", "--adapter", "a=."), "is no LoRA checkpoint"),
     (("--model", "MODEL", "--adapter", "a=ADAPTER", "--adapter", "a=ADAPTER"), "name `a` is taken"),
     (("--model", "MODEL", "--adapter", "model=ADAPTER"), "name `model` is taken"),
     (("--model", "MODEL", "--template", "nonsense"), "Chat template: got"),
     (("--api-key", "two words"), "API key: it holds a space"),
     (("--no-api-key", "--host", "0.0.0.0"), "with --host 127.0.0.1 only"),
     (("--no-api-key", "--api-key", "k"), "Can't use both --api-key and --no-api-key"),
     (("--model", "MODEL", "--port", "TAKEN"), "it cannot be used on 127.0.0.1 (Address already in use)"),
     (("--model", "MODEL", "--port", "70000"), "--port: got `70000`. It must be from 0 to 65535"),
     (("--model", "MODEL", "--port", "x"), "--port: got `x`, which is not a number"),
     (("--model", "MODEL", "--adapter", "a="), "Write NAME=DIR"),
     (("--model", "MODEL", "--host", "no.such.host.invalid"), "this machine has no such address")],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], flags: tuple[str, ...], words: str
) -> None:
    from trainer.serve_terminal import run_serve

    places = {"MODEL": build_hollow_model(tmp_path / "model"), "ADAPTER": build_hollow_adapter(tmp_path / "adapter")}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        places["TAKEN"] = taken.getsockname()[1]
        argv = [re.sub("[A-Z]{4,}", lambda found: str(places[found.group()]), flag) for flag in flags]
        before = signal.getsignal(signal.SIGTERM)
        code = run_serve(argv)
        signal.signal(signal.SIGTERM, before)
    output = capfd.readouterr()
    assert code == 2
    assert output.out == ""
    assert words in output.err
    assert len(output.err.strip().splitlines()) == 1


def test_an_adapter_that_does_not_fit_is_said_before_it_serves(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from trainer.serve_terminal import run_serve

    wide = build_tiny_model(folder / "wide", hidden_size=128)
    adapter = build_tiny_adapter(folder / "adapter-of-wide", wide)
    before = signal.getsignal(signal.SIGTERM)
    code = run_serve(["--port", "0", "--model", str(folder / "tiny-base"), "--adapter", f"w={adapter}"])
    signal.signal(signal.SIGTERM, before)
    output = capfd.readouterr()
    assert (code, output.out) == (2, "")
    assert str(adapter) in output.err


def test_the_command_and_the_server_need_no_torch_until_the_model() -> None:
    code = "import sys, trainer.serve, trainer.serve_terminal; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_key_from_the_environment_is_taken_without_the_space_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.serve_terminal import KEY_VARIABLE, given_key, parser

    monkeypatch.setenv(KEY_VARIABLE, " from-the-environment\n")
    assert given_key(parser("en").parse_args([])) == "from-the-environment"
    assert given_key(parser("en").parse_args(["--api-key", "nearer"])) == "nearer"


# The last one: it ends the server that the others ask.
def test_it_ends_while_a_reply_is_written(running: Running) -> None:
    stream = ask(running.client(), stream=True, **LONG)
    next(iter(stream))
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(10) == 0
