"""Judges any kernel, not only a template's: a HIP source or a code object, with its arguments described in a line.

    a:bf16[m,k] bt:bf16[n,k] c:out:bf16[m,n] m n k

A buffer has a type and dimensions, `out` if the kernel must write all of it, `inout` if it may. What has no brackets
is a number, its value given by name: an i32, or `alpha:f32`, `rows:u32`, `bytes:u64`. Dimensions, grid, block and LDS
are expressions of those numbers. Buffers end where they say, so one element too far is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hktune.bf16 import bf16_bits
from hktune.code_object import read_code_object
from hktune.compile.compiler import Compiler
from hktune.device.device import Buffer
from hktune.device.emulated import EmulatedDevice
from hktune.errors import DeviceError, InputError, KernelFault
from hktune.expression import Expression
from hktune.model import Argument, Config, Failure, Launch, Problem, Resources, Status, Variant
from hktune.verify.operands import random_operands
from hktune.verify.verify import compare

ARCH = "gfx950"
_COMPILE_DEADLINE_S = 120.0
_ITEM = re.compile(r"(?P<name>[A-Za-z_]\w*)(:(?P<way>out|inout))?(:(?P<type>\w+))?(\[(?P<dimensions>[^\]]+)\])?$")
_KERNEL = re.compile(r"__global__\b[^;{(]*?\b([A-Za-z_]\w*)\s*\(")
_LAUNCH_BOUNDS = re.compile(r"__launch_bounds__\s*\([^)]*\)")
_SCALARS = ("i32", "u32", "u64", "f32")
_ELEMENT_BYTES = {"bf16": 2, "f16": 2, "i16": 2, "u16": 2, "f32": 4, "i32": 4, "u32": 4, "i8": 1, "u8": 1, "f64": 8}
_UNWRITTEN = 0xD5
"""Every byte of an output before the kernel runs."""


@dataclass(frozen=True)
class Parameter:
    """One argument of the kernel: a number, or a buffer of `dimensions` elements."""

    name: str
    type: str
    dimensions: tuple[Expression, ...] = ()
    way: str = "in"

    @property
    def argument(self) -> Argument:
        return Argument(self.name, "pointer" if self.dimensions else self.type)


@dataclass(frozen=True)
class KernelRun:
    """How to launch a kernel: its arguments, the numbers they depend on, and grid, block and dynamic LDS as text."""

    parameters: tuple[Parameter, ...]
    numbers: Mapping[str, float]
    grid: str
    block: str
    lds_bytes: str = "0"
    gemm: bool = False
    seed: int = 0
    deadline_s: float = 600.0

    def launch(self) -> Launch:
        """Raises SpaceError for an expression that has no value."""
        lds_bytes = Expression(self.lds_bytes, "--lds").value(self.numbers)
        arguments = tuple(parameter.argument for parameter in self.parameters)
        return Launch(self._sides(self.grid, "--grid"), self._sides(self.block, "--block"), int(lds_bytes), arguments)

    def _sides(self, text: str, where: str) -> tuple[int, int, int]:
        sides = [int(Expression(part, where).value(self.numbers)) for part in text.split(",")]
        if len(sides) > 3:
            raise InputError(f"{where} {text}: has {len(sides)} sides, a launch has at most 3")
        x, y, z = (*sides, 1, 1)[:3]
        return x, y, z


@dataclass(frozen=True)
class Verdict:
    """What was found: a failure, or none; and what the kernel asks of a compute unit."""

    symbol: str
    failure: Failure | None
    resources: Resources
    notes: tuple[str, ...] = ()


def parse_parameters(text: str) -> tuple[Parameter, ...]:
    """Raises InputError for text that describes no arguments."""
    parameters = []
    for item in text.split():
        found = _ITEM.match(item)
        if found is None:
            raise InputError(f"argument {item!r}: write name, name:type, name:type[sizes] or name:out:type[sizes]")
        known = _ELEMENT_BYTES if found["dimensions"] else _SCALARS
        kind = found["type"] or "i32"
        if kind not in known:
            raise InputError(f"argument {item!r}: type {kind} is not one of {', '.join(known)}")
        sizes = tuple(Expression(part, item) for part in (found["dimensions"] or "").split(",") if part)
        parameters.append(Parameter(found["name"], kind, sizes, found["way"] or "in"))
    return tuple(parameters)


def compile_source(path: Path, symbol: str | None, compiler: Compiler) -> tuple[bytes, str]:
    """Code object and symbol of the HIP file's kernel. Raises InputError with the compiler's first error."""
    source = path.read_text()
    if symbol is None:
        found = set(_KERNEL.findall(_LAUNCH_BOUNDS.sub("", source)))
        if len(found) != 1:
            raise InputError(f"{path} defines {sorted(found) or 'no kernels'}: name one with --symbol")
        symbol = found.pop()
    variant = Variant(path.stem, "", ARCH, "hip", symbol, source, Config({}))
    code = compiler.compile(variant, _COMPILE_DEADLINE_S)
    if isinstance(code, Failure):
        raise InputError(f"{path} does not compile: {code.detail}")
    return code.data, symbol


def only_symbol(data: bytes, path: Path) -> str:
    """The one kernel of a code object. Raises InputError when there are several."""
    kernels = sorted(read_code_object(data).kernels)
    if len(kernels) != 1:
        raise InputError(f"{path} has the kernels {', '.join(kernels)}: name one with --symbol")
    return kernels[0]


def judge(data: bytes, symbol: str, run: KernelRun) -> Verdict:
    """Run the kernel once, watching for hazards. Raises InputError when the description does not fit the kernel."""
    device = EmulatedDevice(ARCH, deadline_s=run.deadline_s, find_hazards=True)
    kernel = device.load(data, symbol)
    resources = kernel.image.resources
    launch = run.launch()
    mismatch = kernel.image.mismatch(launch.arguments)
    if mismatch:
        raise InputError(f"{mismatch}: correct --args")
    arrays = _arrays(run)
    buffers: dict[str, Buffer] = {}
    for name, array in arrays.items():
        buffers[name] = device.allocate(array.nbytes)
        device.write(buffers[name], array)
    numbers = {p.name: _number(run, p) for p in run.parameters if not p.dimensions}
    notes = _notes(resources)
    try:
        device.launch(kernel, launch, {**buffers, **numbers})
    except KernelFault as fault:
        return Verdict(symbol, Failure(Status(fault.status), fault.detail), resources, notes)
    except DeviceError as error:
        return Verdict(symbol, Failure(Status.CRASHED, str(error)), resources, notes)
    for name, array in arrays.items():
        device.read(buffers[name], array)
    return Verdict(symbol, _wrong(run, arrays), resources, notes)


def _number(run: KernelRun, parameter: Parameter) -> int | float:
    if parameter.name not in run.numbers:
        raise InputError(f"argument {parameter.name} has no value: add {parameter.name}=VALUE")
    value = run.numbers[parameter.name]
    return float(value) if parameter.type == "f32" else int(value)


def _arrays(run: KernelRun) -> dict[str, npt.NDArray[Any]]:
    """Each buffer's first content: standard normal numbers or small integers; outputs a pattern of their own."""
    random = np.random.default_rng(run.seed)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for parameter in run.parameters:
        if not parameter.dimensions:
            continue
        shape = tuple(int(size.value(run.numbers)) for size in parameter.dimensions)
        if min(shape) < 1:
            raise InputError(f"argument {parameter.name} has the sizes {list(shape)}: each must be at least 1")
        arrays[parameter.name] = _content(parameter, shape, random)
    if run.gemm:
        operands = random_operands(_gemm_problem(arrays), run.seed)
        arrays["a"], arrays["bt"] = operands.a, operands.bt
    return arrays


def _content(parameter: Parameter, shape: tuple[int, ...], random: np.random.Generator) -> npt.NDArray[Any]:
    size = _ELEMENT_BYTES[parameter.type]
    if parameter.way == "out":
        return np.full((*shape, size), _UNWRITTEN, np.uint8)
    if parameter.type == "bf16":
        return bf16_bits(random.standard_normal(shape, dtype=np.float32))
    if parameter.type.startswith("f"):
        return random.standard_normal(shape).astype(f"f{size}")
    return random.integers(0, 100, shape).astype(f"{parameter.type[0]}{size}")


def _gemm_problem(arrays: Mapping[str, npt.NDArray[Any]]) -> Problem:
    if not {"a", "bt", "c"} <= set(arrays):
        raise InputError("--gemm compares c[m,n] with a[m,k] @ bt[n,k]^T: name the bf16 buffers a, bt and c")
    (m, k), n = arrays["a"].shape[:2], arrays["bt"].shape[0]
    if arrays["bt"].shape[:2] != (n, k) or arrays["c"].shape != (m, n, 2):
        raise InputError("--gemm compares c[m,n] with a[m,k] @ bt[n,k]^T, all bf16: the sizes in --args differ")
    return Problem(m, n, k)


def _wrong(run: KernelRun, arrays: Mapping[str, npt.NDArray[Any]]) -> Failure | None:
    if run.gemm:
        problem = _gemm_problem(arrays)
        output = arrays["c"].view(np.uint16).reshape(problem.m, problem.n)
        mismatch = compare(output, random_operands(problem, run.seed))
        return Failure(Status.WRONG, str(mismatch)) if mismatch else None
    for parameter in run.parameters:
        if parameter.way == "out":
            unwritten = (arrays[parameter.name] == _UNWRITTEN).all(axis=-1)
            if unwritten.any():
                first = [int(i) for i in np.argwhere(unwritten)[0]]
                count, total = int(unwritten.sum()), unwritten.size
                detail = f"{parameter.name}: {count} of {total} elements never written, first {first}"
                return Failure(Status.WRONG, detail)
    return None


def _notes(resources: Resources) -> tuple[str, ...]:
    if not resources.scratch_bytes:
        return ()
    return (
        f"uses {resources.scratch_bytes} bytes of scratch a lane: registers spill, or an array is indexed by value",
    )
