"""What the runs of one directory have in hand, so that none does what another is doing.

A claim is a locked file (flock). It ends with its process, however that ends, and then anybody may take it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hktune.core.publish import locked

FOLDER_NAME = "claims"


class Claims:
    """The claims of one run, or of one of its loops: names that nobody else of its `scope` holds. One thread at a time.

    They save work and decide nothing: where claims cannot be made, every one that is asked for is given.
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
            path = self._path(name)
            try:
                self._folder.mkdir(exist_ok=True)
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                if not self._folder.parent.is_dir():
                    return True
                continue  # the last of the others has just removed the folder
            except OSError:
                return True
            if not locked(handle):
                os.close(handle)
                return False
            if _is_at(handle, path):
                self._held[name] = handle
            else:  # its holder has just released it
                os.close(handle)
        return True

    def release(self, name: str) -> None:
        """Give `name` back, if it is held."""
        handle = self._held.pop(name, None)
        if handle is not None:
            self._path(name).unlink(missing_ok=True)
            os.close(handle)

    def close(self) -> None:
        """Give everything back."""
        for name in list(self._held):
            self.release(name)
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # if nobody else has anything in hand

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._scope}-{name}"

    def _sweep(self) -> None:
        """Remove the files of runs that are gone."""
        for path in self._folder.iterdir():
            name = path.name.removeprefix(f"{self._scope}-")
            if name != path.name and self.take(name):
                self.release(name)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False
