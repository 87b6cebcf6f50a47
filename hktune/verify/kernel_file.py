"""Judges any kernel, not only a template's: a code object, with its arguments described in a line
(`kernel_arguments`). Buffers end where they say, so one element too far is a fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from hktune.core.attended import attended_s
from hktune.core.errors import DeviceError, InputError, KernelFault
from hktune.core.escaped import shown
from hktune.core.expression import Expression
from hktune.core.forked import usable_cores
from hktune.core.launch import Launch, operand_name
from hktune.core.launch_rule import BLOCK_MAX, GRID_MAX, LDS_BYTES_MAX
from hktune.core.operand import operands_of
from hktune.core.operation import COUNTED, Operation
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem
from hktune.core.variant import Resources
from hktune.device.device import HostArray
from hktune.device.emulated import EmulatedDevice, EmulatedKernel
from hktune.objects.demangled import kernel_name
from hktune.verify.argument_struct import Values, argument_struct, spare_pointers
from hktune.verify.diagnosis import Diagnosis, diagnoses, worst_first
from hktune.verify.examination import Examination
from hktune.verify.execution_trace import ExecutionTrace, execution_trace
from hktune.verify.finding_rules import ERROR, WARNING
from hktune.verify.fixes import Fixes
from hktune.verify.kernel_arguments import Parameter, buffers_of, integer
from hktune.verify.kernel_buffers import (
    Numbers,
    difference,
    filled_buffers,
    has_own_poison,
    native,
    unwritten,
    values_of,
)
from hktune.verify.reference import compare, random_operands
from hktune.verify.suspicions import differing, finite, strange
from hktune.verify.waivers import Waiver

EMULATOR_FAILED = "the emulator failed on it"
_SCRATCH_BYTES_MAX = 1 << 28

Reference = Callable[[dict[str, Numbers]], Mapping[str, Numbers]]
"""What outputs should hold, by name, made of what all buffers held before: numbers of their types, as numpy has
them."""


@dataclass(frozen=True)
class KernelRun:
    """How to launch a kernel: its arguments, the numbers they depend on, and grid, block and dynamic LDS as text.

    Outputs are compared with what the operation `gemm` makes of a and b, with `expected` arrays, and with what a
    `reference` makes of the inputs; `tolerance` is the relative and the absolute difference allowed there, by default
    torch's for the type. `arrays` are buffers' contents, in place of what their parameters say. `scratch_bytes` is what
    Triton asks for each workgroup, of its two kinds of memory; None is not known. `allowed` are findings that are
    waived. Other schedules and fixes are tried for `trials_s`. At most `workers` processes compute, by default one for
    each core.
    """

    parameters: tuple[Parameter, ...]
    numbers: Mapping[str, int | float]
    grid: str
    block: str
    lds_bytes: str = "0"
    gemm: Operation | None = None
    seed: int = 0
    deadline_s: float = 600.0
    strict: bool = False
    expected: Mapping[str, Numbers] = field(default_factory=dict)
    reference: Reference | None = None
    tolerance: tuple[float, float] | None = None
    arrays: Mapping[str, HostArray] = field(default_factory=dict)
    scratch_bytes: tuple[int, int] | None = None
    allowed: tuple[Waiver, ...] = ()
    trials_s: float = 60.0
    traces: bool = False
    workers: int = field(default_factory=usable_cores)

    def launch(self) -> Launch:
        """Grid, block and LDS; the arguments are packed apart. Raises SpaceError for an expression without a value."""
        lds_bytes = self._integer(self.lds_bytes, "--lds", 0, LDS_BYTES_MAX)
        grid = self._sides(self.grid, "--grid", GRID_MAX)
        return Launch(grid, self._sides(self.block, "--block", BLOCK_MAX), lds_bytes, ())

    @property
    def compares(self) -> bool:
        """Whether values are compared with anything."""
        return bool(self.gemm or self.expected or self.reference)

    def _sides(self, text: str, where: str, most: int) -> tuple[int, int, int]:
        parts = text.split(",")
        if len(parts) > 3:
            raise InputError(f"{where} {shown(text)}: has {len(parts)} sides, a launch has at most 3")
        x, y, z = (*(self._integer(part, where, 1, most) for part in parts), 1, 1)[:3]
        return x, y, z

    def _integer(self, text: str, where: str, least: int, most: int) -> int:
        return integer(Expression(text, where), self.numbers, least, most)


@dataclass(frozen=True)
class Verdict:
    """What was found: a failure of the run or wrong values, or none; findings, worst first; and what the kernel asks of
    a compute unit. `outputs` are the buffers that the kernel may write, as it left them; `traced` what workgroup 0
    executed, where the run asked for it; `fix` the change with which nothing is found, where several are needed."""

    symbol: str
    failure: Failure | None
    resources: Resources
    notes: tuple[str, ...] = ()
    outputs: Mapping[str, HostArray] = field(default_factory=dict)
    findings: tuple[Diagnosis, ...] = ()
    traced: ExecutionTrace | None = None
    fix: str = ""

    @property
    def level(self) -> str | None:
        """How bad the worst is: ERROR, WARNING, or None where there is nothing but notes and what is waived."""
        levels = {each.level for each in self.findings if each.counts}
        return ERROR if self.failure or ERROR in levels else WARNING if levels else None


def judge(data: bytes, symbol: str, run: KernelRun) -> Verdict:
    """Run the kernel and look for hazards, then run it under other schedules, and with fixes. Raises InputError when
    the description does not fit the kernel."""
    return _Judge(data, symbol, run).verdict()


class _Judge:
    """One kernel on a device of its own."""

    def __init__(self, data: bytes, symbol: str, run: KernelRun) -> None:
        self._run, self._launch = run, run.launch()
        self._buffers = buffers_of(run.parameters)
        self._name = kernel_name(symbol)
        self._regions: dict[str, tuple[int, int]] = {}
        self._examination = Examination(data, symbol, self._left, run.strict, run.deadline_s, run.workers)
        self._device = self._examination.device(watches=True, traces=run.traces)
        self._kernel: EmulatedKernel = self._device.load(data, symbol)
        self._before: dict[str, HostArray] = {}

    def verdict(self) -> Verdict:
        self._before = self._filled(0)
        arrays = {name: array.copy() for name, array in self._before.items()}
        notes, resources = self._notes(), self._kernel.image.resources
        begun = attended_s()
        failure = self._failure(arrays)
        run_s = attended_s() - begun
        ended = failure is None
        traced = execution_trace(self._device.trace, self._kernel) if ended and self._device.trace else None
        until = attended_s() + self._run.trials_s
        found = diagnoses(self._device.findings, self._kernel, self._name, self._regions)
        if ended:
            failure = self._wrong(self._before, arrays)
            found += self._suspicions(arrays, until, run_s)
        found = [replace(each, waived=any(each_of.covers(each) for each_of in self._run.allowed)) for each in found]
        base = self._kernel.code.region.base
        trials = self._examination
        fixed = Fixes(lambda changes: trials.found_with(changes, base, until, run_s), until).of(found)
        written = {name: each.type for name, each in self._buffers.items() if each.way != "in" and ended}
        outputs = {name: native(arrays[name], kind) for name, kind in written.items()}
        return Verdict(
            self._name, failure, resources, notes, outputs, worst_first(fixed.found), traced, fixed.all_at_once
        )

    def _failure(self, arrays: dict[str, HostArray]) -> Failure | None:
        """Why the kernel did not come to its end on `arrays`, if it did not."""
        try:
            self._execute(self._device, self._kernel, arrays)
        except KernelFault as fault:
            return Failure(Status(fault.status), fault.detail)
        except DeviceError as error:
            return Failure(Status.CRASHED, str(error))
        except InputError:
            raise
        except Exception as error:
            # Machine code of anybody's making may hold what no test has: that says nothing about the kernel.
            detail = f"{EMULATOR_FAILED} ({type(error).__name__}: {error}): no verdict on the kernel; please report it"
            return Failure(Status.CRASHED, detail)
        return None

    def _left(self, device: EmulatedDevice, kernel: EmulatedKernel) -> dict[str, HostArray]:
        """What the outputs hold after a run of the kernel on another device."""
        arrays = {name: array.copy() for name, array in self._before.items()}
        self._execute(device, kernel, arrays)
        return {name: array for name, array in arrays.items() if self._buffers[name].way != "in"}

    def _suspicions(self, arrays: Mapping[str, HostArray], until: float, run_s: float) -> list[Diagnosis]:
        """What looks wrong in the outputs without knowing what is right."""
        found: list[Diagnosis | None] = []
        for name, schedule, other in self._examination.under_schedules(arrays, until, run_s):
            kind, usual = self._buffers[name].type, self._values(name, arrays[name])
            found.append(differing(name, kind, usual, self._values(name, other), schedule))
        given = [self._values(name, array) for name, array in self._before.items() if self._has_content(name)]
        if not self._run.compares and all(map(finite, given)):
            for name, each in self._buffers.items():
                if each.way != "in":
                    known = self._has_content(name)
                    counts = np.array(True) if known else ~unwritten(arrays[name], each.type, 0)
                    found.append(strange(name, self._values(name, arrays[name]), counts))
        return [each for each in found if each is not None]

    def _has_content(self, name: str) -> bool:
        """Whether a buffer holds something of meaning before the kernel runs."""
        return self._buffers[name].way != "out" or bool(self._buffers[name].value) or name in self._run.arrays

    def _filled(self, poison: int) -> dict[str, HostArray]:
        """Each buffer's first content."""
        run = self._run
        described = {name: each for name, each in self._buffers.items() if name not in run.arrays}
        filled = filled_buffers(described, run.numbers, run.seed, poison)
        arrays = {name: run.arrays.get(name, filled.get(name)) for name in self._buffers}
        found = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
        if run.gemm:
            stored = random_operands(_gemm_problem(run, run.gemm, found), run.seed).stored
            found.update({name: stored.get(operand_name(name), array) for name, array in found.items()})
        return found

    def _execute(self, device: EmulatedDevice, kernel: EmulatedKernel, arrays: dict[str, HostArray]) -> None:
        """Launch on `arrays`, which then hold what the kernel left."""
        run, image = self._run, kernel.image
        buffers = {name: device.allocate(max(array.nbytes, 1)) for name, array in arrays.items()}
        for name, array in arrays.items():
            device.write(buffers[name], array)
        addresses = {name: buffer.address for name, buffer in buffers.items()}
        self._regions = {name: (buffer.address, buffer.size_bytes) for name, buffer in buffers.items()}
        device.expect_no_content(buffer for name, buffer in buffers.items() if not self._has_content(name))
        shapes = {name: self._sizes(name, array) for name, array in arrays.items()}
        groups = self._launch.grid[0] * self._launch.grid[1] * self._launch.grid[2]
        spare = spare_pointers(image, run.parameters)
        asked = [each * groups for each in run.scratch_bytes or ()][:spare]
        if sum(asked) > _SCRATCH_BYTES_MAX:
            raise InputError(f"the kernel asks for {sum(asked)} bytes of Triton's scratch: give a smaller --grid")
        scratch = [device.allocate(size) if size else None for size in asked]
        values = Values(addresses, shapes, run.numbers)
        places = [each.address if each else 0 for each in scratch]
        device.launch_packed(kernel, self._launch, argument_struct(image, run.parameters, values, places))
        for name, array in arrays.items():
            device.read(buffers[name], array)

    def _sizes(self, name: str, array: HostArray) -> tuple[int, ...]:
        """The sizes that a gl says: elements, two to a byte of mxfp4."""
        dimensions, numbers = self._buffers[name].dimensions, self._run.numbers
        if not dimensions:
            return array.shape
        return tuple(integer(each, numbers, 1, 2**31 - 1) for each in dimensions)

    def _notes(self) -> tuple[str, ...]:
        scratch_bytes, notes = self._kernel.image.resources.scratch_bytes, []
        if scratch_bytes:
            notes.append(
                f"uses {scratch_bytes} bytes of scratch a lane: registers spill, or an array is indexed by value"
            )
        spare = spare_pointers(self._kernel.image, self._run.parameters)
        if spare and self._run.scratch_bytes is None:
            notes.append(f"its last {spare} arguments, nameless pointers, are taken for Triton's scratch and are null")
        return tuple(notes)

    def _wrong(self, before: Mapping[str, HostArray], after: Mapping[str, HostArray]) -> Failure | None:
        run = self._run
        if run.gemm:
            mismatch = compare(after["c"], random_operands(_gemm_problem(run, run.gemm, after), run.seed))
            if mismatch:
                return Failure(Status.WRONG, str(mismatch))
        detail = self._unwritten(after) or self._differs(before, after)
        return Failure(Status.WRONG, detail) if detail else None

    def _unwritten(self, after: Mapping[str, HostArray]) -> str | None:
        """Which output still holds what was there before: where a kernel may compute just that, it is run again over
        something else."""
        outputs = {name: each for name, each in self._buffers.items() if each.way == "out" and not each.value}
        kept = {
            name: unwritten(after[name], each.type, 0) for name, each in outputs.items() if name not in self._run.arrays
        }
        if any(each.any() and not has_own_poison(outputs[name].type) for name, each in kept.items()):
            again = self._filled(1)
            self._execute(self._device, self._kernel, again)
            for name in kept:
                kept[name] = kept[name] & unwritten(again[name], outputs[name].type, 1)
        for name, each in kept.items():
            if each.any():
                first = [int(i) for i in np.argwhere(each)[0]]
                return f"{name}: {int(each.sum())} of {each.size} elements never written, first {first}"
        return None

    def _differs(self, before: Mapping[str, HostArray], after: Mapping[str, HostArray]) -> str | None:
        run, wanted = self._run, dict(self._run.expected)
        if run.reference:
            wanted.update(run.reference({name: self._values(name, array) for name, array in before.items()}))
        for name, want in wanted.items():
            if name not in after:
                raise InputError(f"no buffer is called {shown(name)}: {', '.join(after)} can be compared")
            found = difference(after[name], want, self._buffers[name].type, run.tolerance)
            if found:
                return f"{name}: {found}"
        return None

    def _values(self, name: str, array: HostArray) -> Numbers:
        return values_of(array.copy(), self._buffers[name].type)


def _gemm_problem(run: KernelRun, operation: Operation, arrays: Mapping[str, HostArray]) -> Problem:
    """What the kernel computes, from its operands' shapes. Raises InputError where these are not the operation's."""
    operands, given = operands_of(operation), {operand_name(p.name): p for p in buffers_of(run.parameters).values()}
    if "scale_a" in operands or operation.accumulates or operation.kind in COUNTED:
        rule = "several products, and those with scales or onto C, are not compared here"
        raise InputError(f"--gemm {operation}: {rule}: use --template")
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
