"""Source to code objects, none of them built twice. May import core, objects, space, template and the other seams."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from hktune.compile.batch import compile_many
from hktune.compile.by_language import CompilerByLanguage
from hktune.compile.compiler import Compiler
from hktune.compile.hip import HipCompiler
from hktune.compile.hipkittens import find_hipkittens
from hktune.compile.nvrtc import NvrtcCompiler
from hktune.compile.object_cache import AbsentCompiler, CachedCompiler, recorded_identities
from hktune.compile.object_files import ObjectFiles
from hktune.compile.toolchain import find_hip_toolchain
from hktune.compile.triton import TritonCompiler
from hktune.core.errors import ToolchainError
from hktune.core.settings import Settings

__all__ = [
    "AbsentCompiler",
    "CachedCompiler",
    "Compiler",
    "CompilerByLanguage",
    "HipCompiler",
    "TritonCompiler",
    "compile_many",
    "compiler_for",
    "cuda_compiler",
    "hip_compiler",
    "triton_compiler",
]


_NVRTC, _TRITON = "nvrtc ", "triton "
_NOT_HIPS = (_NVRTC, _TRITON, ObjectFiles.identity)
"""How identities begin. Those of HIP's compilers begin with the names of many tools."""


def compiler_for(language: str, settings: Settings, hipkittens: Path | None = None) -> CachedCompiler:
    """The compiler of templates in `language`: hip, cuda or triton, and what stands in for one of the language object.
    Raises ToolchainError where there is none."""
    if language == "object":
        return CachedCompiler(ObjectFiles(settings), settings.cache_dir)
    if language == "cuda":
        return cuda_compiler(settings)
    return triton_compiler(settings) if language == "triton" else hip_compiler(settings, hipkittens)


def cuda_compiler(settings: Settings) -> CachedCompiler:
    """NVRTC behind the object cache. Where it is not installed, but the cache holds objects of one NVRTC, those can
    still be had. Raises ToolchainError otherwise."""
    return _cached(NvrtcCompiler, settings, lambda name: name.startswith(_NVRTC))


def triton_compiler(settings: Settings) -> CachedCompiler:
    """Triton behind the object cache; else as `cuda_compiler`."""
    return _cached(TritonCompiler, settings, lambda name: name.startswith(_TRITON))


def hip_compiler(settings: Settings, hipkittens: Path | None = None) -> CachedCompiler:
    """The compiler found here, behind the object cache. `hipkittens` is a header root that wins over the settings'.

    Where there is nothing to compile with, but the cache holds one compiler's objects, those can still be had.
    Raises ToolchainError otherwise, and always for a header root that was asked for and is none.
    """
    find = partial(find_hipkittens, settings, hipkittens)
    asked_for = bool(hipkittens or settings.hipkittens_root)
    return _cached(
        lambda: HipCompiler(find_hip_toolchain(settings), find(), settings.cache_dir, find),
        settings,
        lambda name: not asked_for and not name.startswith(_NOT_HIPS),
    )


def _cached(make: Callable[[], Compiler], settings: Settings, is_its: Callable[[str], bool]) -> CachedCompiler:
    """What `make` gives, behind the object cache. Where it raises ToolchainError, the objects of the one compiler of
    the cache whose identity `is_its`, if there is one."""
    try:
        compiler = make()
    except ToolchainError as error:
        identities = list(filter(is_its, recorded_identities(settings.cache_dir)))
        if len(identities) != 1:
            raise
        compiler = AbsentCompiler(identities[0], str(error))
    return CachedCompiler(compiler, settings.cache_dir)
