"""`hktune verify --kernel FILE`: any kernel of one's own, judged by the emulator."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hktune.commands.arguments import add_json, add_workers, number, path_given
from hktune.commands.parser import DONE, FAILED, WARNED
from hktune.core.errors import InputError
from hktune.core.forked import usable_cores
from hktune.core.operation import BF16_NT, operation_of
from hktune.core.publish import publish
from hktune.core.settings import Settings
from hktune.core.value_ranges import SECONDS

if TYPE_CHECKING:
    from hktune.device.device import HostArray
    from hktune.verify.kernel_file import KernelRun, Verdict

# What each option of a kernel is where it is not given.
_USUAL: dict[str, Any] = {
    "symbol": None,
    "args": "",
    "grid": "1",
    "block": None,
    "lds": None,
    "gemm": None,
    "reference": None,
    "expect": [],
    "tolerance": None,
    "dump": None,
    "define": [],
    "include": [],
    "flags": "",
    "strict": False,
    "allow": [],
    "sarif": None,
    "timeline": None,
    "json": False,
    "try_seconds": 60.0,
    "workers": None,
}


ARGUMENTS_HELP = """what --args says of a kernel's arguments, in their order:
  x:f32[n,m]          a buffer that the kernel reads, of random numbers
  y:out:f32[n]        one that it must write whole; y:inout:f32[n]: that it may
  x:f32[n]=zeros      what a buffer holds: =zeros, =ones, =2.5, =arange,
                      =uniform, =normal, =0..7 (random integers) or =@FILE.npy
  n  i:u64  a:f32=2   a number, an i32 without a type; values may follow as n=4
  s:{x:f32[n] n m=3}  a struct by value
  p:null  q:bytes[8]  the null pointer; bytes, which are zeros or =00ff...
  t:gl:bf16[m,k]      a kittens::gl; a size with ! is a template argument
  x@16:f32[n]         an argument at byte 16
Types are i8 to i64, u8 to u64, f16, bf16, f32, f64, e4m3, e5m2, e8m0 and mxfp4. Sizes, --grid, --block and --lds \
are expressions of the numbers."""


def add_kernel_options(parser: argparse.ArgumentParser) -> None:
    """The options that describe a kernel; PARAMETER=VALUE then gives the numbers."""
    kernel = parser.add_argument_group("a kernel of your own")
    kernel.add_argument(
        "--kernel",
        type=path_given,
        metavar="FILE",
        help="HIP source, or a code object or what holds one (.hsaco, .co, .so)",
    )
    kernel.add_argument(
        "--symbol", metavar="NAME", help="which kernel, where there are several, or an instance of a template: 'f<256>'"
    )
    kernel.add_argument(
        "--args",
        default=_USUAL["args"],
        metavar="LIST",
        help="such as 'a:bf16[m,k] b:bf16[n,k] c:out:bf16[m,n] m n k alpha:f32': see below",
    )
    kernel.add_argument(
        "--grid",
        default=_USUAL["grid"],
        metavar="X,Y,Z",
        help="workgroups, such as 'm//128*n//128' (default: %(default)s)",
    )
    kernel.add_argument(
        "--block", metavar="X,Y,Z", help="work-items of a workgroup (default: what Triton's metadata say, else 64)"
    )
    kernel.add_argument("--lds", metavar="BYTES", help="dynamic LDS (default: what Triton's metadata say, else 0)")
    _add_compiling(kernel)
    _add_values(kernel)
    kernel.add_argument("--strict", action="store_true", help="rules that AMD's own kernels break are hazards too")


def _add_compiling(kernel: argparse._ArgumentGroup) -> None:
    """How a source is compiled."""
    kernel.add_argument(
        "-D",
        dest="define",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="a macro, or a #define or constexpr of the file itself, which has VALUE then",
    )
    kernel.add_argument("-I", dest="include", action="append", default=[], metavar="DIR", help="a folder of headers")
    kernel.add_argument(
        "--flags", default=_USUAL["flags"], metavar="LINE", help="a compiler's flags, or its whole line in a Makefile"
    )


def _add_values(kernel: argparse._ArgumentGroup) -> None:
    """What outputs are compared with, and where they are written."""
    kernel.add_argument(
        "--gemm",
        nargs="?",
        const=str(BF16_NT),
        metavar="OPERATION",
        help=f"compare c with what this operation makes of a and b (default: {BF16_NT})",
    )
    kernel.add_argument(
        "--reference", metavar="FILE.py:FUNCTION", help="compare outputs with what this makes of the buffers' numbers"
    )
    kernel.add_argument("--expect", action="append", default=[], metavar="NAME=FILE.npy", help="or with an array")
    kernel.add_argument(
        "--tolerance", metavar="RELATIVE[,ABSOLUTE]", help="allowed there (default: torch.testing's for the type)"
    )
    kernel.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="RULE[@PLACE]",
        help="waive a finding by its rule, the first word of its line; at a place such as mine.hip:7 or +0x44 if one "
        "is given",
    )
    kernel.add_argument("--sarif", type=path_given, metavar="FILE", help="write the findings as SARIF")
    drawn = "draw the waves of workgroup 0 over modelled cycles (HTML)"
    kernel.add_argument("--timeline", type=path_given, metavar="FILE", help=drawn)
    add_json(kernel, "what was found")
    kernel.add_argument(
        "--try-seconds",
        type=number(0, SECONDS.most, SECONDS.unit),
        default=_USUAL["try_seconds"],
        metavar="SECONDS",
        help="how long to try other schedules and fixes; 0 tries none (default: %(default)s)",
    )
    add_workers(kernel, default=None, of="processes that execute workgroups")
    kernel.add_argument("--dump", type=path_given, metavar="DIR", help="write each output to DIR/NAME.npy")


def require_no_kernel(options: argparse.Namespace) -> None:
    """Raises InputError where what describes a kernel is given without one."""
    words = {"define": "-D", "include": "-I", "try_seconds": "--try-seconds"}
    for name, usual in _USUAL.items():
        if getattr(options, name) != usual:
            word = words.get(name, f"--{name}")
            raise InputError(f"{word} is for a kernel of your own: add --kernel FILE, or leave it out")


def verify_kernel(options: argparse.Namespace) -> int:
    """Judge the kernel; 0 when nothing is wrong, 1 for errors, 3 for warnings alone. Raises InputError,
    ToolchainError."""
    from hktune.objects.demangled import kernel_name
    from hktune.report.heartbeat import working
    from hktune.verify import kernel_file

    run = _run_of(options)
    data, symbol = _code(options)
    with working(lambda: f"executing {kernel_name(symbol)}"):
        verdict = kernel_file.judge(data, symbol, run)
    if options.json:
        from hktune.report.findings.finding_records import verdict_record

        print(json.dumps(verdict_record(verdict)))
    else:
        _print(verdict, run)
    if options.dump:
        _dump(options.dump, verdict.outputs)
    if options.timeline:
        _write_timeline(options.timeline, verdict)
    if options.sarif:
        _write_sarif(options.sarif, verdict, options.kernel)
    return _exit_code(verdict)


def _run_of(options: argparse.Namespace) -> KernelRun:
    from hktune.verify.kernel_arguments import buffers_of, parse_numbers, parse_parameters
    from hktune.verify.kernel_buffers import read_array
    from hktune.verify.kernel_file import KernelRun
    from hktune.verify.kernel_reference import reference_of
    from hktune.verify.triton_metadata import triton_metadata
    from hktune.verify.waivers import parse_waiver

    gemm, words = options.gemm, options.config
    if gemm and "=" in gemm:  # --gemm names no operation, and NAME=NUMBER follows it
        gemm, words = str(BF16_NT), [gemm, *words]
    parameters, numbers = parse_parameters(options.args), parse_numbers(words)
    outputs = [name for name, each in buffers_of(parameters).items() if each.way != "in"]
    triton = triton_metadata(options.kernel)
    return KernelRun(
        parameters,
        numbers,
        options.grid,
        options.block or (str(triton.block) if triton else "64"),
        options.lds or (str(triton.shared) if triton else "0"),
        operation_of(gemm) if gemm else None,
        options.seed,
        strict=options.strict,
        expected={name: read_array(path) for name, path in _expected(options.expect).items()},
        reference=reference_of(options.reference, numbers, outputs) if options.reference else None,
        tolerance=_tolerance(options.tolerance) if options.tolerance else None,
        scratch_bytes=triton.scratch_bytes if triton else None,
        allowed=tuple(parse_waiver(text) for text in options.allow),
        trials_s=options.try_seconds,
        traces=bool(options.timeline),
        workers=options.workers or usable_cores(),
    )


def _expected(words: list[str]) -> dict[str, Path]:
    pairs = [word.partition("=") for word in words]
    for name, separator, file in pairs:
        if not (name and separator and file):
            raise InputError(f"--expect {name}{separator}{file}: write --expect NAME=FILE.npy")
        if [other for other, _, _ in pairs].count(name) > 1:
            raise InputError(f"--expect {name}={file}: {name} is given twice: leave one out")
    return {name: Path(file) for name, _, file in pairs}


def _tolerance(text: str) -> tuple[float, float]:
    """The relative and the absolute difference that is allowed; one number is both."""
    from hktune.verify.kernel_arguments import number_of

    numbers = [number_of(part) for part in text.split(",")]
    if not 1 <= len(numbers) <= 2 or any(number is None or number < 0 for number in numbers):
        raise InputError(f"--tolerance {text[:60]}: write RELATIVE or RELATIVE,ABSOLUTE, such as 1e-2,1e-5")
    return float(numbers[0] or 0), float(numbers[-1] or 0)


def _code(options: argparse.Namespace) -> tuple[bytes, str]:
    """The code object, compiled where it is a source, and the kernel's symbol in it."""
    from hktune.compile.command_line import device_flags
    from hktune.verify.kernel_source import KERNEL_FILE, kernel_code

    path: Path = options.kernel
    flags = device_flags(options.flags, options.define, options.include)
    settings = Settings.from_environment(os.environ)
    return kernel_code(KERNEL_FILE.read(path), path, options.symbol, flags, settings, options.hipkittens)


def _dump(folder: Path, outputs: Mapping[str, HostArray]) -> None:
    """Leave each output in `folder`, as bits where numpy lacks the type."""
    import numpy as np

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in outputs.items():
            np.save(folder / f"{name}.npy", array)
    except OSError as error:
        raise InputError(f"--dump {folder}: {error.strerror or error}: give a folder that can be written") from error


def _print(verdict: Verdict, run: KernelRun) -> None:
    from hktune.verify.finding_lines import verdict_lines

    compared = f"c is {run.gemm} of a and b" if run.gemm else "outputs are as expected"
    values = compared if run.compares else "outputs are written whole, their values were not compared"
    failures = [verdict.failure] if verdict.failure else []
    for line in verdict_lines(verdict.symbol, failures, verdict.findings, values, verdict.fix):
        print(line)
    for note in verdict.notes:
        print(f"note: {note}")
    print(f"takes {verdict.resources}")


def _exit_code(verdict: Verdict) -> int:
    from hktune.verify.finding_rules import ERROR, WARNING

    return {ERROR: FAILED, WARNING: WARNED, None: DONE}[verdict.level]


def _write_sarif(file: Path, verdict: Verdict, kernel: Path) -> None:
    from hktune.report.findings.sarif import sarif_log

    _publish("--sarif", file, json.dumps(sarif_log(verdict, kernel), indent=1).encode())


def _write_timeline(file: Path, verdict: Verdict) -> None:
    from hktune.core.board import DEFAULT_BOARD
    from hktune.report.pages.timeline_page import timeline_page

    if verdict.traced is None:
        print(f"--timeline {file}: not written, as the kernel did not come to its end", file=sys.stderr)
    else:
        _publish("--timeline", file, timeline_page(verdict.symbol, verdict.traced, DEFAULT_BOARD.arch))


def _publish(option: str, file: Path, data: bytes) -> None:
    try:
        publish(file, data)
    except OSError as error:
        raise InputError(f"{option} {file}: {error.strerror or error}: give a file that can be written") from error
