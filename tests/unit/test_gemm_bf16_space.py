"""The rules of the gfx950 GEMM's space: each is needed, says why, and leaves what it should."""

from __future__ import annotations

import pytest
from gemm_bf16_variants import ROOT, model, space

from hktune.core.problem import Problem

# One change of a legal config that breaks the rule, and what else it cannot help breaking.
BREAKS: dict[str, tuple[dict[str, object], set[str]]] = {
    "pingpong_groups": ({"schedule": "pingpong", "spread": 4, "warps_n": 2, "block_n": 128}, set()),
    "pingpong_fences": ({"schedule": "pingpong", "spread": 4, "setprio": "phase"}, set()),
    "pingpong_reads_half_a_phase_ahead": (
        {"schedule": "pingpong", "spread": 4, "lgkmcnt_clusters": 2},
        {"lgkmcnt_has_clusters"},
    ),
    "pingpong_spreads_its_loads": ({"schedule": "pingpong"}, set()),
    "pingpong_waits_after_sending": ({"schedule": "pingpong", "spread": 4, "read_across": True}, set()),
    "waits_by_cluster": ({"vmcnt_waits": "cluster"}, set()),
    "interleave_waves": (
        {"schedule": "interleave", "slices": 2, "refill": "late", "lgkmcnt_clusters": 1, "read_across": True},
        set(),
    ),
    "interleave_reads_ahead": ({"schedule": "interleave", "block_m": 128, "warps_n": 2}, set()),
    "spread_has_parts": ({"split": 1, "slices": 4, "k_step": 128, "block_m": 64, "block_n": 128, "spread": 4}, set()),
    "spread_has_clusters": ({"spread": 4}, set()),
    "warp_tile_rows": ({"block_m": 64, "warps_m": 4, "warps_n": 2, "mfma": 32, "split": 1}, set()),
    "warp_tile_columns": ({"block_n": 64, "mfma": 32, "split": 1}, set()),
    "slice_depth": ({"k_step": 32, "slices": 2}, set()),
    "whole_loads": ({"block_m": 64, "block_n": 64, "k_step": 32, "warps_m": 4, "warps_n": 2, "split": 1}, set()),
    "single_buffer_refills_late": ({"stages": 1}, {"vmcnt_leaves_the_tile"}),
    "lds_fits": ({"stages": 3}, set()),
    "vmcnt_leaves_the_tile": ({"vmcnt_tiles": 1}, set()),
    "vmcnt_counts": (
        {"block_m": 64, "block_n": 64, "warps_m": 1, "warps_n": 1, "slices": 2, "stages": 3, "refill": "late"}
        | {"k_step": 128, "split": 1},
        set(),
    ),
    "lgkmcnt_has_clusters": ({"lgkmcnt_clusters": 2}, {"registers_fit", "lgkmcnt_counts"}),
    "read_across_reads_ahead": ({"slices": 2, "refill": "late", "read_across": True}, set()),
    "read_across_refills_late": (
        {"k_step": 32, "mfma": 32, "slices": 2, "stages": 3, "lgkmcnt_clusters": 1, "read_across": True},
        set(),
    ),
    "read_across_reuses_registers": ({"refill": "late", "lgkmcnt_clusters": 1, "read_across": True}, set()),
    "lgkmcnt_counts": ({"split": 1, "slices": 2, "k_step": 128, "lgkmcnt_clusters": 1}, {"registers_fit", "lds_fits"}),
    "registers_fit": ({"warps_m": 2, "warps_n": 2}, set()),
    "sched_barrier_adds_something": ({"sched_barrier": False}, set()),
    "whole_vectors_of_k": ({}, set()),
    "split_k_has_tiles": ({"split_k": 8}, set()),
    "counters_suffice": ({"split_k": 2}, {"workspace_fits"}),
    "workspace_fits": ({"split_k": 16}, set()),
    "output_offsets": ({}, set()),
    "operand_offsets": ({}, set()),
    "grid_fits": ({"block_m": 64, "block_n": 64, "split": 1, "warps_n": 2}, set()),
}
PROBLEMS = {
    "whole_vectors_of_k": Problem(4096, 4096, 4004),
    "split_k_has_tiles": Problem(4096, 4096, 7 * 64),
    "counters_suffice": Problem(65536, 4096, 4096),
    "workspace_fits": Problem(8192, 8192, 4096),
    "output_offsets": Problem(256, 2**22, 64),
    "operand_offsets": Problem(256, 256, 2**23),
    "grid_fits": Problem(2**24, 2**23, 64),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_rule_is_broken_by_what_it_is_for_and_says_why(rule: str) -> None:
    change, others = BREAKS[rule]
    violations = space().violations(space().config(change), PROBLEMS.get(rule))
    assert rule in {violation.name for violation in violations} <= {rule, *others}, violations
    reason = next(violation.reason for violation in violations if violation.name == rule)
    assert "{" not in reason


def test_more_waves_than_a_workgroup_holds_are_refused_if_ever_offered() -> None:
    offered = {**space().config({}), "warps_m": 8, "warps_n": 4}
    assert "waves_fit" in {violation.name for violation in space().violations(offered)}


def test_every_rule_is_tried_here() -> None:
    # Above, and in test_gemm_bf16_layouts.py, test_gemm_gated.py, test_gemm_several.py and test_gemm_low_precision.py.
    of_operations = {"gates_in_their_lanes", "whole_words", "groups_fit"}
    elsewhere = {"waves_fit", "whole_vectors_of_m", "whole_vectors_of_n", *of_operations}
    assert {constraint.name for constraint in space().constraints} == {*BREAKS, *elsewhere}


def test_the_first_seeds_are_the_specified_configurations_made_right() -> None:
    large, *rest = space().seeds
    assert (model(large)["warp_m"], model(large)["warp_n"], large["split"]) == (64, 32, 2)
    small = next(seed for seed in rest if (seed["block_m"], seed["block_n"], seed["split"]) == (128, 128, 1))
    sizes = model(small)
    assert (sizes["warp_m"] * sizes["warps_m"], sizes["warp_n"] * sizes["warps_n"]) == (128, 128)
    assert len({seed.id for seed in space().seeds}) == len(space().seeds)


def test_the_readme_counts_the_space_as_it_is() -> None:
    readme = (ROOT / "kernels" / "gfx950" / "gemm_bf16" / "README.md").read_text()
    legal, raw = space().count(), space().raw_count
    assert f"{legal:,} of {raw:,} configs ({100 * legal / raw:.1f} %) are legal" in readme, (legal, raw)
