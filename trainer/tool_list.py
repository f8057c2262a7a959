"""The list of tools that a user writes: JSON, checked by name, in the shape that chat templates take. Light: no torch."""

import json
from typing import Any

from trainer.problems import Problem, quoted

LABEL = {"en": "Tools", "zh": "工具列表"}


def parse_tools(text: str) -> list[dict[str, Any]] | None:
    """None for an empty text. Raises Problem with line and column for what is no JSON, as checked_tools for the rest."""
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise Problem("json_broken", label=LABEL, line=error.lineno, column=error.colno, detail=error.msg) from None
    except RecursionError:
        raise _wrong(1, "[[[…", {"en": "less nesting", "zh": "可读的结构：嵌套太深"}) from None
    except ValueError:  # a number of thousands of digits
        raise Problem("tools_not_list", label=LABEL, value=quoted(text)) from None
    return checked_tools(value)


def checked_tools(value: Any) -> list[dict[str, Any]] | None:
    """[{"type": "function", "function": {name, description, parameters}}]; the inner objects alone will do as well.

    None for no tools. Raises Problem that names the tool and what is wrong with it.
    """
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise Problem("tools_not_list", label=LABEL, value=quoted(_shown(value)))
    found: list[dict[str, Any]] = []
    for number, item in enumerate(value, 1):
        inner = item.get("function", item) if isinstance(item, dict) else item
        _check(number, item, inner)
        found.append({"type": "function", "function": {"description": "", "parameters": _NOTHING, **inner}})
    names = [item["function"]["name"] for item in found]
    for number, name in enumerate(names, 1):
        if name in names[: number - 1]:
            raise _wrong(number, name, {"en": "a name of its own", "zh": "与其他工具不同的 name"})
    return found


_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


def _check(number: int, item: Any, inner: Any) -> None:
    if not isinstance(inner, dict):
        raise _wrong(number, _shown(item), {"en": "a JSON object", "zh": " JSON 对象"})
    if item.get("type", "function") != "function" and "function" in item:
        raise _wrong(number, _shown(item["type"]), {"en": '"type": "function"', "zh": ' "type": "function"'})
    if not isinstance(inner.get("name"), str) or not inner["name"].strip():
        raise _wrong(number, _shown(inner), {"en": "a name, which is text", "zh": " name（文字）"})
    if not isinstance(inner.get("description", ""), str):
        raise _wrong(number, inner["name"], {"en": "a description that is text", "zh": " description（文字）"})
    schema = inner.get("parameters", _NOTHING)
    if not isinstance(schema, dict) or not isinstance(schema.get("properties", {}), dict):
        raise _wrong(number, inner["name"], {"en": "parameters that are a JSON schema of an object",
                                             "zh": " parameters（对象的 JSON Schema）"})  # fmt: skip


def _wrong(number: int, value: str, wanted: dict[str, str]) -> Problem:
    return Problem("tools_wrong", label=LABEL, number=number, value=quoted(value), wanted=wanted)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
