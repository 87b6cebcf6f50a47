"""Source to code objects, none of them built twice. May import core, objects, space, template and the other seams."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hktune.compile.batch import compile_many
from hktune.compile.compiler import Compiler
from hktune.compile.hip import HipCompiler
from hktune.compile.hipkittens import find_hipkittens
from hktune.compile.nvrtc import NvrtcCompiler
from hktune.compile.object_cache import AbsentCompiler, CachedCompiler, recorded_identities
from hktune.compile.object_files import ObjectFiles
from hktune.compile.toolchain import find_hip_toolchain
from hktune.core.errors import ToolchainError
from hktune.core.settings import Settings

__all__ = [
    "AbsentCompiler",
    "CachedCompiler",
    "Compiler",
    "HipCompiler",
    "compile_many",
    "compiler_for",
    "cuda_compiler",
    "hip_compiler",
]


def cuda_compiler(settings: Settings) -> CachedCompiler:
    """NVRTC behind the object cache. Where it is not installed, but the cache holds objects of one NVRTC, those can
    still be had. Raises ToolchainError otherwise."""
    try:
        compiler: Compiler = NvrtcCompiler()
    except ToolchainError as error:
        identities = [name for name in recorded_identities(settings.cache_dir) if name.startswith("nvrtc ")]
        if len(identities) != 1:
            raise
        compiler = AbsentCompiler(identities[0], str(error))
    return CachedCompiler(compiler, settings.cache_dir)


def compiler_for(language: str, settings: Settings, hipkittens: Path | None = None) -> CachedCompiler:
    """The compiler of templates in `language`, hip or cuda, and what stands in for one of the language object."""
    if language == "object":
        return CachedCompiler(ObjectFiles(settings), settings.cache_dir)
    return cuda_compiler(settings) if language == "cuda" else hip_compiler(settings, hipkittens)


def hip_compiler(settings: Settings, hipkittens: Path | None = None) -> CachedCompiler:
    """The compiler found here, behind the object cache. `hipkittens` is a header root that wins over the settings'.

    Where there is nothing to compile with, but the cache holds one compiler's objects, those can still be had.
    Raises ToolchainError otherwise, and always for a header root that was asked for and is none.
    """
    try:
        find = partial(find_hipkittens, settings, hipkittens)
        compiler: Compiler = HipCompiler(find_hip_toolchain(settings), find(), settings.cache_dir, find)
    except ToolchainError as error:
        identities = recorded_identities(settings.cache_dir)
        if hipkittens or settings.hipkittens_root or len(identities) != 1:
            raise
        compiler = AbsentCompiler(identities[0], str(error))
    return CachedCompiler(compiler, settings.cache_dir)
