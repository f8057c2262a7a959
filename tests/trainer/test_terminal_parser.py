"""argparse's own words in the terminal's language."""

import re

import pytest

from trainer import chat_terminal, export_terminal, serve_terminal
from trainer.terminal_parser import TerminalParser

ENGLISH = re.compile(r"usage|options|arguments|error|expected|show this", re.IGNORECASE)


def parser() -> TerminalParser:
    result = TerminalParser("tunedesk try", "试试。", "zh")
    result.add_argument("place", metavar="DIR")
    result.add_argument("--flag", action="store_true", help="开关")
    result.add_argument("--value", metavar="N", help="值")
    return result


@pytest.mark.parametrize(
    ("argv", "words"),
    [(["x", "--nosuch", "1"], "无法识别的参数：--nosuch 1"), (["x", "--val=1"], "无法识别的参数：--val=1"),
     (["x", "--value"], "参数 --value 需要一个值"), (["x", "--flag=1"], "参数 --flag 不接受值，给出的是 '1'"),
     ([], "缺少参数：DIR")],
)  # fmt: skip
def test_a_wrong_argument_is_told_in_chinese(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(argv)
    output = capsys.readouterr()
    assert caught.value.code == 2
    assert output.out == ""
    assert output.err.splitlines()[-1] == f"tunedesk try：错误：{words}"
    assert not ENGLISH.search(output.err)


def test_the_help_is_all_chinese() -> None:
    text = parser().format_help()
    assert not ENGLISH.search(text)
    for command in (serve_terminal, export_terminal, chat_terminal):
        text = command.parser("zh").format_help()
        assert not re.search(r"usage:|options:|arguments:|show this", text)
        assert text.startswith("用法：tunedesk ")


def test_in_english_it_is_argparse_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        TerminalParser("tunedesk try", "Try.", "en").parse_args(["--nosuch"])
    assert "tunedesk try: error: unrecognized arguments: --nosuch" in capsys.readouterr().err
