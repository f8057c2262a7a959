"""argparse in the language of the terminal: its own headings and complaints are in English alone. Light."""

import argparse
import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from trainer.problems import Language

_HELP: dict[Language, str] = {"en": "show this help and exit", "zh": "显示此帮助并退出"}
_COMPLAINTS = (
    (r"unrecognized arguments: (.*)", r"无法识别的参数：\1"),
    (r"argument (\S+): expected one argument", r"参数 \1 需要一个值"),
    (r"argument (\S+): expected at least one argument", r"参数 \1 至少需要一个值"),
    (r"argument (\S+): ignored explicit argument (.*)", r"参数 \1 不接受值，给出的是 \2"),
    (r"argument (\S+): invalid \w+ value: (.*)", r"参数 \1 的值无效：\2"),
    (r"the following arguments are required: (.*)", r"缺少参数：\1"),
)


class TerminalParser(argparse.ArgumentParser):
    """Without abbreviations: a flag that is misspelt is refused, never taken for another."""

    def __init__(self, program: str, description: str, language: Language) -> None:
        chinese = language == "zh"
        formatter = _ChineseFormatter if chinese else argparse.HelpFormatter
        super().__init__(
            program, description=description, allow_abbrev=False, add_help=False, formatter_class=formatter
        )
        self._chinese = chinese
        if chinese:
            self._positionals.title, self._optionals.title = "位置参数", "选项"
        self.add_argument("-h", "--help", action="help", help=_HELP[language])

    def error(self, message: str) -> NoReturn:
        """Ends the process with 2 and, on stderr, the usage and what is wrong."""
        if not self._chinese:
            super().error(message)
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}：错误：{_in_chinese(message)}\n")


def _in_chinese(complaint: str) -> str:
    """argparse's words in Chinese; as they are where they are none of the usual ones."""
    for english, chinese in _COMPLAINTS:
        if found := re.fullmatch(english, complaint, re.DOTALL):
            return found.expand(chinese)
    return complaint


class _ChineseFormatter(argparse.HelpFormatter):
    def add_usage(self, usage: Any, actions: Iterable[Any], groups: Iterable[Any], prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, prefix or "用法：")
