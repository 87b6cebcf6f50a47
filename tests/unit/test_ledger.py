"""What a run reads of its directory: each row once, of its own template, and the others counted."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from naive_gemm import EMULATED
from naive_gemm import trial as naive_trial

from hktune.core.config import Config
from hktune.core.errors import StoreError
from hktune.core.outcome import Failure, Source, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.measure.stopwatch import Attempt
from hktune.space import load_space
from hktune.store import TrialStore
from hktune.store import trials as trials_module
from hktune.store.rows import COLUMNS, Decoder
from hktune.template import Templates
from hktune.tuning.ledger import Ledger, Room
from hktune.tuning.trial_rows import RowContext


@pytest.fixture
def context(toy_space_path: Path) -> RowContext:
    return RowContext(Templates(load_space(toy_space_path).template), EMULATED, "random", 0)


def row(context: RowContext, m: int) -> Trial:
    return replace(naive_trial(Problem(m, 64, 64)), template_sha256=context.templates.own.sha256)


def test_each_row_is_decoded_once_however_often_rows_are_asked_for(
    tmp_path: Path, context: RowContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    TrialStore(tmp_path).extend([row(context, m) for m in range(1, 41)])
    decoded: list[int] = []
    trial_of = Decoder.trial

    def counted(decoder: Decoder, cells: list[str]) -> Trial:
        decoded.append(int(cells[COLUMNS.index("m")]))
        return trial_of(decoder, cells)

    monkeypatch.setattr(trials_module.Decoder, "trial", counted)
    ledger = Ledger(tmp_path, context, fresh=False)
    before = ledger.rows()
    ledger.append(row(context, 41))
    TrialStore(tmp_path).append(row(context, 42))
    assert [trial.m for trial in ledger.rows()] == list(range(1, 43))
    ledger.quarantine()
    ledger.rows()
    assert decoded == list(range(1, 43))
    assert len(before) == 40, "what was given does not change"


def test_rows_of_another_template_are_left_out_and_counted(tmp_path: Path, context: RowContext) -> None:
    other = replace(row(context, 7), template="gfx950/other", template_sha256="2" * 64)
    TrialStore(tmp_path).extend([row(context, 1), other, replace(other, m=8)])
    ledger = Ledger(tmp_path, context, fresh=False)
    assert [trial.m for trial in ledger.rows()] == [1]
    [note] = ledger.notes
    assert note.startswith("2 trials of gfx950/other 222222222222 in ")
    assert note.endswith(f"are left out: this is {context.templates.own.name} {context.templates.own.sha256[:12]}")
    TrialStore(tmp_path).append(replace(other, m=9))
    ledger.rows()
    assert ledger.notes[0].startswith("3 trials")


def test_the_rows_of_one_attempt_are_synced_together_and_stand_for_each_problem_once(
    tmp_path: Path, context: RowContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand shapes cost one wait for the disk, not a thousand."""
    ours, theirs = Ledger(tmp_path, context, fresh=False), Ledger(tmp_path, context, fresh=False)
    first, second = Attempt(Config({"block": 1})), Attempt(Config({"block": 2}))
    shared = theirs.record(first, Problem(3, 64, 64), Failure(Status.WRONG, "theirs"))
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    problems = [Problem(m, 64, 64) for m in range(1, 6)]
    outcomes = [(problem, Timing(Source.MODELLED, float(problem.m))) for problem in problems]
    stored = ours.record_all(Room(each=2), first, outcomes)
    assert len(synced) == 1
    assert [row and row.detail for row in stored] == [None, None, "theirs", None, None]
    assert stored[2] == shared
    assert theirs.record_all(Room(each=1), second, outcomes) == [None] * 5, "one config of each has a row already"
    assert len(synced) == 1
    assert len(theirs.record_all(Room(each=2), second, outcomes)) == 5
    assert [(row.m, row.trial) for row in ours.rows()] == [
        (3, 0), (1, 1), (2, 2), (4, 3), (5, 4), (1, 5), (2, 6), (3, 7), (4, 8), (5, 9)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fresh", "says"),
    [
        (True, "cannot be set aside (Read-only file system): pass another DIR"),
        (False, "cannot be written (Read-only file system): pass another DIR"),
    ],
)
def test_a_directory_that_cannot_be_written_is_one_line(
    tmp_path: Path, context: RowContext, monkeypatch: pytest.MonkeyPatch, fresh: bool, says: str
) -> None:
    TrialStore(tmp_path).append(row(context, 1))
    before, opened = (tmp_path / "trials.csv").read_bytes(), os.open

    def read_only(path: str, flags: int, *mode: int, dir_fd: int | None = None) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return opened(path, flags, *mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StoreError) as caught:
        Ledger(tmp_path, context, fresh)
    assert str(caught.value) == f"{tmp_path / 'trials.csv'}: {says}"
    monkeypatch.undo()
    assert (tmp_path / "trials.csv").read_bytes() == before
