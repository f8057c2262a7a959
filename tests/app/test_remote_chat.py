"""The page's client of OpenAI-compatible servers: against our own, and against one that does everything wrong."""

import json
import logging
import os
import re
import signal
import socket
import ssl
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import remote_exchange
from app.chat import Done
from app.remote_chat import RemoteChat, base_url
from tests.app.odd_server import OddServer, odd_server
from tests.tiny import build_tiny_model
from tests.trainer.echo_model import EchoModel
from tests.trainer.serving import Served, serving
from trainer.problems import LANGUAGES, SENTENCES, Problem

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SECRET = "sk-0123456789-abcdef"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(EchoModel(), {"base": None, "mine": Path("/adapters/mine")}, key="thekey") as found:
        yield found


@pytest.fixture
def odd() -> Iterator[OddServer]:
    with odd_server() as server:
        yield server


def say(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def answer(chat: RemoteChat, text: str = "say x", model: str = "base", **values: Any) -> tuple[str, Done]:
    *texts, done = chat.generate(model, say(text), **values)
    assert isinstance(done, Done)
    return "".join(str(part) for part in texts), done


def caught(call: Callable[[], Any], code: str, words: str = "") -> Problem:
    with pytest.raises(Problem) as info:
        call()
    assert info.value.code == code
    for language, sentence in zip(LANGUAGES, SENTENCES[code], strict=True):
        assert {name for _, name, _, _ in string.Formatter().parse(sentence) if name} <= set(info.value.values)
        assert SECRET not in info.value.sentence(language)
    assert words in str(info.value)
    return info.value


def event(**choice: Any) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, **choice}]}, ensure_ascii=False)}\n\n"


def text_event(text: str) -> str:
    return event(delta={"content": text})


END = event(delta={}, finish_reason="stop") + "data: [DONE]\n\n"


# ---- against our own server ----


def test_models_are_listed_and_answer_in_whole_characters(served: Served) -> None:
    chat = RemoteChat(served.url, "thekey")
    assert chat.models() == ["base", "mine"]
    assert list(chat.generate("base", say("say 你好😀")))[:-1] == ["你", "好", "😀"]
    assert answer(chat, "adapter", "mine")[0] == "/adapters/mine"


def test_a_reply_ends_with_numbers_measured_here(served: Served) -> None:
    began = time.monotonic()
    text, done = answer(RemoteChat(served.url, "thekey"), "slow abcdefgh")
    took = time.monotonic() - began
    assert (text, done.finish, done.tokens, done.prompt_tokens) == ("abcdefgh", "stop", 8, 1)
    assert done.first_token_s is not None
    assert 0.02 <= done.first_token_s < done.seconds <= took
    assert done.tokens_per_second == pytest.approx(7 / (done.seconds - done.first_token_s))
    assert answer(RemoteChat(served.url, "thekey"), max_new_tokens=1, text="say xyz")[1].finish == "length"


def test_values_and_messages_arrive_as_they_were_given(served: Served) -> None:
    chat = RemoteChat(served.url, "thekey")
    answer(chat, temperature=0, top_p=0, top_k=0, seed=5, repetition_penalty=1.1, enable_thinking=False,
           skip_special_tokens=False, max_new_tokens=9)  # fmt: skip
    values = served.model.values
    sampling = values["sampling"]
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (0, 50, 5)
    assert (sampling.repetition_penalty, sampling.max_new_tokens) == (1.1, 9)
    assert sampling.top_p < 1e-5
    assert (values["enable_thinking"], values["skip_special_tokens"]) == (False, False)
    caught(lambda: answer(chat, temperature=-1), "setting_range")


def test_what_the_server_refuses_is_said_in_the_pages_language(served: Served) -> None:
    caught(lambda: answer(RemoteChat(served.url, "thekey"), "problem"), "remote_refused", "has 5 tokens")
    problem = caught(lambda: answer(RemoteChat(served.url, "thekey", "zh"), "problem"), "remote_refused")
    assert "5 个词元" in problem.sentence("zh")
    caught(lambda: answer(RemoteChat(served.url, "thekey"), "crash"), "remote_failed", "it broke")
    caught(lambda: answer(RemoteChat(served.url, "thekey"), model="gone"), "remote_model_gone", "gone")


@pytest.mark.parametrize("key", ["", SECRET])
def test_a_missing_or_wrong_key_is_said(served: Served, key: str) -> None:
    chat = RemoteChat(served.url, key)
    caught(chat.models, "remote_key_refused")
    caught(lambda: answer(chat), "remote_key_refused")


def test_stop_keeps_the_text_and_frees_the_server_within_200_ms(served: Served) -> None:
    chat = RemoteChat(served.url, "thekey")
    reply = chat.generate("base", say("slow " + "x" * 1000))
    assert next(reply) == "x"
    began = time.monotonic()
    chat.stop()
    *_, done = reply
    assert time.monotonic() - began < 0.2
    assert isinstance(done, Done)
    assert done.finish == "cancelled"
    assert served.settle(2) < 0.2
    assert answer(chat)[0] == "x"


def test_closing_the_generator_frees_the_server_within_200_ms(served: Served) -> None:
    reply = RemoteChat(served.url, "thekey").generate("base", say("slow " + "x" * 1000))
    next(reply)
    reply.close()
    assert served.settle(2) < 0.2


def test_two_replies_at_once_do_not_mix(served: Served) -> None:
    chat = RemoteChat(served.url, "thekey")
    texts = {}
    threads = [
        threading.Thread(target=lambda text=text: texts.update({text: answer(chat, f"slow {text}")[0]}))
        for text in ("aaaa", "bbbb", "cccc")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert texts == {text: text for text in ("aaaa", "bbbb", "cccc")}


def test_no_thread_and_no_file_descriptor_is_left(served: Served, odd: OddServer) -> None:
    def once() -> None:
        chat = RemoteChat(served.url, "thekey")
        chat.models()
        answer(chat)
        reply = chat.generate("base", say("slow " + "x" * 100))
        next(reply)
        reply.close()
        odd.answers("no")
        caught(RemoteChat(odd.url).models, "remote_broken")

    def left() -> tuple[int, int]:
        until = time.monotonic() + 5
        while any(thread.name == "remote-chat" for thread in threading.enumerate()):
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.1)
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    once()
    before = left()
    for _ in range(5):
        once()
    files, threads = left()
    assert files <= before[0] + 1  # a connection that the server has yet to close
    assert threads <= before[1]


def test_the_command_itself_answers(tmp_path: Path) -> None:
    build_tiny_model(tmp_path / "tiny-base")
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", "0", "--model", str(tmp_path / "tiny-base")],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "TUNEDESK_API_KEY": SECRET},
    )  # fmt: skip
    assert process.stdout is not None
    url = next(found.group() for line in process.stdout if (found := re.search(r"http://\S+/v1", line)))
    chat = RemoteChat(url.removesuffix("/v1"), SECRET)
    assert chat.models() == ["tiny-base"]
    text, done = answer(chat, "你好", "tiny-base", temperature=0, max_new_tokens=20)
    assert text
    assert 1 <= done.tokens <= 20
    assert answer(chat, "你好", "tiny-base", temperature=0, max_new_tokens=20)[0] == text
    process.send_signal(signal.SIGTERM)
    process.wait(10)


# ---- addresses and keys ----


@pytest.mark.parametrize(
    ("address", "expected"),
    [("http://host:8000", "http://host:8000/v1"), (" http://host:8000/ ", "http://host:8000/v1"),
     ("https://host/v1/", "https://host/v1"), ("HTTP://host/v1/chat/completions", "http://host/v1"),
     ("http://host/v1/models", "http://host/v1"), ("http://host/proxy/8000", "http://host/proxy/8000/v1"),
     ("https://host/api/paas/v4", "https://host/api/paas/v4"), ("http://[::1]:8000", "http://[::1]:8000/v1")],
)  # fmt: skip
def test_an_address_is_taken_as_people_paste_it(address: str, expected: str) -> None:
    assert base_url(address) == expected


@pytest.mark.parametrize(
    "address",
    ["host:8000", "ftp://host", "file:///etc/passwd", "http://", "http://host:99999", "http://host:0", "http://a b/",
     "http://user:word@host", "http://host/v1?key=1", "http://host/#x", "http：//host", "http://[::1", "javascript:alert(1)"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(address: str) -> None:
    caught(lambda: RemoteChat(address), "remote_address")


def test_no_address_is_said_to_be_missing() -> None:
    caught(lambda: RemoteChat(" "), "setting_missing", "Server address")


@pytest.mark.parametrize("key", [f"{SECRET} x", f"{SECRET}\nX: y", f"{SECRET}\x00", f"{SECRET}钥"])
def test_a_key_that_cannot_be_one_is_refused_without_showing_it(key: str) -> None:
    caught(lambda: RemoteChat("http://127.0.0.1:1", key), "api_key_form")


def test_the_key_is_in_no_log_and_no_error(odd: OddServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    chat = RemoteChat(odd.url, f" {SECRET}\n")
    odd.answers(json.dumps({"error": {"message": f"Incorrect key {SECRET} for you"}}), "400 Bad Request")
    caught(chat.models, "remote_refused", "Incorrect key … for you")
    caught(lambda: answer(chat), "remote_refused", "Incorrect key … for you")
    odd.streams(text_event("a"), f'data: {{"error": {{"message": "{SECRET}"}}}}\n\n')
    caught(lambda: answer(chat), "remote_failed")
    odd.answers(SECRET)
    caught(chat.models, "remote_broken")
    assert f"Bearer {SECRET}".encode() in odd.requests[0]
    assert caplog.records != []
    assert SECRET not in caplog.text + repr(chat) + str(chat)


# ---- servers that cannot be reached ----


def test_a_port_where_nobody_listens_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    began = time.monotonic()
    caught(RemoteChat(f"http://127.0.0.1:{port}").models, "remote_unreachable", "Connection refused")
    caught(lambda: answer(RemoteChat(f"http://127.0.0.1:{port}")), "remote_unreachable", "Connection refused")
    assert time.monotonic() - began < 2


def test_a_name_that_nobody_has_is_said() -> None:
    caught(RemoteChat("http://no.such.host.invalid").models, "remote_unreachable")


@pytest.mark.parametrize("drips", [False, True])
def test_a_server_that_says_nothing_or_never_ends_is_left_in_time(
    odd: OddServer, monkeypatch: pytest.MonkeyPatch, drips: bool
) -> None:
    assert remote_exchange.ANSWER_S == 5
    monkeypatch.setattr(remote_exchange, "ANSWER_S", 0.5)
    odd.holds, odd.pause_s = True, 0.05
    if drips:
        odd.pieces, odd.forever = [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"], b" "
    began = time.monotonic()
    caught(RemoteChat(odd.url).models, "remote_unreachable")
    assert 0.4 < time.monotonic() - began < 1.5


def test_an_address_that_drops_packets_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_exchange, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        time.sleep(0.1)
        began = time.monotonic()
        caught(lambda: answer(RemoteChat(f"http://127.0.0.1:{address[1]}")), "remote_unreachable", "no answer within")
        assert time.monotonic() - began < 1.5
        for filler in fillers:
            filler.close()


def test_a_reply_that_never_begins_can_be_stopped(odd: OddServer) -> None:
    odd.holds = True
    chat = RemoteChat(odd.url)
    parts: list[Any] = []
    reader = threading.Thread(target=lambda: parts.extend(chat.generate("m", say("hi"))))
    reader.start()
    while not odd.requests:
        time.sleep(0.005)
    began = time.monotonic()
    chat.stop()
    reader.join(5)
    assert time.monotonic() - began < 0.2
    assert [part.finish for part in parts] == ["cancelled"]


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """One for 127.0.0.1 that only itself vouches for."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


def test_tls_that_cannot_be_trusted_is_said_and_ones_own_authority_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, context = certificate(tmp_path)
    with odd_server(context) as odd:
        odd.answers('{"data": [{"id": "m"}]}')
        https = odd.url.replace("http:", "https:")
        caught(RemoteChat(https).models, "remote_certificate", "self-signed certificate")
        caught(lambda: answer(RemoteChat(https)), "remote_certificate")
        assert odd.requests == []
        with pytest.raises(Problem) as info:  # it hangs up, with or without a word
            RemoteChat(odd.url).models()
        assert info.value.code in ("remote_broken", "remote_unreachable")
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        remote_exchange._authorities.cache_clear()
        assert RemoteChat(https).models() == ["m"]
    remote_exchange._authorities.cache_clear()


def test_https_to_a_server_without_tls_is_said(served: Served) -> None:
    caught(RemoteChat(served.url.replace("http:", "https:")).models, "remote_certificate", "write http://")


def test_a_proxy_of_the_environments_is_not_asked_for_this_machine(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert RemoteChat(served.url, "thekey").models() == ["base", "mine"]
    monkeypatch.setenv("http_proxy", "socks9://127.0.0.1:9")
    caught(RemoteChat("http://192.0.2.1").models, "remote_unreachable")


# ---- servers that answer wrongly ----


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [("<html>no</html>", "404 Not Found", "remote_not_found", "ends with /v1"),
     ("{}", "401 Unauthorized", "remote_key_refused", "401"), ("{}", "403 Forbidden", "remote_key_refused", "403"),
     ('{"error": "too many"}', "429 Too Many Requests", "remote_busy", "too many"),
     ("", "503 Service Unavailable", "remote_busy", "503"),
     ("<h1>Bad\ngateway</h1>", "502 Bad Gateway", "remote_refused", "<h1>Bad gateway</h1>"),
     ("x" * 5000, "500 Oops", "remote_refused", "x…"), ("hello", "200 OK", "remote_broken", "hello"),
     ("[" * 9999, "200 OK", "remote_broken", ""), ("[]", "200 OK", "remote_broken", "names no models"),
     ('{"data": {}}', "200 OK", "remote_broken", "names no models"),
     ('{"data": [{"id": 5}, "x", null]}', "200 OK", "remote_broken", "names no models")],
)  # fmt: skip
def test_a_list_that_is_none_is_said(odd: OddServer, body: str, status: str, code: str, words: str) -> None:
    odd.answers(body, status)
    problem = caught(RemoteChat(odd.url).models, code, words)
    assert len(str(problem)) < 600


def test_a_redirect_is_told_not_followed(odd: OddServer) -> None:
    odd.answers("", "307 Temporary Redirect", head="Location: http://evil.example/v1/models\r\n")
    caught(RemoteChat(odd.url, SECRET).models, "remote_refused", "→ http://evil.example/v1/models")
    assert len(odd.requests) == 1


@pytest.mark.parametrize(
    ("pieces", "code"),
    [([text_event("a")], "remote_lost"), ([text_event("a"), "data: {"], "remote_broken"), (["data: [1]\n\n"], "remote_broken"),
     (["data: {\"choices\": [5]}\n\n"], "remote_broken"), ([event(delta={"content": 5})], "remote_broken"),
     ([event(delta={"tool_calls": [7]})], "remote_broken"), (["data: \xff\n\n".encode("latin-1")], "remote_broken"),
     ([text_event("a"), 'data: {"error": {"message": "boom"}}\n\n'], "remote_failed"),
     ([], "remote_lost")],
)  # fmt: skip
def test_a_stream_that_goes_wrong_is_said(odd: OddServer, pieces: list[str], code: str) -> None:
    odd.streams(*pieces)
    caught(lambda: answer(RemoteChat(odd.url)), code)


def test_a_line_and_a_list_without_end_are_left(odd: OddServer) -> None:
    odd.streams("data: ")
    odd.forever = b"x" * 65536
    caught(lambda: answer(RemoteChat(odd.url)), "remote_broken", "bytes")
    caught(RemoteChat(odd.url).models, "remote_broken", "bytes")


def test_an_answer_that_is_no_stream_is_said(odd: OddServer) -> None:
    odd.answers('{"choices": []}')
    caught(lambda: answer(RemoteChat(odd.url)), "remote_broken", "application/json")


def test_a_connection_that_breaks_off_keeps_what_came(odd: OddServer) -> None:
    odd.pieces = [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n" + text_event("half").encode()
    ]  # fmt: skip
    reply = RemoteChat(odd.url).generate("m", say("hi"))
    assert next(reply) == "half"
    caught(lambda: next(reply), "remote_lost")


def test_a_character_cut_in_two_by_the_network_arrives_whole(odd: OddServer) -> None:
    data = (text_event("😀你") + ": a comment\r\n\r\n" + text_event("好").replace("\n", "\r\n") + END).encode()
    odd.streams(*(data[place : place + 1] for place in range(len(data))))
    chat = RemoteChat(odd.url)
    assert list(chat.generate("m", say("hi")))[:-1] == ["😀你", "好"]
    assert answer(chat)[1].tokens == 2  # the server counts none: pieces


def test_reasoning_given_apart_comes_as_the_page_folds_it(odd: OddServer) -> None:
    for name in ("reasoning_content", "reasoning"):
        thoughts = [event(delta={name: part, "content": None}) for part in ("Let me", " see.")]
        odd.streams(*thoughts, text_event("Yes"), END)
        assert answer(RemoteChat(odd.url))[0] == "<think>Let me see.</think>\n\nYes"


def test_a_call_of_a_tool_that_comes_in_pieces_is_shown_whole(odd: OddServer) -> None:
    pieces = [{"index": 0, "id": "c", "function": {"name": "weather", "arguments": ""}}]
    pieces += [{"index": 0, "function": {"arguments": part}} for part in ('{"city": ', '"北京"}')]
    end = event(delta={}, finish_reason="tool_calls") + "data: [DONE]\n\n"
    odd.streams(*(event(delta={"tool_calls": [piece]}) for piece in pieces), end)
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    text, done = answer(RemoteChat(odd.url), tools=[tool])
    assert '{"name": "weather", "arguments": {"city": "北京"}}' in text
    assert done.finish == "stop"
    sent = json.loads(odd.requests[0].split(b"\r\n\r\n", 1)[1])
    assert sent["tools"] == [tool]


def test_the_page_process_gets_no_torch_by_it() -> None:
    code = "import sys, app.remote_chat; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
