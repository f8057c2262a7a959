"""A page whose process writes down what it does to files and processes: `python -m tests.faults.audited_page LOG …`.

One JSON array a line: the audit event, and of a file where it really lies. The flags are those of `tunedesk webui`.
"""

import json
import os
import sys
from typing import Any

PROCESSES = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.system",
             "pty.spawn")  # fmt: skip
FILES = ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link",
         "os.chmod", "os.chown", "os.truncate", "os.utime", "os.chdir", "shutil.rmtree", "shutil.copyfile",
         "shutil.move")  # fmt: skip


def watch(log: str) -> None:
    fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in PROCESSES:
            said = [event, str(args[0]) if args else ""]
        elif event in FILES and isinstance(args[0], str | bytes | os.PathLike):
            said = [event, os.path.realpath(os.fsdecode(args[0]))]
        else:
            return
        os.write(fd, json.dumps(said).encode() + b"\n")

    sys.addaudithook(hook)


if __name__ == "__main__":
    watch(sys.argv.pop(1))
    from app.__main__ import main

    sys.argv.insert(1, "webui")
    sys.exit(main())
