"""What this machine has for hktune, and the one line to type for what it lacks."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from ctypes import CDLL, byref, c_int
from dataclasses import dataclass
from pathlib import Path

from hktune.arch import GFX950
from hktune.compile.hipkittens import HipKittens, find_hipkittens
from hktune.compile.toolchain import OLDEST_ROCM, find_rocm, find_zig
from hktune.device.hip import HipDevice
from hktune.device.hip_library import hip_library
from hktune.errors import DeviceError, ToolchainError
from hktune.settings import Settings

_KFD = Path("/dev/kfd")
_OLDEST_PYTHON = (3, 10)
_PACKAGES = ("optuna", "pandas", "msgspec", "pyelftools", "filelock")


@dataclass(frozen=True)
class Finding:
    """One thing looked for. `found` says what is there (None: nothing); `fix` is what to type when it is needed and
    missing. Something optional that is absent has neither."""

    name: str
    found: str | None
    fix: str | None = None

    @property
    def ok(self) -> bool:
        return self.fix is None


def examine(settings: Settings, hipkittens: Path | None = None) -> list[Finding]:
    """Look for everything a run may use. Starts compilers to ask their version and may fetch the pinned headers, but
    raises nothing: what goes wrong is a finding."""
    return [
        _python(),
        _torch(),
        *(_package(name) for name in _PACKAGES),
        *_compilers(settings),
        _guarded("HipKittens headers", lambda: _headers(find_hipkittens(settings, hipkittens))),
        _emulated(),
        _amd_gpu(settings),
        _nvidia_gpu(),
        _cache(settings.cache_dir),
    ]


def _guarded(name: str, look: Callable[[], str]) -> Finding:
    """The finding of `look`; the message of a ToolchainError already ends with the next step."""
    try:
        return Finding(name, look())
    except ToolchainError as error:
        return Finding(name, None, str(error))


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    oldest = ".".join(map(str, _OLDEST_PYTHON))
    return Finding("Python", found, None if sys.version_info >= _OLDEST_PYTHON else f"install Python {oldest} or newer")


def _torch() -> Finding:
    """Which torch, and what it was built for; read from its metadata, for importing it takes seconds."""
    version = _version("torch")
    if version is None:
        return Finding("torch", None, "pip install torch --index-url https://download.pytorch.org/whl/cpu")
    build = version.partition("+")[2]
    if build.startswith("rocm"):
        return Finding("torch", f"{version} (ROCm)")
    if build.startswith("cu") or _version("nvidia-cuda-runtime-cu12") or _version("nvidia-cuda-runtime"):
        return Finding("torch", f"{version} (CUDA)")
    return Finding("torch", f"{version} (CPU)")


def _package(name: str) -> Finding:
    version = _version(name)
    return Finding(name, version, None if version else f"pip install {name}")


def _compilers(settings: Settings) -> list[Finding]:
    """ROCm's compiler and ziglang's: either is enough, so only the second one's absence can call for a fix."""
    rocm = find_rocm(settings)
    old = f"none new enough: gfx950 needs ROCm {OLDEST_ROCM}" if rocm is None and shutil.which("hipcc") else None
    try:
        zig, fix = find_zig(), None
    except ToolchainError as error:
        zig, fix = None, str(error)
    if zig is None and rocm is None:
        fix = fix or "pip install 'hktune[gfx950]'"
    return [
        Finding("ROCm compiler", f"{rocm.driver[0]}: {rocm.identity}" if rocm else old),
        Finding("ziglang compiler", zig.identity if zig else None, fix),
    ]


def _headers(headers: HipKittens) -> str:
    return f"{headers.include} ({headers.layout} layout, from {headers.origin}, sha256 {headers.sha256[:12]})"


def _emulated() -> Finding:
    return Finding("emulated GPU", f"{GFX950.name}, {GFX950.compute_units} CUs, modelled time")


def _amd_gpu(settings: Settings) -> Finding:
    """AMD GPUs as the HIP runtime sees them; the kernel driver alone can launch nothing."""
    try:
        found, fix = _hip_devices(settings), None
    except DeviceError as error:
        if not _KFD.exists():
            return Finding("AMD GPU", None)
        # The runtime sees no GPU either where it may not open the kernel driver's file.
        allowed = os.access(_KFD, os.R_OK | os.W_OK)
        found, fix = f"{_KFD}, but {error}", str(error) if allowed else "sudo usermod -aG render,video $USER"
    return Finding("AMD GPU", found, fix)


def _hip_devices(settings: Settings) -> str:
    """Each device with what tells its kind from another's. Raises DeviceError when there is none."""
    hip = hip_library(settings.rocm_path)
    devices = [HipDevice(ordinal, settings.rocm_path) for ordinal in range(hip.number("hipGetDeviceCount"))]
    listed = []
    for ordinal, device in enumerate(devices):
        gpu = device.identity
        parts = (gpu.name, device.target, f"{gpu.compute_units} CUs", gpu.pci_id or "PCI id unknown", gpu.partition)
        listed.append(f"{ordinal}: " + ", ".join(part for part in parts if part))
    return "; ".join([*listed, f"HIP {hip.version} in {hip.path}"])


def _nvidia_gpu() -> Finding:
    """NVIDIA GPUs by the driver's own library."""
    count = c_int()
    try:
        driver = CDLL("libcuda.so.1")
    except OSError:
        return Finding("NVIDIA GPU", None)
    ready = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(byref(count)) == 0
    return Finding("NVIDIA GPU", f"{count.value} by libcuda" if ready and count.value else None)


def _cache(folder: Path) -> Finding:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("cache", f"{folder}: {error.strerror}", "export HKTUNE_CACHE=<a folder that you can write>")
    return Finding("cache", f"{folder} ({shutil.disk_usage(folder).free / 1e9:.0f} GB free)")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
