"""Legal configs of the gfx950 GEMM are right: every element of C, and every wait and barrier of the pipeline.

The emulator completes loads at once, so values alone cannot show a wait that is too short; `pipeline_order` can.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
from gemm_bf16_variants import built, compiled, model, space, traced_proof
from pipeline_order import Pipeline, disorders

from hktune.model import Config, Problem
from hktune.verify import Proof

BF16_RELATIVE_ERROR = 0.0018  # rounding to nearest even leaves 0.00166 on normal data; dropping bits leaves twice that
SAMPLED = [space().sample(random.Random(seed)) for seed in range(8)]


def pipeline(config: Config) -> Pipeline:
    derived = model(config)
    if config["schedule"] == "pingpong":  # B0 A0 B1 A1; fragments_b counts both parts of B
        parts = 2 * (derived["loads_b"], derived["loads_a"])
        return Pipeline(parts, 2 * (derived["fragments_b"] // 2, derived["fragments_a"]), derived["stages"])
    reads = derived["clusters"] * derived["fragments_a"] + derived["slices"] * derived["fragments_b"]
    return Pipeline((derived["loads_per_tile"],), (reads,), derived["stages"])


@pytest.mark.parametrize("config", [*space().seeds, *SAMPLED], ids=lambda config: config.id)
def test_a_legal_config_is_right_in_every_element_and_every_wait(config: Config) -> None:
    problem = space().template.proof_problems(config)[0].problem
    outcome, trace = traced_proof(built(config), space().template.launch(config, problem), problem)
    assert isinstance(outcome, Proof), (config, outcome)
    assert outcome.relative_error < BF16_RELATIVE_ERROR
    assert disorders(trace, pipeline(config)) == []


@pytest.mark.parametrize("k_tiles", [1, 2, 3])
@pytest.mark.parametrize(
    "pipelining",
    [
        {"stages": 1, "refill": "late"},
        {"stages": 2, "refill": "late", "vmcnt_tiles": 1},
        {"stages": 3, "refill": "late", "vmcnt_tiles": 2},
        {"stages": 3, "refill": "late", "vmcnt_tiles": 1, "slices": 2, "lgkmcnt_clusters": 1, "read_across": True},
    ],
    ids=lambda pipelining: " ".join(f"{name}={value}" for name, value in pipelining.items()),
)
def test_fewer_tiles_than_the_pipeline_is_deep_are_right_too(pipelining: dict[str, object], k_tiles: int) -> None:
    config = space().config({"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1, **pipelining})
    assert not space().violations(config)
    problem = Problem(64, 128, 64 * k_tiles)
    outcome, trace = traced_proof(built(config), space().template.launch(config, problem), problem)
    assert isinstance(outcome, Proof), outcome
    assert disorders(trace, pipeline(config)) == []


def test_a_grid_that_is_not_square_is_covered() -> None:
    config = space().config({"block_m": 64, "block_n": 128, "warps_n": 2, "split": 1})
    problem = Problem(3 * 64, 5 * 128, 128)
    outcome, _ = traced_proof(built(config), space().template.launch(config, problem), problem)
    assert isinstance(outcome, Proof), outcome


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ('"n"(tiles_left * LOADS_PER_TILE)', '"n"(tiles_left * LOADS_PER_TILE + 1)', "has landed"),
        ("reads_in_flight_under(c, next_follows)>", "reads_in_flight_under(c, next_follows) + 1>", "read is in flight"),
        ("                    __builtin_amdgcn_s_barrier();\n", "", "its place is free"),
    ],
    ids=["vmcnt one too deep", "lgkmcnt one too deep", "no barrier before a refill"],
)
def test_a_pipeline_with_one_wait_too_short_is_seen(right: str, wrong: str, complaint: str) -> None:
    config = space().config({"refill": "late", "vmcnt_tiles": 1, "lgkmcnt_clusters": 1})
    variant = space().template.render(config)
    assert variant.source.count(right) == 1
    code = compiled(dataclasses.replace(variant, source=variant.source.replace(right, wrong)))
    problem = space().template.proof_problems(config)[0].problem
    _, trace = traced_proof(code, space().template.launch(config, problem), problem)
    found = disorders(trace, pipeline(config))
    assert any(complaint in line for line in found), found
