"""What the runs of one directory are working on, so that none does what another is doing.

A claim is a locked file (flock). It ends with its process, however that ends, and then anybody may take it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hktune.core.outside_file import opened_folder
from hktune.core.publish import locked

FOLDER_NAME = "claims"
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Claims:
    """The claims of one run, or of one of its loops: names that nobody else of its `scope` holds. One thread at a time.

    They save work and decide nothing: where claims cannot be made, every one that is asked for is given. No link is
    followed: files are made and removed in the directory's own folder or nowhere.
    """

    def __init__(self, directory: Path, scope: str) -> None:
        self._folder = directory / FOLDER_NAME
        self._scope = scope
        self._held: dict[str, int] = {}
        with contextlib.suppress(OSError):
            self._sweep()

    def take(self, name: str) -> bool:
        """Claim `name`; False while somebody else holds it."""
        while name not in self._held:
            try:
                with contextlib.suppress(FileExistsError):
                    self._folder.mkdir()
                with opened_folder(self._folder) as folder:
                    handle = os.open(self._file(name), _OPEN | os.O_CREAT, 0o644, dir_fd=folder)
                    taken = self._keep_if_free(name, handle, folder)
            except FileNotFoundError:
                if not self._folder.parent.is_dir():
                    return True
                continue  # the last of the others has just removed the folder
            except OSError:
                return True
            if taken is not None:
                return taken
        return True

    def release(self, name: str) -> None:
        """Give `name` back, if it is held."""
        handle = self._held.pop(name, None)
        if handle is None:
            return
        try:
            with contextlib.suppress(OSError), opened_folder(self._folder) as folder:
                if _is_at(handle, self._file(name), folder):
                    os.unlink(self._file(name), dir_fd=folder)
        finally:
            os.close(handle)

    def close(self) -> None:
        """Give everything back."""
        for name in list(self._held):
            self.release(name)
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # if nobody else is working on anything

    def _keep_if_free(self, name: str, handle: int, folder: int) -> bool | None:
        """Whether `name` may be had; None where its holder has just released it. Keeps `handle` or closes it."""
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            return True
        if not locked(handle):
            os.close(handle)
            return False
        if not _is_at(handle, self._file(name), folder):
            os.close(handle)
            return None
        self._held[name] = handle
        return True

    def _file(self, name: str) -> str:
        return f"{self._scope}-{name}"

    def _sweep(self) -> None:
        """Remove the files of runs that are gone."""
        for name in list(self._names()):
            if self.take(name):
                self.release(name)

    def _names(self) -> Iterator[str]:
        with opened_folder(self._folder) as folder, os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name.removeprefix(f"{self._scope}-")
                if name != entry.name and entry.is_file(follow_symlinks=False):
                    yield name


def _is_at(handle: int, name: str, folder: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(name, dir_fd=folder, follow_symlinks=False))
    except OSError:
        return False
