"""What the page is started with: flags, and the environment variables a cluster's launcher sets."""

import os
from pathlib import Path

from trainer.problems import Language
from trainer.terminal_parser import TerminalParser

PROJECT = Path(__file__).resolve().parent.parent


class PageParser(TerminalParser):
    """The flags of `tunedesk webui`."""

    def __init__(self, language: Language = "en") -> None:
        super().__init__("tunedesk webui", {"en": "Serve the page.", "zh": "启动网页。"}[language], language)
        self._language = language

    def add(self, name: str, fallback: object, en: str, zh: str, environment: str = "") -> None:
        """A flag with a value of the type of `fallback`, which `environment` may name as well."""
        kind = type(fallback)
        given = os.environ.get(environment)
        default = {"en": f"default {fallback}", "zh": f"默认 {fallback}"}[self._language]
        notes = [f"{environment}"] if environment else []
        notes += [default] if str(fallback) else []
        around = {"en": " ({})", "zh": "（{}）"}[self._language]
        noted = {"en": "; ", "zh": "；"}[self._language].join(notes)
        self.add_argument(name, default=kind(given) if given else fallback, type=kind,  # type: ignore[call-arg]
                          metavar="DIR" if isinstance(fallback, Path) else "…",
                          help=(self.said(en, zh) + (around.format(noted) if noted else "")).replace("%", "%%"))  # fmt: skip

    def said(self, en: str, zh: str) -> str:
        return zh if self._language == "zh" else en


def page_parser(language: Language = "en") -> PageParser:
    parser = PageParser(language)
    add, said = parser.add, parser.said
    add(
        "--model",
        str(PROJECT / "assets" / "demo-model"),
        "model folder chosen when the page opens",
        "页面打开时选中的模型文件夹",
        "TUNEDESK_MODEL",
    )
    add("--data-dir", PROJECT / "data", "folder of datasets", "数据集所在的文件夹", "TUNEDESK_DATA_DIR")
    add(
        "--dataset",
        "identity-pku-assistant",
        "dataset chosen when the page opens, if it is there",
        "页面打开时选中的数据集（若存在）",
    )
    add(
        "--runs-dir",
        Path("runs"),
        "folder that runs and saved settings are written to",
        "保存训练结果和训练参数的文件夹",
        "TUNEDESK_RUNS_DIR",
    )
    add("--host", "127.0.0.1", "address to listen on", "监听的地址")
    add("--port", 7860, "port to listen on", "监听的端口")
    add(
        "--root-path",
        "",
        "path prefix that a proxy puts before the page, whether it strips it or not; without it, what a "
        "trusted proxy's X-Forwarded-Prefix says",
        "代理加在页面前的路径前缀，无论代理是否会去掉它；不填则用可信代理的 X-Forwarded-Prefix",
        "TUNEDESK_ROOT_PATH",
    )
    add("--trusted-proxies", "", "proxies besides this machine's own whose X-Forwarded headers are believed: addresses and "
        "networks, separated by commas, or *", "除本机外，采信其 X-Forwarded 请求头的代理：地址或网段，以逗号分隔，或 *",
        "TUNEDESK_TRUSTED_PROXIES")  # fmt: skip
    parser.add_argument("--token", default=os.environ.get("TUNEDESK_TOKEN"), metavar="…", help=said(
        "access token of 16 characters or more; others on this machine can see it here, so better in TUNEDESK_TOKEN. "
        "Without it, a new random one",
        "访问令牌，至少 16 个字符；写在这里会被本机其他用户看到，最好放在 TUNEDESK_TOKEN 中。不填则随机生成"))  # fmt: skip
    parser.add_argument("--no-token", action="store_true", help=said(
        "let anyone on this machine in; only together with a loopback --host",
        "允许本机任何人访问；只能与回环地址的 --host 同用"))  # fmt: skip
    parser.add_argument("--insecure", action="store_true", help=said(
        "with --no-token: also on an address that other machines reach", "与 --no-token 同用：其他机器能访问的地址也不要令牌"))  # fmt: skip
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help=said(
        "another host name that the page is opened by; may be given several times", "打开页面所用的其他主机名，可多次给出"))  # fmt: skip
    parser.add_argument("--allow-path", action="append", default=[], metavar="DIR", type=Path, help=said(
        "another folder that the page may read and write; may be given several times. Without: the working folder, the "
        "model's and those beside it, the folders of data and runs, and the hubs' caches",
        "页面可以读写的其他文件夹，可多次给出。不给出时：当前文件夹、模型文件夹及其同级、数据和训练结果的文件夹，以及模型库的缓存"))  # fmt: skip
    parser.add_argument("--trust-remote-code", action="store_true", help=said(
        "run Python code that a model's folder brings, in training and chat: whoever wrote it can then do here what you can",
        "训练和对话时运行模型文件夹自带的 Python 代码：其作者因此能在本机做你能做的一切"))  # fmt: skip
    return parser
