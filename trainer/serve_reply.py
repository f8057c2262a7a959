"""A reply on its way from the model's thread to a client, and the shapes that OpenAI's clients read.

Light: torch is the model's.
"""

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.held_calls import HeldCalls
from trainer.model_folder import check_adapter_folder
from trainer.problems import LANGUAGES, Language, Problem, quoted
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
    "serve_wrong_method": (405, "invalid_request_error"),
    "serve_body_large": (413, "invalid_request_error"),
    "serve_body_not_json": (415, "invalid_request_error"),
    "serve_full": (429, "rate_limit_error"),
    "chat_not_finite": (500, "server_error"),
    "python_error": (500, "server_error"),
    "adapter_mismatch": (503, "server_error"),
    "chat_out_of_memory": (503, "server_error"),
    "serve_model_lost": (503, "server_error"),
    "serve_ending": (503, "server_error"),
}
# Codes that clients of OpenAI's look for.
_CODES = {
    "serve_too_long": "context_length_exceeded",
    "serve_model_unknown": "model_not_found",
    "serve_key_wrong": "invalid_api_key",
    "serve_full": "rate_limit_exceeded",
}
# What is wrong with a request, as the chat says it → as its client reads it, and the field that it is about.
_OF_A_REQUEST = {
    "chat_empty": ("serve_nothing_asked", "messages"),
    "chat_too_long": ("serve_too_long", "messages"),
    "template_failed": ("serve_template", "messages"),
    "tools_unsupported": ("tools_unsupported", "tools"),
}


class Reply(Job):
    """Tells the parts of a reply in the model's thread: texts, a list of calls if it ends with some, one Finish.

    A Problem takes the place of what is left wherever it fails.
    """

    def __init__(self, request: ChatRequest, adapter: Path | None, tell: Callable[[Any], None]) -> None:
        super().__init__()
        self.request, self._adapter, self._tell = request, adapter, tell
        self._space = ""

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
            self._say(held.push(text) if held else text, keep_space=held is not None)
            if stops.met:
                self.cancel.set()  # the reply comes to its Finish
            if isinstance(part, str):
                continue
            if part.reason == "cancelled" and not stops.met:  # nobody reads on, unless the server ends
                raise Problem("serve_ending")
            if held:
                rest, calls = held.end()
                self._say(rest, keep_space=bool(calls))
                if calls:
                    self._tell(calls)
            self._tell(replace(part, reason="stop") if stops.met else part)

    def _say(self, text: str, *, keep_space: bool) -> None:
        """With `keep_space`, white space at the end waits for what comes: between words and a call it says nothing."""
        text = self._space + text
        said = text.rstrip() if keep_space else text
        self._space = text[len(said) :]
        if said:
            self._tell(said)

    def failed(self, problem: Problem) -> None:
        self._tell(problem if problem.code == "serve_ending" else self._lost() or _of_the_request(problem))

    def _lost(self) -> Problem | None:
        """What to say where the adapter's folder is not what it was when the server started."""
        try:
            if self._adapter is not None:
                check_adapter_folder(self._adapter)
        except Problem as problem:
            reason = {language: problem.sentence(language) for language in LANGUAGES}
            return Problem("serve_model_lost", value=quoted(self.request.model), reason=reason, param="model")
        return None


def _of_the_request(problem: Problem) -> Problem:
    code, param = _OF_A_REQUEST.get(problem.code, (problem.code, None))
    return Problem(code, **problem.values | ({"param": param} if param else {}))


class Completion:
    """The JSON objects of one answer, whole or in chunks."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": request.model}

    def whole(self, text: str, calls: list[Call], finish: "Finish") -> Shape:
        message: Shape = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message |= {"content": text or None, "tool_calls": _calls(calls)}
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
