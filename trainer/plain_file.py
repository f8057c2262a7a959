"""Files that somebody else may have replaced by anything: read without waiting for a FIFO or filling the memory. Light."""

import errno
import os
import stat
from pathlib import Path
from typing import IO

MOST_BYTES = 16 * 2**20


def open_plain(path: Path) -> IO[bytes]:
    """`path` for reading. Raises OSError when it is no plain file: opening a FIFO would last for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file", str(path))
    return os.fdopen(descriptor, "rb")


def read_plain(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """The UTF-8 text of a small file. Raises OSError, and ValueError when it is no text."""
    with open_plain(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return data.decode("utf-8")
