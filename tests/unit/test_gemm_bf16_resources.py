"""The space's register model against what the compiler reports, over configs at its edges."""

from __future__ import annotations

import heapq
import random
from functools import lru_cache
from statistics import median

import pytest
from gemm_bf16_variants import built, model, space

from hktune.model import Config, Resources

EXTREMES = 4  # configs of the most registers, for each shape of the workgroup
DRAWS = 3000


@lru_cache
def edge_configs() -> tuple[Config, ...]:
    """Of a fixed draw of legal configs, those that come nearest to the budget, for each count of warps."""
    draw = random.Random(950)
    by_warps: dict[int, dict[str, Config]] = {}
    for _ in range(DRAWS):
        config = space().sample(draw)
        by_warps.setdefault(model(config)["warps"], {})[config.id] = config
    edges = [heapq.nlargest(EXTREMES, configs.values(), key=vgprs) for _, configs in sorted(by_warps.items())]
    return tuple(config for nearest in edges for config in nearest)


def vgprs(config: Config) -> tuple[int, str]:
    return model(config)["vgprs"] - model(config)["vgpr_budget"], config.id


def resources(config: Config) -> Resources:
    return built(config).resources


def test_the_sample_reaches_the_budget_of_every_workgroup_size() -> None:
    reached = {model(config)["warps"]: model(config)["vgprs"] for config in reversed(edge_configs())}
    assert sorted(reached) == [1, 2, 4, 8, 16]
    assert min(reached[warps] for warps in (1, 2, 4, 8)) > 240
    assert 100 < reached[16] <= 128


@pytest.mark.parametrize("config", edge_configs(), ids=lambda config: config.id)
def test_no_legal_config_spills_or_leaves_its_budget(config: Config) -> None:
    used, derived = resources(config), model(config)
    assert (used.spills, used.scratch_bytes, used.agprs) == (0, 0, 0), config
    assert used.vgprs <= derived["vgpr_budget"], config


def test_the_model_is_an_upper_bound_and_near_where_clusters_are_fenced() -> None:
    fenced = [config for config in edge_configs() if config["sched_barrier"]]
    for config in fenced:
        live = model(config)["accumulator_vgprs"] + model(config)["fragment_vgprs"]
        assert resources(config).vgprs > live, f"{config} cannot hold what is live at once"
    slack = [model(config)["vgprs"] - resources(config).vgprs for config in fenced]
    assert len(fenced) >= len(edge_configs()) // 3
    assert min(slack) >= 0, sorted(slack)
    assert median(slack) <= 24, sorted(slack)


def test_beyond_the_budget_the_compiler_does_spill() -> None:
    """The rule forbids what it is for: these break nothing else."""
    beyond: list[dict[str, object]] = [
        {"block_n": 256, "warps_m": 2, "warps_n": 2, "split": 1},
        {"block_m": 64, "warps_m": 1, "warps_n": 2, "split": 1, "refill": "late"},
        {"block_m": 128, "k_step": 128, "warps_m": 1, "mfma": 32, "split": 1, "stages": 1, "refill": "late"},
    ]
    for values in beyond:
        config = space().config(values)
        assert [violation.name for violation in space().violations(config)] == ["registers_fit"]
        used = resources(config)
        assert used.scratch_bytes > 0 or used.agprs > 0, config
