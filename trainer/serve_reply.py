"""A reply on its way from the model's thread to a client, and the shapes that OpenAI's clients read.

Light: torch is the model's.
"""

import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.held_calls import HeldCalls
from trainer.problems import Language, Problem
from trainer.serve_request import ChatRequest
from trainer.serve_worker import Job
from trainer.stop_strings import StopStrings
from trainer.tool_calls import Call

if TYPE_CHECKING:
    from trainer.chat_model import ChatModel
    from trainer.generate import Finish

Shape = dict[str, Any]

# code of a Problem → HTTP status and OpenAI's type of error; 400 and invalid_request_error where none is named.
_STATUS: dict[str, tuple[int, str]] = {
    "serve_key_wrong": (401, "authentication_error"),
    "serve_name_asked": (403, "permission_error"),
    "serve_nothing_there": (404, "invalid_request_error"),
    "serve_model_unknown": (404, "invalid_request_error"),
    "serve_body_large": (413, "invalid_request_error"),
    "serve_body_not_json": (415, "invalid_request_error"),
    "serve_full": (429, "rate_limit_error"),
    "chat_not_finite": (500, "server_error"),
    "python_error": (500, "server_error"),
    "chat_out_of_memory": (503, "server_error"),
    "serve_ending": (503, "server_error"),
}
# Codes that clients of OpenAI's look for.
_CODES = {
    "chat_too_long": "context_length_exceeded",
    "serve_model_unknown": "model_not_found",
    "serve_key_wrong": "invalid_api_key",
    "serve_full": "rate_limit_exceeded",
}


class Reply(Job):
    """Tells the parts of a reply in the model's thread: texts, a list of calls if it ends with some, one Finish.

    A Problem takes the place of what is left wherever it fails.
    """

    def __init__(self, request: ChatRequest, adapter: Path | None, tell: Callable[[Any], None]) -> None:
        super().__init__()
        self.request, self._adapter, self._tell = request, adapter, tell

    def run(self, model: "ChatModel") -> None:
        asked, stops = self.request, StopStrings(self.request.stop)
        held = HeldCalls() if asked.tools else None
        reply = model.reply(
            asked.messages,
            asked.sampling,
            self.cancel,
            adapter=self._adapter,
            tools=asked.tools,
            enable_thinking=asked.enable_thinking,
            skip_special_tokens=asked.skip_special_tokens,
        )
        for part in reply:
            text = stops.push(part) if isinstance(part, str) else stops.end()
            self._say(held.push(text) if held else text)
            if stops.met:
                self.cancel.set()  # the reply comes to its Finish
            if isinstance(part, str):
                continue
            if part.reason == "cancelled" and not stops.met:  # nobody reads on, unless the server ends
                raise Problem("serve_ending")
            if held:
                rest, calls = held.end()
                self._say(rest)
                if calls:
                    self._tell(calls)
            self._tell(part)

    def _say(self, text: str) -> None:
        if text:
            self._tell(text)

    def failed(self, problem: Problem) -> None:
        self._tell(problem)


class Completion:
    """The JSON objects of one answer, whole or in chunks."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": request.model}

    def whole(self, text: str, calls: list[Call], finish: "Finish") -> Shape:
        message: Shape = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message |= {"content": text.strip() or None, "tool_calls": _calls(calls)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(finish, calls)}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage(finish)}

    def chunk(self, delta: Shape, reason: str | None = None) -> Shape:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}])

    def calls_chunk(self, calls: list[Call]) -> Shape:
        return self.chunk({"tool_calls": [{"index": place, **call} for place, call in enumerate(_calls(calls))]})

    def usage_chunk(self, finish: "Finish") -> Shape:
        return {**self._chunk([]), "usage": usage(finish)}

    def _chunk(self, choices: list[Shape]) -> Shape:
        usage = {"usage": None} if self._request.include_usage else {}
        return {**self._head, "object": "chat.completion.chunk", "choices": choices, **usage}


def finish_reason(finish: "Finish", calls: list[Call]) -> str:
    """A reply that was cancelled has met a stop string."""
    return "tool_calls" if calls else "length" if finish.reason in ("length", "context") else "stop"


def _calls(calls: list[Call]) -> list[Shape]:
    """As OpenAI has them: each with a name of its own for the answer to it, its arguments as JSON text."""
    return [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
        }
        for call in calls
    ]


def usage(finish: "Finish") -> Shape:
    total = finish.prompt_tokens + finish.tokens
    return {"prompt_tokens": finish.prompt_tokens, "completion_tokens": finish.tokens, "total_tokens": total}


def error(problem: Problem, language: Language) -> tuple[int, Shape]:
    """The HTTP status, and the body as OpenAI's clients read it."""
    status, kind = _STATUS.get(problem.code, (400, "invalid_request_error"))
    about = {"type": kind, "param": problem.values.get("param"), "code": _CODES.get(problem.code, problem.code)}
    return status, {"error": {"message": problem.sentence(language), **about}}
