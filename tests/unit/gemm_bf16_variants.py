"""The gfx950 GEMM's space, and its configs compiled, for the tests of kernels/gfx950/gemm_bf16."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pipeline_order import Pipeline

from hktune.compile import CachedCompiler, hip_compiler
from hktune.core.config import Config
from hktune.core.dtype import BF16
from hktune.core.launch import WORKSPACE_COUNTER_BYTES, Launch
from hktune.core.operation import BF16_NT, Operation, operation_of
from hktune.core.outcome import Failure
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject, Resources, Variant
from hktune.device.emulated import EmulatedDevice
from hktune.emulator.clock.trace import Trace
from hktune.emulator.instructions.decode import Instruction, decode
from hktune.objects.code_object import read_code_object
from hktune.space.search_space import SearchSpace, load_space
from hktune.verify import Operands, Proof, verify

ROOT = Path(__file__).resolve().parents[2]
COMPILE_DEADLINE_S = 300.0

# Parameters of a config, besides the defaults: small ones of each kind of schedule.
HALF_OF_WARP = {"block_m": 32, "block_n": 64, "warps_m": 1, "warps_n": 2, "split": 1, "slices": 2}
SHARED = HALF_OF_WARP | {"split_k": 4}
IN_PARTS = {"block_m": 64, "block_n": 128, "warps_n": 2}
INTERLEAVED = IN_PARTS | {"schedule": "interleave", "slices": 2, "refill": "late", "lgkmcnt_clusters": 1} | {
    "read_across": True, "stages": 3, "vmcnt_tiles": 1,
}  # fmt: skip
PINGPONG = {"block_m": 128, "block_n": 128, "warps_m": 4, "warps_n": 2, "schedule": "pingpong", "refill": "late"} | {
    "lgkmcnt_clusters": 1, "spread": 4,
}  # fmt: skip


@lru_cache
def space() -> SearchSpace:
    return load_space(ROOT / "search_spaces" / "gfx950_gemm_bf16.yaml")


@lru_cache
def compiler() -> CachedCompiler:
    return hip_compiler(Settings.from_environment(os.environ))


def compiled(variant: Variant) -> CodeObject:
    code = compiler().compile(variant, COMPILE_DEADLINE_S)
    assert isinstance(code, CodeObject), code
    return code


@lru_cache
def built(config: Config) -> CodeObject:
    return compiled(space().template.render(config))


def proof(code: CodeObject, launch: Launch, problem: Problem, padding: int = 0) -> Proof | Failure:
    device = EmulatedDevice()
    return verify(device, device.load(code.data, code.symbol), launch, problem, seed=1, padding=padding)


def traced_proof(code: CodeObject, launch: Launch, problem: Problem) -> tuple[Proof | Failure, Trace]:
    device = EmulatedDevice(record_trace=True)
    outcome = verify(device, device.load(code.data, code.symbol), launch, problem, seed=1)
    assert device.trace is not None, outcome
    return outcome, device.trace


def output_of(config: Config, problem: Problem, operands: Operands, grid: int | None = None) -> npt.NDArray[np.uint16]:
    """C as the first `grid` workgroups (None: all) leave it, poison where they do not write."""
    device, code = EmulatedDevice(), built(config)
    launch = space().template.launch(config, problem)
    if grid is not None:
        launch = replace(launch, grid=(grid, 1, 1))
    workspace = np.zeros(max(1, launch.workspace_bytes), np.uint8)
    c = np.full((problem.m, problem.n), BF16.poison_bits, np.uint16)
    arrays = {"a": operands.stored["a"], "b": operands.stored["b"], "c": c, "workspace": workspace}
    buffers = {name: device.allocate(array.nbytes) for name, array in arrays.items()}
    for name, array in arrays.items():
        device.write(buffers[name], array)
    m, n, k = problem.m, problem.n, problem.k
    sizes = {"m": m, "n": n, "k": k, "lda": k, "ldb": k, "ldc": n, "bias": None}
    device.launch(device.load(code.data, code.symbol), launch, {**buffers, **sizes})
    device.read(buffers["c"], c)
    device.read(buffers["workspace"], workspace)
    assert not workspace[:WORKSPACE_COUNTER_BYTES].any(), "a launch leaves the counters as it found them"
    return c


def model(config: Config) -> dict[str, int]:
    """The numbers of `config`, and those that the space derives from them, for a problem of 4096 cubed."""
    derived = space().derived.values({**config, **space().template.records, "m": 4096, "n": 4096, "k": 4096})
    return {name: value for name, value in {**config, **derived}.items() if isinstance(value, int)}


def pipeline_of(config: Config, operation: Operation = BF16_NT) -> Pipeline:
    """Loads and LDS reads that a K-tile is for a wave, and how many tiles LDS holds. A fragment of an operand that is
    contiguous along its lines takes two reads."""
    derived, facts = model(config), space().for_operation(operation).template.derived_values(config)
    reads_a = derived["fragments_a"] * (1 if facts["along_a"] == "k" else 2)
    reads_b = derived["fragments_b"] * (1 if facts["along_b"] == "k" else 2)
    if config["schedule"] == "pingpong":  # B0 A0 B1 A1; fragments_b counts both parts of B
        parts = 2 * (derived["loads_b"], derived["loads_a"])
        return Pipeline(parts, 2 * (reads_b // 2, reads_a), derived["stages"])
    reads = derived["clusters"] * reads_a + derived["slices"] * reads_b
    return Pipeline((derived["loads_per_tile"],), (reads,), derived["stages"])


def disassembled(code: CodeObject) -> list[Instruction]:
    """Every instruction of the kernel, in order of address, up to an end or a jump that no branch passes over."""
    image = read_code_object(code.data)
    address = image.kernels[code.symbol].entry_address
    start, data = next(part for part in image.segments if part[0] <= address < part[0] + len(part[1]))
    instructions: list[Instruction] = []
    furthest = address
    while not instructions or instructions[-1].mnemonic not in ("s_endpgm", "s_branch") or address <= furthest:
        one = decode(data[address - start :], address)
        instructions.append(one)
        address = one.next_address
        if one.mnemonic.startswith(("s_branch", "s_cbranch")):
            distance = one.fields["simm16"]
            furthest = max(furthest, address + 4 * (distance - (distance >> 15 << 16)))
    return instructions


def built_registers(values: dict[str, object], text: str) -> tuple[Resources, int]:
    """What the code of one config takes for an operation, and how many VGPRs it may have."""
    bound = space().for_operation(operation_of(text))
    config = bound.config(values)
    return compiled(bound.template.render(config)).resources, int(model(config)["vgpr_budget"])
