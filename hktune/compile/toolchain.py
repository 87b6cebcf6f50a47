"""Finds what can compile HIP for gfx950 here: ROCm's own compiler, else the clang inside the `ziglang` package."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hktune.compile.process import run_to_end
from hktune.core.errors import InputError, ToolchainError
from hktune.core.outside_file import FileKind
from hktune.core.publish import scratch_folder
from hktune.core.settings import Settings

OLDEST_ROCM = 7  # ROCm 7.0 is the first release for MI350X and MI355X (its release notes, "hardware support")
ROCM_HOME = Path("/opt/rocm")
_ROCM_LINKERS = ("llvm/bin", "lib/llvm/bin", "bin")
HIP_HEADERS = Path(__file__).parent / "hip_headers"
HOST_HEADERS = Path(__file__).parent / "host_headers"
"""What kernels of one's own include of libraries of the host, and no kernel of hktune's does."""
_VERSION_TIMEOUT_S = 60.0
HEADER_FILE = FileKind("a header", 16 << 20, InputError, "give a folder of HipKittens' headers")

_FLAGS = (
    "-x",
    "hip",
    "--offload-device-only",
    "--no-gpu-bundle-output",
    "-O3",
    "-std=c++20",
    "-DKITTENS_CDNA4",
    "-DHIP_ENABLE_WARP_SYNC_BUILTINS",
    "-fuse-cuid=none",  # the default hashes the absolute path of the source into a symbol
    "-w",
)
# The driver stops at assembly, and its compiler proper writes an object: asked to link, newer drivers wrap
# the result in an offload bundle whatever they are asked, and ziglang's lacks the tool for that.
_EMIT_OBJECT = ("-S", "-Xclang", "-emit-obj")
_EMIT_PRECOMPILED = ("-S", "-Xclang", "-emit-pch", "-Xclang", "-fno-pch-timestamp")
# Device code reads host headers for declarations only, so they can be one platform's everywhere.
_ZIG_FLAGS = (
    *_FLAGS,
    "--target=x86_64-unknown-linux-gnu",
    "-D__HIP_PLATFORM_AMD__",
    "-nogpulib",
    "-nogpuinc",
    "-nostdinc++",
    "-nostdlibinc",
)


@dataclass(frozen=True)
class HipToolchain:
    """One installed way from HIP source to a device code object.

    `driver` takes `flags`, `includes` and then `emit` for an object or `precompile` for a precompiled header (empty: it
    makes none); `linker` takes the object. `identity`, `flags` and `emit` hold no path of this machine.
    """

    name: str
    identity: str
    driver: tuple[str, ...]
    flags: tuple[str, ...]
    includes: tuple[str, ...]
    linker: tuple[str, ...]
    emit: tuple[str, ...] = _EMIT_OBJECT
    precompile: tuple[str, ...] = ()


def find_hip_toolchain(settings: Settings) -> HipToolchain:
    """The toolchain to use: ROCm's where one new enough is installed, else ziglang's. Raises ToolchainError."""
    toolchain = find_rocm(settings) or find_zig()
    if toolchain is None:
        raise ToolchainError("no compiler for gfx950: pip install 'hktune[gfx950]'")
    return toolchain


def find_rocm(settings: Settings) -> HipToolchain | None:
    """ROCm's hipcc or amdclang++, from ROCM_PATH, /opt/rocm or PATH; None when absent, older than gfx950, or unable to
    say its version, as a hipcc is that does not find its clang."""
    for driver in _rocm_drivers(settings):
        root = driver.resolve().parent.parent
        linker = shutil.which("ld.lld", path=os.pathsep.join(str(root / place) for place in _ROCM_LINKERS))
        version = _version(str(driver))
        release = re.search(r"HIP version: (\d+)|roc-(\d+)", version)
        if linker is None or not version or (release and int(release[1] or release[2]) < OLDEST_ROCM):
            continue
        clang = re.search(r"clang version (\S+)", version)
        headers = root / "include" / "hip"
        return HipToolchain(
            name=driver.name,
            identity=f"{driver.name} {clang[1] if clang else 'unknown'} {_digest(version.encode())}",
            driver=(str(driver),),
            flags=_FLAGS,
            includes=("-I", str(headers)) if headers.is_dir() else (),
            linker=(linker, "-shared"),
        )
    return None


def find_zig() -> HipToolchain | None:
    """The clang of the PyPI package `ziglang`, with hktune's own HIP headers; None when it is not installed."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    zig = str(package / "zig")
    clang = re.search(r"clang version (\S+)", _version(zig, "clang"))
    if clang is None:
        raise ToolchainError(f"{zig} does not run clang: pip install --force-reinstall 'hktune[gfx950]'")
    libc = package / "lib" / "libc" / "include"
    standard = (package / "lib" / "libcxx" / "include", libc / "x86_64-linux-musl", libc / "generic-musl")
    release = importlib.metadata.version("ziglang")
    return HipToolchain(
        name="zig clang",
        identity=f"zig-clang {clang[1]} ziglang={release} hip={tree_sha256(HIP_HEADERS)[:12]}",
        driver=(zig, "clang"),
        flags=_ZIG_FLAGS,
        includes=(
            *(part for folder in standard for part in ("-isystem", str(folder))),
            "-include",
            str(HIP_HEADERS / "libcxx_config.h"),
            *(part for folder in (HIP_HEADERS, HIP_HEADERS / "hip") for part in ("-I", str(folder))),
        ),
        linker=(zig, "ld.lld", "-shared"),
        precompile=_EMIT_PRECOMPILED,
    )


def tree_sha256(folder: Path) -> str:
    """Hash of every header below `folder`, by relative path and content: equal trees, equal hashes, anywhere."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".h", ".hpp", ".cuh") and path.is_file():
            total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            total.update(hashlib.sha256(HEADER_FILE.read(path)).digest())
    return total.hexdigest()


def _rocm_drivers(settings: Settings) -> Iterator[Path]:
    roots = [root for root in (settings.rocm_path, ROCM_HOME) if root is not None]
    for name in ("hipcc", "amdclang++"):
        candidates = [root / "bin" / name for root in roots]
        on_path = shutil.which(name)
        candidates += [Path(on_path)] if on_path else []
        yield from (path for path in candidates if path.is_file())


@lru_cache
def _version(*driver: str) -> str:
    """What `driver --version` prints, without the lines that name folders of this machine; empty when it fails."""
    with scratch_folder() as folder:
        finished = run_to_end([*driver, "--version"], folder, _VERSION_TIMEOUT_S)
    if finished is None or finished.status != 0:
        return ""
    host_lines = ("InstalledDir", "Configuration file")
    return "\n".join(line for line in finished.stdout.splitlines() if not line.startswith(host_lines))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
