"""A launch that goes on after a hazard: every one is found once, with both of its sides and what makes it go away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from gfx950_code import assemble
from hazard_kernels import BUFFER, ENTRY

from hktune.core.launch import Argument, Launch
from hktune.device.emulated import EmulatedBuffer, EmulatedDevice
from hktune.emulator.hazards.finding import Finding, Insertion
from hktune.emulator.schedules.schedule import HIGHEST, RANDOM, USUAL, Schedule

LAUNCH = Launch((1, 1, 1), (64, 1, 1), 0, (Argument("x", "pointer"), Argument("y", "pointer")))


def run(
    lines: str,
    waves: int = 1,
    groups: int = 1,
    insertions: Iterable[Insertion] = (),
    schedule: Schedule = USUAL,
    unwritten: bool = False,
    gather: bool = True,
    lds_bytes: int = 8192,
) -> tuple[tuple[Finding, ...], np.ndarray, int]:
    """What is found in a kernel of `lines` after ENTRY, what its second argument holds then, and where its code is."""
    device = EmulatedDevice(deadline_s=60.0, find_hazards=gather, gather_hazards=gather, schedule=schedule)
    code = assemble(f"{ENTRY}\n{lines}\ns_endpgm", lds_bytes=lds_bytes)
    buffers: list[EmulatedBuffer] = []
    for fill in (np.arange(4096, dtype=np.uint32), np.zeros(4096, np.uint32)):
        buffers.append(device.allocate(fill.nbytes))
        device.write(buffers[-1], fill)
    if unwritten:
        device.expect_no_content(buffers[1:])
    kernel = device.load(code, "kernel", insertions)
    launch = replace(LAUNCH, grid=(groups, 1, 1), block=(64 * waves, 1, 1))
    device.launch(kernel, launch, dict(zip(("x", "y"), buffers, strict=True)))
    left = np.empty(4096, np.uint32)
    device.read(buffers[1], left)
    return device.findings, left, kernel.code.region.base


def rules(found: Iterable[Finding]) -> list[str]:
    return [each.rule for each in found]


def repaired(lines: str, finding: Finding, base: int, waves: int = 1) -> list[bool]:
    """Whether nothing is found any more, for each remedy of `finding`."""
    outcomes = []
    for remedy in finding.remedies:
        moved = [replace(each, address=each.address - base) for each in remedy.insertions]
        outcomes.append(not run(lines, waves, insertions=moved)[0])
    return outcomes


TWO = """
global_load_dword v10, v1, s[6:7]
v_add_u32 v20, v10, v1
v_add_u32 v21, v10, v1
v_add_u32 v22, v30, v1
v_readfirstlane_b32 s20, v1
v_readlane_b32 s21, v1, s20
"""


def test_every_hazard_of_a_launch_is_found_once() -> None:
    """The load is blamed at its first reader only."""
    found, _, _ = run(TWO)
    assert rules(found) == ["missing-wait", "uninitialised-register", "wait-state"]
    wait, unset, state = found
    assert "reads v10, which global_load_dword" in wait.what
    assert wait.counters == "1 vector memory, 0 LDS and 0 scalar memory operations are outstanding"
    assert wait.other is not None
    assert wait.other.instruction.mnemonic == "global_load_dword"
    assert [each.text for each in wait.remedies] == ["s_waitcnt vmcnt(0) before v_add_u32"]
    assert "reads v30" in unset.what
    assert not unset.remedies
    assert [each.text for each in state.remedies] == ["s_nop 3 before v_readlane_b32"]


def test_what_a_remedy_inserts_is_executed() -> None:
    lines = TWO.replace("v_add_u32 v22, v30, v1\n", "").replace("v_add_u32 v21", "s_waitcnt vmcnt(0)\nv_add_u32 v21")
    found, _, base = run(lines)
    assert rules(found) == ["missing-wait", "wait-state"]
    for each in found:
        moved = [replace(one, address=one.address - base) for one in each.remedies[0].insertions]
        left, _, _ = run(lines, insertions=moved)
        assert rules(left) == [rule for rule in rules(found) if rule != each.rule]


SWAP = """
v_xor_b32 v3, 0x100, v1
ds_write_b32 v1, v1
s_waitcnt lgkmcnt(0)
s_barrier
ds_read_b32 v10, v3
s_waitcnt lgkmcnt(0)
global_store_dword v1, v10, s[8:9]
"""


def test_a_race_has_both_sides_and_the_barrier_that_ends_it() -> None:
    lines = SWAP.replace("s_barrier\n", "")
    found, _, base = run(lines, waves=2)
    assert rules(found) == ["lds-race"]
    race = found[0]
    assert (race.here.wave, race.here.lane, race.here.iteration) == (0, 0, 1)
    assert race.other is not None
    assert (race.other.instruction.mnemonic, race.other.wave, race.other.lane) == ("ds_write_b32", 1, 0)
    assert (race.address, race.in_lds) == (256, True)
    assert race.remedies[0].text == "s_barrier before ds_read_b32"
    assert repaired(lines, race, base, 2)[0]


def test_a_wait_that_is_missing_before_a_barrier_is_put_there() -> None:
    lines = SWAP.replace("s_waitcnt lgkmcnt(0)\ns_barrier", "s_barrier")
    found, _, base = run(lines, waves=2)
    assert [each.text for each in found[0].remedies] == [
        "s_waitcnt lgkmcnt(0) before s_barrier",
        "s_waitcnt lgkmcnt(0) and s_barrier before ds_read_b32",
        "s_waitcnt lgkmcnt(0) and s_barrier before what follows ds_write_b32",
    ]
    assert repaired(lines, found[0], base, 2) == [True, True, True]


def test_the_iteration_of_both_sides_is_known() -> None:
    """Wave by wave, what one round reads is written by the next."""
    lines = """
    s_mov_b32 s20, 3
    v_xor_b32 v3, 0x100, v1
    again:
    ds_write_b32 v1, v1
    s_waitcnt lgkmcnt(0)
    s_barrier
    ds_read_b32 v10, v3
    s_waitcnt lgkmcnt(0)
    s_sub_u32 s20, s20, 1
    s_cmp_lg_u32 s20, 0
    s_cbranch_scc1 again
    """
    found, _, base = run(lines, waves=2)
    assert rules(found) == ["lds-race"]
    assert found[0].other is not None
    assert (found[0].here.iteration, found[0].other.iteration) == (2, 1)
    assert True in repaired(lines, found[0], base, 2)


def test_a_loose_wait_is_tightened_to_the_iteration_that_needs_most() -> None:
    """Rounds after the first have one load less behind the one that is read."""
    lines = """
    s_mov_b32 s20, 2
    again:
    global_load_dword v10, v1, s[6:7]
    s_cmp_lg_u32 s20, 2
    s_cbranch_scc1 over
    global_load_dword v11, v1, s[6:7]
    over:
    v_add_u32 v20, v10, v1
    s_waitcnt vmcnt(0)
    s_sub_u32 s20, s20, 1
    s_cmp_lg_u32 s20, 0
    s_cbranch_scc1 again
    """
    found, _, base = run(lines)
    assert rules(found) == ["missing-wait"]
    assert found[0].remedies[0].text == "s_waitcnt vmcnt(0) before v_add_u32"
    assert repaired(lines, found[0], base) == [True]


MANY = "ds_write_b32 v1, v1\ns_waitcnt lgkmcnt(0)\n" + "".join(f"ds_read_b32 v{32 + i}, v1\n" for i in range(32))


def test_no_more_are_outstanding_than_a_counter_holds_and_its_advice_can_be_encoded() -> None:
    """CDNA4 ISA guide, section 4.4: LGKM_CNT has 4 bits."""
    for register in (48, 49):  # 15 and 14 younger reads behind it
        found, _, base = run(f"{MANY}v_add_u32 v70, v{register}, v1")
        assert rules(found) == [{48: "counter-full", 49: "missing-wait"}[register]]
        assert found[0].counters == "0 vector memory, 15 LDS and 0 scalar memory operations are outstanding"
        assert found[0].remedies[0].text == "s_waitcnt lgkmcnt(14) before v_add_u32"
        assert repaired(f"{MANY}v_add_u32 v70, v{register}, v1", found[0], base) == [True]


def test_a_read_with_fifteen_behind_it_has_arrived() -> None:
    found, _, _ = run(f"{MANY}s_waitcnt lgkmcnt(15)\nv_add_u32 v70, v32, v1")
    assert all(each.note and each.rule == "counter-full" for each in found)


def test_equal_values_written_to_one_place_are_a_note() -> None:
    same = "v_mov_b32 v4, 7\nv_and_b32 v3, 0xff, v1\nds_write_b32 v3, v4"
    found, _, _ = run(same, waves=2)
    assert [(each.rule, each.note) for each in found] == [("equal-writes", True)]
    different, _, _ = run(same.replace("v_mov_b32 v4, 7", "v_mov_b32 v4, v0"), waves=2)
    assert rules(different) == ["lds-race"]


def test_equal_values_stored_to_one_place_of_memory_are_a_note() -> None:
    same = "v_mov_b32 v4, 7\nv_mov_b32 v3, 0\nglobal_store_dword v3, v4, s[8:9]"
    for waves, groups in ((2, 1), (1, 2), (1, 300)):
        found, _, _ = run(same, waves=waves, groups=groups)
        assert {(each.rule, each.note) for each in found} == {("equal-writes", True)}
        other, _, _ = run(same.replace("v4, 7", "v4, s2" if groups > 1 else "v4, v0"), waves=waves, groups=groups)
        assert rules(other) == ["memory-race"]


def test_equal_values_written_one_after_the_other_are_a_note() -> None:
    lines = """
    v_mov_b32 v4, 7
    v_and_b32 v3, 0xff, v1
    v_readfirstlane_b32 s20, v0
    s_cmp_lg_u32 s20, 0
    s_cbranch_scc1 second
    ds_write_b32 v3, v4
    s_branch end
    second:
    ds_write_b32 v3, v4
    end:
    s_nop 0
    """
    found, _, _ = run(lines, waves=2)
    assert [(each.rule, each.note) for each in found] == [("equal-writes", True)]
    other, _, _ = run(lines.replace("second:\n", "second:\nv_mov_b32 v4, 8\n"), waves=2)
    assert rules(other) == ["lds-race"]


def test_an_access_that_goes_astray_does_not_end_the_launch() -> None:
    lines = """
    v_add_u32 v3, 0x3f80, v1
    global_load_dword v10, v3, s[6:7]
    s_waitcnt vmcnt(0)
    global_store_dword v3, v10, s[8:9]
    v_add_u32 v4, 0x1f80, v1
    ds_write_b32 v4, v1
    v_add_u32 v20, v30, v1
    """
    found, left, _ = run(lines)
    assert rules(found) == ["memory-bounds", "memory-bounds", "lds-bounds", "uninitialised-register"]
    assert found[0].here.lane == 32
    assert "lane 32 accesses LDS address 8192" in found[2].what
    assert left[4064:].tolist() == list(range(4064, 4096))


def test_an_output_is_not_read_before_it_is_written() -> None:
    lines = """
    global_store_dword v1, v1, s[8:9]
    s_waitcnt vmcnt(0)
    global_load_dword v10, v1, s[8:9]
    global_load_dword v11, v1, s[8:9] offset:128
    """
    assert not run(lines)[0]
    found, _, _ = run(lines, unwritten=True)
    assert rules(found) == ["uninitialised-memory"]
    assert found[0].here.lane == 32
    assert "which nothing has written" in found[0].what


def test_a_memory_race_names_the_other_instruction_and_lane() -> None:
    lines = """
    v_xor_b32 v3, 0x100, v1
    global_store_dword v1, v1, s[8:9]
    s_waitcnt vmcnt(0)
    global_load_dword v10, v3, s[8:9]
    """
    found, _, base = run(lines, waves=2)
    assert rules(found) == ["memory-race"]
    assert found[0].other is not None
    assert (found[0].other.instruction.mnemonic, found[0].other.lane) == ("global_store_dword", 0)
    assert repaired(lines, found[0], base, 2)[0]
    groups, _, _ = run("v_add_u32 v4, s2, v1\nglobal_store_dword v1, v4, s[8:9]", groups=2)
    assert rules(groups) == ["memory-race"]
    assert not groups[0].remedies


SCHEDULES = (
    Schedule(HIGHEST, late=True),
    Schedule(RANDOM, seed=1),
    Schedule(RANDOM, late=True, last_first=True, seed=2),
)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_right_kernel_does_not_depend_on_the_schedule(schedule: Schedule) -> None:
    """It swaps LDS between waves, loads straight to LDS, and stores what it reads."""
    lines = f"""
    {BUFFER}
    {SWAP}
    s_barrier
    v_readfirstlane_b32 s20, v2
    s_mov_b32 m0, s20
    s_nop 0
    buffer_load_dwordx4 v2, s[12:15], 0 offen lds
    s_waitcnt vmcnt(0)
    s_barrier
    v_xor_b32 v3, 0x400, v2
    ds_read_b128 v[20:23], v3
    s_waitcnt lgkmcnt(0)
    global_store_dwordx4 v2, v[20:23], s[8:9] offset:1024
    s_load_dword s22, s[6:7], 64
    s_waitcnt lgkmcnt(0)
    v_mov_b32 v24, s22
    global_store_dword v1, v24, s[8:9] offset:3072
    """
    assert not run(lines, waves=2)[0]
    usual = run(lines, waves=2, gather=False)[1]
    assert usual[768:800].tolist() == [16] * 32
    assert np.array_equal(run(lines, waves=2, gather=False, schedule=schedule)[1], usual)


@pytest.mark.parametrize(
    "lines",
    [
        SWAP.replace("s_waitcnt lgkmcnt(0)\nglobal_store", "global_store"),
        SWAP.replace("s_barrier\n", ""),
        "global_load_dword v10, v1, s[6:7] offset:512\nglobal_store_dword v1, v10, s[8:9]",
        "s_load_dword s22, s[6:7], 64\nv_mov_b32 v24, s22\ns_nop 4\nglobal_store_dword v1, v24, s[8:9]",
    ],
    ids=["LDS", "no barrier", "memory", "scalar"],
)
def test_a_hazard_shows_in_the_values_under_some_schedule(lines: str) -> None:
    usual = run(lines, waves=2, gather=False)[1]
    late = [run(lines, waves=2, gather=False, schedule=each)[1] for each in SCHEDULES]
    assert any(not np.array_equal(each, usual) for each in late)


def test_an_object_is_executed_where_each_device_has_loaded_it() -> None:
    """Its instructions are decoded once for all: what depends on the address must be each device's own."""
    lines = "s_getpc_b64 s[20:21]\nv_mov_b32 v3, s20\ns_branch store\ns_endpgm\nstore:\n"
    code = assemble(f"{ENTRY}\n{lines}global_store_dword v1, v3, s[8:9]\ns_endpgm", lds_bytes=0)
    offsets, entries = set(), set()
    for bytes_before in (4096, 1 << 20, 4096):
        device = EmulatedDevice(deadline_s=60.0)
        first, second = device.allocate(bytes_before), device.allocate(4096)
        kernel = device.load(code, "kernel")
        device.launch(kernel, LAUNCH, {"x": first, "y": second})
        left = np.empty(1024, np.uint32)
        device.read(second, left)
        entries.add(kernel.program.entry)
        offsets.add(int(left[0]) - (kernel.program.entry & 0xFFFFFFFF))
    assert (len(entries), len(offsets)) == (2, 1)


def test_an_insertion_stays_with_the_device_that_asked_for_it() -> None:
    lines = "v_mov_b32 v3, 7\ns_nop 0\nglobal_store_dword v1, v3, s[8:9]"
    _, plain, _ = run(lines)
    code = assemble(f"{ENTRY}\n{lines}\ns_endpgm", lds_bytes=8192)
    kernel = EmulatedDevice().load(code, "kernel")
    found = kernel.program.around(kernel.program.entry, 0, 20)
    store = next(each.address for each in found if each.mnemonic == "global_store_dword") - kernel.code.region.base
    _, changed, _ = run(lines, insertions=[Insertion(store, (0x7E060289,))])  # v_mov_b32 v3, 9
    _, again, _ = run(lines)
    assert (int(plain[0]), int(changed[0]), int(again[0])) == (7, 9, 7)
