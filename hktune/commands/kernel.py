"""`hktune verify --kernel FILE`: any kernel of one's own, judged by the emulator."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hktune.commands.arguments import path_given
from hktune.core.errors import InputError
from hktune.core.operation import BF16_NT, operation_of
from hktune.core.settings import Settings

if TYPE_CHECKING:
    from hktune.compile import Compiler

# What each option of a kernel is where it is not given.
_USUAL = {"symbol": None, "args": "", "grid": "1", "block": "64", "lds": "0", "gemm": None, "strict": False}
_DEBUG_LINES = "-gline-tables-only"


def add_kernel_options(parser: argparse.ArgumentParser) -> None:
    """The options that describe a kernel; PARAMETER=VALUE then gives the numbers."""
    kernel = parser.add_argument_group("a kernel of your own")
    kernel.add_argument(
        "--kernel", type=path_given, metavar="FILE", help="HIP source, or a code object (.hsaco, .co, .so)"
    )
    kernel.add_argument("--symbol", metavar="NAME", help="which kernel, where the file has several")
    kernel.add_argument(
        "--args",
        default=_USUAL["args"],
        metavar="LIST",
        help="such as 'a:bf16[m,k] b:bf16[n,k] c:out:bf16[m,n] m n k alpha:f32'",
    )
    kernel.add_argument(
        "--grid",
        default=_USUAL["grid"],
        metavar="X,Y,Z",
        help="workgroups, such as 'm//128*n//128' (default: %(default)s)",
    )
    kernel.add_argument(
        "--block",
        default=_USUAL["block"],
        metavar="X,Y,Z",
        help="work-items of a workgroup (default: %(default)s)",
    )
    kernel.add_argument("--lds", default=_USUAL["lds"], metavar="BYTES", help="dynamic LDS (default: %(default)s)")
    kernel.add_argument(
        "--gemm",
        nargs="?",
        const=str(BF16_NT),
        metavar="OPERATION",
        help=f"compare c with what this operation makes of a and b (default: {BF16_NT})",
    )
    kernel.add_argument("--strict", action="store_true", help="rules that AMD's own kernels break are hazards too")


def require_no_kernel(options: argparse.Namespace) -> None:
    """Raises InputError where what describes a kernel is given without one."""
    for name, usual in _USUAL.items():
        if getattr(options, name) != usual:
            raise InputError(f"--{name} is for a kernel of your own: add --kernel FILE, or leave it out")


def verify_kernel(options: argparse.Namespace) -> int:
    """Judge the kernel; 0 when nothing is wrong, 1 otherwise. Raises InputError, ToolchainError."""
    from hktune.report.heartbeat import working
    from hktune.verify import kernel_file

    path: Path = options.kernel
    gemm, numbers = options.gemm, options.config
    if gemm and "=" in gemm:  # --gemm names no operation, and NAME=NUMBER follows it
        gemm, numbers = str(BF16_NT), [gemm, *numbers]
    run = kernel_file.KernelRun(
        kernel_file.parse_parameters(options.args),
        kernel_file.parse_numbers(numbers),
        options.grid,
        options.block,
        options.lds,
        operation_of(gemm) if gemm else None,
        options.seed,
        strict=options.strict,
    )
    kind = kernel_file.KERNEL_FILE
    data = kind.read(path)
    if data[:4] == b"\x7fELF":
        symbol = options.symbol or kernel_file.only_symbol(data, path)
    else:
        source = kind.text(data, path)
        data, symbol = kernel_file.compile_source(path, source, options.symbol, _compiler(options))
    with working(lambda: f"executing {symbol}"):
        verdict = kernel_file.judge(data, symbol, run)
    if verdict.failure:
        print(f"{verdict.failure.status}: {verdict.failure.detail}")
    else:
        checked = (
            f"c is {run.gemm} of a and b" if run.gemm else "outputs are written whole, their values were not compared"
        )
        print(f"{symbol}: no hazard found; {checked}")
    for note in verdict.notes:
        print(f"note: {note}")
    print(f"takes {verdict.resources}")
    return 1 if verdict.failure else 0


def _compiler(options: argparse.Namespace) -> Compiler:
    """The compiler found here, with debug lines, so that a hazard names the line."""
    from hktune.compile import HipCompiler
    from hktune.compile.hipkittens import find_hipkittens
    from hktune.compile.toolchain import find_hip_toolchain

    settings = Settings.from_environment(os.environ)
    toolchain = find_hip_toolchain(settings)
    lines = replace(toolchain, flags=(*toolchain.flags, _DEBUG_LINES))
    return HipCompiler(lines, find_hipkittens(settings, options.hipkittens), settings.cache_dir)
