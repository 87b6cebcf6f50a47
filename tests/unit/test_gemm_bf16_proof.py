"""Legal configs of the gfx950 GEMM are right: every element of C, and every wait and barrier of the pipeline.

The emulator completes loads at once, so values alone cannot show a wait that is too short; `pipeline_order` can.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
from gemm_bf16_variants import built, compiled, pipeline_of, space, traced_proof
from pipeline_order import disorders

from hktune.core.config import Config
from hktune.core.problem import Problem
from hktune.verify import Proof

BF16_RELATIVE_ERROR = 0.0018  # rounding to nearest even leaves 0.00166 on normal data; dropping bits leaves twice that
SAMPLED = [space().sample(random.Random(seed)) for seed in range(10)]


@pytest.mark.parametrize("config", [*space().seeds, *SAMPLED], ids=lambda config: config.id)
def test_a_legal_config_is_right_in_every_element_and_every_wait(config: Config) -> None:
    problem = space().template.proof_problems(config)[0].problem
    outcome, trace = traced_proof(built(config), space().template.launch(config, problem), problem)
    assert isinstance(outcome, Proof), (config, outcome)
    assert outcome.relative_error < BF16_RELATIVE_ERROR
    assert disorders(trace, pipeline_of(config)) == []


@pytest.mark.parametrize("k_tiles", [1, 2, 3])
@pytest.mark.parametrize(
    "pipelining",
    [
        {"stages": 1, "refill": "late"},
        {"stages": 2, "refill": "late", "vmcnt_tiles": 1},
        {"stages": 3, "refill": "late", "vmcnt_tiles": 2},
        {"stages": 3, "refill": "late", "vmcnt_tiles": 1, "slices": 2, "lgkmcnt_clusters": 1, "read_across": True},
        {"stages": 3, "slices": 2, "spread": 2},
        {"stages": 3, "refill": "late", "slices": 2, "lgkmcnt_clusters": 1, "read_across": True, "spread": 2}
        | {"schedule": "interleave"},
        {"schedule": "pingpong", "stages": 2, "refill": "late"},
        {"schedule": "pingpong", "stages": 3, "vmcnt_tiles": 1, "read_across": True},
        {"schedule": "pingpong", "stages": 4, "refill": "late", "vmcnt_waits": "cluster", "lgkmcnt_clusters": 1},
    ],
    ids=lambda pipelining: " ".join(f"{name}={value}" for name, value in pipelining.items()),
)
def test_fewer_tiles_than_the_pipeline_is_deep_are_right_too(pipelining: dict[str, object], k_tiles: int) -> None:
    block = {"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1}
    if pipelining.get("schedule") == "pingpong":
        block = {"block_m": 128, "block_n": 128, "spread": 4}
    config = space().config({**block, **pipelining})
    assert not space().violations(config)
    problem = Problem(block["block_m"], 2 * block["block_n"], 64 * k_tiles)
    outcome, trace = traced_proof(built(config), space().template.launch(config, problem), problem)
    assert isinstance(outcome, Proof), outcome
    assert disorders(trace, pipeline_of(config)) == []


def test_a_grid_that_is_not_square_is_covered() -> None:
    config = space().config({"block_m": 64, "block_n": 128, "warps_n": 2, "split": 1})
    problem = Problem(3 * 64, 5 * 128, 128)
    outcome, _ = traced_proof(built(config), space().template.launch(config, problem), problem)
    assert isinstance(outcome, Proof), outcome


LATE = {"refill": "late", "vmcnt_tiles": 1, "lgkmcnt_clusters": 1}
INTERLEAVE = {"schedule": "interleave", "block_m": 128, "warps_n": 2, "slices": 2, "refill": "late"} | {
    "lgkmcnt_clusters": 1,
    "read_across": True,
}
PINGPONG = {"schedule": "pingpong", "refill": "late", "lgkmcnt_clusters": 1, "spread": 4}
BY_CLUSTER = {**PINGPONG, "read_across": True, "vmcnt_waits": "cluster"}
PENDING = "wait_loads<loads_in_flight(c, behind)>"


@pytest.mark.parametrize(
    ("values", "right", "wrong", "complaint"),
    [
        (LATE, "wait_loads<tiles_left * LOADS_PER_TILE>", "wait_loads<tiles_left * LOADS_PER_TILE + 1>", "has landed"),
        (LATE, "reads_in_flight_under(c, next_follows)>", "reads_in_flight_under(c, next_follows) + 1>", "in flight"),
        (
            LATE,
            "__builtin_amdgcn_s_barrier();\n            source.fetch<0, PORTION>",
            "source.fetch<0, PORTION>",
            "is free",
        ),
        (INTERLEAVE, "if (SCHEDULE == Schedule::interleave) return 0;", "", "read is in flight"),
        (INTERLEAVE, "await_tile<behind - 1 < VMCNT_TILES ? behind - 1 : VMCNT_TILES>();", "", "is free"),
        (PINGPONG, PENDING, "wait_loads<loads_in_flight(c, behind) + 1>", "has landed"),
        (PINGPONG, "wait_shared<READS_A>();", "wait_shared<READS_A + 1>();", "is free"),
        (PINGPONG, "        wait_shared<0>();\n        arrived(a);", "        arrived(a);", "read is in flight"),
        (BY_CLUSTER, PENDING, "wait_loads<loads_in_flight(c, behind) + 1>", "has landed"),
        (BY_CLUSTER, "PARTS * STAGES - 1 : PARTS", "PARTS * STAGES : PARTS", "is free"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_a_pipeline_with_one_wait_too_short_is_seen(
    values: dict[str, object], right: str, wrong: str, complaint: str
) -> None:
    config = space().config(values)
    assert not space().violations(config)
    variant = space().template.render(config)
    assert variant.source.count(right) == 1
    code = compiled(dataclasses.replace(variant, source=variant.source.replace(right, wrong)))
    problem = space().template.proof_problems(config)[0].problem
    _, trace = traced_proof(code, space().template.launch(config, problem), problem)
    found = disorders(trace, pipeline_of(config))
    assert any(complaint in line for line in found), found
