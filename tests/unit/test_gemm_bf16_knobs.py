"""Every knob of the gfx950 GEMM is visible in the instructions that its variants are made of.

A variant's code holds one copy of a step for the steady state and one for each of the `prefetch` steps of the drain.
"""

from __future__ import annotations

from collections import Counter

import pytest
from gemm_bf16_variants import built, disassembled, model, space

from hktune.core.config import Config
from hktune.core.problem import Problem
from hktune.emulator.instructions.decode import Instruction

ALL_VMCNT = 63  # an s_waitcnt that leaves this counter alone
PROBLEM = Problem(512, 512, 512)

BASE = space().config({"block_m": 128, "block_n": 128, "split": 2, "warps_n": 2})
CHANGES = [
    {},
    {"block_m": 256},
    {"block_n": 256},
    {"k_step": 32},
    {"k_step": 128},
    {"warps_m": 4},
    {"warps_n": 4},
    {"mfma": 32},
    {"split": 1},
    {"slices": 2},
    {"stages": 1, "refill": "late"},
    {"stages": 3},
    {"refill": "late"},
    {"refill": "late", "vmcnt_tiles": 1},
    {"stages": 3, "refill": "late", "vmcnt_tiles": 2},
    {"lgkmcnt_clusters": 1},
    {"slices": 2, "lgkmcnt_clusters": 2},
    {"slices": 2, "refill": "late", "lgkmcnt_clusters": 1, "read_across": True},
    {"slices": 2, "stages": 3, "refill": "late", "lgkmcnt_clusters": 2, "vmcnt_tiles": 1, "read_across": True},
    {"setprio": "none"},
    {"setprio": "phase"},
    {"setprio": "none", "sched_barrier": False},
    {"setprio": "phase", "sched_barrier": False},
    {"spread": 2},
    {"stages": 3, "refill": "late", "spread": 2},
    {"slices": 2, "refill": "late", "lgkmcnt_clusters": 1, "read_across": True, "spread": 4},
    {"block_m": 64, "block_n": 32, "split": 1, "stages": 4},
    {"block_n": 192},
]
INTERLEAVE = {"schedule": "interleave", "slices": 2, "refill": "late", "lgkmcnt_clusters": 1, "read_across": True}
PINGPONG = {"schedule": "pingpong", "warps_n": 4, "lgkmcnt_clusters": 1, "spread": 4}
SCHEDULES = [
    INTERLEAVE,
    {**INTERLEAVE, "stages": 4, "vmcnt_tiles": 2, "spread": 4},
    PINGPONG,
    {**PINGPONG, "lgkmcnt_clusters": 0, "setprio": "none"},
    {**PINGPONG, "refill": "late", "read_across": True},
    {**PINGPONG, "refill": "late", "vmcnt_waits": "cluster", "block_m": 256, "block_n": 256, "mfma": 32},
    {**PINGPONG, "stages": 3, "vmcnt_tiles": 1, "read_across": True},
    {**PINGPONG, "stages": 4, "vmcnt_tiles": 1, "refill": "late", "read_across": True, "vmcnt_waits": "cluster"},
]


def changed(change: dict[str, object]) -> Config:
    config = space().config({**BASE, **change})
    assert not space().violations(config)
    return config


def named(change: dict[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in change.items())


@pytest.fixture(params=CHANGES, ids=named)
def config(request: pytest.FixtureRequest) -> Config:
    return changed(request.param)


@pytest.fixture(params=[*CHANGES, *SCHEDULES], ids=named)
def scheduled(request: pytest.FixtureRequest) -> Config:
    return changed(request.param)


def vmcnt(wait: Instruction) -> int:
    """ISA guide, section 4.4: bits 15:14 over 3:0."""
    bits = wait.fields["simm16"]
    return (bits >> 14 & 3) << 4 | bits & 15


def lgkmcnt(wait: Instruction) -> int:
    return wait.fields["simm16"] >> 8 & 15


def waits(config: Config) -> list[Instruction]:
    """Those of the pipeline: the compiler places the epilogue's."""
    code = disassembled(built(config))
    last = max(place for place, one in enumerate(code) if "mfma" in one.mnemonic)
    return [one for one in code[:last] if one.mnemonic == "s_waitcnt"]


def vmcnt_waits(config: Config) -> list[int]:
    return [vmcnt(wait) for wait in waits(config) if vmcnt(wait) != ALL_VMCNT]


def barriers(config: Config) -> int:
    """In the code: one copy of the steady step and of each drained one, and what stands before and after them."""
    steps = 1 + model(config)["prefetch"]
    if config["schedule"] == "pingpong":
        return (
            8 * steps + 3
        )  # two in each cluster; one for the first tile, one for either group to fall behind or catch up
    # The first wait of read_across has a twin for problems of few tiles.
    twin = config["read_across"] is True and model(config)["vmcnt_tiles"] > 0
    return steps + (config["refill"] == "late" and config["schedule"] == "pipeline") + twin


def test_instruction_counts_follow_from_the_geometry(scheduled: Config) -> None:
    config = scheduled
    derived = model(config)
    code = disassembled(built(config))
    count = Counter(one.mnemonic for one in code)
    to_lds = sum(1 for one in code if one.mnemonic == "buffer_load_dwordx4" and one.fields["lds"])
    steps = 1 + derived["prefetch"]
    mfma_per_wave = derived["block_m"] * derived["block_n"] * derived["k_step"] // derived["warps"]
    mnemonic = {16: "v_mfma_f32_16x16x32_bf16", 32: "v_mfma_f32_32x32x16_bf16"}[derived["mfma"]]
    flops_of_one = derived["mfma"] ** 2 * derived["mfma_k"]
    reads = derived["clusters"] * derived["fragments_a"] + derived["slices"] * derived["fragments_b"]
    wide = "buffer_store_dwordx2" if derived["mfma"] == 16 and derived["warp_n"] // 16 % 2 else "buffer_store_dwordx4"
    expected = {
        "loads to LDS": (to_lds, steps * derived["loads_per_tile"]),
        mnemonic: (count[mnemonic], steps * mfma_per_wave // flops_of_one),
        "any MFMA": (sum(n for name, n in count.items() if "mfma" in name), count[mnemonic]),
        "ds_read_b128": (count["ds_read_b128"], steps * reads),
        "s_barrier": (count["s_barrier"], barriers(config)),
        # The epilogue is there twice: for rows of whole vectors, and for rows that begin and end anywhere.
        "v_cvt_pk_bf16_f32": (count["v_cvt_pk_bf16_f32"], derived["accumulator_vgprs"]),
        wide: (count[wide], derived["accumulator_vgprs"] // (8 if wide.endswith("4") else 4)),
        "elements": (
            count["buffer_store_short"] + count["buffer_store_short_d16_hi"],
            derived["accumulator_vgprs"],
        ),
        "scratch": (sum(n for name, n in count.items() if name.startswith("scratch")), 0),
    }
    assert {name: got for name, (got, _) in expected.items()} == {name: want for name, (_, want) in expected.items()}


def test_vmcnt_leaves_as_many_loads_in_flight_as_asked_and_fewer_in_the_drain(config: Config) -> None:
    derived = model(config)
    tiles, prefetch = derived["vmcnt_tiles"], derived["prefetch"]
    drain = range(prefetch - 1) if config["read_across"] else range(prefetch)
    left_in_flight = [tiles, *(min(tiles, behind) for behind in drain)]
    if config["read_across"]:
        left_in_flight += {tiles, 0}  # the first tile, waited for before the loop
    assert sorted(vmcnt_waits(config)) == sorted(left * derived["loads_per_tile"] for left in left_in_flight)


def test_lgkmcnt_leaves_the_reads_of_the_clusters_ahead(config: Config) -> None:
    derived = model(config)
    clusters, split = derived["clusters"], derived["split"]

    def in_flight_under(cluster: int, next_follows: bool) -> int:
        ahead = range(cluster + 1, cluster + derived["lgkmcnt_clusters"] + 1)
        read = [later % clusters for later in ahead if later < clusters or next_follows]
        return sum(derived["fragments_a"] + (derived["fragments_b"] if later % split == 0 else 0) for later in read)

    followed = derived["prefetch"] if config["read_across"] else 0
    expected: Counter[int] = Counter()
    for step in range(1 + derived["prefetch"]):
        expected.update(in_flight_under(cluster, step < followed) for cluster in range(clusters))
    assert max(expected) == derived["reads_in_flight"]
    found = Counter(lgkmcnt(wait) for wait in waits(config) if vmcnt(wait) == ALL_VMCNT)
    assert found.pop(0) >= expected.pop(0), "the compiler adds its own for kernel arguments"
    assert found == expected


@pytest.mark.parametrize("change", [one for one in SCHEDULES if one["schedule"] == "pingpong"], ids=named)
def test_pingpong_waits_leave_all_but_what_the_next_cluster_or_step_reads(change: dict[str, object]) -> None:
    """Counted from the stream of parts, B0 A0 B1 A1 B0' ...: which one is fetched, and which is needed."""
    config = changed(change)
    derived, loads = model(config), (model(config)["loads_b"], model(config)["loads_a"])
    stages, across, late = derived["stages"], bool(config["read_across"]), config["refill"] == "late"
    lead = 4 * stages - 1 if late else 4 * (stages - 1)
    by_cluster = config["vmcnt_waits"] == "cluster"
    expected = [sum(loads[part % 2] for part in range(2 if by_cluster else 4, lead)), 0]  # the first tile
    for behind in (derived["prefetch"], *range(derived["prefetch"] - 1, -1, -1)):
        for cluster in range(4):
            reads_next = {0: (2,), 1: (3,), 2: (4,) if across else (), 3: (5,) if across else (4, 5)}[cluster]
            if (by_cluster and reads_next) or (not by_cluster and cluster == (2 if across else 3)):
                needed = max(reads_next) if by_cluster else 7
                spare = 4 * (stages - 2 - derived["vmcnt_tiles"])
                sent = min(cluster + lead, 4 * behind + 3)
                expected.append(sum(loads[part % 2] for part in range(needed + spare + 1, sent + 1)))
    assert sorted(vmcnt_waits(config)) == sorted(expected)


def test_a_spread_tile_is_sent_for_in_portions_with_mfmas_between() -> None:
    """Between the barriers of the steady step stand as many groups of loads as the knob says."""
    for spread in (1, 2, 4):
        config = changed({"slices": 2, "spread": spread})
        code = [one.mnemonic for one in disassembled(built(config))]
        end = max(at for at, name in enumerate(code) if name == "s_cbranch_scc1" and "buffer_load_dwordx4" in code[:at])
        kinds = [
            "load" if name == "buffer_load_dwordx4" else "mfma"
            for name in code[:end]
            if "load_dw" in name or "mfma" in name
        ]
        groups = sum(1 for before, now in zip(["", *kinds], kinds, strict=False) if now == "load" != before)
        assert groups == spread, "the prologue's loads are the first group's neighbours"


def test_setprio_stands_where_asked(scheduled: Config) -> None:
    config = scheduled
    levels = [one.fields["simm16"] for one in disassembled(built(config)) if one.mnemonic == "s_setprio"]
    steps = 1 + model(config)["prefetch"]
    clusters = 4 if config["schedule"] == "pingpong" else model(config)["clusters"]
    pairs = {"none": 0, "cluster": steps * clusters, "phase": steps}[str(config["setprio"])]
    assert levels == [1, 0] * pairs


def test_stages_are_lds_bytes_of_the_launch(config: Config) -> None:
    launch = space().template.launch(config, PROBLEM)
    derived = model(config)
    bytes_per_stage = (derived["block_m"] + derived["block_n"]) * derived["k_step"] * 2
    assert launch.dynamic_lds_bytes == derived["stages"] * bytes_per_stage
    assert launch.block == (64 * derived["warps_m"] * derived["warps_n"], 1, 1)
    assert launch.grid == (-(-PROBLEM.m // derived["block_m"]) * -(-PROBLEM.n // derived["block_n"]), 1, 1)


def mfmas_between_memory_instructions(config: Config) -> list[int]:
    runs = [0]
    for one in disassembled(built(config)):
        if one.mnemonic.startswith(("ds_", "buffer_", "s_barrier", "s_waitcnt")):
            runs.append(0)
        runs[-1] += "mfma" in one.mnemonic
    return [run for run in runs if run]


@pytest.mark.parametrize("setprio", ["none", "phase"])
def test_a_sched_barrier_keeps_each_cluster_in_one_piece(setprio: str) -> None:
    """It is no instruction of its own: without it the compiler moves MFMAs in among reads and loads."""
    fenced = changed({"setprio": setprio, "sched_barrier": True})
    clusters = (1 + model(fenced)["prefetch"]) * model(fenced)["clusters"]
    assert len(mfmas_between_memory_instructions(fenced)) == clusters
    free = changed({"setprio": setprio, "sched_barrier": False})
    assert len(mfmas_between_memory_instructions(free)) > clusters
