"""What the page prints when it is up: its address, and how to reach it from elsewhere. A few lines, no more."""

import getpass
import os
import shlex
import socket
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from app.gate import LOOPBACK
from app.text import Text
from trainer.problems import Language

EVERYWHERE = ("0.0.0.0", "::")
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def next_steps(
    arguments: Namespace, port: int, token: str | None, language: Language, environment: Mapping[str, str] = os.environ
) -> str:
    """`port`: the one that is listened on."""
    text = Text(language)
    host = "127.0.0.1" if arguments.host in EVERYWHERE else arguments.host
    prefix = "/" + arguments.root_path.strip("/") if arguments.root_path.strip("/") else ""
    shown = f"[{host}]" if ":" in host else host
    query = f"?token={quote(token, safe='')}" if token else ""
    lines = [f"微调台 Tunedesk  http://{shown}:{port}{prefix}/{query}"]
    if environment.get("KUBERNETES_SERVICE_HOST"):
        lines += [text("start.pod"), f"  {_port_forward(port, environment)}"]
    elif host in LOOPBACK or host == "127.0.0.1":
        lines += [text("start.ssh"), f"  {_ssh(port, host, environment)}"]
    if arguments.host in EVERYWHERE and not environment.get("KUBERNETES_SERVICE_HOST"):
        lines.append(text("start.everywhere", host=_host(environment), port=port))
    return "\n" + "\n".join(f"  {line}" for line in lines) + "\n"


def _ssh(port: int, host: str, environment: Mapping[str, str]) -> str:
    """Of a host that was reached by ssh the address that was reached is known, and its port."""
    target = f"{_user()}@{_host(environment)}"
    there = f"[{host}]" if ":" in host else host
    words = environment.get("SSH_CONNECTION", "").split()
    own = f"-p {words[3]} " if len(words) == 4 and words[3] != "22" else ""
    return f"ssh -N -L {port}:{there}:{port} {own}{shlex.quote(target)}"


def _port_forward(port: int, environment: Mapping[str, str]) -> str:
    pod = environment.get("POD_NAME") or environment.get("HOSTNAME") or socket.gethostname()
    namespace = environment.get("POD_NAMESPACE") or (NAMESPACE.read_text().strip() if NAMESPACE.is_file() else "")
    chosen = f"-n {shlex.quote(namespace)} " if namespace else ""
    return f"kubectl port-forward {chosen}pod/{shlex.quote(pod)} {port}:{port}"


def _host(environment: Mapping[str, str]) -> str:
    """The address that this machine was reached by, else its name."""
    words = environment.get("SSH_CONNECTION", "").split()
    return words[2] if len(words) == 4 else socket.gethostname()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "user"
