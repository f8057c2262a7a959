"""Calls that models write, in each family's way, and the tool lists that users write."""

import json
from typing import Any

import pytest

from trainer.compare import columns_of, failing, in_turn
from trainer.problems import Problem
from trainer.tool_calls import Call, parse
from trainer.tool_list import parse_tools

RAIN = Call("get_weather", {"city": "北京"})
TIME = Call("get_time")
AS_JSON = '{"name": "get_weather", "arguments": {"city": "北京"}}'
_AS_PARAMETERS = AS_JSON.replace("arguments", "parameters")
CALLS = {
    "hermes": (f"<tool_call>\n{AS_JSON}\n</tool_call>", "", [RAIN]),
    "text before": (f"我来查一下。\n<tool_call>\n{AS_JSON}\n</tool_call>", "我来查一下。", [RAIN]),
    "two": (f'<tool_call>{AS_JSON}</tool_call>\n<tool_call>{{"name": "get_time", "arguments": {{}}}}</tool_call>', "", [RAIN, TIME]),
    "cut off at its end": (f"<tool_call>\n{AS_JSON}", "", [RAIN]),
    "arguments as text": ('<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"北京\\"}"}</tool_call>', "", [RAIN]),
    "a mark inside an argument": ('<tool_call>{"name": "say", "arguments": {"text": "</tool_call> <tool_call>{"}}</tool_call>', "",
                                  [Call("say", {"text": "</tool_call> <tool_call>{"})]),
    "after a thought": (f"<think>\nI could <tool_call>\n</think>\n\n<tool_call>{AS_JSON}</tool_call>", "<think>\nI could <tool_call>\n</think>", [RAIN]),
    "llama 3": ('{"name": "get_weather", "parameters": {"city": "北京"}}', "", [RAIN]),
    "llama 3, tagged": ('<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "北京"}}', "", [RAIN]),
    "llama 3, several": ('{"name": "get_weather", "parameters": {"city": "北京"}}; {"name": "get_time", "parameters": {}}', "", [RAIN, TIME]),
    "mistral": (f"[TOOL_CALLS][{AS_JSON}]", "", [RAIN]),
    "mistral, its mark skipped": (f" [{AS_JSON}]", "", [RAIN]),
    "mistral, newer": ('好的[TOOL_CALLS]get_weather[ARGS]{"city": "北京"}[TOOL_CALLS]get_time{}', "好的", [RAIN, TIME]),
    "internlm2": (f"I look.<|action_start|><|plugin|>\n{_AS_PARAMETERS}<|action_end|><|action_start|><|plugin|>\n"
                  '{"name": "get_time", "parameters": {}}<|action_end|>', "I look.", [RAIN, TIME]),
    "internlm2, its marks skipped": (f"\n{_AS_PARAMETERS}", "", [RAIN]),
    "deepseek-r1": ('I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "北京"}\n```'
                    '<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
                    "I look.", [RAIN, TIME]),
    "deepseek, newer": ('<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "北京"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
                        "", [RAIN]),
    "deepseek-r1, cut off": ('<think>a</think>\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "北京"}',
                             "<think>a</think>", [RAIN]),
    "glm4": ('get_weather\n{"city": "北京"}', "", [RAIN]),
    "glm4, several": ('\nI look.<|assistant|>get_weather\n{"city": "北京"}<|assistant|>get_time\n{}', "I look.", [RAIN, TIME]),
}  # fmt: skip
TEXTS = [
    "", "你好", "{", '{"name": "张三"}', '{"name": "x", "parameters": {}, "more": 1}', "[1, 2]", "[]", '{"parameters": {}}', '"name"',
    '<tool_call>{"name": "x", "arguments": </tool_call>', "<tool_call></tool_call>", '<tool_call>{"name": 1}</tool_call>',
    '<tool_call>{"name": "x", "arguments": [1]}</tool_call>', "[TOOL_CALLS]", "[TOOL_CALLS][1]", "[TOOL_CALLS]x", "<|python_tag|>print(1)",
    f"<think><tool_call>{AS_JSON}</tool_call></think> no", f"The JSON is {AS_JSON}", "[" * 100_000, f"{AS_JSON} {{",
    'JSON\n{"a": 1}', 'package.json\n{"a": 1}', 'The result is\n{"a": 1}', 'get_weather\n{"city": "北京"} and so on', "get_weather\n{", "get_weather\n[1]",
    '你好\n{"a": 1}', "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>x\n```json\n{",
    "<｜tool▁call▁begin｜>x<｜tool▁sep｜>[1]<｜tool▁call▁end｜>", "<|action_start|><|plugin|>\n{}<|action_end|>", "<|action_start|><|interpreter|>\nprint(1)",
]  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_recognised_in_every_familys_way(name: str) -> None:
    text, content, calls = CALLS[name]
    assert parse(text) == (content, calls)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_what_is_no_whole_call_stays_text(text: str) -> None:
    assert parse(text) == (text, [])


def test_a_call_is_a_part_of_a_message_as_templates_take_it() -> None:
    function = {"name": "get_weather", "arguments": {"city": "北京"}}
    assert RAIN.as_message_part() == {"type": "function", "function": function}


BARE: dict[str, Any] = {"name": "get_weather", "description": "d", "parameters": {"type": "object", "properties": {}}}


def test_a_tool_list_is_taken_with_and_without_its_wrapping_and_with_what_may_be_left_out() -> None:
    wrapped = {"type": "function", "function": BARE}
    assert parse_tools(json.dumps([wrapped])) == parse_tools(json.dumps([BARE])) == [wrapped]
    assert parse_tools('[{"name": "x"}]') == [
        {"type": "function", "function": {"name": "x", "description": "", "parameters": {"type": "object", "properties": {}}}}
    ]  # fmt: skip
    assert parse_tools(" \n") is None


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000, '{"a":' * 100_000, "[" + "9" * 5000 + "]"])
def test_tools_that_no_reader_of_json_can_take_are_refused_in_words(text: str) -> None:
    with pytest.raises(Problem):
        parse_tools(text)
    assert parse_tools("[]") is None


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [('[\n  {"name": "x",}\n]', "json_broken", ("第 2 行第 ", "工具列表")), ("[{]", "json_broken", ("第 1 行第 3 列",)),
     ('{"name": "x"}', "tools_not_list", ('{"name": "x"}',)), ("3", "tools_not_list", ("`3`",)),
     ("[1]", "tools_wrong", ("第 1 个", "JSON 对象")), ('[{"name": "x"}, {"nome": "y"}]', "tools_wrong", ("第 2 个", "name")),
     ('[{"name": "x", "parameters": []}]', "tools_wrong", ("`x`", "parameters")), ('[{"name": ""}]', "tools_wrong", ("name",)),
     ('[{"name": "x", "parameters": {"properties": 1}}]', "tools_wrong", ("parameters",)),
     ('[{"name": "x", "description": 1}]', "tools_wrong", ("description",)), ('[{"type": "x", "function": {"name": "x"}}]', "tools_wrong", ("type",)),
     ('[{"name": "x"}, {"name": "x"}]', "tools_wrong", ("第 2 个", "`x`")), ("[" * 10**5, "tools_wrong", ("第 1 个",))],
)  # fmt: skip
def test_a_bad_tool_list_is_refused_with_its_place_and_name(text: str, code: str, words: tuple[str, ...]) -> None:
    with pytest.raises(Problem) as caught:
        parse_tools(text)
    assert caught.value.code == code
    sentence = caught.value.sentence("zh")
    assert all(word in sentence for word in words), sentence
    assert "Tools" in caught.value.sentence("en")


def test_replies_come_in_turn_those_that_must_be_alone_last_and_a_failure_ends_one() -> None:
    def reply(text: str) -> Any:
        yield from text

    error = ValueError("x")
    parts = list(in_turn([reply("abc"), failing(error), reply("de"), reply("fg")], [True, False, False, False]))
    assert parts == [(1, error), (2, "d"), (3, "f"), (2, "e"), (3, "g"), (0, "a"), (0, "b"), (0, "c")]


def test_replies_are_closed_with_whoever_reads_them() -> None:
    closed = []

    def reply(number: int) -> Any:
        try:
            yield from range(9)
        finally:
            closed.append(number)

    parts = in_turn([reply(0), reply(1)], [False, False])
    next(parts)
    next(parts)
    parts.close()  # type: ignore[attr-defined]
    assert closed == [0, 1]


def test_a_request_without_columns_is_one_with_the_loaded_adapter() -> None:
    assert columns_of({}, None) == [None]
    with pytest.raises(Problem, match="columns"):
        columns_of({"columns": "x"}, None)
