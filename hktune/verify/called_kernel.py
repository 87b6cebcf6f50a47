"""`hktune.verify`: any kernel, called as a launch would be, with tensors of torch, arrays of numpy and numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hktune.compile.command_line import device_flags
from hktune.core.errors import InputError
from hktune.core.forked import usable_cores
from hktune.core.outcome import Failure, Status
from hktune.core.settings import Settings
from hktune.core.variant import Resources
from hktune.objects.code_object import read_code_object
from hktune.verify.called_arguments import CalledArguments, Place
from hktune.verify.diagnosis import Diagnosis
from hktune.verify.finding_lines import verdict_lines
from hktune.verify.kernel_buffers import difference
from hktune.verify.kernel_file import KernelRun, Verdict, judge
from hktune.verify.kernel_source import KERNEL_FILE, kernel_code
from hktune.verify.triton_kernel import TritonLaunch, triton_launch
from hktune.verify.waivers import parse_waiver

_SOURCE_NAME = "kernel.hip"  # of a source that is given as text


@dataclass(frozen=True)
class KernelResult:
    """What `hktune.verify` found. `failures` are a run that did not end, and wrong values; `findings` all hazards,
    worst first, and what is noted; `outputs` the tensors and arrays that the kernel changed (or that were named so),
    in the order of its arguments, as it left them. `fix` is the change with which nothing is found, where several are
    needed."""

    symbol: str
    failures: tuple[Failure, ...]
    findings: tuple[Diagnosis, ...]
    notes: tuple[str, ...]
    outputs: tuple[Any, ...]
    resources: Resources
    compared: bool = False
    fix: str = ""

    @property
    def right(self) -> bool:
        """Whether nothing is wrong: notes are no fault, and what is waived is none."""
        return not self.failures and not any(each.counts for each in self.findings)

    def __str__(self) -> str:
        values = "outputs are as expected" if self.compared else "values were not compared"
        said = verdict_lines(self.symbol, self.failures, self.findings, values, self.fix)
        return "\n".join([*said, *(f"note: {note}" for note in self.notes), f"takes {self.resources}"])


class KernelRefuted(AssertionError):
    """A kernel is wrong: raised by `hktune.verify`, so that a test fails with what was found. `result` has it all."""

    def __init__(self, result: KernelResult) -> None:
        super().__init__(str(result))
        self.result = result


def verify_kernel(
    kernel: Any,
    grid: int | Sequence[int],
    block: int | Sequence[int] | None = None,
    args: Sequence[Any] = (),
    *,
    reference: Callable[..., Any] | None = None,
    tolerance: float | tuple[float, float] | None = None,
    outputs: Sequence[int | Place] | None = None,
    lds_bytes: int | None = None,
    symbol: str | None = None,
    defines: Mapping[str, Any] | None = None,
    include: Sequence[str | Path] = (),
    flags: str = "",
    hipkittens: str | Path | None = None,
    constants: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    strict: bool = False,
    check: bool = True,
    allow: Sequence[str] = (),
    try_seconds: float = 60.0,
    deadline_s: float = 600.0,
    workers: int | None = None,
) -> KernelResult:
    """Run a gfx950 kernel on the emulator, and judge it.

    `kernel` is a file (HIP source or code object), HIP source as text, a code object as bytes, what `triton.compile`
    returned, or a function of `triton.jit`, which is compiled with `constants` (its tl.constexpr) and `options`
    (num_warps and so on). `grid` is in workgroups, `block` in work-items, which Triton's kernels know themselves.

    `args` are the kernel's arguments in order: tensors of torch on the CPU and arrays of numpy are pointers, None is a
    null pointer, a tuple a struct by value, bytes or a ctypes.Structure a struct as it is, `global_layout(tensor)` a
    kittens::gl. Numbers take the size that the kernel has for them; in a struct they are int and float unless they are
    numpy's. Nothing that is passed changes: a kernel runs on copies.

    `outputs` names arguments, by position ((1, 0) is the first field of the struct at 1), that the kernel must write
    whole. `reference` is called with copies of
    `args`, and returns what the outputs should be, one or several in order; where it returns None, all tensors are
    compared with what it left in its own. `tolerance` is the relative and the absolute difference allowed; the default
    is that of torch.testing.assert_close for the type.

    `allow` waives findings: "RULE" or "RULE@PLACE". Other schedules and fixes are tried for `try_seconds`.
    At most `workers` processes compute, by default one for each core.

    Returns a KernelResult. Raises KernelRefuted, an AssertionError, where the kernel is wrong, unless `check` is False;
    InputError and ToolchainError for what cannot be run.
    """
    called = CalledArguments(args, outputs)
    launched = triton_launch(kernel, called, constants or {}, options or {})
    code, name = _code(kernel, launched, symbol, (flags, defines or {}, include), hipkittens)
    left_out = launched.left_out if launched else frozenset()
    run = KernelRun(
        called.parameters(read_code_object(code).kernels[name], left_out),
        {},
        _sides(grid),
        _sides(block if block is not None else launched.block if launched else 64),
        str(lds_bytes if lds_bytes is not None else launched.lds_bytes if launched else 0),
        strict=strict,
        deadline_s=deadline_s,
        arrays=called.arrays(),
        scratch_bytes=launched.scratch_bytes if launched else None,
        allowed=tuple(parse_waiver(text) for text in allow),
        trials_s=try_seconds,
        workers=usable_cores() if workers is None else workers,
    )
    verdict = judge(code, name, run)
    result = _result(verdict, called, reference, tolerance)
    if check and not result.right:
        raise KernelRefuted(result)
    return result


def _code(
    kernel: Any,
    launched: TritonLaunch | None,
    symbol: str | None,
    words: tuple[str, Mapping[str, Any], Sequence[str | Path]],
    hipkittens: str | Path | None,
) -> tuple[bytes, str]:
    """The code object and the symbol of the kernel in it."""
    line, defines, include = words
    flags = device_flags(line, [f"{name}={value}" for name, value in defines.items()], [str(each) for each in include])
    path = Path(_SOURCE_NAME)
    if launched:
        data = launched.code
    elif isinstance(kernel, (bytes, bytearray)):
        data = bytes(kernel)
    elif isinstance(kernel, str) and "\n" in kernel:
        data = kernel.encode()
    elif isinstance(kernel, (str, Path)):
        path = Path(kernel)
        data = KERNEL_FILE.read(path)
    else:
        rule = "it is a file, HIP source, a code object, or a kernel of Triton"
        raise InputError(f"hktune.verify of a {type(kernel).__name__}: {rule}")
    settings = Settings.from_environment(os.environ)
    return kernel_code(data, path, symbol, flags, settings, Path(hipkittens) if hipkittens else None)


def _sides(sides: int | Sequence[int]) -> str:
    return str(sides) if isinstance(sides, int) else ",".join(str(int(side)) for side in sides)


def _result(
    verdict: Verdict,
    called: CalledArguments,
    reference: Callable[..., Any] | None,
    tolerance: float | tuple[float, float] | None,
) -> KernelResult:
    failures = [verdict.failure] if verdict.failure else []
    changed = called.changed(verdict.outputs)
    ran = bool(verdict.outputs)
    if reference is not None and ran:
        allowed = (tolerance, tolerance) if isinstance(tolerance, (int, float)) else tolerance
        for at, want in called.expected(reference, changed).items():
            wrong = difference(called.left(at, verdict.outputs), want, called.types[at], allowed)
            if wrong:
                failures.append(Failure(Status.WRONG, f"argument {'.'.join(map(str, at))}: {wrong}"))
    tensors = tuple(called.tensor(at, verdict.outputs) for at in changed) if ran else ()
    return KernelResult(
        verdict.symbol,
        tuple(failures),
        verdict.findings,
        verdict.notes,
        tensors,
        verdict.resources,
        reference is not None,
        verdict.fix,
    )
