"""The code object of a kernel in a HIP source of anybody's making, host code and all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from hktune.compile.command_line import DeviceFlags
from hktune.compile.hip import HipCompiler
from hktune.compile.hipkittens import find_hipkittens
from hktune.compile.host_code import with_values, without_host_code
from hktune.compile.toolchain import HOST_HEADERS, find_hip_toolchain
from hktune.core.config import Config
from hktune.core.errors import InputError, ToolchainError
from hktune.core.outcome import Failure
from hktune.core.outside_file import FileKind
from hktune.core.settings import Settings
from hktune.core.variant import Variant
from hktune.objects.code_object import read_code_object
from hktune.objects.demangled import chosen_symbol
from hktune.objects.offload_bundle import BUNDLE_MAGIC, COMPRESSED_MAGIC, ELF_MAGIC, device_objects

ARCH = "gfx950"
_COMPILE_DEADLINE_S = 300.0
_MISSING = "file not found"
_DEBUG_LINES = "-gline-tables-only"
KERNEL_FILE = FileKind("a kernel", 64 << 20, InputError, "give HIP source or a code object")


class ObjectCompiler(Protocol):
    """Makes a code object of a source, whatever kernels are in it."""

    def object_of(self, variant: Variant, deadline_s: float) -> bytes | Failure: ...


def device_source(source: str, flags: DeviceFlags, symbol: str | None) -> tuple[str, tuple[str, ...]]:
    """What is compiled of `source`, and the flags for it: its host code is left out, values that `flags` define take
    the place of its own, and an instance of a template that `symbol` names is asked for."""
    source, defines = with_values(without_host_code(source), flags.defines)
    if symbol is not None and symbol.rstrip().endswith(">"):
        source += f"\n[[maybe_unused]] static void* const hktune_instance = (void*)&{symbol};\n"
    return source, (*(f"-D{name}={value}" for name, value in defines.items()), *flags.flags)


def compile_source(path: Path, source: str, symbol: str | None, compiler: ObjectCompiler) -> tuple[bytes, str]:
    """Code object and symbol of the kernel in the HIP `source` of the file at `path`. Raises InputError with the
    compiler's first error."""
    variant = Variant(path.stem, "", ARCH, "hip", symbol or "", source, Config({}))
    try:
        data = compiler.object_of(variant, _COMPILE_DEADLINE_S)
    except ToolchainError as error:
        if _MISSING in str(error):
            said = str(error).partition(": run `")[0]
            raise InputError(f"{said}: name its folder with -I") from None
        raise
    if isinstance(data, Failure):
        raise InputError(f"{path} does not compile: {data.detail}")
    return data, chosen_symbol(read_code_object(data).kernels, symbol, path)


def _chosen(objects: Sequence[bytes], symbol: str | None, path: Path) -> tuple[bytes, str]:
    """The one of `objects` that has the kernel, and its symbol."""
    holders = {name: data for data in objects for name in read_code_object(data).kernels}
    if not objects:
        raise InputError(f"{path} has no code object for {ARCH}: compile it with --offload-arch={ARCH}")
    name = chosen_symbol(holders, symbol, path)
    return holders[name], name


def kernel_code(
    data: bytes, path: Path, symbol: str | None, flags: DeviceFlags, settings: Settings, hipkittens: Path | None = None
) -> tuple[bytes, str]:
    """The code object that `data`, the content of `path`, is, holds, or is compiled to with debug lines, and the symbol
    of the kernel in it. `hipkittens` is a folder of those headers. Raises InputError, ToolchainError."""
    if data.startswith((ELF_MAGIC, BUNDLE_MAGIC, COMPRESSED_MAGIC)):
        return _chosen(device_objects(data, ARCH), symbol, path)
    source, words = device_source(KERNEL_FILE.text(data, path), flags, symbol)
    toolchain = find_hip_toolchain(settings)
    own = ("-iquote", str(path.resolve().parent), "-I", str(HOST_HEADERS))
    found = replace(toolchain, flags=(*toolchain.flags, _DEBUG_LINES, *own, *words))
    compiler = HipCompiler(found, find_hipkittens(settings, hipkittens), settings.cache_dir)
    return compile_source(path, source, symbol, compiler)
