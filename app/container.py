"""The page as a container's main process: `python -m app.container webui …`, under an init that reaps.

When the container is told to stop, the page is ended, every run is asked to finish its step and save, and all of them
are waited for: with this process the container ends, and everything in it. While runs train, a page that ends is
started again. Outside containers nothing of this applies. Light: no gradio.
"""

import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from app import runs
from app.__main__ import terminal_language
from app.arguments import page_parser
from app.next_steps import EVERYWHERE
from app.text import Text
from trainer import run_folder

GRACE, DEFAULT_GRACE_S = "TUNEDESK_GRACE_S", 600.0
# What assets/container/health.sh reads: the address and the port that the page answers at.
PORT_FILE = "tunedesk-port"
EVERY_ADDRESS = ["--host", "0.0.0.0"]
TOKEN = "TUNEDESK_TOKEN"
# The page keeps nothing, so it need not say good-bye to each browser.
PAGE_END_S = 1.0
LOOK_S, IDLE_LOOK_S, AGAIN_S = 0.1, 0.5, 2.0
# A trainer that has not taken its run's lock by then never will, or the disk knows no locks.
LISTENS_S = 20.0


def main(argv: list[str]) -> int:
    """Serves the page with the flags `argv` until the container is to stop; returns what the container ends with."""
    text = Text(terminal_language())
    flags = [*EVERY_ADDRESS, *argv]
    arguments = page_parser().parse_args(flags)
    grace_s = seconds(os.environ, GRACE, DEFAULT_GRACE_S)
    if grace_s is None:
        print(text("container.grace", name=GRACE, value=os.environ[GRACE]), file=sys.stderr)
        return 2
    if not arguments.port:
        arguments.port = _free_port(arguments.host)
        flags += ["--port", str(arguments.port)]
    host = "127.0.0.1" if arguments.host in EVERYWHERE else arguments.host
    (Path(tempfile.gettempdir()) / PORT_FILE).write_text(f"{host} {arguments.port}\n")
    # Of a page that is started again the address in the log still leads in.
    if not (arguments.no_token or arguments.token):
        os.environ[TOKEN] = secrets.token_urlsafe(24)
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask)
    return _serve(flags, Path(arguments.runs_dir).expanduser().absolute(), asked, grace_s, text)


def _free_port(host: str) -> int:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as found:
        return int(found.getsockname()[1])


def seconds(environment: Mapping[str, str], name: str, default: float) -> float | None:
    """What `environment` gives as `name`, `default` where it gives nothing; None for what is no time."""
    given = environment.get(name, "").strip()
    try:
        found = float(given or default)
    except ValueError:
        return None
    return found if math.isfinite(found) and found >= 0 else None


def _serve(flags: list[str], runs_dir: Path, asked: threading.Event, grace_s: float, text: Text) -> int:
    while True:
        # In a session of its own, else Ctrl-C would reach it twice.
        page = subprocess.Popen([sys.executable, "-P", "-m", "app", "webui", *flags], start_new_session=True)
        while page.poll() is None and not asked.wait(IDLE_LOOK_S):
            pass
        if asked.is_set():
            break
        if not living(runs_dir):
            return page.returncode if page.returncode >= 0 else 128 - page.returncode
        print(text("container.again", code=page.returncode, count=len(living(runs_dir))), flush=True)
        asked.wait(AGAIN_S)
    _end(page)
    return stop(runs_dir, grace_s, text)


def _end(page: "subprocess.Popen[bytes]") -> None:
    """First of all, for it would start the next run of its queue as soon as one has ended."""
    page.terminate()
    try:
        page.wait(PAGE_END_S)
    except subprocess.TimeoutExpired:
        page.kill()
        page.wait()


def living(runs_dir: Path) -> dict[Path, run_folder.Identity]:
    """The trainers that live in this container, by run folder."""
    found = {folder: run_folder.read_identity(folder) for folder in runs.find(runs_dir)}
    return {folder: identity for folder, identity in found.items() if identity is not None and identity.is_alive()}


def stop(runs_dir: Path, grace_s: float, text: Text) -> int:
    """Asks every run to finish its step and save; 0 when all have ended, 1 when some had not after `grace_s`."""
    began = time.monotonic()
    until, told = began + grace_s, set[int]()
    while left := living(runs_dir):
        for folder, identity in left.items():
            # A second request would end it at once, and somebody may have stopped it on the page just now.
            if identity.pid in told or not _listens(folder, began):
                continue
            if runs.read(folder).stage.get("stage") != "stopping":
                print(text("container.stopping", run=folder.name), flush=True)
                _ask(identity.pid)
                told.add(identity.pid)
        if time.monotonic() > until:
            print(text("container.late", runs=", ".join(folder.name for folder in left), name=GRACE), flush=True)
            return 1
        time.sleep(LOOK_S)
    return 0


def _listens(folder: Path, began: float) -> bool:
    """Whether a trainer answers signals already: one that was started just now would end without a word on the run,
    which other machines would take for alive. `began`: when it was first asked, by the monotonic clock."""
    return run_folder.is_locked(folder) or time.monotonic() - began > LISTENS_S


def _ask(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):  # it ended just now, or is another user's
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
