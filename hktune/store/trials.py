"""trials.csv: every trial of a results directory, appended one line at a time and never lost.

A line is whole when it ends in a newline. A last line without one was torn by a crash: readers leave it out and the
next append cuts it off. Any other line that does not parse is an error that names the line.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from filelock import FileLock

from hktune.errors import StoreError
from hktune.model import Trial
from hktune.store.rows import COLUMNS, HEADER, TYPES, decode, encode

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME = "trials.csv"
LOCK_TIMEOUT_S = 60


class TrialStore:
    """The trials of one results directory, open for appending.

    Several processes may append to one directory, and several threads through one store: a file lock orders them, and
    trial numbers are given under it. Creates the directory and the file if absent. Raises StoreError when the directory
    cannot be written or the file's columns are not hktune's.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        self._lock = lock_of(directory)
        self._seen_inode = 0
        self._seen_bytes = 0
        self._next_trial = 0
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self.path.touch()  # fails where a lock would wait
            with self._lock, self.path.open("a+b") as file:
                _start(file, self.path)
        except FileExistsError:
            raise StoreError(f"{directory}: the results directory must be a directory: pass another DIR") from None
        except OSError as error:
            raise StoreError(f"{directory}: cannot be written ({error.strerror or error}): pass another DIR") from None

    def append(self, trial: Trial) -> Trial:
        """Store one trial under the next free number; returns it with that number. On disk when this returns."""
        return self.extend([trial])[0]

    def extend(self, trials: Iterable[Trial]) -> list[Trial]:
        """`append` for several at the price of one. Raises StoreError, and stores none, if one breaks a rule."""
        try:
            self.path.stat()  # fails where a lock would wait
            with self._lock, self.path.open("r+b") as file:
                self._catch_up(file)
                numbered = [replace(trial, trial=self._next_trial + i) for i, trial in enumerate(trials)]
                data = b"".join(map(encode, numbered))
                file.seek(self._seen_bytes)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                self._seen_bytes += len(data)
                self._next_trial += len(numbered)
        except OSError as error:
            raise StoreError(
                f"{self.path}: cannot be appended to ({error.strerror}): free the disk, --resume"
            ) from None
        return numbered

    def read(self) -> list[Trial]:
        """Every whole row, in order. Raises StoreError naming the first line that is not a trial."""
        return read_trials(self.path)

    def _catch_up(self, file: BinaryIO) -> None:
        """Learn what other processes appended since, and cut off a torn tail."""
        size, inode = os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_ino
        if size < self._seen_bytes or inode != self._seen_inode:  # set aside, or merged into
            self._seen_inode, self._seen_bytes, self._next_trial = inode, 0, 0
        file.seek(self._seen_bytes)
        *whole, torn = file.read().split(b"\n")
        numbers = [line.partition(b",")[0] for line in whole]
        self._next_trial = max([self._next_trial, *(int(number) + 1 for number in numbers if number.isdigit())])
        self._seen_bytes = size - len(torn)
        if self._seen_bytes < size:
            file.truncate(self._seen_bytes)


def lock_of(directory: Path) -> FileLock:
    """The lock of whoever writes a directory's trials.csv: held for milliseconds, so a minute's wait is an error."""
    return FileLock(directory / f"{FILE_NAME}.lock", timeout=LOCK_TIMEOUT_S)


def read_trials(path: Path) -> list[Trial]:
    """The trials of a trials.csv that may be being written. Raises StoreError (one line, naming the bad line)."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}): pass a directory that holds trials.csv") from None
    if not lines:
        return []
    _check_header(lines[0], path)
    return [_decode_line(line, path, number) for number, line in enumerate(lines[1:], start=2)]


def read_frame(path: Path) -> pd.DataFrame:
    """trials.csv as pandas reads it: absent cells stay absent (nullable integers), floats keep their last bit."""
    import pandas as pd

    words = {int: "Int64", float: "float64"}
    types = {name: words.get(kind, "string") for name, kind in TYPES.items()}
    exact = {name: _float for name, kind in TYPES.items() if kind is float}
    texts = {name: word for name, word in types.items() if name not in exact}
    frame = pd.read_csv(path, dtype=texts, converters=exact, keep_default_na=False, na_values=[""])
    return frame.astype(types)


def _float(cell: str) -> float:
    return float(cell or "nan")


def _start(file: BinaryIO, path: Path) -> None:
    """Write the header into an empty file or over a torn header; refuse a file with other columns."""
    file.seek(0)
    first = file.readline()
    if first.endswith(b"\n"):
        _check_header(first[:-1], path)
        return
    if not HEADER.startswith(first):
        _check_header(first, path)
    file.truncate(0)
    file.write(HEADER)


def _decode_line(line: bytes, path: Path, number: int) -> Trial:
    try:
        return decode(line)
    except ValueError as error:
        raise StoreError(f"{path}: line {number} is torn or edited: {error}; delete that line") from None


def _check_header(line: bytes, path: Path) -> None:
    if line == HEADER[:-1]:
        return
    found = next(csv.reader([line.decode(errors="replace").rstrip("\r")]), [])
    missing = [name for name in COLUMNS if name not in found]
    unknown = [name for name in found if name not in COLUMNS]
    what = f"missing {', '.join(missing) or 'none'}; unknown {', '.join(unknown)[:200] or 'none'}"
    raise StoreError(f"{path}: its columns are not hktune's ({what}): pass another DIR, or --fresh to start it again")
