"""`tunedesk chat`: the same chat in a terminal, one answer with --prompt or a conversation without.

stdout carries the model's words alone. Light until a model is loaded.
"""

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trainer import sampling, settings, torch_import, unused_accelerators
from trainer.chat_failure import as_problem
from trainer.chat_pipes import guarded_stdout
from trainer.command import terminal_language
from trainer.model_folder import check_adapter_folder, check_model_folder, is_whole_model
from trainer.problems import Language, Problem
from trainer.terminal_parser import TerminalParser

if TYPE_CHECKING:
    from trainer.chat_model import ChatModel

_WORDS: dict[str, dict[Language, str]] = {
    "about": {"en": "Talk to a model.", "zh": "与模型对话。"},
    "prompt": {
        "en": "print the answer to this alone, and exit; without it, a conversation",
        "zh": "只输出对它的回答，然后退出；不给则进入对话",
    },
    "system": {"en": "the system prompt", "zh": "系统提示词"},
    "default": {"en": "default", "zh": "默认"},
    "hint": {
        "en": "/clear forgets the conversation, /exit leaves, Ctrl-C stops an answer.",
        "zh": "/clear 清空历史，/exit 退出，Ctrl-C 停止回答。",
    },
    "cleared": {"en": "Forgotten.", "zh": "已清空。"},
    "context": {
        "en": "The model's context is full. /clear forgets the conversation.",
        "zh": "已到模型的上下文上限。/clear 清空历史。",
    },
}


def parser(language: Language) -> argparse.ArgumentParser:
    result = TerminalParser("tunedesk chat", _WORDS["about"][language], language)
    for flag, key, metavar in (
        ("--model", "model_name_or_path", "DIR"),
        ("--adapter", "adapter_name_or_path", "DIR"),
        ("--template", "template", "NAME"),
    ):
        shown = settings.shown(key)
        result.add_argument(flag, metavar=metavar, help=f"{shown.label(language)}: {shown.help(language)}")
    for name in ("prompt", "system"):
        result.add_argument(f"--{name}", metavar="TEXT", help=_WORDS[name][language])
    for key in sampling.names():
        value = sampling.shown(key)
        text = (
            f"{value.label(language)}: {value.help(language)} ({_WORDS['default'][language]}: {sampling.default(key)})"
        )
        result.add_argument(f"--{key.replace('_', '-')}", metavar="N", dest=key, help=text.replace("%", "%%"))
    trust = settings.shown("trust_remote_code")
    result.add_argument(
        "--trust-remote-code", action="store_true", help=f"{trust.label(language)}: {trust.help(language)}"
    )
    return result


def run_terminal(argv: list[str]) -> int:
    """0 when it answered, 2 with one sentence on stderr when it could not, 130 when interrupted while loading."""
    language = terminal_language()
    arguments = parser(language).parse_args(argv)
    try:
        return _run(arguments, language)
    except Problem as problem:
        print(problem.sentence(language), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head`: nobody reads on.
        return 0


def _run(arguments: argparse.Namespace, language: Language) -> int:
    chosen = sampling.parse(vars(arguments))
    template = arguments.template or "auto"
    if template not in (known := settings.choices("template")):
        raise Problem("setting_choice", label=settings.label("template"), value=template, choices=", ".join(known))
    if arguments.prompt is not None and not arguments.prompt.strip():
        raise Problem("chat_empty")
    folder = check_model_folder(arguments.model or "")
    if arguments.adapter and is_whole_model(arguments.adapter):
        raise Problem("adapter_is_model", path=arguments.adapter)
    adapter = check_adapter_folder(arguments.adapter) if arguments.adapter else None
    talk = Talk(guarded_stdout(), arguments.system, chosen, language)
    talk.load(folder, adapter, template, arguments.trust_remote_code)
    if arguments.prompt is not None:
        return talk.answer(arguments.prompt)
    talk.converse()
    return 0


class Talk:
    """A conversation: what was said, and the model that answers."""

    def __init__(self, out: IO[str], system: str | None, chosen: sampling.Sampling, language: Language) -> None:
        self._out, self._sampling = out, chosen
        self._language: Language = language
        self._start = [{"role": "system", "content": system}] if system else []
        self._messages: list[dict[str, Any]] = list(self._start)
        self._model: ChatModel | None = None

    def load(self, folder: Path, adapter: Path | None, template: str, trust_remote_code: bool) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        warnings.simplefilter("ignore")
        torch_import.prepare()
        try:
            from transformers.utils import logging

            from trainer import chat_model

            logging.set_verbosity_error()
            logging.disable_progress_bar()
            self._model = chat_model.load(None, folder, adapter, template=template, on_stage=lambda stage: None,
                                          trust_remote_code=trust_remote_code)  # fmt: skip
        except Exception as error:
            raise as_problem(error) from error
        if problem := unused_accelerators.problem():
            print(problem.sentence(self._language), file=sys.stderr)

    def converse(self) -> None:
        """Until /exit or the end of input."""
        print(_WORDS["hint"][self._language], file=sys.stderr)
        while (line := self._read()) is not None and line != "/exit":
            if line == "/clear":
                self._messages = list(self._start)
                print(_WORDS["cleared"][self._language], file=sys.stderr)
            elif line:
                try:
                    self.answer(line)
                except Problem as problem:
                    print(problem.sentence(self._language), file=sys.stderr)

    def answer(self, text: str) -> int:
        """Writes the reply as it comes, and keeps both in the conversation. 130 when Ctrl-C cut it."""
        assert self._model is not None
        asked = [*self._messages, {"role": "user", "content": text}]
        said, full = "", False
        try:
            with _ctrl_c_sets(cancel := threading.Event()):
                for part in self._model.reply(asked, self._sampling, cancel):
                    if isinstance(part, str):
                        said += part
                        self._write(part)
                    else:
                        full = part.reason == "context"
        except BrokenPipeError:
            raise
        except Exception as error:
            raise as_problem(error) from error
        self._write("\n")
        if full:
            print(_WORDS["context"][self._language], file=sys.stderr)
        self._messages = [*asked, {"role": "assistant", "content": said}]
        return 130 if cancel.is_set() else 0

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Problem("chat_output", detail=error.strerror) from None

    def _read(self) -> str | None:
        """A line of the user's; "" after Ctrl-C, None at the end."""
        try:
            # stdout's descriptor leads to stderr by now, and so does the prompt.
            return input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            print(file=sys.stderr)
            return ""


@contextmanager
def _ctrl_c_sets(cancel: threading.Event) -> Iterator[None]:
    """Ctrl-C sets `cancel` in place of raising amid a forward pass."""
    before = signal.signal(signal.SIGINT, lambda *_: cancel.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
