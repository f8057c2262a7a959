"""What the page is started with: flags, and the environment variables a cluster's launcher sets."""

import argparse
import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def _flag(
    parser: argparse.ArgumentParser, name: str, fallback: Path | str, help_text: str, environment: str | None = None
) -> None:
    given = os.environ.get(environment) if environment else None
    note = f" (or {environment}; default {fallback})" if environment else f" (default {fallback})"
    parser.add_argument(name, default=type(fallback)(given) if given else fallback, type=type(fallback),
                        metavar="DIR" if isinstance(fallback, Path) else "…",
                        help=help_text + note)  # fmt: skip


def page_parser() -> argparse.ArgumentParser:
    """The flags of `tunedesk webui`."""
    parser = argparse.ArgumentParser("tunedesk webui", description="Serve the page.", allow_abbrev=False)
    demo_model = PROJECT / "assets" / "demo-model"
    _flag(parser, "--model", str(demo_model), "model folder chosen when the page opens", "TUNEDESK_MODEL")
    _flag(parser, "--data-dir", PROJECT / "data", "folder of datasets", "TUNEDESK_DATA_DIR")
    _flag(parser, "--dataset", "identity-pku-assistant", "dataset chosen when the page opens, if it is there")
    _flag(parser, "--runs-dir", Path("runs"), "folder that runs and saved settings are written to", "TUNEDESK_RUNS_DIR")
    _flag(parser, "--host", "127.0.0.1", "address to listen on")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default 7860)")
    parser.add_argument("--root-path", default=os.environ.get("TUNEDESK_ROOT_PATH", ""), metavar="PATH",
                        help="path prefix that a proxy puts before the page, whether it strips it or not "
                             "(default: what a trusted proxy's X-Forwarded-Prefix says)")  # fmt: skip
    parser.add_argument("--trusted-proxies", default=os.environ.get("TUNEDESK_TRUSTED_PROXIES", ""), metavar="ADDRESSES",
                        help="proxies besides this machine's own whose X-Forwarded headers are believed: addresses and "
                             "networks, separated by commas, or * (or TUNEDESK_TRUSTED_PROXIES)")  # fmt: skip
    parser.add_argument("--token", default=os.environ.get("TUNEDESK_TOKEN"),
                        help="access token; others on this machine can see it here, so better in TUNEDESK_TOKEN; "
                             "16 characters or more (default: a new random one)")  # fmt: skip
    parser.add_argument("--no-token", action="store_true",
                        help="let anyone on this machine in; only together with a loopback --host")  # fmt: skip
    parser.add_argument("--insecure", action="store_true",
                        help="with --no-token: also on an address that other machines reach")  # fmt: skip
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                        help="another host name that the page is opened by; may be given several times")  # fmt: skip
    parser.add_argument("--allow-path", action="append", default=[], metavar="DIR", type=Path,
                        help="another folder that the page may read and write; may be given several times. Without: "
                             "the working folder, the model's and those beside it, the folders of data and runs, "
                             "and the hubs' caches")  # fmt: skip
    parser.add_argument("--trust-remote-code", action="store_true",
                        help="run Python code that a model's folder brings, in training and chat: whoever wrote it can "
                             "then do here what you can")  # fmt: skip
    return parser
