"""Judges any kernel, not only a template's: a HIP source or a code object, with its arguments described in a line.

    a:bf16[m,k] b:bf16[n,k] c:out:bf16[m,n] m n k

A buffer has a type and dimensions, `out` if the kernel must write all of it, `inout` if it may. What has no brackets
is a number, its value given by name: an i32, or `alpha:f32`, `rows:u32`, `bytes:u64`. Dimensions, grid, block and LDS
are expressions of those numbers. Buffers end where they say, so one element too far is a fault.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hktune.compile.compiler import Compiler
from hktune.core.config import Config
from hktune.core.dtype import DTYPES
from hktune.core.errors import DeviceError, InputError, KernelFault
from hktune.core.escaped import shown
from hktune.core.expression import Expression
from hktune.core.launch import Argument, Launch, operand_name
from hktune.core.launch_rule import BLOCK_MAX, GRID_MAX, LDS_BYTES_MAX
from hktune.core.operand import operands_of
from hktune.core.operation import Operation
from hktune.core.outcome import Failure, Status
from hktune.core.outside_file import FileKind
from hktune.core.problem import Problem
from hktune.core.variant import Resources, Variant
from hktune.device.device import Buffer, HostArray
from hktune.device.emulated import EmulatedDevice
from hktune.objects.code_object import read_code_object
from hktune.verify.reference import compare, random_operands

ARCH = "gfx950"
_COMPILE_DEADLINE_S = 120.0
_ITEM = re.compile(
    r"(?P<name>[A-Za-z_]\w*)(:(?P<way>out|inout))?(:(?P<type>\w+))?(\[(?P<dimensions>[^\]]+)\])?\Z", re.ASCII
)
_LAUNCH_BOUNDS = re.compile(r"__launch_bounds__\s{0,99}\([^()]{0,199}\)")
_WORD = re.compile(r"\w+", re.ASCII)
_NAME = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?\Z")
_SCALARS = {"i32": (-(2**31), 2**31 - 1), "u32": (0, 2**32 - 1), "u64": (0, 2**64 - 1), "f32": (-3.4e38, 3.4e38)}
"""Types of numbers, with the least and the most of each."""
_PARAMETERS_MAX, _DIMENSIONS_MAX = 64, 8
EMULATOR_FAILED = "the emulator failed on it"
BUFFER_BYTES_MAX = 1 << 28  # of all buffers: more than the emulator gets through
KERNEL_FILE = FileKind("a kernel", 16 << 20, InputError, "give HIP source or a code object")
_OTHER_ELEMENT_BYTES = {"i16": 2, "u16": 2, "i32": 4, "u32": 4, "i8": 1, "u8": 1, "f64": 8}
_FLOATS = {name: dtype for name, dtype in DTYPES.items() if not dtype.is_integer and dtype.packed == 1}
_ELEMENT_BYTES = {**{name: dtype.bytes for name, dtype in _FLOATS.items()}, **_OTHER_ELEMENT_BYTES}
_UNWRITTEN = 0xD5
"""Every byte of an output that has no NaN, before the kernel runs."""


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
    """How to launch a kernel: its arguments, the numbers they depend on, and grid, block and dynamic LDS as text.
    `gemm` is what the values of `c` are compared with, if with anything."""

    parameters: tuple[Parameter, ...]
    numbers: Mapping[str, int | float]
    grid: str
    block: str
    lds_bytes: str = "0"
    gemm: Operation | None = None
    seed: int = 0
    deadline_s: float = 600.0
    strict: bool = False

    def launch(self) -> Launch:
        """Raises SpaceError for an expression that has no value."""
        lds_bytes = _integer(self.lds_bytes, "--lds", self.numbers, 0, LDS_BYTES_MAX)
        arguments = tuple(parameter.argument for parameter in self.parameters)
        grid = self._sides(self.grid, "--grid", GRID_MAX)
        return Launch(grid, self._sides(self.block, "--block", BLOCK_MAX), lds_bytes, arguments)

    def _sides(self, text: str, where: str, most: int) -> tuple[int, int, int]:
        parts = text.split(",")
        if len(parts) > 3:
            raise InputError(f"{where} {shown(text)}: has {len(parts)} sides, a launch has at most 3")
        x, y, z = (*(_integer(part, where, self.numbers, 1, most) for part in parts), 1, 1)[:3]
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
    parameters: dict[str, Parameter] = {}
    for item in text.split():
        found = _ITEM.match(item)
        if found is None:
            raise InputError(f"argument {shown(item)}: write name, name:type, name:type[sizes] or name:out:type[sizes]")
        known = _ELEMENT_BYTES if found["dimensions"] else _SCALARS
        kind = found["type"] or "i32"
        if kind not in known:
            raise InputError(f"argument {shown(item)}: type {shown(kind)} is not one of {', '.join(known)}")
        sizes = found["dimensions"].split(",") if found["dimensions"] else []
        if found["name"] in parameters or len(parameters) == _PARAMETERS_MAX or len(sizes) > _DIMENSIONS_MAX:
            rule = f"at most {_PARAMETERS_MAX} arguments of {_DIMENSIONS_MAX} sizes, each of another name"
            raise InputError(f"argument {shown(item)}: a kernel has {rule}: correct --args")
        expressions = tuple(Expression(part, f"argument {found['name']}") for part in sizes)
        parameters[found["name"]] = Parameter(found["name"], kind, expressions, found["way"] or "in")
    return tuple(parameters.values())


def parse_numbers(words: Iterable[str]) -> dict[str, int | float]:
    """The numbers of NAME=NUMBER words: integers in decimal digits, floats as 2.5 or 1e-3. Raises InputError."""
    numbers: dict[str, int | float] = {}
    for word in words:
        name, _, value = word.partition("=")
        found = _NUMBER.match(value)
        if not _NAME.match(name) or not found:
            raise InputError(f"{shown(word)}: write NAME=NUMBER, such as m=128 or alpha=2.5e-3")
        if name in numbers:
            raise InputError(f"{shown(name)} is given twice: leave one out")
        numbers[name] = float(value) if found[1] or found[2] else int(value)
    return numbers


def compile_source(path: Path, source: str, symbol: str | None, compiler: Compiler) -> tuple[bytes, str]:
    """Code object and symbol of the kernel in the HIP `source` of the file at `path`. Raises InputError with the
    compiler's first error."""
    if symbol is None:
        found = _kernels(source)
        if len(found) != 1:
            raise InputError(
                f"{path} defines {shown(sorted(found)) if found else 'no kernels'}: name one with --symbol"
            )
        symbol = found.pop()
    variant = Variant(path.stem, "", ARCH, "hip", symbol, source, Config({}))
    code = compiler.compile(variant, _COMPILE_DEADLINE_S)
    if isinstance(code, Failure):
        raise InputError(f"{path} does not compile: {code.detail}")
    return code.data, symbol


def _kernels(source: str) -> set[str]:
    """The names between __global__ and the parenthesis that follows."""
    parts = re.split(r"([;{(])", _LAUNCH_BOUNDS.sub("", source))
    heads = (text for text, end in zip(parts[::2], parts[1::2], strict=False) if end == "(" and "__global__" in text)
    names = (_WORD.findall(head)[-1] for head in heads)
    return {name for name in names if name != "__global__" and _NAME.match(name)}


def only_symbol(data: bytes, path: Path) -> str:
    """The one kernel of a code object. Raises InputError when there are several."""
    kernels = sorted(read_code_object(data).kernels)
    if len(kernels) != 1:
        raise InputError(f"{path} has the kernels {', '.join(kernels)}: name one with --symbol")
    return kernels[0]


def judge(data: bytes, symbol: str, run: KernelRun) -> Verdict:
    """Run the kernel once, watching for hazards. Raises InputError when the description does not fit the kernel."""
    launch = run.launch()
    device = EmulatedDevice(ARCH, deadline_s=run.deadline_s, find_hazards=True, strict_hazards=run.strict)
    kernel = device.load(data, symbol)
    resources = kernel.image.resources
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
    except Exception as error:
        # Machine code of anybody's making may hold what no test has: that says nothing about the kernel.
        detail = f"{EMULATOR_FAILED} ({type(error).__name__}: {error}): no verdict on the kernel; please report it"
        return Verdict(symbol, Failure(Status.CRASHED, detail), resources, notes)
    for name, array in arrays.items():
        device.read(buffers[name], array)
    return Verdict(symbol, _wrong(run, arrays), resources, (*notes, *device.hazard_notes))


def _number(run: KernelRun, parameter: Parameter) -> int | float:
    if parameter.name not in run.numbers:
        raise InputError(f"argument {parameter.name} has no value: add {parameter.name}=VALUE")
    value, (least, most) = run.numbers[parameter.name], _SCALARS[parameter.type]
    if parameter.type != "f32" and not isinstance(value, int):
        raise InputError(f"argument {parameter.name}={value} is {parameter.type}: give an integer")
    if not least <= value <= most:
        raise InputError(f"argument {parameter.name}={value} is {parameter.type}: give {least} to {most}")
    return float(value) if parameter.type == "f32" else value


def _integer(text: str, where: str, numbers: Mapping[str, int | float], least: int, most: int) -> int:
    """The value of an expression that must be an integer in bounds. Raises InputError."""
    value = Expression(text, where).value(numbers)
    if not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{where} {shown(text)} is {shown(value)}: it must be an integer from {least} to {most}")
    return int(value)


def _arrays(run: KernelRun) -> dict[str, HostArray]:
    """Each buffer's first content: standard normal numbers or small integers; outputs a pattern of their own."""
    random = np.random.default_rng(run.seed)
    arrays: dict[str, HostArray] = {}
    left = BUFFER_BYTES_MAX
    for parameter in run.parameters:
        if not parameter.dimensions:
            continue
        where, sizes = f"argument {parameter.name}", [size.text for size in parameter.dimensions]
        shape = tuple(_integer(size, where, run.numbers, 1, BUFFER_BYTES_MAX) for size in sizes)
        left -= math.prod(shape) * _ELEMENT_BYTES[parameter.type]
        if left < 0:
            rule = f"buffers have at most {BUFFER_BYTES_MAX} bytes together"
            raise InputError(f"{where} has the sizes {list(shape)}: {rule}: make it smaller")
        arrays[parameter.name] = _content(parameter, shape, random)
    if run.gemm:
        stored = random_operands(_gemm_problem(run, run.gemm, arrays), run.seed).stored
        arrays.update({name: stored.get(operand_name(name), array) for name, array in arrays.items()})
    return arrays


def _content(parameter: Parameter, shape: tuple[int, ...], random: np.random.Generator) -> HostArray:
    size = _ELEMENT_BYTES[parameter.type]
    if parameter.way == "out":
        return np.full(shape, _unwritten(parameter), f"u{size}")
    if parameter.type in _FLOATS:
        return _FLOATS[parameter.type].bits(random.standard_normal(shape, dtype=np.float32))
    if parameter.type == "f64":
        return random.standard_normal(shape)
    return random.integers(0, 100, shape).astype(f"{parameter.type[0]}{size}")


def _unwritten(parameter: Parameter) -> int:
    """The bits of an element that was never written."""
    dtype = _FLOATS.get(parameter.type)
    return dtype.poison_bits if dtype else int.from_bytes([_UNWRITTEN] * _ELEMENT_BYTES[parameter.type], "little")


def _gemm_problem(run: KernelRun, operation: Operation, arrays: Mapping[str, HostArray]) -> Problem:
    """What the kernel computes, from its operands' shapes. Raises InputError where these are not the operation's."""
    operands, given = operands_of(operation), {operand_name(p.name): p for p in run.parameters if p.dimensions}
    if "scale_a" in operands or operation.accumulates:
        raise InputError(f"--gemm {operation}: products with scales or onto C are not compared here: use --template")
    wanted = " ".join(
        f"{name}:{'out:' if name == 'c' else ''}{operand.dtype}[{','.join(operand.axes)}]"
        for name, operand in operands.items()
    )
    sizes: dict[str, int] = {}
    for name, operand in operands.items():
        form = (operand.dtype.name, "out" if name == "c" else "in", len(operand.axes))
        parameter = given.get(name)
        if parameter is None or (parameter.type, parameter.way, len(parameter.dimensions)) != form:
            raise InputError(f"--gemm {operation} compares {wanted}: name these in --args")
        for axis, size in zip(operand.axes, arrays[parameter.name].shape, strict=False):
            if sizes.setdefault(axis, size) != size:
                raise InputError(f"--gemm {operation} compares {wanted}: {axis} is {sizes[axis]} and {size} in --args")
    return Problem(sizes["m"], sizes["n"], sizes["k"], operation)


def _wrong(run: KernelRun, arrays: Mapping[str, HostArray]) -> Failure | None:
    if run.gemm:
        problem = _gemm_problem(run, run.gemm, arrays)
        mismatch = compare(arrays["c"], random_operands(problem, run.seed))
        if mismatch:
            return Failure(Status.WRONG, str(mismatch))
    for parameter in run.parameters:
        if parameter.way == "out":
            unwritten = arrays[parameter.name] == _unwritten(parameter)
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
