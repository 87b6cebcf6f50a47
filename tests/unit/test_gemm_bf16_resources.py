"""The space's register model against what the compiler reports, over configs at its edges."""

from __future__ import annotations

import heapq
import random
from functools import lru_cache
from statistics import median

from gemm_bf16_variants import built, compiled, model, space

from hktune.core.config import Config
from hktune.core.shipped import KERNELS
from hktune.core.variant import Resources
from hktune.template import load_template

EXTREMES = 3  # configs of the most registers, for each count of warps, with and without fences
DRAWS = 300


@lru_cache
def edge_configs() -> tuple[Config, ...]:
    """Of a fixed draw of legal configs, those nearest to the budget, each moved on while a neighbour is nearer."""
    draw = random.Random(950)
    classes: dict[tuple[int, bool], dict[str, Config]] = {}
    for _ in range(DRAWS):
        config = space().sample(draw)
        classes.setdefault((model(config)["warps"], bool(config["sched_barrier"])), {})[config.id] = config
    edges = [heapq.nlargest(EXTREMES, classes[key].values(), key=vgprs) for key in sorted(classes)]
    return tuple(dict.fromkeys(climbed(config) for nearest in edges for config in nearest))


def climbed(config: Config) -> Config:
    """The end of the way up from `config`, among configs of as many warps and the same fences."""
    kept = model(config)["warps"], config["sched_barrier"]
    while True:
        near = [one for one in space().neighbours(config) if (model(one)["warps"], one["sched_barrier"]) == kept]
        highest = max([config, *near], key=vgprs)
        if vgprs(highest)[0] == vgprs(config)[0]:
            return config
        config = highest


def vgprs(config: Config) -> tuple[int, str]:
    return model(config)["vgprs"] - model(config)["vgpr_budget"], config.id


def resources(config: Config) -> Resources:
    return built(config).resources


def test_the_sample_reaches_the_budget_of_every_workgroup_size() -> None:
    reached = {model(config)["warps"]: model(config)["vgprs"] for config in reversed(edge_configs())}
    assert sorted(reached) == [1, 2, 4, 8, 16]
    assert min(reached[warps] for warps in (1, 2, 4, 8)) > 240
    assert 100 < reached[16] <= 128


def test_no_legal_config_spills_or_leaves_its_budget() -> None:
    for config in edge_configs():
        used, derived = resources(config), model(config)
        assert (used.spills, used.scratch_bytes, used.agprs) == (0, 0, 0), config
        assert used.vgprs <= derived["vgpr_budget"], config


def test_the_model_is_an_upper_bound_and_near_where_clusters_are_fenced() -> None:
    fenced = [config for config in edge_configs() if config["sched_barrier"]]
    for config in fenced:
        live = model(config)["accumulator_vgprs"] + model(config)["fragment_vgprs"]
        assert resources(config).vgprs > live, f"{config} cannot hold what is live at once"
    slack = [model(config)["vgprs"] - resources(config).vgprs for config in fenced]
    assert min(slack) >= 0, sorted(slack)
    assert median(slack) <= 30, sorted(slack)


def test_beyond_the_budget_the_compiler_does_spill() -> None:
    """The rule forbids what it is for: these break nothing else."""
    beyond: list[dict[str, object]] = [
        {"warps_m": 2, "warps_n": 2},
        {"block_m": 128, "k_step": 128, "warps_m": 1, "mfma": 32, "split": 1, "stages": 1, "refill": "late"},
        {"block_n": 128, "k_step": 128, "warps_n": 2, "split": 1, "stages": 1, "refill": "late"}
        | {"setprio": "none", "sched_barrier": False},
    ]
    unchecked = load_template(KERNELS / "gfx950" / "gemm_bf16")  # the space's own refuses to render an illegal config
    for values in beyond:
        config = space().config(values)
        assert [violation.name for violation in space().violations(config)] == ["registers_fit"]
        used = compiled(unchecked.render(config)).resources
        assert used.scratch_bytes > 0 or used.agprs > 0, config
