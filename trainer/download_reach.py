"""The model hubs' addresses, and whether anything answers there, told within seconds. Light: no hub's library."""

import os
import queue
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

TIMEOUT_S = 5.0
# Before the words of the system, which are said in the user's language.
_NUMBER = re.compile(r"^\[Errno -?\d+\] ")


@dataclass(frozen=True)
class Hub:
    """`variables`: those that name another address, first come first served. `token`: where its token comes from.
    `cache`: the variable that moves its cache."""

    name: str
    variables: tuple[str, ...]
    usual: str
    token: str
    cache: str

    def address(self, environment: Mapping[str, str] = os.environ) -> str:
        """The address that the environment gives it, else its own."""
        given = next((value for name in self.variables if (value := environment.get(name, "").strip())), self.usual)
        return (given if "://" in given else f"https://{given}").rstrip("/")


HUBS = {
    "huggingface": Hub("Hugging Face", ("HF_ENDPOINT",), "https://huggingface.co", "HF_TOKEN, hf auth login", "HF_HOME"),
    "modelscope": Hub("ModelScope", ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"), "https://modelscope.cn",
                      "MODELSCOPE_API_TOKEN, modelscope login", "MODELSCOPE_CACHE"),
}  # fmt: skip


def failure(address: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """Why nothing answers at `address` within `timeout_s` and a second; None when something does."""
    # A name that resolves slowly is beyond httpx's timeouts: such a thread is left behind.
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_ask(address, timeout_s)), daemon=True).start()
    try:
        return answers.get(timeout=timeout_s + 1)
    except queue.Empty:
        return "timed out"


def _ask(address: str, timeout_s: float) -> str | None:
    try:
        httpx.head(address, timeout=timeout_s, follow_redirects=False)
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError, OSError) as error:
        return _NUMBER.sub("", str(error)) or type(error).__name__
    return None


def sends_token(hub: Hub, endpoint: str) -> bool:
    """Whether the machine's token may go to `endpoint`: to the hub itself and to what the environment names, never to an
    address that somebody has only typed."""
    known = {_origin(hub.usual), _origin(hub.address())}
    return _origin(endpoint) in known


def _origin(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc.lower()
