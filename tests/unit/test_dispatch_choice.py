"""Looking up: exact rows, near rows between breakpoints, nothing else; and a near launch computes what it should."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from gemm_bf16_variants import built, proof, space
from naive_gemm import EMULATED, table_of, trial

from hktune.core.launch_rule import LaunchRule
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.dispatch import Choices, Entry, Table, Validated
from hktune.dispatch.table import Kernel, Launch
from hktune.tables import BuildOptions, build_table
from hktune.verify import Proof

N, K = 128, 64


def entry(m: int, rows: tuple[int, int] | None = None, choice: str = "kernel", **launch: object) -> Entry:
    """The naive kernel's entry for m rows, changed to serve `rows` by the launch given."""
    table = table_of(trial(Problem(m, N, K)))
    (made,) = table.entries
    assert made.kernel
    kernel = msgspec.structs.replace(made.kernel, launch=msgspec.structs.replace(made.kernel.launch, **launch))
    fields = {"m_from": rows[0], "m_to": rows[1]} if rows else {}
    return msgspec.structs.replace(made, choice=choice, kernel=kernel if choice == "kernel" else None, **fields)


def choices(*entries: Entry) -> Choices:
    return Choices(Validated(entries, {}, ()))


def find(found: Choices, m: int) -> tuple[int, bool, tuple[int, int, int] | None] | None:
    """Whose entry serves m rows, whether it was tuned for other m, and the grid."""
    choice = found.find(m, N, K, "bf16.nt")
    return (choice.entry.m, choice.near, choice.launch and choice.launch.grid) if choice else None


def test_exact_near_and_neither() -> None:
    found = choices(entry(16, (10, 40)), entry(64, (41, 64)), entry(200), entry(500, (450, 600), "vendor"))
    assert find(found, 16) == (16, False, (2, 16, 1))
    assert find(found, 10) == (16, True, (2, 10, 1))
    assert find(found, 40) == (16, True, (2, 40, 1))
    assert find(found, 41) == (64, True, (2, 41, 1))
    assert find(found, 64) == (64, False, (2, 64, 1))
    assert find(found, 200) == (200, False, (2, 200, 1))
    assert find(found, 500) == (500, False, None)
    assert find(found, 599) == (500, True, None)
    for m in (0, 1, 9, 65, 199, 201, 449, 601, 2**40):
        assert find(found, m) is None
        assert find(found, m) is None, "and again from memory"
    for key in ((16, N, 32, "bf16.nt"), (16, N, K, "f16.nt"), (16, N, K, "bf16.nt+bias")):
        assert found.find(*key) is None


def test_rows_that_the_kernels_own_rules_forbid_go_to_the_vendor() -> None:
    found = choices(entry(16, (8, 40), requires=("m * 64 <= 2048",)))
    assert find(found, 32) == (16, True, (2, 32, 1))
    assert find(found, 33) is None
    with pytest.raises(ValueError, match="no legal launch for its own m"):
        msgspec.structs.replace(table_of(), entries=(entry(40, (8, 40), requires=("m * 64 <= 2048",)),))


def test_what_is_found_is_what_a_scan_of_the_rows_finds() -> None:
    rng = random.Random(3)
    for _ in range(30):
        edges = sorted(rng.sample(range(1, 400), 12))
        entries = [
            entry(rng.randint(low, high), (low, high)) for low, high in zip(edges[::2], edges[1::2], strict=True)
        ]
        found = choices(*rng.sample(entries, len(entries)))
        for m in range(1, 401):
            holding = [each for each in entries if each.rows[0] <= m <= each.rows[1]]
            expected = (holding[0].m, m != holding[0].m) if holding else None
            result = find(found, m)
            assert (result and result[:2]) == expected


def test_a_table_whose_rows_overlap_is_refused() -> None:
    def table(*entries: Entry) -> Table:
        return msgspec.structs.replace(table_of(), entries=entries)

    table(entry(16, (10, 40)), entry(64, (41, 64)))
    with pytest.raises(ValueError, match="both serve m=40: part them"):
        table(entry(16, (10, 40)), entry(64, (40, 64)))
    with pytest.raises(ValueError, match="both serve m=30"):
        table(entry(16, (10, 40)), entry(30))
    with pytest.raises(ValueError, match="must be in"):
        entry(16, (17, 20))


def test_a_launch_that_does_not_know_m_serves_its_own_m_only() -> None:
    def fixed(row: Trial) -> tuple[str, LaunchRule]:
        arguments = table_of(row).entries[0].kernel
        assert arguments
        return "naive_gemm", replace(arguments.launch.rule, grid=(2, row.m, 1))

    trials = [trial(Problem(m, N, K)) for m in (16, 64)]
    table = build_table(trials, fixed, EMULATED, "clang", "0.1.0", "now", BuildOptions(reach=2.0))
    assert [each.rows for each in table.entries] == [(16, 16), (64, 64)]
    assert [each.rows for each in table_of(*trials).entries] == [(16, 63), (64, 64)]


@pytest.mark.parametrize("split_k", [1, 4])
def test_a_near_launch_from_the_table_alone_computes_the_product(tmp_path: Path, split_k: int) -> None:
    """Tuned at m=64, run at other m on the emulator: grid and workspace come from the table's formulas."""
    config = space().config({"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1, "split_k": split_k})
    code, rule = built(config), space().launch_rule(config, Problem(64, 72, 256))
    fields = {
        name: getattr(rule, name) for name in ("grid", "block", "dynamic_lds_bytes", "workspace_bytes", "requires")
    }
    arguments = [{"name": each.name, "kind": each.kind} for each in rule.arguments]
    launch = msgspec.json.decode(msgspec.json.encode({**fields, "arguments": arguments}), type=Launch)
    made = table_of(trial(Problem(64, 72, 256))).entries[0]
    assert isinstance(made.kernel, Kernel)
    kernel = msgspec.structs.replace(made.kernel, launch=launch)
    found = choices(msgspec.structs.replace(made, kernel=kernel, m_from=1, m_to=200))
    for m in (1, 63, 65, 130):
        choice = found.find(m, 72, 256, "bf16.nt")
        assert choice is not None
        assert choice.near
        assert choice.launch
        assert isinstance(proof(code, choice.launch, Problem(m, 72, 256)), Proof)


def test_a_launch_is_worked_out_when_it_is_asked_for_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20,000 entries a program calls some: the others cost no time when the table is loaded."""
    made = (entry(8), entry(16), entry(32, (32, 60)))
    worked_out: list[int] = []
    at = LaunchRule.at
    monkeypatch.setattr(LaunchRule, "at", lambda rule, m, operation: worked_out.append(m) or at(rule, m, operation))
    found = choices(*made)
    assert worked_out == []
    for _ in range(3):
        found.find(16, N, K, "bf16.nt")
        found.find(48, N, K, "bf16.nt")
    assert worked_out == [16, 48]
