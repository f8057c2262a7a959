"""The `tunedesk` command: webui, train, chat. Imports only what the chosen part needs."""

import sys
from collections.abc import Callable

from app.arguments import page_parser
from trainer.command import terminal_language
from trainer.problems import Problem

USAGE = {
    "en": """usage: tunedesk COMMAND …

  webui   serve the page (tunedesk webui --help)
  train   fine-tune a model in this terminal (tunedesk train --help)
  chat    talk to a model in this terminal (tunedesk chat --help)""",
    "zh": """用法：tunedesk 命令 …

  webui   启动网页（tunedesk webui --help）
  train   在终端里微调模型（tunedesk train --help）
  chat    在终端里与模型对话（tunedesk chat --help）""",
}


def webui(argv: list[str]) -> int:
    arguments = page_parser().parse_args(argv)
    from app.server import serve

    try:
        serve(arguments)
    except Problem as problem:
        print(problem.sentence(terminal_language()), file=sys.stderr)
        return 2
    return 0


def train(argv: list[str]) -> int:
    from trainer.command import main as train_main

    return train_main(argv)


def chat(argv: list[str]) -> int:
    from trainer.chat_terminal import run_terminal

    return run_terminal(argv)


COMMANDS: dict[str, Callable[[list[str]], int]] = {"webui": webui, "train": train, "chat": chat}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        asked = len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help", "help")
        print(USAGE[terminal_language()], file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    return COMMANDS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
