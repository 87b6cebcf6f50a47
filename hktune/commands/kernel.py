"""`hktune verify --kernel FILE`: any kernel of one's own, judged by the emulator."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hktune.errors import InputError
from hktune.settings import Settings

if TYPE_CHECKING:
    from hktune.compile import Compiler

_DEBUG_LINES = "-gline-tables-only"


def add_kernel_options(parser: argparse.ArgumentParser) -> None:
    """The options that describe a kernel; PARAMETER=VALUE then gives the numbers."""
    kernel = parser.add_argument_group("a kernel of your own")
    kernel.add_argument("--kernel", type=Path, metavar="FILE", help="HIP source, or a code object (.hsaco, .co, .so)")
    kernel.add_argument("--symbol", metavar="NAME", help="which kernel, where the file has several")
    kernel.add_argument(
        "--args", default="", metavar="LIST", help="such as 'a:bf16[m,k] bt:bf16[n,k] c:out:bf16[m,n] m n k alpha:f32'"
    )
    kernel.add_argument("--grid", default="1", metavar="X,Y,Z", help="workgroups, such as 'm//128*n//128' (default: 1)")
    kernel.add_argument("--block", default="64", metavar="X,Y,Z", help="work-items of a workgroup (default: 64)")
    kernel.add_argument("--lds", default="0", metavar="BYTES", help="dynamic LDS (default: 0)")
    kernel.add_argument("--gemm", action="store_true", help="compare c with a @ bt^T")


def verify_kernel(options: argparse.Namespace) -> int:
    """Judge the kernel; 0 when nothing is wrong, 1 otherwise. Raises InputError, ToolchainError."""
    from hktune.verify.kernel_file import KernelRun, compile_source, judge, only_symbol, parse_parameters

    path: Path = options.kernel
    if not path.is_file():
        raise InputError(f"{path} is no file: give HIP source or a code object")
    run = KernelRun(
        parse_parameters(options.args),
        _numbers(options.config),
        options.grid,
        options.block,
        options.lds,
        options.gemm,
        options.seed,
    )
    data = path.read_bytes()
    if data[:4] == b"\x7fELF":
        symbol = options.symbol or only_symbol(data, path)
    else:
        data, symbol = compile_source(path, options.symbol, _compiler(options))
    verdict = judge(data, symbol, run)
    if verdict.failure:
        print(f"{verdict.failure.status}: {verdict.failure.detail}")
    else:
        checked = "c is a @ bt^T" if options.gemm else "outputs are written whole, their values were not compared"
        print(f"{symbol}: no hazard found; {checked}")
    for note in verdict.notes:
        print(f"note: {note}")
    print(f"{verdict.resources}")
    return 1 if verdict.failure else 0


def _numbers(words: list[str]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name in numbers:
            raise InputError(f"{name} is given twice, again as {word!r}: keep one")
        try:
            numbers[name] = int(value, 0) if "." not in value else float(value)
        except ValueError:
            raise InputError(f"{word!r}: write NAME=NUMBER") from None
    return numbers


def _compiler(options: argparse.Namespace) -> Compiler:
    """The compiler found here, told to keep debug lines, so that a hazard names the line."""
    from hktune.compile import HipCompiler
    from hktune.compile.hipkittens import find_hipkittens
    from hktune.compile.toolchain import find_hip_toolchain

    settings = Settings.from_environment(os.environ)
    toolchain = find_hip_toolchain(settings)
    lines = replace(toolchain, flags=(*toolchain.flags, _DEBUG_LINES))
    return HipCompiler(lines, find_hipkittens(settings, options.hipkittens), settings.cache_dir)
