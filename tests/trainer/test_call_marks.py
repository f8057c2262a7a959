"""Calls of tools written in tokens that a tokenizer marks as special: from the model's ids to the call."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from tests.tiny import CHATML, build_tiny_tokenizer
from tests.trainer.families import IGNORED, KNOW_TOOLS, MARKUP, TOOL_MARKUP, TOOLS, call, template_of
from tests.trainer.scripted import build_scripted_model
from trainer.detokenizer import Detokenizer
from trainer.held_calls import HeldCalls
from trainer.sampling import Sampling
from trainer.serve_reply import Reply, finish_reason
from trainer.serve_request import parse as parse_request
from trainer.tool_calls import Call, parse

CALLS = [call("get_weather", city="北京", days=2), call("search")]
PIECES = ["I look.", "<|action_start|>", "<|plugin|>", '{"name": "search", "parameters": {}}', "<|action_end|>"]
KNOWS_TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}" + CHATML


def written(template: Any, said: str, calls: list[dict[str, Any]]) -> list[int]:
    """The ids that the model is trained to write, up to the one that ends its answer."""
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": said, "tool_calls": calls}]
    labels = template.encode(messages, cutoff_len=10_000, tools=TOOLS).labels
    answer = [token for token in labels if token != IGNORED]
    ends = [place for place, token in enumerate(answer) if token in template.stop_token_ids]
    return answer[: min(ends, default=len(answer))]


def streamed(tokenizer: Any, ids: list[int], **values: Any) -> list[str]:
    stream = Detokenizer(tokenizer, **values)
    return [*(stream.push(token) for token in ids), stream.end()]


@pytest.mark.parametrize("said", ["", "我来查一下。", "<think>\nhm\n</think>\n\nok"])
@pytest.mark.parametrize("name", KNOW_TOOLS)
def test_a_call_after_spoken_text_is_recognised_whatever_is_special(name: str, said: str) -> None:
    if name.startswith("llama") and said:
        pytest.skip("its template has nothing between the two")
    template = template_of(name)
    expected = [Call(one["function"]["name"], one["function"]["arguments"]) for one in CALLS]
    for special in (False, True):
        if special:
            marks = [*MARKUP, *TOOL_MARKUP.get(name, [])]
            template.tokenizer.add_special_tokens({"additional_special_tokens": marks})
        for calls in (CALLS[:1], CALLS):
            texts = streamed(template.tokenizer, written(template, said, calls), calls=True)
            content, found = parse("".join(texts))
            assert found == expected[: len(calls)]
            assert "".join(content.split()) == "".join(said.split())
            held = HeldCalls()
            passed = "".join(held.push(text) for text in texts)
            rest, found_there = held.end()
            assert found_there == found
            assert "".join((passed + rest).split()) == "".join(said.split())


def test_what_is_special_is_what_the_tokenizers_file_says_and_thoughts_stay_thoughts(tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer(tmp_path)
    for text in ("<|python_tag|>", "<|eom_id|>", "<think>", "</think>"):
        tokenizer.add_tokens([AddedToken(text, special=True)])
    assert "<|eom_id|>" not in tokenizer.all_special_tokens
    ids = tokenizer("<think>a</think>b<|eom_id|><|python_tag|>c<|im_end|>").input_ids
    assert "".join(streamed(tokenizer, ids)) == "<think>a</think>bc"
    assert "".join(streamed(tokenizer, ids, calls=True)) == "<think>a</think>b<|python_tag|>c"
    shown = "".join(streamed(tokenizer, ids, skip_special_tokens=False))
    assert shown == "<think>a</think>b<|eom_id|><|python_tag|>c<|im_end|>"


@pytest.mark.slow
def test_a_models_marks_come_with_tools_alone(tmp_path: Path) -> None:
    from trainer.chat_model import ChatModel

    folder = build_scripted_model(tmp_path, PIECES, KNOWS_TOOLS)
    model = ChatModel(folder)
    marks = [text for text in PIECES if text.startswith("<|")]
    model.template.tokenizer.add_special_tokens({"additional_special_tokens": marks})

    def said(**values: Any) -> str:
        asked = [{"role": "user", "content": "?"}]
        parts = model.reply(asked, Sampling(temperature=0, max_new_tokens=9), threading.Event(), **values)
        return "".join(part for part in parts if isinstance(part, str))

    assert parse(said(tools=TOOLS)) == ("I look.", [Call("search")])
    assert said() == PIECES[0] + PIECES[3]
    assert said(skip_special_tokens=False) == "".join(PIECES)


@pytest.mark.slow
def test_a_server_streams_what_is_said_before_such_a_call_and_the_call_as_one(tmp_path: Path) -> None:
    from trainer.chat_model import ChatModel

    model = ChatModel(build_scripted_model(tmp_path, PIECES, KNOWS_TOOLS))
    marks = [text for text in PIECES if text.startswith("<|")]
    model.template.tokenizer.add_special_tokens({"additional_special_tokens": marks})
    told: list[Any] = []
    asked = {"model": "m", "messages": [{"role": "user", "content": "?"}], "tools": TOOLS, "temperature": 0}
    Reply(parse_request(json.dumps(asked).encode(), ["m"]), None, told.append).run(model)
    *texts, calls, finish = told
    assert "".join(texts) == "I look."
    assert calls == [Call("search")]
    assert finish_reason(finish, calls) == "tool_calls"
