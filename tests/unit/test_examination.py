"""Trials of schedules and fixes come to the same on one core and on several."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gfx950_code import assemble
from hazard_kernels import ENTRY

from hktune.core.forked import can_fork
from hktune.verify import examination, kernel_file
from hktune.verify.kernel_arguments import parse_parameters
from hktune.verify.kernel_file import KernelRun, Verdict, judge

LINES = """
global_load_dword v10, v1, s[6:7]
v_add_u32 v20, v10, v1
v_mul_u32_u24 v21, 4, v0
v_xor_b32 v22, 0x100, v21
ds_write_b32 v21, v20
ds_read_b32 v23, v22
s_waitcnt lgkmcnt(0)
v_readfirstlane_b32 s20, v1
v_readlane_b32 s21, v1, s20
global_store_dword v1, v23, s[8:9]
"""
"""A missing wait, a race between two waves and too few wait states: each has a fix. The output depends on the order."""
RUN = KernelRun(parse_parameters("x:f32[128] y:out:f32[128]"), {}, "1", "128", "512")


def verdict(workers: int, trials_s: float = 60.0) -> Verdict:
    return judge(assemble(f"{ENTRY}{LINES}s_endpgm"), "kernel", replace(RUN, workers=workers, trials_s=trials_s))


@pytest.mark.skipif(not can_fork(), reason="nothing forks here")
def test_trials_on_several_cores_come_to_what_they_do_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "_WORTH_S", -1.0)
    at_once: list[int] = []
    side_by_side = examination.side_by_side

    def noted(calls, *limits):  # type: ignore[no-untyped-def]
        at_once.append(len(calls))
        return side_by_side(calls, *limits)

    monkeypatch.setattr(examination, "side_by_side", noted)
    alone = verdict(1)
    assert at_once == []
    divided = verdict(3)
    assert at_once[0] == len(examination.SCHEDULES)
    assert len(at_once) > 1
    said = [(each.rule.name, each.what, each.fix) for each in divided.findings]
    assert said == [(each.rule.name, each.what, each.fix) for each in alone.findings]
    fixes = {each.rule.name: each.fix for each in divided.findings}
    assert fixes["missing-wait"].startswith("s_waitcnt vmcnt(0) before v_add_u32")
    assert "(tried: it is gone" in fixes["wait-state"]
    assert "(tried: it is gone" in fixes["lds-race"]


@pytest.mark.skipif(not can_fork(), reason="nothing forks here")
def test_what_a_child_does_not_answer_is_tried_here(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = verdict(1)
    monkeypatch.setattr(examination, "_WORTH_S", -1.0)
    monkeypatch.setattr(examination, "side_by_side", lambda calls, *_: [None] * len(calls))
    divided = verdict(3)
    assert [each.fix for each in divided.findings] == [each.fix for each in alone.findings]


def test_findings_that_share_a_remedy_have_it_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    load = kernel_file.EmulatedDevice.load

    def noted(device, data, symbol, insertions=()):  # type: ignore[no-untyped-def]
        changes = tuple(insertions)
        tried.extend([changes] if changes else [])
        return load(device, data, symbol, changes)

    monkeypatch.setattr(kernel_file.EmulatedDevice, "load", noted)
    assert verdict(1).findings
    assert len(tried) == len(set(tried))


def test_without_time_nothing_is_tried() -> None:
    fixes = [each.fix for each in verdict(1, 0.0).findings if each.finding is not None and each.finding.remedies]
    assert fixes
    assert all(fix.endswith("(not tried: the time for trials is over)") for fix in fixes if fix)


def test_a_kernel_that_writes_to_lds_and_has_none_is_run_under_every_schedule() -> None:
    """What is written outside is dropped, also where data arrive late."""
    found = judge(assemble(f"{ENTRY}{LINES}s_endpgm"), "kernel", replace(RUN, lds_bytes="0"))
    assert "lds-bounds" in {each.rule.name for each in found.findings}
