"""What the server does by itself, around a model that echoes: keys, errors, the queue, clients that go away."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trainer.echo_model import EchoModel
from tests.trainer.serving import KEY, Served, serving
from trainer import serve
from trainer.problems import Problem
from trainer.serve_reply import Reply, error
from trainer.serve_request import parse

# One for all: each new one reads the certificates of the world.
HTTP = httpx.Client(timeout=20, trust_env=False)

MODELS = {"base": None, "mine": Path("/adapters/mine")}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(EchoModel(), MODELS) as found:
        yield found


def body(text: str = "say hello", **values: Any) -> dict[str, Any]:
    return {"model": "base", "messages": [{"role": "user", "content": text}], **values}


def post(served: Served, value: Any, key: str | None = KEY, **headers: str) -> httpx.Response:
    headers |= {"authorization": f"Bearer {key}"} if key else {}
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    headers = {"content-type": "application/json", **headers}
    return HTTP.post(f"{served.url}/chat/completions", content=content, headers=headers)


def refused(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"], error["param"]


def events(response: httpx.Response) -> list[Any]:
    assert response.headers["content-type"].startswith("text/event-stream")
    *found, last = response.text.removesuffix("\n\n").split("\n\n")
    assert last == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in found]


class Client:
    """A connection of its own, that can be cut."""

    def __init__(self, served: Served, value: dict[str, Any]) -> None:
        host, port = served.url.removeprefix("http://").removesuffix("/v1").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        content = json.dumps(value).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self.socket.sendall(head.encode() + content)

    def close(self) -> None:
        self.socket.close()


def until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s
        time.sleep(0.002)


def test_an_answer_has_the_shape_of_openais(served: Served) -> None:
    answer = post(served, body("say 你好😀")).json()
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert abs(answer["created"] - time.time()) < 60
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == "你好😀"
    assert choice["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_has_the_shape_of_openais(served: Served, include_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    response = post(served, body("say 你😀", stream=True, **options))
    found = events(response)
    usages = [found.pop()] if include_usage else []
    assert {event["object"] for event in found} == {"chat.completion.chunk"}
    assert len({event["id"] for event in found}) == 1
    assert [event["choices"][0]["delta"] for event in found] == [
        {"role": "assistant", "content": ""},
        {"content": "你"},
        {"content": "😀"},
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in found] == [None, None, None, "stop"]
    assert all(("usage" in event) == include_usage for event in found)
    for event in usages:
        assert (event["choices"], event["usage"]["total_tokens"]) == ([], 3)
    assert response.headers["cache-control"] == "no-cache"


def test_health_asks_for_no_key_and_everything_else_does(served: Served) -> None:
    root = served.url.removesuffix("/v1")
    assert HTTP.get(f"{root}/health").json() == {"status": "ok"}
    for path in ("/v1/models", "/v1/models/base", "/v1/nothing", "/", "/docs", "/openapi.json", "/health/", "//health"):
        response = HTTP.get(root + path)
        assert refused(response)[:2] == (401, "invalid_api_key"), path
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("key", [None, "a", "a-key2", "A-key", "ключ"])
def test_a_wrong_key_is_401_before_the_body_is_read(served: Served, key: str | None) -> None:
    headers = {"authorization": f"Bearer {key}".encode()} if key is not None else {}
    response = HTTP.post(f"{served.url}/chat/completions", content=b"{", headers=headers)
    assert refused(response)[:2] == (401, "invalid_api_key")


def test_keys_are_compared_in_constant_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, right: bytes) -> bool:
        compared.append((given, right))
        return given == right

    monkeypatch.setattr(serve.hmac, "compare_digest", compare)
    assert post(served, body(), "wrong").status_code == 401
    assert post(served, body()).status_code == 200
    assert compared == [(b"wrong", KEY.encode()), (KEY.encode(), KEY.encode())]


def test_without_a_key_only_this_machines_own_names_are_answered() -> None:
    with serving(EchoModel(), MODELS, key=None) as served:
        assert post(served, body(), None).status_code == 200
        for host in ("evil.example:80", "[::1", "a]b", "127.0.0.1.evil.example", "localhost, evil.example"):
            assert refused(post(served, body(), None, host=host))[:2] == (403, "serve_name_asked"), host


def test_models_are_listed_and_found_by_name(served: Served) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    listed = HTTP.get(f"{served.url}/models", headers=headers).json()
    assert [model["id"] for model in listed["data"]] == ["base", "mine"]
    assert HTTP.get(f"{served.url}/models/mine", headers=headers).json()["object"] == "model"
    assert refused(HTTP.get(f"{served.url}/models/other", headers=headers)) == (404, "model_not_found", "model")


def test_a_model_name_chooses_its_adapter(served: Served) -> None:
    for name, adapter in MODELS.items():
        answer = post(served, body("adapter", model=name)).json()
        assert answer["choices"][0]["message"]["content"] == str(adapter)
        assert answer["model"] == name


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"{", (400, "json_broken", None)), (b"\xff", (400, "json_broken", None)), (b"[" * 100_000, (400, "json_broken", None)),
     (b"[1]", (400, "serve_field", "body")), (b"{}", (400, "setting_missing", "model")),
     (body(model="other"), (404, "model_not_found", "model")), (body(temperature="hot"), (400, "setting_not_number", "temperature")),
     (body("problem"), (400, "context_length_exceeded", "messages")),
     (body("problem", stream=True), (400, "context_length_exceeded", "messages"))],
)  # fmt: skip
def test_a_bad_request_is_refused_in_openais_shape(served: Served, value: Any, expected: Any) -> None:
    assert refused(post(served, value)) == expected
    assert post(served, body()).status_code == 200


def test_errors_are_in_the_language_that_is_asked_for(served: Served) -> None:
    assert "has 5 tokens" in post(served, body("problem")).json()["error"]["message"]
    answer = post(served, body("problem"), **{"accept-language": "zh-CN,zh;q=0.9"})
    assert "5 个词元" in answer.json()["error"]["message"]


def test_half_of_an_emoji_in_a_request_neither_breaks_the_answer_nor_the_error(served: Served) -> None:
    broken = rb'{"model": "base", "messages": [{"role": "user", "content": "say a\ud83d"}]}'
    assert post(served, broken).json()["choices"][0]["message"]["content"] == "a?"
    assert refused(post(served, rb'{"model": "\ud83d"}')) == (404, "model_not_found", "model")


def test_a_large_body_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MOST_BODY_BYTES", 1000)
    assert refused(post(served, body("say " + "x" * 1000)))[:2] == (413, "serve_body_large")
    parts = iter([json.dumps(body()).encode(), b" " * 1000])
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    response = HTTP.post(f"{served.url}/chat/completions", content=parts, headers=headers)
    assert refused(response)[:2] == (413, "serve_body_large")


def test_a_form_that_a_page_elsewhere_may_post_is_refused(served: Served) -> None:
    assert refused(post(served, body(), **{"content-type": "text/plain"}))[:2] == (415, "serve_body_not_json")


def test_another_path_is_404(served: Served) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    for method, path in (("GET", "/completions"), ("POST", "/completions"), ("POST", "/chat/completions/")):
        assert refused(HTTP.request(method, served.url + path, headers=headers))[:2] == (404, "serve_nothing_there")


def test_another_method_is_405_and_told_the_right_one(served: Served) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    for method, path, allowed in (("DELETE", "/models", "GET, HEAD"), ("GET", "/chat/completions", "POST")):
        response = HTTP.request(method, served.url + path, headers=headers)
        assert refused(response)[:2] == (405, "serve_wrong_method")
        assert response.headers["allow"] == allowed
        assert allowed in response.json()["error"]["message"]
    assert HTTP.head(f"{served.url}/models", headers=headers).status_code == 200


def test_what_is_no_request_is_answered_and_is_no_noise_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with serving(EchoModel(), MODELS) as served:
        host, port = served.url.removeprefix("http://").removesuffix("/v1").split(":")
        for sent, answer in ((b"\0\xff\r\n\r\n", b"400"), (upgrade, b"401")):
            with socket.create_connection((host, int(port)), timeout=10) as client:
                client.sendall(sent)
                assert answer in client.makefile("rb").readline()
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_crash_is_told_and_the_next_request_is_answered(served: Served) -> None:
    assert refused(post(served, body("crash")))[:2] == (500, "python_error")
    streamed = post(served, body("crash", stream=True))
    assert streamed.status_code == 200
    last = json.loads(streamed.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["code"] == "python_error"
    assert post(served, body()).status_code == 200


def test_a_model_whose_folder_is_gone_is_called_so(served: Served) -> None:
    response = post(served, body("crash", model="mine"))
    assert refused(response) == (503, "serve_model_lost", "model")
    assert "`mine`" in response.json()["error"]["message"]
    assert "/adapters/mine" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("problem", "code", "param"),
    [(Problem("chat_empty"), "serve_nothing_asked", "messages"),
     (Problem("chat_too_long", tokens=5, limit=4), "context_length_exceeded", "messages"),
     (Problem("template_failed", label="-", template="t", row="–", detail="d"), "serve_template", "messages"),
     (Problem("tools_unsupported", label="-", template="t"), "tools_unsupported", "tools")],
)  # fmt: skip
def test_what_the_model_finds_wrong_with_a_request_names_its_field(problem: Problem, code: str, param: str) -> None:
    told: list[Any] = []
    Reply(parse(json.dumps(body()).encode(), ["base"]), None, told.append).failed(problem)
    status, shape = error(told[0], "zh")
    assert (status, shape["error"]["code"], shape["error"]["param"]) == (400, code, param)
    assert "?" not in shape["error"]["message"]


def test_a_stop_string_in_the_last_piece_is_a_stop() -> None:
    told: list[Any] = []
    Reply(parse(json.dumps(body("say ab", max_tokens=2, stop="b")).encode(), ["base"]), None, told.append).run(
        EchoModel()
    )
    assert (told[0], told[-1].reason) == ("a", "stop")


def test_a_stop_string_ends_the_reply_and_is_not_shown(served: Served) -> None:
    for stop, shown in (("llo", "he"), (["x", "lo wo"], "hel"), ("world!", "hello world"), (["hello world"], "")):
        answer = post(served, body("say hello world", stop=stop)).json()
        assert answer["choices"][0]["message"]["content"] == shown
        assert answer["choices"][0]["finish_reason"] == "stop"
    streamed = events(post(served, body("say hello world", stop="wor", stream=True)))
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in streamed) == "hello "
    assert streamed[-1]["choices"][0]["finish_reason"] == "stop"
    answer = post(served, body("slow " + "ab" * 500, stop="b")).json()  # or it would take 20 s
    assert answer["usage"]["completion_tokens"] <= 3


CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


def test_a_call_of_a_tool_is_given_as_openai_gives_it(served: Served) -> None:
    (choice,) = post(served, body(f"say Let me look.\n{CALL}", tools=TOOLS)).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Let me look.", "tool_calls")
    assert (call["type"], call["function"]) == ("function", {"name": "weather", "arguments": '{"city": "北京"}'})
    assert call["id"].startswith("call_")
    (choice,) = post(served, body(f"say {CALL}{CALL}", tools=TOOLS)).json()["choices"]
    assert (choice["message"]["content"], len(choice["message"]["tool_calls"])) == (None, 2)
    assert [tool["function"]["name"] for tool in served.model.values["tools"]] == ["weather"]


def test_a_streamed_call_comes_whole_after_what_was_said_before_it(served: Served) -> None:
    found = [event["choices"][0] for event in events(post(served, body(f"say Look: {CALL}", tools=TOOLS, stream=True)))]
    # The first word could be the name that a call begins with.
    assert found[1]["delta"].get("content") == "Look:"
    (call,) = found[2]["delta"]["tool_calls"]
    assert (call["index"], call["function"]["arguments"]) == (0, '{"city": "北京"}')
    assert (found[3]["delta"], found[3]["finish_reason"], len(found)) == ({}, "tool_calls", 4)


@pytest.mark.parametrize(
    ("text", "content"),
    [(f"Look: \n{CALL}", "Look:"), (f"\n\n{CALL}", None), (f"{CALL}\n", None), (f" A  b {CALL} c", " A  b c"),
     ("no call here \n", "no call here \n"), (" \n", " \n")],
)  # fmt: skip
def test_a_stream_with_tools_says_what_the_whole_answer_says(served: Served, text: str, content: str | None) -> None:
    (whole,) = post(served, body(f"say {text}", tools=TOOLS)).json()["choices"]
    found = [event["choices"][0] for event in events(post(served, body(f"say {text}", tools=TOOLS, stream=True)))]
    assert whole["message"]["content"] == content
    assert "".join(choice["delta"].get("content") or "" for choice in found) == (content or "")
    assert found[-1]["finish_reason"] == whole["finish_reason"]


def test_what_is_no_call_stays_text(served: Served) -> None:
    for text, tools in ((CALL, None), ("<tool_call>{broken", TOOLS), ('{"a": 1}', TOOLS), ("1 < 2 <tool", TOOLS)):
        (choice,) = post(served, body(f"say {text}", tools=tools)).json()["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")
        assert "tool_calls" not in choice["message"]


def test_max_tokens_ends_with_length(served: Served) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        answer = post(served, body("say hello", **{field: 2})).json()
        assert (answer["choices"][0]["message"]["content"], answer["choices"][0]["finish_reason"]) == ("he", "length")


def test_requests_are_answered_one_at_a_time_in_the_order_of_arrival(served: Served) -> None:
    served.model.asked.clear()
    texts = [f"slow {letter}" for letter in "abcdef"]
    clients = []
    for place, text in enumerate(texts):
        clients.append(Client(served, body(text)))
        waiting = max(place - 1, 0)
        until(lambda known=waiting: len(served.worker._waiting) + len(served.model.asked) > known)
    answers = [client.socket.makefile("rb").readline() for client in clients]
    assert served.model.asked == texts
    assert all(b"200" in answer for answer in answers)
    for client in clients:
        client.close()


def test_two_clients_at_once_are_both_answered(served: Served) -> None:
    answers: dict[str, str] = {}

    def ask(text: str) -> None:
        streamed = events(post(served, body(f"slow {text}", stream=True)))
        answers[text] = "".join(event["choices"][0]["delta"].get("content", "") for event in streamed)

    threads = [threading.Thread(target=ask, args=(text,)) for text in ("first one", "second one")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert answers == {"first one": "first one", "second one": "second one"}


def test_a_full_queue_is_429_with_retry_after_and_empties_again() -> None:
    with serving(EchoModel(), MODELS, most_waiting=2) as served:
        running = Client(served, body("slow " + "x" * 500))
        until(lambda: served.model.asked != [])
        waiting = [Client(served, body()) for _ in range(2)]
        until(lambda: len(served.worker._waiting) == 2)
        response = post(served, body())
        assert refused(response)[:2] == (429, "rate_limit_exceeded")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        running.close()
        assert [b"200" in client.socket.makefile("rb").readline() for client in waiting] == [True, True]
        assert post(served, body()).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_the_model_within_200_ms(served: Served, stream: bool) -> None:
    served.model.asked.clear()
    client = Client(served, body("slow " + "x" * 1000, stream=stream))
    until(lambda: len(served.model.asked) == 1)
    if stream:
        assert b"200" in client.socket.recv(100)
    client.close()
    assert served.settle(2) < 0.2


@pytest.mark.slow
def test_a_connection_on_which_no_request_comes_is_closed_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "REQUEST_S", 0.3)
    with serving(EchoModel(), MODELS) as served:
        host, port = served.url.removeprefix("http://").removesuffix("/v1").split(":")
        answered = Client(served, body("slow " + "x" * 100))  # takes 2 s
        silent, dripping, refused_once = (socket.create_connection((host, int(port)), timeout=5) for _ in range(3))
        refused_once.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
        until(lambda: b"401" in refused_once.recv(4096))
        began = time.monotonic()
        for client in (dripping, refused_once):
            with contextlib.suppress(OSError):  # until it is reset
                while time.monotonic() - began < 1.5:
                    client.sendall(b"G")
                    time.sleep(0.05)
        assert time.monotonic() - began < 1.5
        assert silent.recv(1) == b""
        assert b"200" in answered.socket.makefile("rb").readline()
        for client in (silent, dripping, refused_once, answered.socket):
            client.close()


def test_a_client_that_goes_away_while_it_waits_is_never_answered(served: Served) -> None:
    served.model.asked.clear()
    first = Client(served, body("slow " + "x" * 1000))
    until(lambda: len(served.model.asked) == 1)
    second = Client(served, body("say never", stream=True))
    until(lambda: len(served.worker._waiting) == 1)
    second.close()
    until(lambda: len(served.worker._waiting) == 0)
    first.close()
    served.settle(2)
    assert len(served.model.asked) == 1


def test_a_server_that_ends_tells_those_who_wait_for_it(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(EchoModel(), MODELS) as served:
        clients = [Client(served, body("slow " + "x" * 1000, stream=stream)) for stream in (True, False, True)]
        assert b"200" in clients[0].socket.recv(20)
        until(lambda: len(served.worker._waiting) == 2)
        began = time.monotonic()
    assert time.monotonic() - began < 1.5
    answers = [client.socket.makefile("rb").read() for client in clients]
    assert all(b"The server is being shut down" in answer for answer in answers)
    assert [answer.startswith(b"HTTP/1.1 503") for answer in answers] == [False, True, True]
    assert capfd.readouterr().err == ""


def test_values_reach_the_model(served: Served) -> None:
    values = {"temperature": 0.5, "top_p": 0.9, "top_k": -1, "repetition_penalty": 1.2, "seed": 7, "max_tokens": 9}
    post(served, body(**values, skip_special_tokens=False, chat_template_kwargs={"enable_thinking": False}))
    sampling = served.model.values.pop("sampling")
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 0)
    assert (sampling.repetition_penalty, sampling.seed, sampling.max_new_tokens) == (1.2, 7, 9)
    assert served.model.values["enable_thinking"] is False
    assert served.model.values["skip_special_tokens"] is False
