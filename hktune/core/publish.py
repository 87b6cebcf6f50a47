"""Files that appear whole or not at all, and temporary ones that outlive no crash.

Whoever writes a temporary file or folder holds its lock (flock) until it is renamed or removed. The kernel lets go of
it with the process, however that ends, so `sweep` can tell what a crash left behind from what is being written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from hktune.core.errors import MachineError
from hktune.core.outside_file import nature, opened_folder
from hktune.core.remedy import with_remedy

_SUFFIX = ".part"
_PREFIXES = (".", "hktune-")
_LEVELS_MAX = 16  # hktune makes three, and a library's headers some more


def publish(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Put `data`, whole or part by part, at `path` by temporary file, fsync and rename: a reader, or a crash, sees the
    old file or the new one.

    Raises OSError, also where something other than a plain file has that name, a device say, which a rename would
    replace. The directory must exist; its entry is synced too, so that the name survives a power cut.
    """
    found = nature(path)
    if found:
        raise OSError(errno.EEXIST, f"is {found}, not a file to replace")
    handle, temporary = _own_temporary(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)  # mkstemp makes 0600, and results are meant to be shared
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder in `parent` (None: where this machine keeps temporary files), gone when the block ends.

    Where none can be made: MachineError, or with a `parent`, for which the caller knows another place, OSError.
    """
    try:
        folder, handle = _own_folder(parent)
    except OSError as error:
        if parent is not None:
            raise
        where = os.environ.get("TMPDIR") or "/tmp"
        raise MachineError(with_remedy(f"no temporary folder in {where}", error, "set TMPDIR")) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def sweep(*folders: Path) -> None:
    """Remove from `folders` the temporary files and folders that nobody is writing any more. What cannot be removed
    stays. A folder that is a link is left alone: resolve one that a person named."""
    for folder in folders:
        with contextlib.suppress(OSError), opened_folder(folder) as handle:
            _sweep(handle)


def sweep_below(*folders: Path) -> None:
    """`sweep`, and of all folders in them down to _LEVELS_MAX."""
    for folder in folders:
        with contextlib.suppress(OSError), opened_folder(folder) as handle:
            _sweep(handle, _LEVELS_MAX)


def temporary_folder() -> Path:
    """Where `scratch_folder` makes its folders. Raises MachineError where there is no such place."""
    try:
        return Path(tempfile.gettempdir()).resolve()
    except OSError as error:
        raise MachineError(f"no place for temporary files ({error.strerror}): set TMPDIR") from None


def locked(handle: int) -> bool:
    """Lock an open file or folder until it is closed or this process ends; False when another process has it.

    True also where the file system knows no locks: then nothing is swept there.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _own_temporary(path: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:32]}.", suffix=_SUFFIX)
        if locked(handle) and os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # swept before it was locked


def _own_folder(parent: Path | None) -> tuple[Path, int]:
    while True:
        folder = Path(_make_folder(parent))
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            if locked(handle) and folder.is_dir():
                return folder, handle
            os.close(handle)


def _make_folder(parent: Path | None) -> str:
    """By tempfile; once more from the start where the folder that it chose before is gone."""
    if parent is not None:
        return tempfile.mkdtemp(dir=parent, prefix=".", suffix=_SUFFIX)
    try:
        return tempfile.mkdtemp(prefix="hktune-", suffix=_SUFFIX)
    except FileNotFoundError:
        tempfile.tempdir = None
        return tempfile.mkdtemp(prefix="hktune-", suffix=_SUFFIX)


def _sweep(folder: int, levels: int = 0) -> None:
    """Sweep an open folder, and those in it `levels` deep. Everything is reached by way of its handle, so that no
    link, in it or put in its place meanwhile, leads elsewhere."""
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.name.endswith(_SUFFIX) and entry.name.startswith(_PREFIXES):
                _remove_if_left(entry.name, folder)
            elif levels and entry.is_dir(follow_symlinks=False):
                with opened_folder(entry.name, folder) as inner:
                    _sweep(inner, levels - 1)


def _remove_if_left(name: str, folder: int) -> None:
    """Remove a temporary file or folder of this user whose writer is gone."""
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(handle)
        if status.st_uid != os.geteuid():
            return
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(f"/proc/self/fd/{folder}/{name}", ignore_errors=True)  # by dir_fd only from Python 3.11 on
        else:
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(handle)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
