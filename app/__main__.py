"""The `tunedesk` command: webui, train, chat, serve, check, estimate and others. Imports only what the chosen part needs."""

import sys
from collections.abc import Callable

from app.arguments import page_parser
from trainer.command import settings_from, terminal_language
from trainer.problems import Problem, Problems

USAGE = {
    "en": """usage: tunedesk COMMAND …

  webui   serve the page (tunedesk webui --help)
  train   fine-tune a model in this terminal (tunedesk train --help)
  chat    talk to a model in this terminal (tunedesk chat --help)
  serve   serve a model over OpenAI's API (tunedesk serve --help)
  check   read datasets to their end: bad rows, lengths, duplicates; arguments as for train
  estimate   memory and time that a training would take; arguments as for train
  export  merge a checkpoint into a model that stands alone (tunedesk export --help)
  download  fetch a model from Hugging Face, a mirror or ModelScope (tunedesk download --help)
  doctor  check this machine, and say what to do (tunedesk doctor --help)""",
    "zh": """用法：tunedesk 命令 …

  webui   启动网页（tunedesk webui --help）
  train   在终端里微调模型（tunedesk train --help）
  chat    在终端里与模型对话（tunedesk chat --help）
  serve   以 OpenAI API 提供模型（tunedesk serve --help）
  check   通读数据集：坏行、长度、重复；参数与 train 相同
  estimate   估算一次训练所需的内存和时间；参数与 train 相同
  export  将检查点合并为可独立使用的模型（tunedesk export --help）
  download   从 Hugging Face、镜像或 ModelScope 下载模型（tunedesk download --help）
  doctor  检查本机环境并给出处理办法（tunedesk doctor --help）""",
}


def webui(argv: list[str]) -> int:
    arguments = page_parser(terminal_language()).parse_args(argv)
    from app.starting import serve

    try:
        serve(arguments, terminal_language())
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


def serve(argv: list[str]) -> int:
    from trainer.serve_terminal import run_serve

    return run_serve(argv)


def check(argv: list[str]) -> int:
    from trainer.check_terminal import run_check

    return run_check(argv, terminal_language())


def export(argv: list[str]) -> int:
    from trainer.export_terminal import run_export

    return run_export(argv)


def estimate(argv: list[str]) -> int:
    from app.estimate_terminal import print_estimate

    language = terminal_language()
    try:
        return print_estimate(settings_from(argv, language), language)
    except (Problem, Problems) as error:
        for problem in error.problems if isinstance(error, Problems) else [error]:
            print(problem.sentence(language), file=sys.stderr)
        return 2


def download(argv: list[str]) -> int:
    from trainer.download_terminal import run_download

    return run_download(argv)


def doctor(argv: list[str]) -> int:
    from app.doctor import run_doctor

    return run_doctor(argv, terminal_language())


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "webui": webui,
    "train": train,
    "chat": chat,
    "serve": serve,
    "check": check,
    "estimate": estimate,
    "export": export,
    "download": download,
    "doctor": doctor,
}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        asked = len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help", "help")
        print(USAGE[terminal_language()], file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    return COMMANDS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
