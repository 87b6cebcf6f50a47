"""CUDA source to a cubin, with NVRTC from PyPI: no CUDA toolkit and no GPU."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

from hktune.compile.process import Finished, run_to_end
from hktune.compile.scratch_build import ScratchBuild
from hktune.core.errors import ToolchainError
from hktune.core.outcome import Failure
from hktune.core.variant import CodeObject, Variant
from hktune.objects.cubin import read_cubin

OBJECT_NAME = "kernel.cubin"
OPTIONS = ("--std=c++17", "--no-source-include")  # a source is complete: no header of this machine is found

NVRTC_CHILD = Path(__file__).with_name("nvrtc_child.py")
_LOCATED = re.compile(
    r"^(?P<file>[^(\s][^(]*)\((?P<line>\d+)\): (?:catastrophic )?error(?: #[\w-]+)?: (?P<message>.*)$"
)
_PLAIN = re.compile(r"^(?:ptxas|nvrtc)\b(?:[^;]*;)?\s*(?:fatal|error)\s*:\s*(?P<message>.*)$")
_LIMIT_CHARS = 400


class NvrtcCompiler:
    """Compiler for variants whose language is cuda. Each compile is a process of its own.

    Raises ToolchainError where NVRTC or its bindings are not installed.
    """

    def __init__(self) -> None:
        version = nvrtc_version()
        flags = hashlib.sha256("\0".join(OPTIONS).encode()).hexdigest()[:12]
        self.identity = f"nvrtc {version} headers=none flags={flags}"

    def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
        """Build `variant`; see Compiler."""

        def run(source: Path, seconds: float) -> Finished | None:
            options = [f"--gpu-architecture={nvidia_name(variant.arch)}", *OPTIONS]
            argv = [sys.executable, str(NVRTC_CHILD), source.name, OBJECT_NAME, *options]
            return run_to_end(argv, source.parent, seconds)

        return ScratchBuild(".cu", OBJECT_NAME, self.identity, read_cubin, run, first_error)(variant, deadline_s)


def nvidia_name(arch: str) -> str:
    """NVIDIA's spelling of an architecture: sm90a is sm_90a."""
    return arch.replace("sm", "sm_", 1)


def nvrtc_version() -> str:
    """The version of the installed NVRTC. Raises ToolchainError where it or its bindings are absent."""
    try:
        version = importlib.metadata.version("nvidia-cuda-nvrtc")
        bindings = importlib.util.find_spec("cuda.bindings.nvrtc")
    except ModuleNotFoundError:
        bindings = None
    if bindings is None:
        raise ToolchainError("no compiler for CUDA: pip install 'hktune[cuda]'")
    return version


def first_error(finished: Finished, source_name: str) -> str:
    """The first error that NVRTC or its assembler printed, as `file:line: error: message`."""
    lines = finished.stderr.splitlines()
    for line in lines:
        located, plain = _LOCATED.match(line), _PLAIN.match(line)
        if located:
            return f"{located['file']}:{located['line']}: error: {located['message']}"[:_LIMIT_CHARS]
        if plain:
            return f"{source_name}: error: {plain['message']}"[:_LIMIT_CHARS]
    said = next((line.strip() for line in lines if line.strip()), "and it said nothing")
    return f"{source_name}: the compiler ended with status {finished.status}: {said}"[:_LIMIT_CHARS]
