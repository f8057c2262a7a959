"""The flags of the page and of the doctor: in the terminal's language, from the environment where it names them."""

import re
from pathlib import Path

import pytest

from app.arguments import page_parser
from app.doctor import doctor_parser

CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.mark.parametrize("parser", [page_parser, doctor_parser])
def test_every_flag_is_explained_in_both_languages(parser: type) -> None:
    for english, chinese in zip(parser("en")._actions, parser("zh")._actions, strict=True):
        assert english.option_strings == chinese.option_strings
        assert english.help
        assert not CHINESE.search(english.help)
        assert chinese.help
        assert CHINESE.search(chinese.help)


def test_the_environment_gives_what_no_flag_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEDESK_DATA_DIR", "/data/50%")
    monkeypatch.setenv("TUNEDESK_RUNS_DIR", "")
    assert page_parser().parse_args([]).data_dir == Path("/data/50%")
    assert page_parser().parse_args(["--data-dir", "/more"]).data_dir == Path("/more")
    assert page_parser().parse_args([]).runs_dir == Path("runs")
    assert "TUNEDESK_DATA_DIR" in page_parser().format_help()
