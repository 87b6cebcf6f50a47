"""Lock files (filelock) in places where a stranger may have put something else of that name."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock

from hktune.core.errors import InputError
from hktune.core.outside_file import FileKind

_BYTES_MAX = 4096  # hktune's are empty; where a file system knows no locks, filelock writes who has it


def lock_file(directory: Path, name: str, timeout_s: float, error: type[InputError]) -> FileLock:
    """The lock `name` in `directory`, to be taken within `timeout_s` (-1: whenever). Its taker cuts the file to 0
    bytes: raises `error` where that is no file of its own but a link, a second name of another file, a pipe, a
    folder."""
    path = directory / name
    if os.path.lexists(path):
        kind = FileKind("a lock file", _BYTES_MAX, error, "remove it")
        with kind.opened_inside(directory, name) as file:
            if os.fstat(file.fileno()).st_nlink > 1:
                raise kind.broken(path, "is a second name of another file, which locking would empty")
    return FileLock(path, timeout=timeout_s)
