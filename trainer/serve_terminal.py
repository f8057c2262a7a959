"""`tunedesk serve`: a model and its adapters over OpenAI's API, answered by the engine that answers in the Chat tab.

Light until the model is loaded, in the thread that keeps it.
"""

import argparse
import contextlib
import os
import secrets
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from trainer import settings, torch_import, unused_accelerators
from trainer.chat_failure import as_problem
from trainer.command import terminal_language
from trainer.listener import LOOPBACK, Listener
from trainer.model_folder import check_adapter_folder, check_model_folder, describe, is_whole_model, read_ahead
from trainer.problems import Language, Problem, quoted
from trainer.terminal_parser import TerminalParser

if TYPE_CHECKING:
    from trainer.chat_model import ChatModel

KEY_VARIABLE = "TUNEDESK_API_KEY"
_ENDING_S = 2.0
_LAST_PORT = 65535
_PORTS = {"en": f"from 0 to {_LAST_PORT}", "zh": f"≥ 0 且 ≤ {_LAST_PORT}"}

_WORDS: dict[str, dict[Language, str]] = {
    "about": {
        "en": "Serve a model to OpenAI's clients: GET /v1/models, POST /v1/chat/completions, GET /health. "
        "One request is answered at a time, in the order of arrival; what a request leaves out is as in the Chat tab.",
        "zh": "向 OpenAI 客户端提供模型：GET /v1/models、POST /v1/chat/completions、GET /health。"
        "请求按到达顺序逐个回答；请求未给出的参数与对话页的默认值相同。",
    },
    "adapter": {
        "en": "a checkpoint, served as the model NAME; may be given several times",
        "zh": "以模型名 NAME 提供的检查点；可多次给出",
    },
    "host": {"en": "address to listen on", "zh": "监听的地址"},
    "port": {"en": "port to listen on; 0: any that is free", "zh": "监听的端口；0 为任一空闲端口"},
    "key": {
        "en": f"key that clients must send (better in {KEY_VARIABLE}: others on this machine see arguments); "
        "without one, a new one is made and printed",
        "zh": f"客户端须发送的密钥（最好用 {KEY_VARIABLE}：本机其他用户看得到命令行参数）；不给则生成新密钥并打印",
    },
    "no_key": {
        "en": "let everyone on this machine in; only with a loopback --host",
        "zh": "允许本机任何人访问；只能与本机地址的 --host 一起使用",
    },
    "default": {"en": "default", "zh": "默认"},
    "loading": {"en": "Loading {model} …", "zh": "正在加载 {model}……"},
    "models": {"en": "models", "zh": "模型"},
    "shown_key": {"en": "API key", "zh": "API 密钥"},
}


def parser(language: Language) -> argparse.ArgumentParser:
    def word(name: str, default: str = "") -> str:
        return _WORDS[name][language] + (f" ({_WORDS['default'][language]} {default})" if default else "")

    result = TerminalParser("tunedesk serve", word("about"), language)
    model = settings.shown("model_name_or_path")
    result.add_argument("--model", metavar="DIR", help=f"{model.label(language)}: {model.help(language)}")
    result.add_argument("--adapter", metavar="NAME=DIR", action="append", default=[], help=word("adapter"))
    template = settings.shown("template")
    result.add_argument(
        "--template", metavar="NAME", default="auto", help=f"{template.label(language)}: {template.help(language)}"
    )
    result.add_argument("--host", default="127.0.0.1", help=word("host", "127.0.0.1"))
    result.add_argument("--port", default="8000", help=word("port", "8000"))
    result.add_argument("--api-key", metavar="KEY", help=word("key"))
    result.add_argument("--no-api-key", action="store_true", help=word("no_key"))
    trust = settings.shown("trust_remote_code")
    result.add_argument(
        "--trust-remote-code", action="store_true", help=f"{trust.label(language)}: {trust.help(language)}"
    )
    return result


def run_serve(argv: list[str]) -> int:
    """0 when it was ended, 2 with one sentence on stderr when it could not start, 130 when interrupted before."""
    language = terminal_language()
    arguments = parser(language).parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _serve(arguments, language)
    except Problem as problem:
        print(problem.sentence(language), file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while loading: the thread cannot be waited for
        sys.stderr.flush()
        os._exit(130)


def _serve(arguments: argparse.Namespace, language: Language) -> int:
    given = given_key(arguments)
    key = None if arguments.no_api_key else given or secrets.token_urlsafe(24)
    template = arguments.template
    if template not in (known := settings.choices("template")):
        raise Problem("setting_choice", label=settings.label("template"), value=template, choices=", ".join(known))
    folder = check_model_folder(arguments.model or "")
    models: dict[str, Path | None] = {describe(folder).name: None}
    for pair in arguments.adapter:
        name, adapter = named_adapter(pair)
        if name in models:
            raise Problem("serve_name_taken", name=quoted(name))
        models[name] = adapter
    listener = Listener(arguments.host, checked_port(arguments.port))
    read_ahead(folder)
    print(_WORDS["loading"][language].format(model=folder), file=sys.stderr, flush=True)

    from trainer.serve import Server, Uvicorn
    from trainer.serve_worker import Worker

    worker = Worker(
        lambda: _load(folder, template, [path for path in models.values() if path], arguments.trust_remote_code)
    )
    worker.start()
    application = Server(worker, models, language).application(key)
    if problem := unused_accelerators.problem():
        print(problem.sentence(language), file=sys.stderr, flush=True)
    listener.listen()
    _announce(f"{listener.url}/v1", list(models), None if given else key, language)
    with contextlib.suppress(KeyboardInterrupt):  # it has closed everything and raises it once more
        Uvicorn(application, worker).run(sockets=[listener.socket])
    worker.thread.join(_ENDING_S)
    return 0


def given_key(arguments: argparse.Namespace) -> str:
    """The key that whoever starts it has chosen; "" for none.

    Raises Problem for one that no client can send, and when none is to be asked for where others reach the server.
    """
    if arguments.no_api_key and arguments.api_key:
        raise Problem("setting_conflict", first="--api-key", second="--no-api-key")
    if arguments.no_api_key and arguments.host not in LOOPBACK:
        raise Problem("serve_key_needed", host=arguments.host)
    key: str = arguments.api_key or os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise Problem("api_key_form")
    return key


def checked_port(given: str) -> int:
    """Raises Problem for what is no port's number."""
    try:
        port = int(given)
    except ValueError:
        raise Problem("setting_not_number", label="--port", value=quoted(given), example="8000") from None
    if not 0 <= port <= _LAST_PORT:
        raise Problem("setting_range", label="--port", value=quoted(given), range=_PORTS)
    return port


def named_adapter(given: str) -> tuple[str, Path]:
    """NAME=DIR taken apart and looked at. Raises Problem."""
    name, _, folder = given.partition("=")
    if not name.strip() or not folder.strip():
        raise Problem("serve_adapter_form", value=quoted(given))
    if is_whole_model(folder):
        raise Problem("adapter_is_model", path=folder)
    return name.strip(), check_adapter_folder(folder)


def _load(folder: Path, template: str, adapters: list[Path], trust_remote_code: bool) -> "ChatModel":
    """The model, and each adapter tried on it. Raises Problem."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    torch_import.prepare()
    try:
        from transformers.utils import logging  # takes seconds

        from trainer import chat_model

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        model = chat_model.load(None, folder, None, template=template, on_stage=lambda stage: None,
                                trust_remote_code=trust_remote_code)  # fmt: skip
        for adapter in adapters:
            model.use_adapter(adapter)
        model.use_adapter(None)
        return model
    except Exception as error:
        raise as_problem(error) from error


def _announce(address: str, models: list[str], key: str | None, language: Language) -> None:
    """What a client needs, on stdout: the address, the models' names, and the key that was made."""
    print(f"\n  微调台 Tunedesk  {address}", f"  {_WORDS['models'][language]}: {', '.join(models)}", sep="\n")
    if key is not None:
        print(f"  {_WORDS['shown_key'][language]}: {key}")
    print(flush=True)
