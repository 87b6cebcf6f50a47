"""A Triton kernel to a gfx950 code object, with the `triton` of PyPI: no ROCm and no GPU."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from hktune.compile.diagnostics import first_error
from hktune.compile.process import Finished, run_to_end
from hktune.compile.scratch_build import ScratchBuild
from hktune.core.errors import ToolchainError
from hktune.core.outcome import Failure
from hktune.core.variant import CodeObject, Variant
from hktune.objects.code_object import read_code_object

OBJECT_NAME = "kernel.hsaco"
TRITON_CHILD = Path(__file__).with_name("triton_child.py")
_DISTRIBUTIONS = ("triton", "triton-rocm", "pytorch-triton-rocm")
"""What the module `triton` is installed as: PyPI's, and those that come with a ROCm torch."""


class TritonCompiler:
    """Compiler for variants whose language is triton. Each compile is a process of its own, which alone imports Triton.

    Raises ToolchainError where Triton is not installed.
    """

    def __init__(self) -> None:
        options = hashlib.sha256(TRITON_CHILD.read_bytes()).hexdigest()[:12]
        self.identity = f"triton {triton_build()} child={options}"

    def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
        """Build `variant`; see Compiler."""

        def run(source: Path, seconds: float) -> Finished | None:
            argv = [sys.executable, str(TRITON_CHILD), source.name, variant.symbol, variant.arch, OBJECT_NAME]
            return run_to_end(argv, source.parent, seconds)

        def verdict(finished: Finished, name: str) -> str:
            return first_error(finished.stderr, name, Path(name).parent, finished.status)

        return ScratchBuild(".py", OBJECT_NAME, self.identity, read_code_object, run, verdict)(variant, deadline_s)


def triton_build() -> str:
    """Version and build of the installed Triton: the hash of what its wheel lists, LLVM's libraries among it. Raises
    ToolchainError where there is none, or one that lists nothing."""
    if importlib.util.find_spec("triton") is None:
        raise ToolchainError("no compiler for Triton: pip install 'hktune[triton]'")
    for name in _DISTRIBUTIONS:
        try:
            installed = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        files = sorted(f"{file}={file.hash.value}" for file in installed.files or () if file.hash and _compiles(file))
        if files:
            return f"{installed.version} build={hashlib.sha256(' '.join(files).encode()).hexdigest()[:12]}"
    raise ToolchainError("which files the installed triton has is not recorded: pip install 'hktune[triton]'")


def _compiles(file: importlib.metadata.PackagePath) -> bool:
    """Whether what Triton makes may depend on `file`."""
    return file.parts[0] == "triton" and file.suffix in (".py", ".so", ".bc")
