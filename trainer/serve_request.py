"""The body of POST /v1/chat/completions, checked: what is not understood is refused by name, never ignored.

Light: no torch. A Problem's value `param` names the field, as OpenAI's errors do.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from trainer import sampling
from trainer.problems import Problem, quoted
from trainer.sampling import Sampling
from trainer.tool_list import checked_tools

Message = dict[str, Any]

_MOST_STOPS = 16
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
# Fields of OpenAI's that decide nothing here.
_WITHOUT_EFFECT = {"user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
# Fields of OpenAI's that we have nothing for, with the values that ask for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "min_p": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True,),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
_SAMPLING = [key for key in sampling.names() if key != "max_new_tokens"]
_KNOWN = {
    "model", "messages", "stream", "stream_options", "stop", "tools", "tool_choice", "max_tokens",
    "max_completion_tokens", "enable_thinking", "chat_template_kwargs", "skip_special_tokens", *_SAMPLING,
}  # fmt: skip


@dataclass(frozen=True)
class ChatRequest:
    """What a client asks for. `tools`: None when the model is to hear of none."""

    model: str
    messages: list[Message]
    sampling: Sampling
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    tools: list[dict[str, Any]] | None = None
    enable_thinking: bool = True
    skip_special_tokens: bool = True


def parse(body: bytes, models: Collection[str]) -> ChatRequest:
    """Raises Problem. `models`: the names that are served."""
    values = {key: value for key, value in _json_object(body).items() if value is not None}
    _refuse_unsupported(values)
    model = _text(values, "model")
    if model not in models:
        choices = ", ".join(models)
        raise Problem("serve_model_unknown", value=quoted(model), choices=choices, param="model")
    return ChatRequest(
        model=model,
        messages=_messages(values.get("messages")),
        sampling=_sampling(values),
        stop=_stops(values.get("stop", [])),
        stream=_flag(values, "stream"),
        include_usage=_include_usage(values),
        tools=_tools(values),
        enable_thinking=_enable_thinking(values),
        skip_special_tokens=_flag(values, "skip_special_tokens", True),
    )


def _json_object(body: bytes) -> dict[str, Any]:
    label = {"en": "The request", "zh": "请求"}
    try:
        found = json.loads(body)
    except json.JSONDecodeError as error:
        raise Problem("json_broken", label=label, line=error.lineno, column=error.colno, detail=error.msg) from None
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, a thousand brackets
        raise Problem("json_broken", label=label, line=1, column=1, detail=str(error)) from None
    if not isinstance(found, dict):
        raise _wrong("body", found, "an object", "对象")
    return found


def _refuse_unsupported(values: dict[str, Any]) -> None:
    for key, value in values.items():
        if key in _NEUTRAL:
            if not any(type(value) in (type(neutral), float) and value == neutral for neutral in _NEUTRAL[key]):
                neutral = json.dumps(_NEUTRAL[key][0])
                raise Problem("serve_unsupported", field=key, value=quoted(value), neutral=neutral, param=key)
        elif key not in _KNOWN | _WITHOUT_EFFECT:
            nothing = {"en": "", "zh": ""}
            raise Problem("setting_unknown", key=quoted(key), value=quoted(value), suggestion=nothing, param=key)


def _sampling(values: dict[str, Any]) -> Sampling:
    """Each value by itself, so that the error can name its field."""
    chosen: dict[str, Any] = {}
    fields = {key: key for key in _SAMPLING} | {
        "max_tokens": "max_new_tokens",
        "max_completion_tokens": "max_new_tokens",
    }
    for field, key in fields.items():
        if field not in values:
            continue
        value = 0 if field == "top_k" and values[field] == -1 else values[field]  # vLLM's word for no limit
        try:
            chosen[key] = getattr(sampling.parse({key: value}), key)
        except Problem as problem:
            # As its client wrote it.
            problem.values |= {"param": field, "label": field, "value": quoted(values[field])}
            raise
    return Sampling(**chosen)


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > _MOST_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise _wrong("stop", value, f"a text that is not empty, or a list of at most {_MOST_STOPS} of them",
                     f"非空的文字，或最多 {_MOST_STOPS} 个这样的文字")  # fmt: skip
    return tuple(stops)


def _include_usage(values: dict[str, Any]) -> bool:
    options = values.get("stream_options", {})
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise _wrong("stream_options", options, '{"include_usage": true}', ' {"include_usage": true}')
    return _flag(options, "include_usage")


def _enable_thinking(values: dict[str, Any]) -> bool:
    given = values.get("chat_template_kwargs", {})
    if not isinstance(given, dict) or set(given) - {"enable_thinking"}:
        raise _wrong("chat_template_kwargs", given, '{"enable_thinking": …}', ' {"enable_thinking": …}')
    return _flag(values | given, "enable_thinking", True)


# ---- messages and tools ----


def _messages(value: Any) -> list[Message]:
    if not value:
        raise Problem("setting_missing", label="messages", param="messages")
    if not isinstance(value, list):
        raise _wrong("messages", value, "a list", "列表")
    return [_message(item, f"messages[{place}]") for place, item in enumerate(value)]


def _message(item: Any, field: str) -> Message:
    """A message as chat templates take it. Fields that say nothing (null, []) are what the client echoes of ours."""
    if not isinstance(item, dict):
        raise _wrong(field, item, "an object with role and content", "含 role 和 content 的对象")
    given = {key: value for key, value in item.items() if value not in (None, [])}
    role = given.pop("role", None)
    if not isinstance(role, str) or role not in _ROLES:
        raise _wrong(f"{field}.role", role, f"one of {', '.join(_ROLES)}", f" {'、'.join(_ROLES)} 之一")
    calls = given.pop("tool_calls", []) if role == "assistant" else []
    content = given.pop("content", "")
    if not calls and "content" not in item:
        raise Problem("setting_missing", label=f"{field}.content", param="messages")
    message: Message = {"role": _ROLES[role], "content": _content(content, f"{field}.content")}
    if calls:
        message["tool_calls"] = [_call(call, f"{field}.tool_calls") for call in _list(calls, f"{field}.tool_calls")]
    for key, value in given.items():
        if key not in ("name", "tool_call_id") or not isinstance(value, str):
            nothing = {"en": "", "zh": ""}
            raise Problem("setting_unknown", key=quoted(f"{field}.{key}"), value=quoted(value), suggestion=nothing,
                          param="messages")  # fmt: skip
        message[key] = value
    return message


def _content(value: Any, field: str) -> str:
    """Text as it is, or the text parts joined."""
    parts = [{"type": "text", "text": value}] if isinstance(value, str) else value
    texts = []
    for part in _list(parts, field):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise _wrong(field, part, "text", "文字")
        texts.append(part["text"])
    # Half of an emoji, as clients that count in UTF-16 cut it, is no text to a tokenizer.
    return "".join(texts).encode("utf-8", "replace").decode("utf-8")


def _call(value: Any, field: str) -> dict[str, Any]:
    """A call as templates take it: its arguments an object, where OpenAI has their JSON text."""
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _wrong(field, value, 'like {"type": "function", "function": {"name": …}}', "函数调用")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise _wrong(f"{field}.function.arguments", arguments, "JSON", " JSON") from None
    if not isinstance(arguments, dict):
        raise _wrong(f"{field}.function.arguments", arguments, "a JSON object", " JSON 对象")
    identity = {"id": value["id"]} if isinstance(value.get("id"), str) else {}
    return {**identity, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _tools(values: dict[str, Any]) -> list[dict[str, Any]] | None:
    choice = values.get("tool_choice", "auto")
    if choice not in ("auto", "none"):
        raise Problem(
            "serve_unsupported", field="tool_choice", value=quoted(choice), neutral='"auto"', param="tool_choice"
        )
    try:
        tools = checked_tools(_without_nulls(values.get("tools")))
    except Problem as problem:
        problem.values["param"] = "tools"
        raise
    return tools if choice == "auto" else None


def _without_nulls(tools: Any) -> Any:
    """Some clients write null for a description or parameters that there are not."""

    def kept(value: Any) -> Any:
        return {key: one for key, one in value.items() if one is not None} if isinstance(value, dict) else value

    if not isinstance(tools, list):
        return tools
    return [tool | {"function": kept(tool["function"])} if isinstance(tool, dict) and "function" in tool else kept(tool)
            for tool in tools]  # fmt: skip


# ---- plain values ----


def _text(values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    if value is None:
        raise Problem("setting_missing", label=key, param=key)
    if not isinstance(value, str):
        raise Problem("setting_not_text", label=key, value=quoted(value), param=key)
    return value


def _flag(values: dict[str, Any], key: str, default: bool = False) -> bool:
    value = values.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise Problem("setting_not_boolean", label=key, value=quoted(value), param=key)
    return value


def _list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(field, value, "a list", "列表")
    return value


def _wrong(field: str, value: Any, en: str, zh: str) -> Problem:
    needed = {"en": en, "zh": zh}
    return Problem("serve_field", field=field, value=quoted(value), needed=needed, param=field.partition("[")[0])
