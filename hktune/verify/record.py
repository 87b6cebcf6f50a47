"""Proofs on disk: the same bytes under the same judge are not run again.

A record is keyed by everything that decides its outcome: the code object, the sources of the judge (emulator, proof
and clock), the problems and the seed. A changed emulator proves everything anew; only deterministic outcomes are kept.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hktune import emulator, verify
from hktune.emulator.clock.launch_time import Profile
from hktune.model import Failure, ProofProblem, Status, compact_json


class Record(msgspec.Struct, frozen=True):
    """The outcome of one variant's proofs: the profile and error of a right kernel, or why it failed."""

    failure: Failure | None = None
    relative_error: float | None = None
    profile: Profile | None = None


class RecordStore:
    """Records in a folder. Safe under concurrent writers; an unreadable record counts as absent."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._judge = judge_sha256()

    def key(self, object_sha256: str, proofs: Sequence[ProofProblem], seed: int) -> str:
        problems = [[proof.problem.key, proof.padding] for proof in proofs]
        return hashlib.sha256(compact_json([object_sha256, self._judge, problems, seed]).encode()).hexdigest()

    def get(self, key: str) -> Record | None:
        try:
            return msgspec.json.decode((self._directory / f"{key}.json").read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError):
            return None

    def put(self, key: str, record: Record) -> None:
        """Keep `record`, unless it is a timeout or a crash, which another run may not repeat."""
        if record.failure and record.failure.status not in (Status.WRONG, Status.HAZARD):
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._directory)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(record))
        Path(temporary).replace(self._directory / f"{key}.json")


def judge_sha256() -> str:
    """Content hash of every source file that decides an outcome."""
    folders = (Path(str(room.__file__)).parent for room in (emulator, verify))
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(file for file in folder.rglob("*") if file.suffix in (".py", ".json")):
            name = f"{folder.name}/{file.relative_to(folder).as_posix()}"
            digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
