"""Client of any OpenAI-compatible server (vLLM, vLLM-Ascend, SGLang, `tunedesk serve`) for the Chat tab.

    server = RemoteChat("http://10.0.0.5:8000", api_key, language)     Problem at once for a bad address or key
    server.models()                                                    names for a dropdown
    for part in server.generate(name, messages, temperature=0.7): …    as ChatProcess.generate: texts, then a Done
    server.stop()                                                      ends the replies being written

Holds the key in memory only. Never imports torch.
"""

import re
import threading
from collections.abc import Generator
from typing import Any
from urllib.parse import urlsplit

from app.chat import Done
from app.remote_exchange import Exchange, Remote
from app.remote_reply import reply
from app.text import both
from trainer import sampling
from trainer.problems import Language, Problem, quoted

_MOST_NAMES = 1000


class RemoteChat:
    """Safe to use from several threads. Asks nothing until it is told to; keeps no connection."""

    def __init__(self, address: str, api_key: str = "", language: Language = "en") -> None:
        """`language`: of the words that the server itself may say. Raises Problem remote_address,
        setting_missing, api_key_form."""
        key = (api_key or "").strip()
        # A client library would quote such a key in its error.
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise Problem("api_key_form")
        self.url = base_url(address)
        self._remote = Remote(self.url, key, language)
        self._lock = threading.Lock()
        self._replies: set[Exchange] = set()

    def models(self) -> list[str]:
        """The names that the server answers to, in its order. Raises Problem, within 5 s whatever it does."""
        found = self._remote.get_json("/models")
        entries = found.get("data") if isinstance(found, dict) else None
        given = [entry.get("id") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        names = [name for name in given if isinstance(name, str)]
        if not names:
            detail = {"en": "it names no models", "zh": "没有给出模型名"}
            raise Problem("remote_broken", url=f"{self.url}/models", detail=detail)
        return names[:_MOST_NAMES]

    def generate(
        self,
        model: str,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        enable_thinking: bool = True,
        skip_special_tokens: bool = True,
        **values: Any,
    ) -> Generator[str | Done, None, None]:
        """Text as it comes, then one Done, its times measured here. Closing the generator early ends the reply.

        `values`: Sampling's. Reasoning that the server gives apart comes as <think>…</think>, calls of tools as
        <tool_call>{…}</tool_call>. Raises Problem: a value out of range, or what the server or the way to it meets.
        """
        body = _body(model, messages, tools, enable_thinking, skip_special_tokens, sampling.parse(values))
        exchange = Exchange(lambda tell: reply(self._remote, body, tell))
        with self._lock:
            self._replies.add(exchange)
        try:
            for part in exchange.parts():
                yield part
                if isinstance(part, Done):
                    return
            yield Done("cancelled")  # before it had begun
        finally:
            exchange.cancel()
            with self._lock:
                self._replies.discard(exchange)

    def stop(self) -> None:
        """Ends the replies being written: their generators give Done("cancelled"), and their texts stay."""
        with self._lock:
            for exchange in self._replies:
                exchange.cancel()


def base_url(address: str) -> str:
    """The address that paths are appended to: scheme, host, port and path, which ends with /v1 where it names none.

    Whatever of OpenAI's paths was pasted along is cut off. Raises Problem remote_address, setting_missing.
    """
    given = (address or "").strip()
    if not given:
        raise Problem("setting_missing", label=both("server.url"))
    # A password or a key in it is not to be read out.
    problem = Problem("remote_address", value=quoted(re.sub(r"//[^/]*@|\?.*", "…", given, flags=re.DOTALL)))
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        raise problem from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or port == 0:
        raise problem
    if parts.username is not None or parts.query or parts.fragment or any(c.isspace() for c in given):
        raise problem
    path = parts.path.rstrip("/")
    for end in ("/chat/completions", "/models"):
        path = path.removesuffix(end)
    version = path.rpartition("/")[2]
    if not (version[:1] == "v" and version[1:].isdigit()):
        path += "/v1"
    return f"{parts.scheme.lower()}://{parts.netloc}{path}"


def _body(
    model: str,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    enable_thinking: bool,
    skip_special_tokens: bool,
    chosen: sampling.Sampling,
) -> dict[str, Any]:
    """Fields that not every server knows are sent only where they say something."""
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": chosen.max_new_tokens,
        "temperature": chosen.temperature,
        # 0, which here means the likeliest token alone, is out of range elsewhere.
        "top_p": max(chosen.top_p, 1e-6),
    }
    extras: dict[str, tuple[bool, Any]] = {
        "seed": (chosen.seed >= 0, chosen.seed),
        "top_k": (chosen.top_k > 0, chosen.top_k),
        "repetition_penalty": (chosen.repetition_penalty != 1, chosen.repetition_penalty),
        "chat_template_kwargs": (not enable_thinking, {"enable_thinking": False}),
        "skip_special_tokens": (not skip_special_tokens, False),
        "tools": (bool(tools), tools),
    }
    return body | {key: value for key, (said, value) in extras.items() if said}
