"""What one board's table costs on another: by made-up trials whose answer is seen by eye, and by the shipped results,
whose answer is taken from their CSV with nothing of hktune's."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from naive_gemm import MI355X, table_of, trial

from hktune.cli import main
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.tables.other_board import OnOtherBoard, exact, mean_regret, missing, on_other_board

RESULTS = Path(__file__).parents[2] / "results"
P, Q = Problem(8, 128, 64), Problem(8, 256, 64)
OTHER = replace(MI355X, pci_id="0x75a0", name="another board")


def row(problem: Problem, time_us: float, variant: int, **fields: Any) -> Trial:
    return trial(problem, time_us, variant, source=Source.MEASURED, baseline="vendor", baseline_us=20.0, **fields)


def compared(here: Trial, there: list[Trial], decided: list[Trial] | None = None) -> OnOtherBoard:
    deciding = there if decided is None else decided
    tables = table_of(here, identity=MI355X), table_of(*deciding, identity=OTHER)
    (found,) = on_other_board(*tables, there, deciding)
    return found


def test_its_time_there_is_held_against_that_boards_own_choice() -> None:
    found = compared(row(P, 9.0, 1), [row(P, 12.0, 1), row(P, 10.0, 2)])
    assert (found.time_us, found.is_bound, found.same_rounds, found.is_same) == (12.0, False, True, False)
    assert found.regret == pytest.approx(0.2)


def test_the_same_choice_costs_nothing_whatever_it_took_here() -> None:
    found = compared(row(P, 9.0, 1), [row(P, 10.0, 1), row(P, 12.0, 2)])
    assert (found.regret, found.is_same) == (0.0, True)


def test_a_row_of_other_rounds_is_carried_over_by_the_vendors_time() -> None:
    """The other rounds ran at a clock at which everything took twice as long."""
    screened = replace(row(P, 24.0, 1), baseline_us=40.0)
    best = row(P, 10.0, 2)
    found = compared(row(P, 9.0, 1), [screened, best], [best])
    assert (found.time_us, found.same_rounds) == (12.0, False)


def test_a_row_that_was_left_early_is_a_bound_and_in_no_mean() -> None:
    found = compared(row(P, 9.0, 1), [row(P, 30.0, 1, left_early=True), row(P, 10.0, 2)])
    assert (found.time_us, found.is_bound) == (30.0, True)
    assert (exact([found]), mean_regret([found]), missing([found])) == ([], None, [])


@pytest.mark.parametrize("there", [[], [{"status": Status.CRASHED, "time_us": None}], [{"template": "another"}]])
def test_without_a_time_of_that_very_config_it_is_missing(there: list[dict[str, Any]]) -> None:
    rows = [replace(row(P, 11.0, 1), **fields) for fields in there]
    found = compared(row(P, 9.0, 1), [*rows, row(P, 10.0, 2)])
    assert (found.time_us, found.regret, missing([found])) == (None, None, [P])


def test_the_vendors_choice_is_known_wherever_the_vendor_was_timed() -> None:
    slow = row(P, 25.0, 1)  # so the table leaves it to the vendor
    found = compared(slow, [row(P, 10.0, 2)])
    assert found.first.choice == "vendor"
    assert (found.time_us, found.regret) == (20.0, 1.0)


def test_only_problems_of_both_count_and_the_mean_is_geometric() -> None:
    first = table_of(row(P, 9.0, 1), row(Q, 9.0, 1), row(Problem(8, 512, 64), 9.0, 1), identity=MI355X)
    rows = [row(P, 20.0, 1), row(P, 10.0, 2), row(Q, 15.0, 1), row(Q, 15.0, 1), row(Q, 12.0, 2)]
    found = on_other_board(first, table_of(*rows, identity=OTHER), rows, rows)
    assert [each.second.problem for each in found] == [P, Q]
    assert mean_regret(found) == pytest.approx(math.sqrt(2.0 * 1.25) - 1)


def test_the_shipped_boards_of_gfx950_cost_what_their_files_say(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = RESULTS / "gfx950-emulated", RESULTS / "gfx950-emulated-mi350x"
    assert main(("table", "regret", str(one), str(other), "--json")) == 0
    whole, *each = map(json.loads, capsys.readouterr().out.splitlines())
    with (other / "trials.csv").open() as file:
        rows = [found for found in csv.DictReader(file) if found["status"] == "ok" and found["time_us"]]
    sizes = ("m", "n", "k", "operation")
    times = {(*(found[size] for size in sizes), found["config_id"]): float(found["time_us"]) for found in rows}
    choices = [
        {tuple(str(entry[size]) for size in sizes): entry["kernel"]["config_id"] for entry in document["entries"]}
        for document in (json.loads((folder / "table.json").read_text()) for folder in (one, other))
    ]
    expected = {
        problem: times[(*problem, config)] / times[(*problem, choices[1][problem])] - 1
        for problem, config in choices[0].items()
        if (*problem, config) in times
    }
    said = {tuple(str(found[size]) for size in sizes): found["regret"] for found in each}
    assert {problem: regret for problem, regret in said.items() if regret is not None} == pytest.approx(expected)
    assert whole["missing"] == len(choices[0]) - len(expected)
    logs = [math.log1p(regret) for regret in expected.values()]
    assert whole["mean_regret"] == pytest.approx(math.expm1(sum(logs) / len(logs)))
    assert whole["worst_regret"] == pytest.approx(max(expected.values()))


def test_what_an_h100s_table_costs_on_an_h200_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = RESULTS / "sm90a-nvidia-h100-80gb-hbm3", RESULTS / "sm90a-nvidia-h200"
    assert main(("table", "regret", str(one), str(other))) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "A, the table of NVIDIA H100 80GB HBM3, on B, NVIDIA H200: measured times" in said
    assert re.search(r"regret [+-]\d+\.\d\d% in the geometric mean over \d+ of \d+ problems of both, worst", said)
    assert main(("table", "regret", str(one), str(RESULTS / "gfx950-emulated"))) == 2
    assert "tables of two architectures: A=sm90a B=gfx950" in capsys.readouterr().err
