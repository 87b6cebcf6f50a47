"""A launch on several cores leaves, and finds, what one process does: the same bytes, findings, faults and words."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from gfx950_code import assemble
from hazard_kernels import ENTRY
from test_findings import LAUNCH

from hktune.core.errors import KernelFault
from hktune.core.forked import can_fork
from hktune.device.emulated import EmulatedDevice
from hktune.emulator import execution, slices
from hktune.emulator.hazards.finding import Finding
from hktune.emulator.schedules.schedule import RANDOM, USUAL, Schedule

pytestmark = pytest.mark.skipif(not can_fork(), reason="nothing forks here")

GROUPS = 12
WORDS = 64 * GROUPS


@dataclass(frozen=True)
class Left:
    """What a launch leaves: both buffers, findings, notes, the fault; and how often slices were of use or not."""

    first: bytes
    second: bytes
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    fault: str
    of_use: tuple[bool, ...]


OWN = "s_lshl_b32 s10, s2, 8\nv_add_u32 v3, s10, v1\nv_lshrrev_b32 v4, 2, v3\n"
"""v3 is the byte of the work-item's own word in either buffer, v4 its number."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is one workgroup, and each launch is worth dividing."""
    monkeypatch.setattr(execution, "_BATCH_WAVES", 1)
    monkeypatch.setattr(slices, "_WORTH_S", 0.0)


def left(
    lines: str,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    gather: bool = True,
    schedule: Schedule = USUAL,
    max_steps: int | None = None,
    unwritten: bool = False,
) -> Left:
    of_use: list[bool] = []
    run = slices.Slices.run

    def noted(self: slices.Slices, *arguments: object) -> int | None:
        try:
            outcome = run(self, *arguments)  # type: ignore[arg-type]
        except KernelFault:
            of_use.append(True)
            raise
        of_use.append(outcome is not None)
        return outcome

    monkeypatch.setattr(slices.Slices, "run", noted)
    watches = schedule == USUAL
    device = EmulatedDevice(
        deadline_s=60.0,
        max_steps=max_steps,
        find_hazards=watches,
        gather_hazards=watches and gather,
        schedule=schedule,
        workers=workers,
    )
    buffers = [device.allocate(4 * WORDS) for _ in range(2)]
    for number, buffer in enumerate(buffers):
        device.write(buffer, np.arange(WORDS, dtype=np.uint32) * (1 - number))
    if unwritten:
        device.expect_no_content(buffers[1:])
    kernel = device.load(assemble(f"{ENTRY}\n{OWN}{lines}\ns_endpgm", lds_bytes=1024), "kernel")
    fault = ""
    try:
        device.launch(kernel, replace(LAUNCH, grid=(GROUPS, 1, 1)), dict(zip(("x", "y"), buffers, strict=True)))
    except KernelFault as error:
        fault = f"{error.status}: {error.detail}"
    finally:
        monkeypatch.setattr(slices.Slices, "run", run)
    held = []
    for buffer in buffers:
        words = np.empty(WORDS, np.uint32)
        device.read(buffer, words)
        held.append(words.tobytes())
    return Left(held[0], held[1], device.findings, device.hazard_notes, fault, tuple(of_use))


def agreed(lines: str, monkeypatch: pytest.MonkeyPatch, of_use: bool, **how: object) -> Left:
    """What one process and three leave; whether the slices were of use."""
    alone = left(lines, 1, monkeypatch, **how)  # type: ignore[arg-type]
    divided = left(lines, 3, monkeypatch, **how)  # type: ignore[arg-type]
    assert alone.of_use == ()
    assert divided.of_use == (of_use,)
    assert replace(divided, of_use=()) == alone
    return divided


SQUARE = (
    "global_load_dword v5, v3, s[6:7]\ns_waitcnt vmcnt(0)\nv_mul_lo_u32 v5, v5, v5\nglobal_store_dword v3, v5, s[8:9]"
)


def test_workgroups_that_share_nothing_run_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    found = agreed(SQUARE, monkeypatch, True)
    assert np.array_equal(np.frombuffer(found.second, np.uint32), np.arange(WORDS, dtype=np.uint32) ** 2)
    assert (found.findings, found.fault) == ((), "")


def test_so_they_do_under_another_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    found = agreed(SQUARE, monkeypatch, True, schedule=Schedule(RANDOM, late=True, last_first=True, seed=2))
    assert np.array_equal(np.frombuffer(found.second, np.uint32), np.arange(WORDS, dtype=np.uint32) ** 2)


def test_findings_come_in_the_order_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workgroup 3 misses a wait, workgroup 7 goes astray, and workgroup 11 reads LDS that nothing has written."""
    lines = (
        "global_load_dword v5, v3, s[6:7]\ns_cmp_eq_u32 s2, 3\ns_cbranch_scc1 over\ns_waitcnt vmcnt(0)\nover:\n"
        "v_add_u32 v5, 1, v5\ns_cmp_eq_u32 s2, 7\ns_cselect_b32 s11, 0x8000, 0\nv_add_u32 v6, s11, v3\n"
        "global_store_dword v6, v5, s[8:9]\ns_cmp_lg_u32 s2, 11\ns_cbranch_scc1 done\nds_read_b32 v7, v1\ndone:"
    )
    found = agreed(lines, monkeypatch, True)
    assert [each.rule for each in found.findings] == ["missing-wait", "memory-bounds", "uninitialised-lds"]
    assert [each.here.workgroup[0] for each in found.findings] == [3, 7, 11]


def test_notes_come_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = agreed(f"{SQUARE}\nv_readfirstlane_b32 s20, v4\nv_add_u32 v8, s20, v4", monkeypatch, True)
    assert len(found.notes) == 1
    assert "v_add_u32" in found.notes[0]


def test_a_fault_leaves_what_was_done_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workgroup 5 stores far outside; those behind it have not begun."""
    lines = "s_cmp_eq_u32 s2, 5\ns_cselect_b32 s11, 0x8000, 0\nv_add_u32 v6, s11, v3\nglobal_store_dword v6, v4, s[8:9]"
    found = agreed(lines, monkeypatch, True, gather=False)
    assert "workgroup (5, 0, 0)" in found.fault
    assert "is in no allocation" in found.fault
    held = np.frombuffer(found.second, np.uint32)
    assert np.array_equal(held[: 5 * 64], np.arange(5 * 64, dtype=np.uint32))
    assert not held[5 * 64 :].any()


CHAIN = (
    "global_load_dword v5, v3, s[8:9] offset:-256\ns_waitcnt vmcnt(0)\nv_add_u32 v5, 1, v5\n"
    "global_store_dword v3, v5, s[8:9]"
)


@pytest.mark.parametrize(
    ("name", "lines"),
    {
        "a workgroup reads what the one before it has stored": (
            f"s_cmp_eq_u32 s2, 0\ns_cbranch_scc1 none\n{CHAIN}\nnone:"
        ),
        "all store to one place": "v_mov_b32 v6, s2\nglobal_store_dword v1, v6, s[8:9]",
        "all store the same to one place": "global_store_dword v1, v1, s[8:9]",
        "a byte of one's word is another's": (
            "v_add_u32 v6, 3, v3\nv_min_u32 v6, 0xbfc, v6\nglobal_store_byte v3, v4, s[8:9]\n"
            "global_load_ubyte v7, v6, s[8:9] offset:1\ns_waitcnt vmcnt(0)"
        ),
        "scalars read what is stored": (
            "s_add_u32 s12, s8, 0\ns_addc_u32 s13, s9, 0\ns_load_dword s14, s[12:13], 0x800\ns_waitcnt lgkmcnt(0)\n"
            "v_add_u32 v6, s14, v4\nglobal_store_dword v3, v6, s[8:9]"
        ),
    }.items(),
)
def test_workgroups_that_touch_what_others_store_run_in_one_process(
    name: str, lines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for schedule in (USUAL, Schedule(RANDOM, last_first=True)):
        agreed(lines, monkeypatch, False, schedule=schedule)


def test_atomics_are_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "v_mov_b32 v6, 1\nv_mov_b32 v7, 0\nglobal_atomic_add v7, v6, s[8:9]\nglobal_store_dword v3, v4, s[6:7]"
    found = left(lines, 3, monkeypatch)
    assert found.of_use == ()
    assert np.frombuffer(found.second, np.uint32)[0] == WORDS


def test_a_place_that_nothing_has_written_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even workgroups read it by one instruction and odd ones by another: the first reader alone is told of."""
    load = "global_load_dword v5, v1, s[8:9]\ns_waitcnt vmcnt(0)"
    lines = (
        f"s_and_b32 s11, s2, 1\ns_cmp_lg_u32 s2, 9\ns_cbranch_scc1 even\n{load}\ns_branch done\neven:\n"
        f"s_cmp_lg_u32 s2, 4\ns_cbranch_scc1 done\n{load}\ndone:"
    )
    found = agreed(lines, monkeypatch, False, unwritten=True)
    assert [(each.rule, each.here.workgroup[0]) for each in found.findings] == [("uninitialised-memory", 4)]


def test_steps_are_counted_over_all_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one too few: the last workgroup is cut short, wherever it runs."""
    whole = left(SQUARE, 1, monkeypatch, max_steps=10**6)
    assert not whole.fault
    length = len(f"{ENTRY}\n{OWN}{SQUARE}\ns_endpgm".replace("\n\n", "\n").strip().splitlines())
    assert not agreed(SQUARE, monkeypatch, True, max_steps=length * GROUPS).fault
    short = agreed(SQUARE, monkeypatch, False, max_steps=length * GROUPS - 1)
    assert short.fault.startswith("timeout: still running after")


def test_a_flag_of_another_workgroup_is_waited_for_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workgroup 9 waits until workgroup 1 has stored; workgroup 1 belongs to what ran before, workgroup 8 does not."""
    monkeypatch.setattr(slices, "_PATIENCE_S", 0.5)
    lines = (
        "s_cmp_lg_u32 s2, 9\ns_cbranch_scc1 go\nwait:\nv_mov_b32 v9, 0\nglobal_load_dword v5, v9, s[8:9] offset:2048\n"
        "s_waitcnt vmcnt(0)\nv_readfirstlane_b32 s16, v5\ns_cmp_eq_u32 s16, 0\ns_cbranch_scc1 wait\ngo:\n"
        "global_store_dword v3, v4, s[8:9]"
    )
    monkeypatch.setattr(slices, "_PATIENCE_BATCHES", 0)
    schedule = Schedule("lowest", seed=1)
    found = agreed(lines, monkeypatch, False, schedule=schedule)
    assert np.array_equal(np.frombuffer(found.second, np.uint32), np.arange(WORDS, dtype=np.uint32))
