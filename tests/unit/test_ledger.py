"""What a run reads of its directory: each row once, of its own template, and the others counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from naive_gemm import EMULATED
from naive_gemm import trial as naive_trial

from hktune.ledger import Ledger
from hktune.model import Problem, Trial
from hktune.rows import RowContext
from hktune.space import load_space
from hktune.store import TrialStore
from hktune.store import trials as trials_module
from hktune.store.rows import Decoder


@pytest.fixture
def context(toy_space_path: Path) -> RowContext:
    return RowContext(load_space(toy_space_path).template, EMULATED, "random", 0)


def row(context: RowContext, m: int) -> Trial:
    return replace(naive_trial(Problem(m, 64, 64)), template_sha256=context.template.sha256)


def test_each_row_is_decoded_once_however_often_rows_are_asked_for(
    tmp_path: Path, context: RowContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    TrialStore(tmp_path).extend([row(context, m) for m in range(1, 41)])
    decoded: list[int] = []
    trial_of = Decoder.trial

    def counted(decoder: Decoder, cells: list[str]) -> Trial:
        decoded.append(int(cells[1]))
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
    assert note.endswith(f"are left out: this is {context.template.name} {context.template.sha256[:12]}")
    TrialStore(tmp_path).append(replace(other, m=9))
    ledger.rows()
    assert ledger.notes[0].startswith("3 trials")
