"""Files that come from outside: plain files of a bounded size, opened without waiting and, within a folder that hktune
made or a stranger sent, without following a link.

A path that a person typed may be a link, as may a folder. What is inside a results, table or build folder may not: a
link there leads to what its sender chose, for reading, writing and deleting alike.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hktune.core.errors import InputError

_PLAIN = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BOM = b"\xef\xbb\xbf"
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_NATURES = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True)
class FileKind:
    """One kind of file from outside: `name` as in "a shapes file", the most bytes it may have, the `error` that a bad
    one raises, and the next step that its line ends with, another one where it is `too_large`."""

    name: str
    bytes_max: int
    error: type[InputError]
    remedy: str
    too_large: str = ""

    def broken(self, path: Path, rule: str) -> InputError:
        """The error to raise for the file at `path`, which breaks `rule`."""
        return self.error(f"{path}: {rule}: {self.remedy}")

    def read(self, path: Path) -> bytes:
        """All bytes of the file at `path`, which may be a link. Raises `error` where it is no plain file, too large, or
        cannot be read."""
        with self.opened(path) as file:
            return self._bytes(file, path)

    def read_text(self, path: Path) -> str:
        """As `read`, decoded by `text`."""
        return self.text(self.read(path), path)

    def read_inside(self, directory: Path, name: str) -> bytes:
        """As `read`, of the file `name` (parts joined by /) in `directory`; no link is followed below `directory`."""
        with self.opened_inside(directory, name) as file:
            return self._bytes(file, directory / name)

    def read_if_there(self, directory: Path, name: str) -> bytes | None:
        """As `read_inside`; None where nothing has that name. Raises `error` where that cannot be known."""
        return self.read_inside(directory, name) if may_be_there(directory / name) else None

    def text(self, data: bytes, path: Path) -> str:
        """`data` as UTF-8, a byte order mark at its start left out. Raises `error` for other bytes, and for a NUL."""
        try:
            text = data.removeprefix(_BOM).decode()
        except UnicodeDecodeError as wrong:
            raise self.broken(path, f"must be UTF-8 text, byte {wrong.start} is not") from None
        if "\0" in text:
            raise self.broken(path, "holds a NUL character, which no text does")
        return text

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[BinaryIO]:
        """The file at `path` open for reading, its nature and size checked. Raises as `read` does."""
        try:
            handle = os.open(path, os.O_RDONLY | _PLAIN)
        except (OSError, ValueError) as failed:
            raise self._unopened(path, "read", failed, nature(path)) from None
        with self._plain(handle, path, "rb") as file:
            yield file

    @contextlib.contextmanager
    def opened_inside(self, directory: Path, name: str, flags: int = os.O_RDONLY) -> Iterator[BinaryIO]:
        """As `opened`, of the file `name` in `directory`, without following a link below `directory`. `flags` may be
        os.O_RDWR, and hold os.O_CREAT for a file to be made where there is none."""
        path = directory / name
        reads_only = flags & os.O_ACCMODE == os.O_RDONLY
        try:
            handle = _opened_inside(directory, name, flags)
        except (OSError, ValueError) as failed:
            if isinstance(failed, NotADirectoryError) and directory.is_file():
                raise self.error(f"{directory}: is a file, not the folder that has {name}: pass that") from None
            reached = "a symbolic link, or is reached through one" if _is_link(directory, name) else nature(path)
            raise self._unopened(path, "read" if reads_only else "written", failed, reached) from None
        with self._plain(handle, path, "rb" if reads_only else "r+b") as file:
            yield file

    def _unopened(self, path: Path, wanted: str, failed: Exception, found: str | None) -> InputError:
        """What kept the file from being `wanted`, which is read or written; `found` is what it is instead of one."""
        if found:
            return self.broken(path, f"is {found}, not {self.name}")
        rule = f"cannot be {wanted} ({getattr(failed, 'strerror', None) or failed})"
        if isinstance(failed, PermissionError):
            return self.error(f"{path}: {rule}: give this user the right to, or pass another")
        return self.broken(path, rule)

    def _plain(self, handle: int, path: Path, mode: str) -> BinaryIO:
        """The open file of `handle`, which is closed where that is no plain file of a legal size."""
        status = os.fstat(handle)
        found = _nature(status.st_mode)
        if found is None and status.st_size <= self.bytes_max:
            return os.fdopen(handle, mode)  # type: ignore[return-value]
        os.close(handle)
        raise self.broken(path, f"is {found}, not {self.name}") if found else self._too_large(path)

    def _bytes(self, file: BinaryIO, path: Path) -> bytes:
        try:
            data = file.read(self.bytes_max + 1)
        except OSError as failed:
            raise self._unopened(path, "read", failed, None) from None
        if len(data) > self.bytes_max:  # it grew, or is one of the kernel's that say 0
            raise self._too_large(path)
        return data

    def _too_large(self, path: Path) -> InputError:
        rule = f"{self.name} has at most {self.bytes_max} bytes, this has more"
        return self.error(f"{path}: {rule}: {self.too_large or self.remedy}")


def nature(path: Path) -> str | None:
    """What `path` leads to when that is no plain file, such as "a pipe"; None for a plain file, and for nothing."""
    with contextlib.suppress(OSError, ValueError):
        return _nature(path.stat().st_mode)
    return None


def may_be_there(path: Path) -> bool:
    """Whether something has that name, or a folder keeps from knowing."""
    try:
        path.lstat()
    except ValueError:
        return False
    except OSError as failed:
        return failed.errno not in _ABSENT
    return True


def own_folder(directory: Path, name: str, error: type[InputError]) -> Path:
    """The folder `name` in `directory`, both made where there are none. Raises `error` where `name` is a link or no
    folder: what is written or deleted in it would be elsewhere. OSError passes through."""
    path = directory / name
    with contextlib.suppress(FileExistsError):
        path.mkdir(parents=True)
    mode = path.lstat().st_mode
    if not stat.S_ISDIR(mode):
        raise error(f"{path}: is {_nature(mode) or 'a file'}, not a folder of its own: move it away")
    return path


@contextlib.contextmanager
def opened_folder(path: Path | str, dir_fd: int | None = None) -> Iterator[int]:
    """A handle of the folder at `path` (relative to the open folder `dir_fd`), to name files in by `dir_fd`. Raises
    OSError where it is a link or no folder."""
    handle = os.open(path, _FOLDER | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        yield handle
    finally:
        os.close(handle)


def _opened_inside(directory: Path, name: str, flags: int) -> int:
    """A handle of the file, opened part by part without following a link."""
    *folders, last = _parts(name)
    at = os.open(directory, _FOLDER)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        return os.open(last, flags | os.O_NOFOLLOW | _PLAIN, 0o644, dir_fd=at)
    finally:
        os.close(at)


def _is_link(directory: Path, name: str) -> bool:
    parts = name.split("/")
    return any(os.path.islink(directory.joinpath(*parts[: end + 1])) for end in range(len(parts)))  # noqa: PTH114


def _parts(name: str) -> list[str]:
    parts = name.split("/")
    if {"", ".", ".."} & set(parts):
        raise ValueError("its name leads out of its folder")
    return parts


def _nature(mode: int) -> str | None:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return next((name for test, name in _NATURES if test(mode)), None)
