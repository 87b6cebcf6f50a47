"""What a block does to what is under way is worked out once for each state that it is met in."""

from __future__ import annotations

import pytest
from gfx950_code import assemble
from hazard_kernels import ENTRY
from test_findings import LAUNCH

from hktune.device.emulated import EmulatedDevice
from hktune.emulator.hazards.finding import Finding
from hktune.emulator.hazards.track import Track

STEADY = """
global_load_dword v10, v1, s[6:7]
v_mov_b32 v12, 1
loop:
s_waitcnt vmcnt(0)
v_add_u32 v11, v10, v12
global_load_dword v10, v1, s[6:7]
s_sub_u32 s20, s20, 1
s_cmp_lg_u32 s20, 0
s_cbranch_scc1 loop
"""
STORES = "loop:\nglobal_store_dword v1, v1, s[8:9]\ns_sub_u32 s20, s20, 1\ns_cmp_lg_u32 s20, 0\ns_cbranch_scc1 loop"


def issued(lines: str, count: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, tuple[Finding, ...]]:
    """How many instructions were thought about while a loop went round `count` times, and what was found."""
    thought: list[int] = []
    issue = Track.issue

    def noted(track: Track, footprint) -> None:  # type: ignore[no-untyped-def]
        thought.append(footprint.instruction.address)
        issue(track, footprint)

    with monkeypatch.context() as patch:
        patch.setattr(Track, "issue", noted)
        device = EmulatedDevice(deadline_s=60.0, find_hazards=True, gather_hazards=True)
        buffers = [device.allocate(4096) for _ in range(2)]
        kernel = device.load(assemble(f"{ENTRY}s_movk_i32 s20, {count}\n{lines}\ns_endpgm"), "kernel")
        device.launch(kernel, LAUNCH, dict(zip(("x", "y"), buffers, strict=True)))
    return len(thought), device.findings


def test_a_steady_loop_costs_the_same_however_often_it_goes_round(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (issued(STEADY, count, monkeypatch) for count in (5, 500))
    assert few == (many[0], ())
    assert many[1] == ()


def test_a_loop_that_never_waits_comes_to_a_steady_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue stalls at a full counter, so nobody can tell how many stores came before the last ones."""
    few, many = (issued(STORES, count, monkeypatch) for count in (100, 900))
    assert few[0] == many[0]
    assert many[1] == ()


def test_a_launch_of_the_same_code_thinks_of_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = issued(STEADY, 77, monkeypatch), issued(STEADY, 77, monkeypatch)
    assert first[0] > 0
    assert again == (0, first[1])


@pytest.mark.parametrize("younger", [10, 61, 62, 63, 64, 200])
def test_a_load_is_missed_behind_any_number_of_stores(younger: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be on its way for as long as the counter can tell; behind 63 others it is done, as issue stalls."""
    _, found = issued(f"global_load_dword v10, v1, s[6:7]\n{STORES}\nv_add_u32 v11, v10, v1", younger, monkeypatch)
    assert [each.rule for each in found] == ["missing-wait" if younger < 63 else "counter-full"]
    assert f"vmcnt({min(younger, 62)}) would cover it" in found[0].what


def test_a_hazard_of_a_later_time_round_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the third time the load is read without a wait."""
    lines = """
    v_mov_b32 v10, 0
    loop:
    s_cmp_lg_u32 s20, 3
    s_cbranch_scc1 waits
    global_load_dword v10, v1, s[6:7]
    s_branch reads
    waits:
    s_waitcnt vmcnt(0)
    reads:
    v_add_u32 v11, v10, v1
    s_sub_u32 s20, s20, 1
    s_cmp_lg_u32 s20, 0
    s_cbranch_scc1 loop
    """
    _, found = issued(lines, 5, monkeypatch)
    assert [(each.rule, each.here.iteration) for each in found] == [("missing-wait", 3)]
