"""The sm90a GEMM without a GPU: its space, and its objects' machine code and needs."""

from __future__ import annotations

import os
import re
import subprocess
from functools import lru_cache
from itertools import product
from pathlib import Path
from random import Random

import pytest
from cuda_tools import nvdisasm

from hktune.compile import CachedCompiler, cuda_compiler
from hktune.core.arch import SM90A
from hktune.core.config import Config, Value
from hktune.core.dtype import BF16, F16, F32
from hktune.core.launch import WORKSPACE_COUNTER_BYTES
from hktune.core.operation import BF16_NT, Operation, operation_of
from hktune.core.problem import Problem
from hktune.core.problem_text import problem_of
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject
from hktune.objects.cubin import TENSOR_MAP_BYTES, Box, Cubin, read_cubin
from hktune.space.search_space import SearchSpace, load_space

pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")

ROOT = Path(__file__).resolve().parents[2]
F16_NT = operation_of("f16.nt")
LARGE = Problem(4096, 4096, 4096)
SWAPPED: dict[str, Value] = {
    "swapped": True,
    "block_m": 16,
    "block_n": 64,
    "schedule": "single",
    "k_step": 128,
    "stages": 5,
    "cluster_rows": 1,
    "split_k": 4,
    "persistent": False,
}
SHARED: dict[str, Value] = {
    "launch": "workspace",
    "split_k": 5,
    "persistent": False,
    "block_n": 128,
    "cluster_rows": 1,
}
THREADS: dict[str, Value] = {"a_loads": "bytes_8", "b_loads": "bytes_8", "cluster_rows": 1}
PING_PONG: dict[str, Value] = {"schedule": "ping_pong", "block_n": 192, "store_buffers": 2}


@lru_cache
def space() -> SearchSpace:
    return load_space(ROOT / "search_spaces" / "sm90a_gemm_bf16.yaml")


def config(**values: Value) -> Config:
    return space().config(values)


@lru_cache
def compiler() -> CachedCompiler:
    return cuda_compiler(Settings.from_environment(os.environ))


@lru_cache
def built(chosen: Config, operation: Operation = BF16_NT) -> CodeObject:
    code = compiler().compile(space().template.for_operation(operation).render(chosen), 120.0)
    assert isinstance(code, CodeObject), code
    return code


def derived(chosen: Config) -> dict[str, Value]:
    return space().derived.values({**chosen, **space().template.records, **LARGE.sizes})


def listed(chosen: Config, folder: Path, operation: Operation) -> str:
    path = folder / "gemm.cubin"
    path.write_bytes(built(chosen, operation).data)
    return subprocess.run([nvdisasm(), "-c", path], capture_output=True, text=True, check=True).stdout


def machine_code(chosen: Config, folder: Path, operation: Operation = BF16_NT) -> list[str]:
    """The instructions' names, in order."""
    listing = listed(chosen, folder, operation)
    return re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d\s+)?([A-Z][\w.]*)", listing)


def test_the_seeds_build_without_spills_and_need_what_the_space_says() -> None:
    for seed in (config(), *space().seeds):
        code, needs = built(seed), derived(seed)
        assert not code.resources.spills, dict(seed)
        assert code.resources.max_workgroup_size == needs["threads"]
        kernel = read_cubin(code.data).kernels[code.symbol]
        assert kernel.cluster == (needs["cluster_size"], 1, 1)
        assert kernel.mismatch(space().template.arguments_for(BF16_NT)) is None


@pytest.mark.parametrize(
    "values", [{}, PING_PONG, {"block_m": 256, "block_n": 128}, {"schedule": "single", "stages": 2, "block_m": 64}]
)
def test_registers_start_where_their_reallocation_expects_them(values: dict[str, Value]) -> None:
    chosen = config(**values)
    needs, registers = derived(chosen), built(chosen).resources.vgprs
    start, consumer = int(needs["start_registers"]), int(needs["consumer_registers"])
    if not consumer:
        assert registers <= start
        return
    assert registers == start
    given = int(needs["consumers"]) * consumer + int(chosen["producer_registers"])
    assert given <= start * int(needs["warpgroups"])


@pytest.mark.parametrize(
    ("values", "columns", "loads"),
    [
        ({}, 256, {"UTMALDG.2D", "UTMALDG.2D.MULTICAST"}),  # rows go to this block alone, columns to both
        ({"cluster_rows": 1}, 256, {"UTMALDG.2D"}),
        (PING_PONG, 192, {"UTMALDG.2D", "UTMALDG.2D.MULTICAST"}),
        ({"block_n": 176, "store_buffers": 4}, 176, {"UTMALDG.2D", "UTMALDG.2D.MULTICAST"}),
        ({"block_n": 128, "cluster_columns": 2}, 128, {"UTMALDG.2D.MULTICAST"}),
    ],
)
def test_the_machine_code_is_hoppers_own(
    values: dict[str, Value], columns: int, loads: set[str], tmp_path: Path
) -> None:
    code = machine_code(config(**values), tmp_path)
    multiplies = [name for name in code if name.startswith("HGMMA")]
    assert set(multiplies) == {f"HGMMA.64x{columns}x16.F32.BF16"}
    fragments = int(derived(config(**values))["fragments"])
    assert len(multiplies) == fragments * 64 // 16, "one multiply a slice and fragment: the loop is not duplicated"
    assert {name for name in code if name.startswith("UTMALDG")} == loads
    assert "UTMASTG.2D" in code
    assert any(name.startswith("USETMAXREG.DEALLOC") for name in code)
    assert any(name.startswith("USETMAXREG.TRY_ALLOC") for name in code)
    assert not [name for name in code if name.split(".")[0] in ("HMMA", "STL", "LDL")]


def test_multiplies_of_a_step_are_waited_for_once(tmp_path: Path) -> None:
    """Where the compiler cannot prove the accumulators untouched, it waits after every wgmma (its warning C7510)."""
    code = machine_code(config(), tmp_path)
    assert code.count("WARPGROUP.ARRIVE") == 1
    assert sum(name.startswith("WARPGROUP.DEPBAR") for name in code) == 2  # in the loop, and after it


def test_a_swapped_split_kernel_reads_its_peers(tmp_path: Path) -> None:
    code = machine_code(config(**SWAPPED), tmp_path)
    assert {name for name in code if name.startswith("HGMMA")} == {"HGMMA.64x16x16.F32.BF16"}
    assert any(name.startswith("UCGABAR") for name in code)
    assert any(name.startswith("STSM.16.MT88") for name in code), "the tile is stored transposed"


@pytest.mark.parametrize("values", [{}, PING_PONG, {**SWAPPED, "store": "direct"}])
def test_float16_is_the_same_kernel_with_other_conversions(values: dict[str, Value], tmp_path: Path) -> None:
    chosen = config(**values)
    assert not built(chosen, F16_NT).resources.spills
    code, of_bf16 = machine_code(chosen, tmp_path, F16_NT), machine_code(chosen, tmp_path)
    multiplies = [[name for name in names if name.startswith("HGMMA")] for names in (code, of_bf16)]
    assert [f"{name}.BF16" for name in multiplies[0]] == multiplies[1]
    packed = {name for name in code if name.startswith("F2FP")}
    assert packed == {"F2FP.F16.F32.PACK_AB"}, "sums are rounded to float16, and to nowhere else"
    assert not [name for name in code if name.split(".")[0] in ("HMMA", "STL", "LDL")]


def test_tensor_maps_are_of_the_operations_format() -> None:
    for operation, dtype in ((BF16_NT, BF16), (F16_NT, F16)):
        boxes = read_cubin(built(config(), operation).data).boxes
        assert {name: box.dtypes for name, box in boxes.items()} == dict.fromkeys(boxes, (dtype,))
        assert boxes["c"].rows == 64


def test_a_bias_needs_no_code_of_its_own() -> None:
    template = space().template
    assert template.for_operation(F16_NT.with_steps("bias")) is template.for_operation(F16_NT)
    assert template.render(config()).source != template.for_operation(F16_NT).render(config()).source


def parsed(chosen: Config) -> Cubin:
    return read_cubin(built(chosen).data)


def test_boxes_and_parameters_follow_the_config() -> None:
    plain = parsed(config())
    assert plain.boxes == {"a": Box(128, 64), "b": Box(128, 64), "c": Box(64, 64)}
    swapped = parsed(config(**SWAPPED))
    assert swapped.boxes == {"a": Box(16, 64), "b": Box(64, 64), "c": Box(8, 64)}, (
        "four blocks share 16 columns: two store"
    )
    direct = parsed(config(store="direct"))
    assert sorted(direct.boxes) == ["a", "b"]
    sizes = [slot.size_bytes for slot in direct.kernels["hktune_gemm_bf16"].parameters]
    assert sizes == [TENSOR_MAP_BYTES, TENSOR_MAP_BYTES, 8, 4, 4, 4, 8, 4, 8]


@pytest.mark.parametrize(
    ("text", "values", "boxes", "transposed"),
    [
        # Of operands along their lines a piece is 64 of them, of all of the K-step; blocks that share it send parts.
        ("bf16.nn", {}, {"a": (128, 64), "b": (32, 64)}, ".tnspB"),
        ("bf16.tn", {"block_n": 128, "cluster_columns": 2}, {"a": (32, 64), "b": (32, 64)}, ".tnspA.tnspB"),
        ("f16.tt", {"cluster_rows": 1}, {"a": (64, 64), "b": (256, 64)}, ".tnspA"),
        # 144 columns are pieces of 16, 24 ones of 8; swapped, wgmma's A is the GEMM's B.
        ("bf16.nn", {"block_n": 144, "cluster_rows": 1}, {"a": (128, 64), "b": (64, 16)}, ".tnspB"),
        ("bf16.tn", {**SWAPPED, "block_m": 24, "split_k": 1}, {"a": (128, 8), "b": (128, 64)}, ".tnspA.tnspB"),
        ("bf16.tt", {**SWAPPED}, {"a": (128, 16), "b": (64, 64)}, ".tnspB"),
    ],
)
def test_operands_are_read_as_they_are_stored(
    text: str, values: dict[str, Value], boxes: dict[str, tuple[int, int]], transposed: str, tmp_path: Path
) -> None:
    chosen, operation = config(**values), operation_of(text)
    assert not list(space().for_operation(operation).violations(chosen))
    found = read_cubin(built(chosen, operation).data).boxes
    assert {name: (found[name].rows, found[name].columns) for name in "ab"} == boxes
    multiplies = [line for line in listed(chosen, tmp_path, operation).splitlines() if "HGMMA" in line]
    assert {"".join(re.findall(r"\.tnsp[AB]", line)) for line in multiplies} == {transposed}


@pytest.mark.parametrize("values", [{}, PING_PONG, {**SWAPPED, "k_step": 64}, {"persistent": False, "block_n": 128}])
def test_float32_is_stored_as_it_is_and_added_where_it_is(values: dict[str, Value], tmp_path: Path) -> None:
    chosen, operation = config(**values), operation_of("bf16.tn->f32")
    assert read_cubin(built(chosen, operation).data).boxes["c"].dtypes == (F32,)
    code = machine_code(chosen, tmp_path, operation)
    assert not [name for name in code if name.startswith("F2F")], "nothing is rounded"
    assert {"UTMASTG.2D", "UTMAREDG.2D.ADD"} <= set(code)


@pytest.mark.parametrize(
    ("text", "loads", "copies"),
    [
        # Rows of both are k elements, of A k and of B n, of A m and of B n, of A m and of B k.
        ("bf16.nt", ("bytes_8", "bytes_8"), {"LDGSTS.E.64"}),
        ("f16.nt", ("bytes_4", "bytes_4"), {"LDGSTS.E"}),
        ("bf16.nt->f32", ("bytes_2", "bytes_2"), {"LDGSTS.E", "LDG.E.U16", "STS"}),
        ("bf16.nn", ("bytes_2", "tma"), {"LDGSTS.E", "LDG.E.U16", "STS"}),
        ("bf16.tn", ("tma", "bytes_4"), {"LDGSTS.E"}),
        ("bf16.tt", ("bytes_8", "bytes_2"), {"LDGSTS.E", "LDGSTS.E.64", "LDG.E.U16", "STS"}),
    ],
)
@pytest.mark.parametrize(
    "values", [{"block_n": 144}, {**SWAPPED, "block_m": 24, "split_k": 1}], ids=["usual", "swapped"]
)
def test_threads_load_what_tma_cannot(
    text: str, loads: tuple[str, str], copies: set[str], values: dict[str, Value], tmp_path: Path
) -> None:
    operation, own = operation_of(text), dict(zip(("a_loads", "b_loads"), loads, strict=True))
    chosen = config(**{**values, **own, "cluster_rows": 1, "store": "direct"})
    assert space().for_operation(operation).is_legal(chosen)
    assert not built(chosen, operation).resources.spills
    names = set(machine_code(chosen, tmp_path, operation))
    loading = {name for name in names if name.startswith(("LDGSTS", "LDG.E.U16", "STS")) and name != "STS.64"}
    assert copies <= loading
    assert any(name.startswith("UTMALDG") for name in names) == ("tma" in loads)
    boxes = read_cubin(built(chosen, operation).data).boxes
    assert sorted(boxes) == [name for name, way in zip("ab", loads, strict=True) if way == "tma"]


@pytest.mark.parametrize(
    ("text", "sizes", "loads"),
    [
        ("bf16.nt", (64, 64, 100), ("bytes_8", "bytes_8")),
        ("bf16.nt", (64, 64, 98), ("bytes_4", "bytes_4")),
        ("f16.nt", (64, 64, 97), ("bytes_2", "bytes_2")),
        ("bf16.nn", (64, 64, 97), ("bytes_2", "tma")),
        ("bf16.tn", (97, 68, 50), ("bytes_2", "bytes_8")),
        ("bf16.tt", (64, 64, 50), ("tma", "bytes_4")),
        ("bf16.nt", (64, 64, 104), ("tma", "tma")),
    ],
)
def test_each_shape_has_the_loads_that_its_rows_allow(
    text: str, sizes: tuple[int, int, int], loads: tuple[str, str]
) -> None:
    """2 bytes an element: the largest power of two that divides a row, at most the 16 of TMA."""
    problem = Problem(*sizes, operation_of(text))
    domain = space().domain(problem)
    ways = ("tma", "bytes_8", "bytes_4", "bytes_2")
    legal = {
        (a, b)
        for a, b in product(ways, ways)
        if domain.is_legal(config(a_loads=a, b_loads=b, cluster_rows=1, store="direct", block_n=128))
    }
    assert legal == {loads}
    drawn = domain.sample(Random(1))
    assert (drawn["a_loads"], drawn["b_loads"]) == loads
    assert domain.seeds, "what is foremost is of these loads"
    for proof in space().for_operation(problem.operation).template.proof_problems(drawn):
        assert space().is_legal(drawn, proof.problem)


def test_a_launch_covers_every_tile_in_whole_clusters() -> None:
    template = space().template
    persistent = template.launch(config(), LARGE)
    assert (persistent.grid, persistent.block) == ((132, 1, 1), (384, 1, 1))
    once = template.launch(config(persistent=False), Problem(4096 + 1, 4096, 64))
    assert once.grid == (17 * 2 * 16, 1, 1), "33 tiles down are 17 clusters of two"
    split = template.launch(config(**SWAPPED), Problem(16, 4096, 4096))
    assert (split.grid, split.block) == ((64 * 4, 1, 1), (256, 1, 1))
    assert split.dynamic_lds_bytes <= SM90A.lds_bytes


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"block_m": 96}, "whole_fragments"),
        ({"block_m": 192}, "whole_rows_a_consumer"),
        ({"block_m": 256, "block_n": 256}, "accumulators_fit"),
        ({"block_n": 128, "blocks_per_sm": 2, "stages": 2}, "one_multiply_fits"),
        ({"cluster_rows": 4, "cluster_columns": 4, "block_n": 128}, "cluster_fits"),
        ({"launch": "clusters"}, "clusters_launch_as_such"),
        ({**SWAPPED, "cluster_columns": 4}, "cluster_fits"),
        ({"split_k": 2}, "split_alone"),
        ({**SWAPPED, "schedule": "ping_pong"}, "split_shares_tiles"),
        ({**PING_PONG, "persistent": False}, "ping_pong_persists"),
        ({"stages": 5}, "lds_fits"),
        ({"split_k": 2, "cluster_rows": 1, "persistent": False, "stages": 2}, "split_sums_fit"),
        ({**SHARED, "persistent": True}, "workspace_is_shared"),
        ({**SHARED, "split_k": 1}, "workspace_is_shared"),
        ({**SHARED, "store": "direct"}, "shared_tiles_are_plain"),
        ({"store": "direct", "store_buffers": 2}, "buffers_go_round"),
        ({"persistent": False, "store_buffers": 2}, "buffers_go_round"),
        ({"swapped": True, "block_m": 192, "block_n": 128}, "swapped_is_narrow"),
        ({**THREADS, "b_loads": "tma"}, "same_rows_same_loads"),
        ({**THREADS, "cluster_rows": 2}, "threads_share_no_rows"),
        ({**THREADS, "cluster_columns": 2}, "threads_share_no_columns"),
        (
            {**THREADS, "block_m": 128, "block_n": 64, "blocks_per_sm": 2, "a_loads": "bytes_2"},
            "registers_suffice_to_load",
        ),
    ],
)
def test_every_rule_of_a_config_can_be_broken(values: dict[str, Value], rule: str) -> None:
    assert rule in {violation.name for violation in space().violations(config(**values))}


@pytest.mark.parametrize(
    ("text", "values", "rule"),
    [
        ("64x64x98:bf16.nt", THREADS, "widest_a_loads"),
        ("64x64x98:bf16.nt", THREADS, "widest_b_loads"),
        ("64x64x104:bf16.nt", THREADS, "widest_a_loads"),
        ("64x64x104:bf16.nt", THREADS, "widest_b_loads"),
        ("64x100x64:bf16.nn", {"b_loads": "bytes_8", "cluster_rows": 1}, "stored_as_loaded"),
        ("64x100x64:bf16.nn->f32", {"b_loads": "bytes_8", "cluster_rows": 1}, ""),
        ("64x64x100:bf16.nt+silu+gated", THREADS, "threads_load_single_products"),
        ("64x64x100:batched4.bf16.nt", THREADS, "threads_load_single_products"),
        ("64x64x104:e4m3.nt.rows->bf16", {**THREADS, "k_step": 128, "block_n": 128}, "threads_load_single_products"),
        ("64x64x100:bf16.nt+residual", THREADS, "threads_load_no_residual"),
        ("64x64x100:bf16.nt+residual", {**THREADS, "store": "direct", "block_n": 128}, ""),
    ],
)
def test_threads_load_what_their_rules_say(text: str, values: dict[str, Value], rule: str) -> None:
    problem = problem_of(text)
    broken = [each.name for each in space().for_operation(problem.operation).violations(config(**values), problem)]
    assert rule in broken if rule else not broken


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("64x64x100:bf16.nt", "for others take a_loads=bytes_8"),
        ("64x64x98:f16.nt", "for others take a_loads=bytes_4"),
        ("97x64x64:bf16.tn", "for others take a_loads=bytes_2"),
        ("64x64x100:bf16.nt+silu+gated", "which this operation loads alone"),
        ("64x64x100:batched4.bf16.nt", "which this operation loads alone"),
        ("64x64x104:e4m3.nt.rows->bf16", "which this operation loads alone"),
    ],
)
def test_no_loads_are_advised_that_another_rule_refuses(text: str, advice: str) -> None:
    problem = problem_of(text)
    broken = space().for_operation(problem.operation).violations(config(block_n=128), problem)
    assert [each.reason.rpartition(", ")[2] for each in broken if each.name == "aligned_a"] == [advice]


@pytest.mark.parametrize(
    ("problem", "rule"),
    [
        (Problem(64, 64, 100), "aligned_a aligned_b"),
        (Problem(64, 100, 64), "aligned_n"),
        (Problem(2**31 - 1, 64, 64), "sizes_fit"),
        (Problem(100, 64, 100, operation_of("bf16.tn")), "aligned_a"),
        (Problem(64, 100, 64, operation_of("bf16.nn->f32")), "aligned_b"),
        (Problem(64, 64, 100, operation_of("bf16.nn")), "aligned_a"),
        (Problem(64, 64, 100, operation_of("f16.tt")), "aligned_b"),
        (Problem(64, 102, 64, operation_of("bf16.nt->f32")), "aligned_n"),
    ],
)
def test_every_rule_of_a_problem_can_be_broken(problem: Problem, rule: str) -> None:
    of_operation = space().for_operation(problem.operation)
    assert " ".join(violation.name for violation in of_operation.violations(config(), problem)) == rule


@pytest.mark.parametrize(
    ("values", "problem", "rule"),
    [
        ({**SHARED, "split_k": 2, "block_n": 16}, Problem(128 * 64, 16 * 65, 64), "counters_suffice"),
        ({**SHARED, "split_k": 16, "block_n": 256}, Problem(128 * 30, 256 * 30, 64), "workspace_fits"),
    ],
)
def test_every_rule_of_a_shared_tile_can_be_broken(values: dict[str, Value], problem: Problem, rule: str) -> None:
    chosen = config(**values)
    assert space().is_legal(chosen, Problem(256, 1024, 8192))
    assert [violation.name for violation in space().violations(chosen, problem)] == [rule]


def test_blocks_that_share_tiles_have_slabs_behind_the_counters() -> None:
    """The kernel's own numbers: 64 KiB of counters, and of each block a slab of its tile in float32."""
    template, problem = space().template, Problem(250, 1024, 8192)
    split = template.launch(config(**SHARED), problem)
    assert split.grid == (2 * 8 * 5, 1, 1)
    assert split.workspace_bytes == WORKSPACE_COUNTER_BYTES + 80 * 128 * 128 * 4
    clusters = template.launch(config(**{**SHARED, "cluster_rows": 4, "cluster_columns": 2}), problem)
    assert clusters.grid == (4 * 5 * 8, 1, 1), "two rows of tiles are one of clusters"
    assert clusters.workspace_bytes == WORKSPACE_COUNTER_BYTES + 160 * 128 * 128 * 4
    assert template.launch(config(), problem).workspace_bytes == 0


@pytest.mark.parametrize("values", [SHARED, {**SHARED, "swapped": True, "block_m": 72, "block_n": 128}])
def test_sums_go_through_the_workspace_in_whole_vectors(values: dict[str, Value], tmp_path: Path) -> None:
    chosen = config(**values)
    assert not built(chosen).resources.spills
    code = machine_code(chosen, tmp_path)
    assert {"STG.E.128.STRONG.GPU", "LDG.E.128.STRONG.GPU"} <= set(code)
    atomics = [name for name in code if name.startswith("ATOM")]
    assert all(name.startswith(("ATOMG.E.ADD", "ATOMG.E.INC")) for name in atomics), "counters alone, no sums"
    of_others = machine_code(config(block_n=128, cluster_rows=1), tmp_path)
    assert not [name for name in of_others if name.startswith(("ATOM", "STG", "MEMBAR.ALL.GPU"))]


def test_split_k_through_the_workspace_is_one_object() -> None:
    sources = {space().template.render(config(**{**SHARED, "split_k": split})).source for split in (2, 3, 7, 16)}
    assert len(sources) == 1


def test_a_float32_tile_of_a_block_that_does_not_stay_has_to_fit_in_the_stages() -> None:
    once = config(persistent=False, stages=2)
    of_float32 = space().for_operation(operation_of("bf16.tn->f32"))
    assert space().is_legal(once)
    assert [broken.name for broken in of_float32.violations(once)] == ["tile_fits_in_stages"]


@pytest.mark.parametrize(
    ("text", "values", "rule"),
    [
        ("bf16.nt+silu+gated", SWAPPED, "gates_fit"),  # 64 rows: no thread would have a gate and what it gates
        ("bf16.nt+silu+gated", {**SWAPPED, "block_n": 128, "split_k": 1, "schedule": "cooperative"}, "gates_fit"),
        ("bf16.nt+silu+gated", {"block_n": 72, "cluster_rows": 1}, "gates_fit"),  # 36 columns are no whole octets
        ("bf16.nt+residual", {"stages": 2}, "residual_fits_in_stages"),
        ("bf16.nt+residual", {"block_n": 128, "cluster_rows": 4, "cluster_columns": 2}, "multicast_small"),
        ("bf16.nt+residual", {"block_n": 72}, "whole_shares"),
        ("e4m3.nt.rows->bf16+residual", {"block_n": 72, "cluster_rows": 1}, "residual_is_aligned"),
        ("e4m3.nt.rows", {"block_n": 136, "cluster_rows": 1}, "float8_rows_fit"),
    ],
)
def test_a_rule_of_some_epilogues_can_be_broken(text: str, values: dict[str, Value], rule: str) -> None:
    chosen = config(**values)
    assert space().is_legal(chosen)
    assert [broken.name for broken in space().for_operation(operation_of(text)).violations(chosen)] == [rule]


@pytest.mark.parametrize("text", ["bf16.tn", "bf16.tn+bias", "bf16.tn->f32+accumulate"])
def test_both_operands_along_their_lines_leave_k_free(text: str) -> None:
    assert space().for_operation(operation_of(text)).is_legal(config(), Problem(64, 64, 77, operation_of(text)))


def test_ragged_problems_are_legal_and_any_n_with_direct_stores() -> None:
    assert space().is_legal(config(), Problem(1, 8, 8))
    assert space().is_legal(config(), Problem(77, 4104, 4104))
    assert space().is_legal(config(store="direct"), Problem(1, 1, 8))


def test_proofs_are_ragged_legal_and_go_round_everything_that_turns() -> None:
    for chosen in (config(), *space().seeds):
        problem, needs = space().template.proof_problems(chosen)[-1].problem, derived(chosen)
        assert space().is_legal(chosen, problem)
        assert problem.m % int(chosen["block_m"])
        assert problem.k % int(chosen["k_step"])
        steps = -(-problem.k // int(chosen["k_step"])) // int(chosen["split_k"])
        assert steps >= 2 * int(chosen["stages"]), "the ring's parity comes back"
        if chosen["persistent"]:
            tiles = -(-problem.m // int(chosen["block_m"])) * -(-problem.n // int(chosen["block_n"]))
            blocks = space().template.launch(chosen, problem).grid[0]
            assert tiles > 2 * blocks // int(chosen["blocks_per_sm"]), dict(needs)


TURNED: dict[str, Value] = {
    "schedule": "ping_pong", "swapped": True, "block_n": 64, "store_buffers": 2, "cluster_rows": 1
}  # fmt: skip
GROUPED_NT, GROUPED_NN = operation_of("grouped.bf16.nt"), operation_of("grouped.bf16.nn")


def test_grouped_products_are_the_same_kernel_with_rows_that_end(tmp_path: Path) -> None:
    code = read_cubin(built(config(), GROUPED_NT).data)
    kernel = code.kernels["hktune_gemm_bf16"]
    assert sorted(code.boxes) == ["a", "b"], "TMA would write into the next product's rows"
    assert [slot.size_bytes for slot in kernel.parameters][9:] == [4, 8], "groups, and where they end"
    assert kernel.mismatch(space().for_operation(GROUPED_NT).template.arguments_for(GROUPED_NT)) is None
    names = machine_code(config(), tmp_path, GROUPED_NT)
    assert any(name.startswith("STG.E.128") for name in names)
    assert not [name for name in names if name.split(".")[0] in ("UTMASTG", "STL", "LDL")]


@pytest.mark.parametrize(
    ("text", "stacks", "behind"), [("batched.bf16.tn", "abc", [4, 8, 8]), ("grouped.bf16.tn", "c", [4, 8])]
)
def test_products_with_a_matrix_of_c_each_are_stored_by_tma(
    tmp_path: Path, text: str, stacks: str, behind: list[int]
) -> None:
    """Behind the arguments that all kernels take come how many there are, and the strides of matrices or where groups
    end."""
    operation = operation_of(text)
    code = read_cubin(built(config(), operation).data)
    kernel = code.kernels["hktune_gemm_bf16"]
    assert {name: box.dimensions for name, box in code.boxes.items()} == {
        name: 3 if name in stacks else 2 for name in "abc"
    }
    assert [slot.size_bytes for slot in kernel.parameters][9:] == behind
    assert kernel.mismatch(space().for_operation(operation).template.arguments_for(operation)) is None
    names = machine_code(config(), tmp_path, operation)
    assert any(name.startswith("UTMASTG.3D") for name in names)
    assert any(name.startswith("UTMALDG.3D" if "a" in stacks else "UTMALDG.2D") for name in names)
    assert not [name for name in names if name.split(".")[0] in ("STG", "STL", "LDL")]


@pytest.mark.parametrize(
    ("text", "values", "broken"),
    [
        ("64x64x72:grouped4.bf16.nt", {"persistent": False, "cluster_rows": 1}, "groups_of_rows_stay"),
        ("64x64x72:batched4.bf16.nt", {"persistent": False, "cluster_rows": 1}, ""),
        ("64x64x72:grouped4.bf16.tn", {"persistent": False, "cluster_rows": 1}, ""),
        ("64x64x72:batched4.bf16.nt", {**SWAPPED}, "several_are_whole"),
        ("64x64x72:grouped4.bf16.nn", {}, "whole_k_steps"),
        ("64x64x72:batched4.bf16.tt", {}, ""),
        ("64x64x71:grouped4.bf16.tn", {}, ""),
        ("63x64x72:grouped4.bf16.tn", {}, "aligned_a"),
        ("64x64x64:grouped4.bf16.nn", {}, ""),
        ("64x64x64:grouped4.bf16.nn", {"producer_registers": 40}, "several_keep_registers"),
        ("64x64x64:grouped4.bf16.nn", {**TURNED, "block_m": 160}, ""),
        ("64x64x64:batched4.bf16.nn", {**TURNED, "block_m": 160}, "swapped_is_narrow"),
        ("64x64x72:grouped4.bf16.nt", {}, ""),
        ("8x8x65536:grouped65536.bf16.nt", {}, "sizes_fit"),
    ],
)
def test_several_products_have_rules_of_their_own(text: str, values: dict[str, Value], broken: str) -> None:
    problem = problem_of(text)
    own = space().for_operation(problem.operation)
    found = [violation.name for violation in own.violations(config(**values), problem)]
    assert found == ([broken] if broken else [])


def test_the_grid_of_a_grouped_product_has_room_for_groups_wherever_they_end() -> None:
    """Of 100 rows in 7 groups each may add a tile that is not full; no more blocks than tiles are launched."""
    own = space().for_operation(GROUPED_NT)
    chosen = config(block_m=64, block_n=128, schedule="single", cluster_rows=1)
    for text, tiles in (
        ("100x128x64:grouped7.bf16.nt", 8),
        ("3x128x64:grouped7.bf16.nt", 3),
        ("100x256x64:batched7.bf16.nt", 28),
        ("104x256x64:grouped7.bf16.tn", 28),
        ("8192x2816x64:grouped64.bf16.nt", 132),
    ):
        assert own.template.launch(chosen, problem_of(text)).grid == (tiles, 1, 1)


def test_rules_are_each_broken_by_a_test() -> None:
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_sm90a_*.py"))
    assert not [rule.name for rule in space().constraints if f'"{rule.name}"' not in source]
