"""Starting the page: what cannot be served is refused at once, before the seconds of importing Gradio."""

import contextlib
import errno
import os
import secrets
import socket
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from app.forwarded import Trusted, clean_prefix
from app.hosts import LOOPBACK, Hosts
from app.next_steps import next_steps
from app.roots import Roots
from app.run_queue import Keeper
from trainer.problems import Language, Problem


def unwritable(runs_dir: Path) -> Problem | None:
    """Why nothing can be trained here, although what is there can be looked at; None where all is well."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs_dir):
            return None
    except OSError as error:
        detail = error.strerror or str(error)
        return Problem("output_not_writable", label="--runs-dir", path=str(runs_dir), detail=detail)


def listen(host: str, port: int) -> socket.socket:
    """The socket to serve on, taken before the seconds of importing. Raises Problem when it is not to be had."""
    try:
        if ":" in host:
            found = socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=host == "::")
        else:
            found = socket.create_server((host, port))
        # asyncio sets it only where a socket names its protocol, which these do not: each answer took 40 ms longer.
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or 0
        if number < 0 or number == errno.EADDRNOTAVAIL:  # a name that is not known, or another machine's address
            raise Problem("host_not_here", host=host) from None
        detail = os.strerror(number) if number else str(error)
        raise Problem("port_in_use", host=host, port=port, detail=detail) from None


def serve(arguments: Namespace, language: Language) -> None:
    """Serves until it is told to end. Raises Problem when it cannot start."""
    if arguments.no_token and arguments.host not in LOOPBACK and not arguments.insecure:
        raise Problem("token_needed", host=arguments.host)
    clean_prefix(arguments.root_path)
    Trusted(arguments.trusted_proxies)
    Hosts.of(arguments)
    roots = Roots.of(arguments)
    runs_dir = Path(arguments.runs_dir).expanduser().absolute()
    os.environ.pop("TUNEDESK_TOKEN", None)  # no business of the processes that are started from here
    token = None if arguments.no_token else arguments.token or secrets.token_urlsafe(24)
    listener = listen(arguments.host, arguments.port)
    if problem := unwritable(runs_dir):
        print(f"  {problem.sentence(language)}\n", file=sys.stderr, flush=True)
    import uvicorn

    from app.server import create_app

    app = create_app(arguments, token)
    print(next_steps(arguments, listener.getsockname()[1], token, language), flush=True)
    Keeper(runs_dir, roots.check_settings).start()
    # app/forwarded.py does what uvicorn's proxy_headers would, for prefixes too; here the peer's own address is needed.
    config = uvicorn.Config(app, log_level="warning", proxy_headers=False, timeout_graceful_shutdown=2)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn has closed everything and raises it once more
        uvicorn.Server(config).run(sockets=[listener])
