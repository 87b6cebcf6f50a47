"""The sm90a GEMM on a real GPU: every element of every seed's output against float64, in both formats."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hktune.compile.nvrtc import NvrtcCompiler
from hktune.core.config import Config, Value
from hktune.core.errors import DeviceError
from hktune.core.operation import BF16_NT, Operation, operation_of
from hktune.core.problem import Problem, ProofProblem
from hktune.core.variant import CodeObject
from hktune.device.cuda import CudaDevice
from hktune.device.cuda_launch import LoadedKernel
from hktune.space.search_space import SearchSpace, load_space
from hktune.template import Template, load_template
from hktune.verify import Proof, random_operands, verify

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = [BF16_NT, *map(operation_of, ("f16.nt", "bf16.nn", "f16.tn", "bf16.tt", "bf16.nt->f32", "bf16.tn->f32"))]
SPLIT = {"block_m": 16, "block_n": 64, "swapped": True, "schedule": "single", "cluster_rows": 1, "split_k": 4}
WORKSPACE: dict[str, Value] = {"launch": "workspace", "persistent": False, "cluster_rows": 1}
SHARED: list[dict[str, Value]] = [
    {**WORKSPACE, "split_k": 5, "block_n": 128},
    {**WORKSPACE, "split_k": 16, "cluster_rows": 2},
    {**WORKSPACE, "split_k": 3, "block_m": 64, "block_n": 80, "schedule": "single", "blocks_per_sm": 2},
    {**WORKSPACE, "split_k": 7, "block_n": 112},
    {**WORKSPACE, "split_k": 4, "block_n": 72, "cluster_rows": 4, "cluster_columns": 2, "stages": 7},
    {**WORKSPACE, "split_k": 6, "swapped": True, "block_m": 152, "block_n": 64, "schedule": "single", "stages": 6},
]
RAGGED = [
    Problem(1, 8, 8),
    Problem(7, 4096, 512),
    Problem(133, 200, 72),
    Problem(513, 1536, 1048),
    Problem(16, 64, 4096),
]


@lru_cache
def space() -> SearchSpace:
    return load_space(ROOT / "search_spaces" / "sm90a_gemm_bf16.yaml")


@lru_cache
def configs() -> list[Config]:
    split = [{**SPLIT, "persistent": False, "block_m": m, "split_k": parts} for m, parts in ((8, 8), (16, 4), (32, 2))]
    clusters = [{"block_n": 128, "cluster_rows": 2, "cluster_columns": 2}, {"cluster_rows": 1, "cluster_columns": 2}]
    clusters += [
        {"block_n": 72, "cluster_rows": 4, "cluster_columns": 2, "persistent": False, "stages": 7},
        {"block_n": 136, "cluster_rows": 2, "cluster_columns": 4, "stages": 5},
        {"swapped": True, "block_m": 152, "block_n": 64, "schedule": "single", "cluster_columns": 4, "stages": 6},
    ]
    direct = [{"store": "direct", "swapped": True, "block_m": 32, "block_n": 128, "cluster_rows": 1}]
    narrow = [{"block_n": n, "cluster_rows": 1, "stages": 6} for n in (16, 32, 96)]
    two = [{"block_n": 128, "schedule": "single", "stages": 3, "blocks_per_sm": 2, "producer_registers": 40}]
    once = [
        {"block_n": 112, "persistent": False},
        {"block_n": 112, "persistent": False, "cluster_rows": 1, "launch": "clusters"},
        {"block_n": 240, "persistent": False, "cluster_rows": 1, "stages": 3},
        {"block_m": 256, "block_n": 144, "persistent": False, "cluster_rows": 1, "stages": 3},
        {**SPLIT, "persistent": False, "block_m": 48, "split_k": 2, "k_step": 256, "stages": 3},
        {"swapped": True, "schedule": "single", "block_m": 40, "block_n": 64, "persistent": False, "cluster_rows": 1},
        {"block_m": 128, "block_n": 128, "split_k": 4, "cluster_rows": 1, "persistent": False, "stages": 6},
    ]
    chosen = [space().config(values) for values in [{}, *split, *clusters, *direct, *narrow, *two, *once, *SHARED]]
    return [*chosen, *space().seeds]


@lru_cache
def built(template: Template, config: Config) -> CodeObject:
    code = NvrtcCompiler().compile(template.render(config), 120.0)
    assert isinstance(code, CodeObject), code
    return code


def loaded(device: CudaDevice, config: Config, operation: Operation = BF16_NT) -> LoadedKernel:
    code = built(space().template.for_operation(operation), config)
    return device.load(code.data, code.symbol)


def label(config: Config) -> str:
    usual = space().config({})
    return " ".join(f"{name}={value}" for name, value in config.items() if value != usual[name]) or "default"


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("config", configs(), ids=label)
def test_every_element_is_right(hopper: CudaDevice, config: Config, operation: Operation) -> None:
    bound = space().for_operation(operation)
    if not bound.is_legal(config):
        pytest.skip("no config of this operation")
    kernel, template = loaded(hopper, config, operation), bound.template
    ragged = [ProofProblem(replace(each, operation=operation), exact_sums=True) for each in RAGGED]
    for what in [*template.proof_problems(config), *ragged]:
        if bound.is_legal(config, what.problem):
            launch = template.launch(config, what.problem)
            proof = verify(hopper, kernel, launch, what.problem, 1, what.padding, what.exact_sums)
            assert isinstance(proof, Proof), f"{what}: {proof}"


@pytest.mark.parametrize("operation", OPERATIONS[:2], ids=str)
@pytest.mark.parametrize("sizes", [(77, 131, 264), (1, 1, 8), (300, 257, 520)], ids=str)
def test_direct_stores_reach_any_n(hopper: CudaDevice, sizes: tuple[int, int, int], operation: Operation) -> None:
    problem = Problem(*sizes, operation)
    for config in (config for config in configs() if config["store"] == "direct"):
        launch = space().template.launch(config, problem)
        proof = verify(hopper, loaded(hopper, config, operation), launch, problem, seed=2)
        assert isinstance(proof, Proof), f"{label(config)}: {proof}"


THREADS: list[dict[str, Value]] = [
    {"store": "direct"},
    {"block_n": 112, "persistent": False, "stages": 5},
    {"schedule": "ping_pong", "block_m": 64, "block_n": 128, "stages": 6},
    {**SPLIT, "persistent": False, "block_m": 24, "k_step": 128, "stages": 6},
    {**WORKSPACE, "split_k": 3, "block_n": 192},
]


@pytest.mark.parametrize(
    ("text", "loads", "sizes"),
    [
        ("bf16.nt", ("bytes_8", "bytes_8"), (77, 136, 332)),
        ("f16.nt", ("bytes_4", "bytes_4"), (130, 72, 1034)),
        ("bf16.nt+bias", ("bytes_2", "bytes_2"), (301, 264, 777)),
        ("bf16.nt", ("bytes_2", "bytes_2"), (301, 264, 2053)),
        ("bf16.tt", ("bytes_2", "bytes_4"), (301, 264, 2050)),
        ("bf16.nt", ("bytes_2", "bytes_2"), (1, 8, 1)),
        ("bf16.nn", ("bytes_2", "tma"), (77, 136, 333)),
        ("bf16.nn->f32", ("tma", "bytes_8"), (77, 140, 328)),
        ("f16.tn", ("bytes_2", "bytes_4"), (77, 262, 51)),
        ("bf16.tn->f32+accumulate", ("bytes_4", "bytes_8"), (78, 132, 1025)),
        ("bf16.tt", ("bytes_2", "bytes_8"), (79, 104, 132)),
    ],
)
@pytest.mark.parametrize(
    "values", THREADS, ids=lambda values: " ".join(f"{name}={value}" for name, value in values.items())
)
def test_threads_load_rows_of_any_length(
    hopper: CudaDevice, values: dict[str, Value], text: str, loads: tuple[str, str], sizes: tuple[int, int, int]
) -> None:
    problem = Problem(*sizes, operation_of(text))
    bound, ways = space().for_operation(problem.operation), dict(zip(("a_loads", "b_loads"), loads, strict=True))
    config = space().config({"cluster_rows": 1, **values, **ways})
    if not bound.is_legal(config, problem):
        pytest.skip("no config of this problem")
    kernel = loaded(hopper, config, problem.operation)
    own = [ProofProblem(problem, exact_sums=True), *bound.template.proof_problems(config)]
    for what in own:
        assert bound.is_legal(config, what.problem), what
        launch = bound.template.launch(config, what.problem)
        proof = verify(hopper, kernel, launch, what.problem, 4, what.padding, what.exact_sums)
        assert isinstance(proof, Proof), f"{what}: {proof}"


def outputs(
    device: CudaDevice, config: Config, problem: Problem, runs: int, kernel: LoadedKernel | None = None
) -> list[npt.NDArray[np.uint16]]:
    operands, kernel = random_operands(problem, seed=3), kernel or loaded(device, config)
    buffers = {"a": device.allocate(operands.stored["a"].nbytes), "b": device.allocate(operands.stored["b"].nbytes)}
    device.write(buffers["a"], operands.stored["a"])
    device.write(buffers["b"], operands.stored["b"])
    launch, results = space().template.launch(config, problem), []
    if launch.workspace_bytes:
        zeros = np.zeros(launch.workspace_bytes, np.uint8)
        buffers["workspace"] = device.allocate(zeros.nbytes)
        device.write(buffers["workspace"], zeros)
    for _ in range(runs):
        out = np.zeros((problem.m, problem.n), np.uint16)
        c = device.allocate(out.nbytes)
        device.launch(kernel, launch, launch.bound({**problem.numbers(), **buffers, "c": c}))
        device.read(c, out)
        results.append(out)
    return results


def test_a_split_sum_is_the_same_every_time(hopper: CudaDevice) -> None:
    config = space().config({**SPLIT, "persistent": False})
    first, *others = outputs(hopper, config, Problem(16, 1024, 4096), runs=20)
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("values", SHARED, ids=lambda values: label(space().config(values)))
def test_a_shared_tile_is_the_same_every_time(hopper: CudaDevice, values: dict[str, Value]) -> None:
    first, *others = outputs(hopper, space().config(values), Problem(200, 1048, 8192), runs=20)
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("values", SHARED, ids=lambda values: label(space().config(values)))
def test_blocks_that_wait_for_nobody_leave_the_same_tile(
    hopper: CudaDevice, values: dict[str, Value], tmp_path: Path
) -> None:
    """Whoever comes last stores what the others gave up: the same bits, and counters that are zero again."""
    impatient = tmp_path / "gemm_bf16"
    shutil.copytree(ROOT / "kernels" / "sm90a" / "gemm_bf16", impatient)
    source = (impatient / "share.cu").read_text()
    assert source.count("PATIENCE = 64;") == 1
    (impatient / "share.cu").write_text(source.replace("PATIENCE = 64;", "PATIENCE = 0;"))
    config, problem = space().config(values), Problem(200, 1048, 8192)
    code = NvrtcCompiler().compile(load_template(impatient).render(config), 120.0)
    assert isinstance(code, CodeObject), code
    assert code.sha256 != built(space().template, config).sha256
    [patient] = outputs(hopper, config, problem, runs=1)
    for found in outputs(hopper, config, problem, 20, hopper.load(code.data, code.symbol)):
        assert np.array_equal(found, patient)


def test_operands_that_a_tensor_map_cannot_describe_are_refused(hopper: CudaDevice) -> None:
    config, problem = space().config({}), Problem(64, 64, 64)
    kernel, launch = loaded(hopper, config), space().template.launch(config, problem)
    buffer = hopper.allocate(2 * 64 * 64)
    binding = {"a": buffer, "b": buffer, "c": buffer, "m": 64, "n": 64, "k": 64, "bias": None, "workspace": None}
    with pytest.raises(DeviceError, match="multiples of 16 bytes"):
        hopper.launch(kernel, launch, {**binding, "k": 60})
    with pytest.raises(DeviceError, match="allocate it"):
        hopper.launch(kernel, launch, {**binding, "m": 65})


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("config", configs(), ids=label)
def test_a_bias_is_added_before_the_one_rounding(hopper: CudaDevice, config: Config, operation: Operation) -> None:
    problem = Problem(133, 200, 520, operation.with_steps("bias"))
    if space().for_operation(operation).is_legal(config, problem):
        kernel, launch = loaded(hopper, config, operation), space().template.launch(config, problem)
        proof = verify(hopper, kernel, launch, problem, seed=4)
        assert isinstance(proof, Proof), proof


def test_float16_sums_beyond_the_largest_number_are_infinite(hopper: CudaDevice) -> None:
    """As torch's are: 64 products of 32 x 32 are 65,536; one of them less still is a number."""
    problem = Problem(64, 64, 64, operation_of("f16.nt"))
    for config in (space().config({}), space().config({"store": "direct"})):
        kernel, launch = loaded(hopper, config, problem.operation), space().template.launch(config, problem)
        a = np.full((64, 64), 32.0, np.float16)
        a[0, 0], a[1] = 0.0, -32.0
        c, buffers = np.zeros((64, 64), np.float16), [hopper.allocate(a.nbytes) for _ in range(3)]
        hopper.write(buffers[0], a)
        hopper.write(buffers[1], np.full((64, 64), 32.0, np.float16))
        named = dict(zip(("a", "b", "c"), buffers, strict=True))
        hopper.launch(kernel, launch, launch.bound({**problem.numbers(), **named}))
        hopper.read(buffers[2], c)
        assert np.all(c[0] == 63 * 1024.0)
        assert np.all(c[1] == -np.inf)
        assert np.all(c[2:] == np.inf)
