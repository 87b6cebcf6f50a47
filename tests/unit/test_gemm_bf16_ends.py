"""How the gfx950 GEMM begins and ends: sums are cleared while loads are under way, and C is stored in whole lines."""

from __future__ import annotations

from functools import lru_cache

import pytest
from gemm_bf16_variants import built, model, space, traced_proof

from hktune.core.config import Config
from hktune.emulator.clock.trace import Step, Trace
from hktune.verify import Proof

WHOLE = {"block_m": 64, "block_n": 128, "warps_n": 2, "split": 1}
PINGPONG = {"schedule": "pingpong", "refill": "late", "lgkmcnt_clusters": 1, "spread": 4}
INTERLEAVE = {"schedule": "interleave", "slices": 2, "refill": "late", "lgkmcnt_clusters": 1, "read_across": True}
LINES_OF_A_STORE = [
    (WHOLE, 8),
    ({**WHOLE, **INTERLEAVE}, 8),
    ({**WHOLE, "block_n": 256}, 8),
    ({**PINGPONG, "block_m": 128, "warps_m": 4, "warps_n": 2}, 8),
    ({**WHOLE, "block_n": 64}, 16),
    (PINGPONG | {"block_m": 128}, 16),
]
"""A row of C has 128 bytes of a line where a warp's part has 64 columns, and 64 where it has 32."""


@lru_cache
def trace_of(config: Config) -> Trace:
    problem = space().template.proof_problems(config)[0].problem
    outcome, trace = traced_proof(built(config), space().template.launch(config, problem), problem)
    assert isinstance(outcome, Proof), outcome
    return trace


@pytest.mark.parametrize(("knobs", "lines"), LINES_OF_A_STORE, ids=range(len(LINES_OF_A_STORE)))
def test_each_store_touches_whole_lines_where_a_warp_has_them(knobs: dict[str, object], lines: int) -> None:
    config = space().config(knobs)
    assert not space().violations(config)
    trace = trace_of(config)
    stored = 0
    for wave in trace.waves:
        touched = [
            int(count)
            for step, count in zip(wave.steps, wave.lines, strict=True)
            if trace.program[step].mnemonic == "buffer_store_dwordx4"
        ]
        assert set(touched) == {lines}
        stored += len(touched)
    assert stored * 64 * 16 == model(config)["block_m"] * model(config)["block_n"] * 2


@pytest.mark.parametrize(
    "knobs", [WHOLE, {**WHOLE, **INTERLEAVE}, PINGPONG], ids=["pipeline", "interleave", "pingpong"]
)
def test_sums_are_cleared_under_the_first_loads(knobs: dict[str, object]) -> None:
    config = space().config(knobs)
    trace = trace_of(config)
    steps = [trace.program[step] for step in trace.waves[0].steps]
    wait = next(at for at, step in enumerate(steps) if step.vmcnt is not None and step.mnemonic == "s_waitcnt")
    load = max(at for at, step in enumerate(steps[:wait]) if step.mnemonic.startswith("buffer_load"))
    multiplied = next(at for at, step in enumerate(steps) if "mfma" in step.mnemonic)
    accumulators = model(config)["accumulator_vgprs"]
    assert moved(steps[load:wait]) >= accumulators
    assert moved(steps[wait:multiplied]) < accumulators / 8


def moved(steps: list[Step]) -> int:
    """Registers that `steps` set by v_mov_b32 or v_mov_b64."""
    return sum({"v_mov_b32": 1, "v_mov_b64": 2}.get(step.mnemonic, 0) for step in steps)
