"""A kernel of Triton in Python's hands: compiled here for gfx950, or compiled already, with what its launch needs.

Triton is only ever what the caller's own kernel is made of; nothing here imports it first.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hktune.core.errors import InputError
from hktune.verify.called_arguments import CalledArguments, GlobalLayout, type_of
from hktune.verify.kernel_source import ARCH, KERNEL_FILE
from hktune.verify.triton_metadata import triton_metadata

_WAVE_SIZE = 64
_TYPES = {
    "bf16": "bf16", "f16": "fp16", "f32": "fp32", "f64": "fp64", "e4m3": "fp8e4nv", "e5m2": "fp8e5", "e8m0": "u8",
    "mxfp4": "u8",
}  # fmt: skip
_DIVISIBLE = [["tt.divisibility", 16]]


@dataclass(frozen=True)
class TritonLaunch:
    """A code object of Triton, and what Triton's own launch knows. `left_out` are positions of arguments that became
    constants. Scratch is what each workgroup needs of Triton's two kinds, in bytes."""

    code: bytes
    block: int
    lds_bytes: int
    scratch_bytes: tuple[int, int]
    left_out: frozenset[int] = frozenset()


def triton_launch(
    kernel: Any, called: CalledArguments, constants: Mapping[str, Any], options: Mapping[str, Any]
) -> TritonLaunch | None:
    """How `kernel` is launched where Triton made it or defines it; None of anything else. Raises InputError for what
    Triton refuses."""
    left_out: frozenset[int] = frozenset()
    if hasattr(kernel, "arg_names") and hasattr(kernel, "fn"):
        kernel, left_out = compiled_for(kernel, called, constants, options)
    elif constants or options:
        raise InputError("constants and options are for a function of triton.jit: leave them out")
    if isinstance(kernel, (str, Path)):
        return _of_file(Path(kernel)) if str(kernel).endswith(".hsaco") else None
    if not (hasattr(kernel, "asm") and hasattr(kernel, "metadata")):
        return None
    code, metadata = kernel.asm.get("hsaco"), kernel.metadata
    if code is None:
        raise InputError(f"Triton compiled {metadata.name} for another target: compile it for gfx950")
    scratch = (getattr(metadata, "global_scratch_size", 0) or 0, getattr(metadata, "profile_scratch_size", 0) or 0)
    return TritonLaunch(bytes(code), metadata.num_warps * _WAVE_SIZE, metadata.shared, scratch, left_out)


def _of_file(path: Path) -> TritonLaunch | None:
    """A code object of Triton's cache, with what it says of the launch next to it."""
    said = triton_metadata(path)
    return TritonLaunch(KERNEL_FILE.read(path), said.block, said.shared, said.scratch_bytes) if said else None


def compiled_for(
    function: Any, called: CalledArguments, constants: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Any, frozenset[int]]:
    """What triton.compile makes of `function` for these arguments, specialised as a launch of Triton's would: pointers
    and numbers that 16 divides are said to be so, and a 1 is a constant."""
    names = [name for name in function.arg_names if name not in constants]
    if len(names) != len(called.args):
        rule = f"it takes {', '.join(names)} besides constants"
        raise InputError(f"{len(called.args)} arguments for {function.fn.__name__}: {rule}")
    signature: dict[str, str] = dict.fromkeys(constants, "constexpr")
    fixed, attributes, left_out = dict(constants), {}, set()
    for position, (name, value) in enumerate(zip(names, called.args, strict=True)):
        if isinstance(value, int) and not isinstance(value, bool) and value == 1:
            signature[name], fixed[name] = "constexpr", 1
            left_out.add(position)
            continue
        signature[name] = _type(name, value)
        if signature[name].startswith("*") or (isinstance(value, int) and value % 16 == 0):
            attributes[(function.arg_names.index(name),)] = _DIVISIBLE
    ordered = {name: signature[name] for name in function.arg_names if name in signature}
    compiler = importlib.import_module("triton.compiler")
    source = compiler.ASTSource(function, signature=ordered, constexprs=fixed, attrs=attributes)
    target = importlib.import_module("triton.backends.compiler").GPUTarget("hip", ARCH, _WAVE_SIZE)
    try:
        return importlib.import_module("triton").compile(source, target=target, options=dict(options)), frozenset(
            left_out
        )
    except Exception as error:
        said = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}").strip()
        raise InputError(f"Triton does not compile {function.fn.__name__}: {said}") from error


def _type(name: str, value: Any) -> str:
    """Triton's word for an argument's type."""
    kind = None if isinstance(value, GlobalLayout) else type_of(value)
    if kind is not None:
        return f"*{_TYPES.get(kind, kind)}"
    if isinstance(value, (bool, np.bool_)):
        return "i1"
    if isinstance(value, (float, np.floating)):
        return "fp32"
    if isinstance(value, (int, np.integer)):
        return "i32" if -(2**31) <= value < 2**31 else "i64" if value < 2**63 else "u64"
    raise InputError(f"argument {name} is a {type(value).__name__}: a kernel of Triton takes tensors and numbers")
