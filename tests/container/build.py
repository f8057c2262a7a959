"""The Dockerfile's last stage, built without a container engine: `python -m tests.container.build FOLDER`, as root.

Needs bubblewrap, and debootstrap for a Debian in FOLDER, which takes the place of the cpu variant's base together with
this Python. Every instruction is carried out there as it stands; pip and apt use what this machine has set for them. It is
then shown to serve: the entrypoint under its init, as a user without rights, on a root that is read-only.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT
from tests.container.dockerfile import IN_IMAGE, image, instructions
from tests.container.test_image import ignored

# What pip and its connections take from this machine.
PASSED_ON = re.compile(r"PIP_.*|SSL_CERT_FILE|.*_proxy", re.IGNORECASE)
READ_TOO = ("/etc/resolv.conf", "/etc/ssl/certs", "/etc/pip.conf")
SEEN = "urllib.request.urlopen('http://127.0.0.1:7860/healthz', timeout=5).read()"


class Build:
    """`folder`: the root that is built. `read`: folders of this machine that are seen there as well."""

    def __init__(self, folder: Path, read: list[str], arguments: dict[str, str]) -> None:
        self._folder, self._given = folder, arguments
        self._read = [path for path in (*READ_TOO, *read) if Path(path).exists()]
        self._work, self._arguments = "/", {"DEBIAN_FRONTEND": "noninteractive"}
        self._environment = {"PATH": f"{sys.base_prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}

    def base(self) -> None:
        """Raises CalledProcessError."""
        if not (self._folder / "bin").exists():
            words = ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(self._folder)]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        there = self._inside(sys.base_prefix)
        if not there.exists():
            shutil.copytree(sys.base_prefix, there, symlinks=True)
            for parent in there.relative_to(self._folder).parents:
                (self._folder / parent).chmod(0o755)

    def carry_out(self, name: str, rest: str) -> None:
        """One instruction of the last stage. Raises CalledProcessError."""
        if name == "ARG":
            key, _, value = rest.partition("=")
            self._arguments[key] = self._given.get(key, value)
        elif name == "ENV":
            self._environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif name == "WORKDIR":
            self._work = rest
            self._inside(rest).mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                self._copy(source, self._inside(self._work) / target)
        elif name == "RUN":
            self._run(re.sub(r"^--mount=\S+\s+", "", rest.strip()))

    def _inside(self, path: str) -> Path:
        return self._folder / path.lstrip("/")

    def _copy(self, source: str, target: Path) -> None:
        if source != ".":
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / source, target)
            return
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name in listed.stdout.splitlines():
            if not ignored(name) and (ROOT / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target / name)

    def _run(self, command: str) -> None:
        passed = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        variables = self._environment | {key: value for key, value in (self._arguments | passed).items() if value}
        words = ["bwrap", "--bind", str(self._folder), "/", "--proc", "/proc", "--dev", "/dev", "--chdir", self._work]
        words += [word for path in self._read for word in ("--ro-bind", path, path)]
        words += ["--", "env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        subprocess.run([*words, "/bin/bash", "-o", "pipefail", "-c", command], check=True, stdout=subprocess.DEVNULL)

    def serves(self, volume: Path) -> bool:
        """Whether its page answers, and ends in order when it is told to."""
        found = image()
        os.chown(volume, 1000, 1000)
        reading, writing = os.pipe()
        words = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-net", "--ro-bind", str(self._folder), "/"]
        words += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp", "--bind", str(volume), "/workspace",
                  "--chdir", "/workspace", "--info-fd", str(writing), "--as-pid-1", "--", "setpriv", "--reuid", "1000", "--regid",
                  "1000", "--clear-groups", "env", "-i", *(f"{name}={value}" for name, value in self._environment.items()),
                  *(word.replace(str(ROOT), IN_IMAGE) for word in found.entrypoint), *found.command]  # fmt: skip
        page = subprocess.Popen(words, pass_fds=(writing,))
        os.close(writing)
        with os.fdopen(reading) as info:
            pid = json.loads(info.read())["child-pid"]
        asked = ["nsenter", "--target", str(pid), "--net", sys.executable, "-c", f"import urllib.request; {SEEN}"]
        try:
            up = _within(60, lambda: subprocess.run(asked, stderr=subprocess.DEVNULL).returncode == 0)
            os.kill(pid, 15)
            return up and page.wait(20) == 0
        finally:
            page.kill()


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def main(argv: list[str]) -> int:
    """Prints each instruction; 0 when all were carried out and the page was up."""
    parser = argparse.ArgumentParser("python -m tests.container.build")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--read", action="append", default=[], metavar="DIR", help="a folder that pip installs from")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args(argv)
    arguments = {"VARIANT": "cpu"} | dict(one.split("=", 1) for one in given.build_arg)
    build = Build(given.folder.absolute(), given.read, arguments)
    build.base()
    found = instructions()
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    for name, rest in found[last + 1 :]:
        began = time.monotonic()
        build.carry_out(name, rest)
        print(f"{time.monotonic() - began:6.1f} s  {name} {' '.join(rest.split())[:90]}", flush=True)
    volume = given.folder.absolute().with_name(f"{given.folder.name}-workspace")
    volume.mkdir(exist_ok=True)
    up = build.serves(volume)
    print("the page was up, and ended in order" if up else "THE PAGE WAS NOT UP, or did not end")
    return int(not up)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
