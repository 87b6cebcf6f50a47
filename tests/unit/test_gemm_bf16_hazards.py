"""The space's wait constraints agree with the hazard checker: what they call legal is safe, one beyond is not."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from gemm_bf16_variants import compiled, space

from hktune.core.config import Config
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem
from hktune.core.variant import Variant
from hktune.device.emulated import EmulatedDevice
from hktune.verify import Proof, verify

SAMPLED = [space().sample(random.Random(seed)) for seed in range(100, 106)]
DEEPEST = [
    # As many K-tiles in flight, and as many clusters read ahead, as the constraints allow for each pipeline.
    {"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1, "stages": 2, "refill": "late", "vmcnt_tiles": 1},
    {"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1, "stages": 3, "refill": "early", "vmcnt_tiles": 1},
    {"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1, "stages": 3, "refill": "late", "vmcnt_tiles": 2},
    {
        "block_m": 64,
        "block_n": 64,
        "warps_n": 2,
        "split": 1,
        "stages": 3,
        "refill": "late",
        "vmcnt_tiles": 1,
        "slices": 2,
        "lgkmcnt_clusters": 1,
        "read_across": True,
    },
    {"block_m": 128, "block_n": 128, "k_step": 128, "slices": 2, "lgkmcnt_clusters": 2, "refill": "late"},
]


WAITS = (
    *("schedule", "stages", "refill", "vmcnt_tiles", "vmcnt_waits"),
    *("lgkmcnt_clusters", "read_across", "slices", "spread"),
)
"""What a pipeline's waits follow from."""


def by_waits() -> list[Any]:
    """The space's seeds: of those that wait alike only the one of the smallest block in every run of the tests."""
    first: dict[tuple[object, ...], Config] = {}
    for seed in sorted(space().seeds, key=lambda seed: (int(seed["block_m"]) * int(seed["block_n"]), seed["split_k"])):
        first.setdefault(tuple(seed[name] for name in WAITS), seed)
    quick = set(first.values())
    return [pytest.param(seed, id=seed.id, marks=() if seed in quick else pytest.mark.slow) for seed in space().seeds]


def watched(variant: Variant, config: Config, problem: Problem) -> Proof | Failure:
    code = compiled(variant)
    device = EmulatedDevice(find_hazards=True, strict_hazards=True)
    launch = space().template.launch(config, problem)
    return verify(device, device.load(code.data, code.symbol), launch, problem, seed=1)


def changed(variant: Variant, right: str, wrong: str) -> Variant:
    assert variant.source.count(right) == 1, right
    return dataclasses.replace(variant, source=variant.source.replace(right, wrong))


def without_guards(variant: Variant) -> Variant:
    lines = variant.source.splitlines(keepends=True)
    guards = ("static_assert(VMCNT_TILES < PREFETCH", "static_assert(LGKMCNT_CLUSTERS < clusters")
    kept = [line for line in lines if not line.lstrip().startswith(guards)]
    assert len(lines) - len(kept) == 2
    return dataclasses.replace(variant, source="".join(kept))


@pytest.mark.parametrize("config", [*by_waits(), *SAMPLED], ids=lambda config: getattr(config, "id", None))
def test_no_legal_config_is_flagged(config: Config) -> None:
    outcome = watched(space().template.render(config), config, space().template.proof_problems(config)[0].problem)
    assert isinstance(outcome, Proof), outcome


@pytest.mark.parametrize("knobs", DEEPEST, ids=range(len(DEEPEST)))
def test_the_deepest_legal_waits_are_safe_and_one_deeper_is_not(knobs: dict[str, object]) -> None:
    config = space().config(knobs)
    assert not space().violations(config), space().violations(config)
    problem = space().template.proof_problems(config)[0].problem
    variant = space().template.render(config)
    assert isinstance(watched(variant, config, problem), Proof)
    for right, wrong in (
        ("wait_loads<tiles_left * LOADS_PER_TILE>", "wait_loads<tiles_left * LOADS_PER_TILE + 1>"),
        ("reads_in_flight_under(c, next_follows)>", "reads_in_flight_under(c, next_follows) + 1>"),
    ):
        outcome = watched(changed(variant, right, wrong), config, problem)
        assert isinstance(outcome, Failure), wrong
        assert outcome.status is Status.HAZARD, outcome


@pytest.mark.parametrize("knobs", DEEPEST[:4], ids=range(4))
def test_one_more_tile_in_flight_than_vmcnt_leaves_the_tile_allows_is_a_hazard(knobs: dict[str, object]) -> None:
    """The constraint is not too strict: rendered in spite of it, the kernel reads tiles that may be on their way."""
    config = space().config(knobs)
    tiles = int(str(knobs["vmcnt_tiles"]))
    variant = without_guards(space().template.render(config))
    line = next(line for line in variant.source.splitlines() if line.startswith("constexpr int VMCNT_TILES"))
    broken = changed(variant, line, line.replace(f"= {tiles};", f"= {tiles + 1};"))
    outcome = watched(broken, config, space().template.proof_problems(config)[0].problem)
    assert isinstance(outcome, Failure)
    assert outcome.status is Status.HAZARD, outcome
    assert "s_waitcnt vmcnt" in outcome.detail
