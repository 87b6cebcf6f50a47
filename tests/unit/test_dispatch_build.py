"""From trials to entries: who wins, who ties, and what may not be mixed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from naive_gemm import EMULATED, MI355X, SHA256, launch_of, table_of, trial

from hktune.core.config import Config
from hktune.core.errors import TableError
from hktune.core.launch_rule import LaunchRule
from hktune.core.operation import Operation
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.dispatch import table_json
from hktune.tables import BuildOptions, build_table, describe

SMALL = Problem(8, 128, 64)
LARGE = Problem(16, 256, 64)
IDS = [Config({"variant": variant}).id for variant in range(6)]


def measured(time_us: float, variant: int = 0, **fields: object) -> Trial:
    words = {"source": Source.MEASURED, "device": MI355X.name, **fields}
    return trial(SMALL, time_us, variant, **words)


def test_the_lowest_time_of_each_problem_wins_and_an_entry_carries_what_a_launch_needs() -> None:
    table = table_of(trial(LARGE, 9.0, 1), trial(SMALL, 3.0, 0), trial(SMALL, 2.0, 1), trial(LARGE, 8.0, 2))
    assert [(entry.problem, entry.time_us) for entry in table.entries] == [(SMALL, 2.0), (LARGE, 8.0)]
    kernel = table.entries[1].kernel
    assert kernel is not None
    assert kernel.launch.rule == launch_of(trial(LARGE))[1]
    assert (kernel.config, kernel.config_id, kernel.object_sha256) == ({"variant": 2}, IDS[2], SHA256)
    assert table.object_sha256s == {SHA256}
    assert table.identity == EMULATED


def test_equal_times_are_broken_by_config_id_and_listed_as_ties_whatever_the_order() -> None:
    trials = [trial(SMALL, 2.0, variant) for variant in range(5)]
    expected = table_of(*trials)
    best, *ties = sorted(IDS[:5])
    assert expected.entries[0].kernel is not None
    assert (expected.entries[0].kernel.config_id, list(expected.entries[0].ties)) == (best, ties)
    for seed in range(5):
        assert table_json(table_of(*random.Random(seed).sample(trials, 5))) == table_json(expected)


def test_ties_are_the_configs_whose_interval_reaches_the_best_ones() -> None:
    table = table_of(
        measured(10.0, 0, time_us_low=9.0, time_us_high=11.0),
        measured(11.5, 1, time_us_low=10.9, time_us_high=12.0),
        measured(11.5, 2, time_us_low=11.1, time_us_high=12.0),
        identity=MI355X,
    )
    assert table.entries[0].ties == (IDS[1],)
    assert (table.entries[0].time_us_low, table.entries[0].time_us_high) == (9.0, 11.0)


def test_modelled_times_tie_within_a_factor_whatever_their_intervals_and_the_fastest_is_chosen() -> None:
    wide = {"time_us_low": 1.0, "time_us_high": 100.0}
    rows = [trial(SMALL, time_us, variant, **wide) for variant, time_us in enumerate((10.0, 11.4, 10.5, 11.6, 30.0))]
    rows += [trial(LARGE, 20.0, 5, **wide), trial(LARGE, 20.1, 2, **wide)]
    entries = build_table(rows, launch_of, EMULATED, "clang", "0.1.0", "now", BuildOptions(model_tie=1.15)).entries
    assert [entry.kernel.config_id for entry in entries if entry.kernel] == [IDS[0], IDS[5]], (
        "no common kernel for both"
    )
    assert entries[0].ties == tuple(sorted((IDS[1], IDS[2])))
    assert (entries[0].time_us_low, entries[0].time_us_high) == (1.0, 100.0)
    assert entries[1].ties == (IDS[2],)


def test_measured_beats_modelled_wholly_however_fast_the_model() -> None:
    table = table_of(trial(SMALL, 0.1, 0), measured(5.0, 1), trial(LARGE, 1.0, 0), identity=MI355X)
    assert [(entry.source, entry.time_us) for entry in table.entries] == [
        (Source.MEASURED, 5.0),
        (Source.MODELLED, 1.0),
    ]
    assert table.entries[0].ties == ()


@pytest.mark.parametrize(
    ("high", "vendor_us", "choice"), [(None, 5.1, "kernel"), (None, 5.0, "vendor"), (5.2, 5.1, "vendor")]
)
def test_a_kernel_must_beat_the_vendor_beyond_its_interval(high: float | None, vendor_us: float, choice: str) -> None:
    row = measured(5.0, time_us_high=high, baseline="hipBLASLt", baseline_us=vendor_us)
    table = table_of(row, identity=MI355X)
    (entry,) = table.entries
    assert entry.choice == choice
    assert entry.time_us == (5.0 if choice == "kernel" else vendor_us)
    assert (entry.kernel is None) == (choice == "vendor")
    (described,) = describe(table)
    assert described.choice == ("kernel" if choice == "kernel" else "hipBLASLt")
    assert described.vs_baseline == pytest.approx(vendor_us / 5.0 if choice == "kernel" else 1.0)
    assert described.tflops == pytest.approx(2 * 8 * 128 * 64 / entry.time_us / 1e6)


def test_the_last_row_of_a_config_stands_for_it_and_failures_never_win() -> None:
    wrong = trial(SMALL, None, 1, status=Status.WRONG, source=None)
    table = table_of(trial(SMALL, 4.0, 0), trial(SMALL, 1.0, 1), trial(SMALL, 5.0, 0), wrong)
    assert [(entry.time_us, entry.ties) for entry in table.entries] == [(5.0, ())]
    assert table_of(wrong).entries == ()


def test_a_modelled_row_does_not_replace_the_measured_row_of_its_config() -> None:
    assert table_of(measured(5.0, 1), trial(SMALL, 1.0, 1), identity=MI355X).entries[0].time_us == 5.0


def test_other_architectures_and_several_devices_are_refused() -> None:
    with pytest.raises(TableError, match="another architecture: saved=gfx942 current=gfx950"):
        table_of(trial(SMALL, target="gfx942"))
    with pytest.raises(TableError, match="measured on AMD Instinct MI350X and AMD Instinct MI355X"):
        table_of(measured(1.0, 0, device="AMD Instinct MI350X"), measured(2.0, 1), identity=MI355X)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"object_sha256": None}, r"Expected `str`, got `null`.*object_sha256"),
        ({"object_sha256": "../" * 20}, "matching regex"),
        ({"m": 0}, ">= 1"),
        ({"template": "a\nb"}, "matching regex"),
    ],
)
def test_what_could_not_be_read_back_is_not_built(fields: dict[str, object], says: str) -> None:
    with pytest.raises(TableError, match=says) as caught:
        table_of(replace(trial(SMALL), **fields))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_launches_are_asked_for_winners_only() -> None:
    asked = []

    def count(row: Trial) -> tuple[str, LaunchRule]:
        asked.append(row.config_id)
        return launch_of(row)

    build_table([trial(SMALL, 2.0, 0), trial(SMALL, 1.0, 1)], count, EMULATED, "clang", "0.1.0", "now")
    assert asked == [IDS[1]]


def test_tied_configs_are_chosen_so_that_the_fewest_kernels_serve_every_shape() -> None:
    def near(problem: Problem, time_us: float, variant: int) -> Trial:
        row = trial(problem, time_us, variant, source=Source.MEASURED, device=MI355X.name)
        return replace(row, time_us_low=time_us - 0.2, time_us_high=time_us + 0.2)

    third = Problem(32, 128, 64)
    best_of_each = [near(SMALL, 2.0, 0), near(LARGE, 8.0, 1), near(third, 5.0, 2)]
    tied = (near(SMALL, 2.01, 3), near(LARGE, 8.03, 3), near(third, 5.01, 4))
    table = table_of(*best_of_each, *tied, identity=MI355X)
    used = {entry.problem: (entry.kernel.config_id, entry.time_us) for entry in table.entries if entry.kernel}
    assert used == {SMALL: (IDS[3], 2.01), LARGE: (IDS[3], 8.03), third: (IDS[2], 5.0)}
    assert table.entries[0].ties == (IDS[0],)
    # Beyond the noise a shared kernel is no choice.
    apart = table_of(*best_of_each, near(SMALL, 2.5, 3), near(LARGE, 8.5, 3), identity=MI355X)
    assert {entry.kernel.config_id for entry in apart.entries if entry.kernel} == set(IDS[:3])


def test_one_config_as_the_code_of_two_operations_is_two_kernels() -> None:
    """So that it is no reason to leave the fastest of each."""
    half = replace(SMALL, operation=Operation("f16"))
    said = {"source": Source.MEASURED, "device": MI355X.name, "time_us_low": 1.0, "time_us_high": 3.0}
    rows = [
        trial(problem, time_us, variant, **said, object_sha256=f"{code:064x}")
        for problem, time_us, variant, code in (
            (SMALL, 2.0, 0, 1),
            (SMALL, 2.01, 3, 2),
            (half, 2.0, 1, 3),
            (half, 2.01, 3, 4),
        )
    ]
    entries = table_of(*rows, identity=MI355X).entries
    used = {entry.operation: entry.kernel.config_id for entry in entries if entry.kernel}
    assert used == {"bf16.nt": IDS[0], "f16.nt": IDS[1]}
    shared = [replace(row, object_sha256="5" * 64) if row.config_id == IDS[3] else row for row in rows]
    entries = table_of(*shared, identity=MI355X).entries
    used = {entry.operation: entry.kernel.config_id for entry in entries if entry.kernel}
    assert used == {"bf16.nt": IDS[3], "f16.nt": IDS[3]}


def test_a_tied_config_that_does_not_beat_the_vendor_is_not_used() -> None:
    wide = {"time_us_low": 4.0, "time_us_high": 6.0, "baseline": "hipBLASLt", "baseline_us": 5.5}
    sure = {**wide, "time_us_high": 5.2}
    table = table_of(measured(5.0, 0, **sure), measured(5.1, 1, **wide), identity=MI355X)
    assert table.entries[0].kernel is not None
    assert (table.entries[0].kernel.config_id, table.entries[0].ties) == (IDS[0], ())


def test_only_reproducible_kernels_when_asked_and_each_says_what_it_is() -> None:
    trials = [trial(SMALL, 1.0, 0, template="atomic"), trial(SMALL, 2.0, 1), trial(LARGE, 1.0, 0, template="atomic")]

    def build(only: bool) -> list[tuple[str, bool]]:
        options = BuildOptions(frozenset({"naive_gemm"}), reproducible_only=only)
        table = build_table(trials, launch_of, EMULATED, "clang", "0.1.0", "now", options)
        return [(entry.kernel.config_id, entry.kernel.reproducible) for entry in table.entries if entry.kernel]

    assert build(only=False) == [(IDS[0], False), (IDS[0], False)]
    assert build(only=True) == [(IDS[1], True)]
