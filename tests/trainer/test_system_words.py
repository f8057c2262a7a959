"""What the system and libraries say in English is Chinese in a Chinese sentence."""

import json

import pytest

from trainer.problems import Problem

BROKEN = ["", "[1 2]", '{"a" 1}', "{a: 1}", '{"a": 1,}', "[1,]", "1 2", '"abc', '"a\nb"', '"\\x"', '"\\u12"', "\ufeff1"]


@pytest.mark.parametrize("text", BROKEN)
def test_whatever_the_json_library_finds_is_said_in_chinese(text: str) -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(text)
    problem = Problem("json_broken", label="x", line=1, column=1, detail=caught.value.msg)
    assert caught.value.msg in problem.sentence("en")
    assert caught.value.msg not in problem.sentence("zh")


def test_words_of_the_system_are_chinese_and_unknown_ones_stay() -> None:
    def said(detail: str) -> str:
        return Problem("remote_unreachable", url="u", detail=detail).sentence("zh")

    with pytest.raises(OSError, match="Is a directory") as caught:
        open("/").close()
    assert "是文件夹" in said(str(caught.value.strerror))
    assert "words of its own" in said("words of its own")
