"""Two tables: what changed, what was gained by weight, and what is not compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from naive_gemm import EMULATED, F16_OBJECT, MI355X, OBJECT, published, table_of, trial

from hktune.cli import main
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.tables.differences import Differences, differences

A, B, C, D = (Problem(m, 256, 64) for m in (1, 2, 3, 4))
MI350X = replace(MI355X, name="AMD Instinct MI350X", pci_id="0x75a0")


def measured(problem: Problem, time_us: float, variant: int = 0, **fields: Any) -> Trial:
    ends = {"time_us_low": time_us - 0.5, "time_us_high": time_us + 0.5, "device": MI355X.name}
    return trial(problem, time_us, variant, source=Source.MEASURED, **(ends | fields))


def differ(first: list[Trial], second: list[Trial], weights: dict[Problem, float] | None = None) -> Differences:
    tables = [table_of(*rows, identity=MI355X) for rows in (first, second)]
    return differences(tables[0], tables[1], weights or {}, 1.1)


def test_gains_and_losses_beyond_the_intervals_and_their_weight() -> None:
    first = [measured(A, 10.0), measured(B, 10.0), measured(C, 10.0), measured(D, 1.0)]
    second = [measured(A, 8.0, 1), measured(B, 12.0), measured(C, 10.3, 1)]
    found = differ(first, second, {A: 100.0, B: 2.0})
    assert [(each.problem, each.gain, each.choice) for each in found.changed] == [
        (A, "gain", True),
        (B, "loss", False),
        (C, "", True),
    ]
    assert found.step_us() == (100 * 10.0 + 2 * 10.0 + 10.0, 100 * 8.0 + 2 * 12.0 + 10.3)
    assert [each.saved_us for each in found.changed] == pytest.approx([200.0, -4.0, -0.3])
    assert [entry.problem for entry in found.only_first] == [D]
    assert not found.equal


def test_modelled_times_tie_within_a_factor() -> None:
    first, second = table_of(trial(A, 10.0), trial(B, 10.0)), table_of(trial(A, 9.2), trial(B, 9.0))
    assert [each.gain for each in differences(first, second, {}, 1.1).changed] == ["", "gain"]


def test_times_of_unlike_boards_or_sources_are_not_compared() -> None:
    first = table_of(measured(A, 10.0), identity=MI355X)
    for second in (
        table_of(measured(A, 5.0, device=MI350X.name), identity=MI350X),
        table_of(trial(A, 5.0, device=MI355X.name), identity=MI355X),
    ):
        found = differences(first, second, {}, 1.1)
        assert [(each.comparable, each.gain) for each in found.changed] == [(False, "")]
        assert found.step_us() == (0, 0)
    assert differences(first, table_of(measured(A, 5.0), identity=MI350X), {}, 1.1).boards


def test_one_config_as_another_code_object_is_seen(tmp_path: Path) -> None:
    import hashlib

    other = hashlib.sha256(F16_OBJECT).hexdigest()
    found = differ([measured(A, 10.0)], [measured(A, 10.0, object_sha256=other)])
    assert [(each.object, each.choice) for each in found.changed] == [(True, False)]
    assert found.unlike_objects == (1, 1)
    assert hashlib.sha256(OBJECT).hexdigest() != other


def test_the_command_and_its_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    published(tmp_path / "a", trial(A, 10.0), trial(B, 4.0), identity=EMULATED)
    published(tmp_path / "b", trial(A, 5.0, 1), identity=EMULATED)
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text("shapes: [{m: 1, n: 256, k: 64, weight: 8}]\n")
    words = ["table", "diff", str(tmp_path / "a"), str(tmp_path / "b"), "--shapes", str(shapes)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "1 gains, 0 losses, 0 ties; by weight 80.0 us in A, 40.0 us in B (A / B 2.0000)" in said
    assert "only in A: 1 (2x256x64 bf16.nt)" in said
    assert "the same code objects" in said
    assert main([*words, "--json"]) == 0
    whole, changed, absent = map(json.loads, capsys.readouterr().out.splitlines())
    assert whole["weighted_us"] == {"a": 80.0, "b": 40.0}
    assert (changed["time"], changed["differs_in"], changed["b"]["time_us"]) == ("gain", ["choice"], 5.0)
    assert absent["a"]["time_us"] == 4.0
    assert main([*words[:2], str(tmp_path / "a"), str(tmp_path / "a")]) == 0
    assert "the tables are equal" in capsys.readouterr().out
    assert main([*words[:2], str(tmp_path / "a"), str(tmp_path / "absent")]) == 2
