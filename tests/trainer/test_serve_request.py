"""Bodies of /v1/chat/completions: what is taken, and that everything else is refused by name."""

import json
import random
from typing import Any

import pytest

from trainer.held_calls import HeldCalls
from trainer.problems import Problem
from trainer.serve_request import ChatRequest, parse
from trainer.stop_strings import StopStrings

USER = {"role": "user", "content": "你好"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "北京"}'}}


def parsed(**values: Any) -> ChatRequest:
    return parse(json.dumps({"model": "m", "messages": [USER], **values}).encode(), ["m", "other"])


def test_what_is_left_out_is_as_in_the_chat_tab() -> None:
    found = parsed()
    assert found == parsed(temperature=None, stop=None, tools=None, stream=None, max_tokens=None, logit_bias=None)
    assert (found.sampling.max_new_tokens, found.sampling.temperature, found.stream) == (1024, 0.95, False)
    assert (found.stop, found.tools, found.enable_thinking) == ((), None, True)


@pytest.mark.parametrize(
    "values",
    [{"n": 1}, {"n": 1.0}, {"logprobs": False}, {"top_logprobs": 0}, {"frequency_penalty": 0.0}, {"logit_bias": {}},
     {"response_format": {"type": "text"}}, {"parallel_tool_calls": True}, {"user": "me"}, {"metadata": {"a": "b"}},
     {"tools": []}, {"tool_choice": "auto"}, {"tools": [TOOL], "tool_choice": "none"}, {"service_tier": "auto"},
     {"modalities": ["text"]}, {"functions": []}],
)  # fmt: skip
def test_fields_that_ask_for_nothing_are_accepted(values: dict[str, Any]) -> None:
    assert parsed(**values) == parsed()


@pytest.mark.parametrize(
    ("values", "code", "param"),
    [({"n": 2}, "serve_unsupported", "n"), ({"n": True}, "serve_unsupported", "n"),
     ({"logprobs": True}, "serve_unsupported", "logprobs"), ({"top_logprobs": 3}, "serve_unsupported", "top_logprobs"),
     ({"frequency_penalty": 0.5}, "serve_unsupported", "frequency_penalty"),
     ({"response_format": {"type": "json_object"}}, "serve_unsupported", "response_format"),
     ({"tool_choice": "required", "tools": [TOOL]}, "serve_unsupported", "tool_choice"),
     ({"temprature": 1}, "setting_unknown", "temprature"), ({"functions": [TOOL]}, "serve_unsupported", "functions"),
     ({"modalities": ["text", "audio"]}, "serve_unsupported", "modalities"),
     ({"temperature": -1}, "setting_range", "temperature"), ({"top_p": 2}, "setting_range", "top_p"),
     ({"max_tokens": 0}, "setting_range", "max_tokens"), ({"max_tokens": 1.5}, "setting_not_integer", "max_tokens"),
     ({"max_completion_tokens": "x"}, "setting_not_number", "max_completion_tokens"),
     ({"seed": [1]}, "setting_not_number", "seed"), ({"stop": 5}, "serve_field", "stop"),
     ({"stop": ""}, "serve_field", "stop"), ({"stop": [""]}, "serve_field", "stop"), ({"stop": ["x"] * 17}, "serve_field", "stop"),
     ({"stream": "yes"}, "setting_not_boolean", "stream"), ({"stream_options": {"a": 1}}, "serve_field", "stream_options"),
     ({"enable_thinking": "no"}, "setting_not_boolean", "enable_thinking"),
     ({"chat_template_kwargs": {"other": 1}}, "serve_field", "chat_template_kwargs"),
     ({"model": 5}, "setting_not_text", "model"), ({"model": None}, "setting_missing", "model"),
     ({"model": "gone"}, "serve_model_unknown", "model"),
     ({"tools": {}}, "tools_not_list", "tools"), ({"tools": [{"type": "function"}]}, "tools_wrong", "tools"),
     ({"messages": []}, "setting_missing", "messages"), ({"messages": "hi"}, "serve_field", "messages"),
     ({"messages": ["hi"]}, "serve_field", "messages"),
     ({"messages": [{"role": "robot", "content": "x"}]}, "serve_field", "messages"),
     ({"messages": [{"role": ["user"], "content": "x"}]}, "serve_field", "messages"),
     ({"messages": [{"role": "user"}]}, "setting_missing", "messages"),
     ({"messages": [{"role": "user", "content": 5}]}, "serve_field", "messages"),
     ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "serve_field", "messages"),
     ({"messages": [{**USER, "audio": {"id": 1}}]}, "setting_unknown", "messages"),
     ({"messages": [{"role": "assistant", "content": None, "tool_calls": [1]}, USER]}, "serve_field", "messages"),
     ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
      "serve_field", "messages")],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(values: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(Problem) as caught:
        parsed(**values)
    assert (caught.value.code, caught.value.values["param"]) == (code, param)
    assert "?" not in caught.value.sentence("zh").replace("`?", "")


def test_messages_come_as_templates_take_them() -> None:
    echoed = {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "annotations": []}
    answer = {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "晴"}]}
    found = parsed(messages=[{"role": "developer", "content": "Be brief."}, USER, echoed, answer]).messages
    assert [message["role"] for message in found] == ["system", "user", "assistant", "tool"]
    assert found[2]["content"] == ""
    assert found[2]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "北京"}}
    assert (found[3]["content"], found[3]["tool_call_id"]) == ("晴", "call_1")


def test_a_tool_may_have_nulls_for_what_it_lacks() -> None:
    bare = {"type": "function", "function": {"name": "weather", "description": None, "parameters": None}}
    assert parsed(tools=[bare]) == parsed(tools=[{"type": "function", "function": {"name": "weather"}}])
    kept = {"name": "f", "parameters": {"type": "object", "properties": {"x": {"default": None}}}}
    (tool,) = parsed(tools=[{"type": "function", "function": kept}]).tools or []
    assert tool["function"]["parameters"] == kept["parameters"]


def test_thinking_can_be_switched_off_in_two_ways() -> None:
    assert not parsed(enable_thinking=False).enable_thinking
    assert not parsed(chat_template_kwargs={"enable_thinking": False}).enable_thinking
    assert parsed(chat_template_kwargs={}).enable_thinking


@pytest.mark.parametrize("stops", [["ab"], ["abc", "b"], ["aab", "abb", "c"], ["aaaa"], ["cba", "bac", "x"]])
def test_stop_strings_cut_where_searching_the_whole_text_cuts(stops: list[str]) -> None:
    chance = random.Random(5)
    for _ in range(300):
        text = "".join(chance.choice("abc") for _ in range(chance.randrange(12)))
        cut = StopStrings(stops)
        shown, rest = "", text
        while rest:
            size = chance.randrange(1, 4)
            shown += cut.push(rest[:size])
            rest = rest[size:]
            places = [place for stop in stops if (place := text[: len(text) - len(rest)].find(stop)) >= 0]
            assert cut.met == bool(places)
            if places:
                break
        shown += cut.end()
        assert shown == (text[: min(places)] if text and places else text)


@pytest.mark.parametrize(
    ("text", "said", "names"),
    [("plain <b>text</b> [1] {2}", "plain <b>text</b> [1] {2}", []), ("", "", []), ("  \n", "  \n", []),
     ('a <tool_call>{"name": "f"}</tool_call> b', "a b", ["f"]),
     ('<think>{"name": "f"}</think>\n\n{"name": "g", "parameters": {}}', '<think>{"name": "f"}</think>', ["g"]),
     ('[TOOL_CALLS][{"name": "f", "arguments": {}}, {"name": "g"}]', "", ["f", "g"]),
     ('<|python_tag|>{"name": "f", "parameters": {}}', "", ["f"]), ('{"answer": 42}', '{"answer": 42}', []),
     ('f\n{"a": 1}', "", ["f"]), ('a<|action_start|><|plugin|>\n{"name": "f", "parameters": {}}<|action_end|>', "a", ["f"]),
     ("Hi", "Hi", []), ("see\n{a}\nb", "see\n{a}\nb", []),
     ("x <tool_call>{", "x <tool_call>{", []), ("1 <tool", "1 <tool", [])],
)  # fmt: skip
def test_what_is_said_besides_calls_passes_whatever_the_pieces(text: str, said: str, names: list[str]) -> None:
    for size in (1, 2, 3, 7, 1000):
        held = HeldCalls()
        passed = [held.push(text[place : place + size]) for place in range(0, len(text), size)]
        rest, calls = held.end()
        assert "".join(passed) + rest == said
        assert [call.name for call in calls] == names
        assert not any("<tool_call>" in piece for piece in passed)
    held = HeldCalls()
    assert "".join(held.push(letter) for letter in "Good morning, how are you") == "Good morning, how are you"
