"""`{{name}}` in datasets: found whatever it is called, filled where messages are, and nowhere else."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.placeholders import fill, find
from trainer.problems import Problems
from trainer.records import Record, read_dataset
from trainer.settings import parse
from trainer.settings_file import to_flags, to_yaml

ROOT = Path(__file__).parents[2]


def record(*texts: str, **more: Any) -> Record:
    messages = tuple({"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts))
    return Record("d", 1, "conversation", messages, {"raw": texts}, **more)


@pytest.mark.parametrize(("text", "names"), [
    ("I am {{name}} by {{ author }}.", {"name": 1, "author": 1}),
    ("{{名字}}和{{名字}}", {"名字": 2}),
    ("{{first name}} {{a-b_c}} {{3}}", {"first name": 1, "a-b_c": 1, "3": 1}),
    ("{{}} {{ }} {name} {{user.name}} {{a|b}} {{ x } } {{a\nb}}", {}),
    ("{{{name}}}", {"name": 1}),
    ("{{a}}}{{b}}", {"a": 1, "b": 1}),
])  # fmt: skip
def test_names_are_found(text: str, names: dict[str, int]) -> None:
    assert find([record("q", text)]) == names


def test_those_that_are_given_are_filled_and_the_file_stays() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"who": "{{name}}", "n": 1, "of": ["{{name}}"]}}}
    before = record("{{name}}?", "{{name}} of {{author}}", rejected=({"role": "assistant", "content": "{{ name }}"},))
    before.messages[1]["tool_calls"] = [call]
    after = fill(before, {"name": "小微 \\1 {{author}}"})
    assert [message["content"] for message in after.messages] == [
        "小微 \\1 {{author}}?",
        "小微 \\1 {{author}} of {{author}}",
    ]
    assert after.messages[1]["tool_calls"][0]["function"]["arguments"] == {
        "who": "小微 \\1 {{author}}", "n": 1, "of": ["小微 \\1 {{author}}"]}  # fmt: skip
    assert after.rejected[0]["content"] == "小微 \\1 {{author}}"
    assert before.messages[0]["content"] == "{{name}}?"
    assert after.raw == before.raw
    assert find([before])["name"] == 5
    assert fill(before, {}) is before


def test_the_bundled_identity_asks_for_a_name_and_an_author() -> None:
    records = read_dataset(ROOT / "data", "identity")
    assert set(find(records)) == {"name", "author"}
    filled = [fill(record, {"name": "A", "author": "B"}) for record in records]
    assert not find(filled)


def test_the_texts_survive_yaml_and_flags() -> None:
    import yaml

    settings = parse({"placeholders": {"name": '北大, "AI"', "year": 2026}})
    assert settings.placeholders == {"name": '北大, "AI"', "year": "2026"}
    assert parse(yaml.safe_load(to_yaml(settings))) == settings
    flags = to_flags(settings)
    assert json.loads(flags[flags.index("--placeholders") + 1]) == settings.placeholders
    assert parse({"placeholders": flags[flags.index("--placeholders") + 1]}).placeholders == settings.placeholders


@pytest.mark.parametrize("value", ["name", "[1]", ["a"], {"a": ["b"]}, {"a": None}])
def test_what_is_no_mapping_of_names_to_texts_is_refused(value: Any) -> None:
    with pytest.raises(Problems) as caught:
        parse({"placeholders": value})
    [problem] = caught.value.problems
    assert '{"name": "Ada"}' in problem.sentence("en")
    assert '{"name": "小微"}' in problem.sentence("zh")
