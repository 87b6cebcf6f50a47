"""Proofs on disk: the same bytes under the same judge are not run again.

A record is keyed by everything that decides its outcome: the ProofTask, which is all that a proof is given with the
bytes whose sha256 it names; the sources of the judge; and numpy, which draws the operands and sums them. A changed
emulator proves everything anew; only deterministic outcomes are kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from hktune.core.config import compact_json
from hktune.core.errors import StoreError
from hktune.core.outcome import Failure, Status
from hktune.core.outside_file import FileKind
from hktune.core.publish import publish
from hktune.core.shipped import PACKAGE
from hktune.emulator.clock.profile import Profile
from hktune.verify.emulated_proof import ProofTask

RECORD_FILE = FileKind("a remembered proof", 64 << 20, StoreError, "delete it")

_JUDGE = "hktune.verify.emulated_proof"
_IMPORT = re.compile(r"^[ \t]*(?:from\s+(\.*[\w.]*)\s+import\s+(\([^)]*\)|[^\n]+)|import\s+([^\n]+))", re.MULTILINE)
_NAME = re.compile(r"[\w.]+")


class Record(msgspec.Struct, frozen=True):
    """The outcome of one variant's proofs: the profile and error of a right kernel, or why it failed."""

    failure: Failure | None = None
    relative_error: float | None = None
    profile: Profile | None = None


class RecordStore:
    """Records in a folder. Safe under concurrent writers; an unreadable record counts as absent."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def key(self, task: ProofTask) -> str:
        """The sha256 of everything that decides the outcome of `task`."""
        parts = [msgspec.to_builtins(task), judge_sha256(), np.__version__]
        return hashlib.sha256(compact_json(parts).encode()).hexdigest()

    def get(self, key: str) -> Record | None:
        try:
            data = RECORD_FILE.read_if_there(self._directory, f"{key}.json")
            return None if data is None else msgspec.json.decode(data, type=Record)
        except (StoreError, ValueError):  # a DecodeError is a ValueError
            return None

    def put(self, key: str, record: Record) -> None:
        """Keep `record`, unless it is a timeout or a crash, which another run may not repeat. Where it cannot be
        written it is not kept: proving again is all that this costs."""
        if record.failure and record.failure.status not in (Status.WRONG, Status.HAZARD):
            return
        with contextlib.suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True)
            publish(self._directory / f"{key}.json", msgspec.json.encode(record))


@functools.cache
def judge_sha256() -> str:
    """Content hash of every source file that decides an outcome: `emulated_proof`, all of hktune that it imports, and
    the tables of their folders."""
    digest = hashlib.sha256()
    for file in judge_files():
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def judge_files() -> list[Path]:
    """The files that `judge_sha256` covers, found by following the imports."""
    found: set[Path] = set()
    waiting = [_JUDGE]
    while waiting:
        file = _file_of(waiting.pop())
        if file is None or file in found:
            continue
        found.add(file)
        waiting += _imports_of(file)
    tables = {table for file in found for table in file.parent.glob("*.json")}
    return sorted(found | tables)


def _file_of(module: str) -> Path | None:
    """The source of a module of hktune; None of a name that is something inside a module. The root package, whose
    names are loaded on use, decides nothing."""
    if module == "hktune":
        return None
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imports_of(file: Path) -> Iterator[str]:
    """The modules of hktune that `file` names, and the packages that they are in; and perhaps names that are none.
    Parsing Python for this would take every worker half a second."""
    package = ".".join(("hktune", *file.relative_to(PACKAGE).parent.parts))
    for origin, several, modules in _IMPORT.findall(file.read_text(encoding="utf-8")):
        names = _NAME.findall(several or modules)
        if origin:
            origin = importlib.util.resolve_name(origin, package)
            names = [origin, *(f"{origin}.{name}" for name in names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "hktune":
                yield from (".".join(parts[:end]) for end in range(2, len(parts) + 1))
