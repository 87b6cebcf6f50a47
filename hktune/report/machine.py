"""What this machine has for hktune, and the one line to type for what it lacks."""

from __future__ import annotations

import importlib
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

from hktune.compile.hipkittens import HipKittens, find_hipkittens
from hktune.compile.nvrtc import nvrtc_version
from hktune.compile.toolchain import OLDEST_ROCM, find_rocm, find_zig
from hktune.compile.triton import triton_build
from hktune.core import torch_choice
from hktune.core.arch import GFX950
from hktune.core.board import BOARDS, DEFAULT_BOARD
from hktune.core.errors import DeviceError, HktuneError, ToolchainError
from hktune.core.needs import PACKAGES
from hktune.core.settings import Settings
from hktune.core.torch_choice import Machine, Torch, complaint, find_machine
from hktune.device.hip import HipDevice
from hktune.device.hip_library import hip_library
from hktune.device.vendor_libraries import vendor_libraries
from hktune.tuning.benches.device_choice import choose_device

_KFD = Path("/dev/kfd")
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE of cuda.h
_OLDEST_PYTHON = (3, 10)


@dataclass(frozen=True)
class Finding:
    """One thing looked for. `found` says what is there (None: nothing); `fix` is what to type for what is missing or
    unfit; `needed`: without that, the main job cannot run here."""

    name: str
    found: str | None
    fix: str | None = None
    needed: bool = False


@dataclass(frozen=True)
class Examination:
    """All findings, and the kind of device that `hktune tune` would take here."""

    findings: tuple[Finding, ...]
    device: str

    @property
    def lacking(self) -> tuple[str, ...]:
        """What keeps the main job from running: empty where it can."""
        return tuple(finding.name for finding in self.findings if finding.needed)


def examine(settings: Settings, hipkittens: Path | None = None) -> Examination:
    """Look for everything a run may use. Starts compilers to ask their version and may fetch the pinned headers, but
    raises nothing: what goes wrong is a finding."""
    machine = find_machine()
    device = _device(settings)
    for_gfx950 = device != "cuda"
    findings = (
        _python(),
        _torch(machine),
        _packages(),
        _rocm(machine),
        *_compilers(settings, for_gfx950),
        _guarded("HipKittens headers", for_gfx950, lambda: _headers(find_hipkittens(settings, hipkittens))),
        _emulated(),
        _amd_gpu(settings),
        _nvidia_gpu(),
        *_cuda_packages(),
        *_vendor_libraries(device, settings),
        _guarded("Triton compiler", False, triton_build),
        _optional("cryptography", "cryptography", "pip install 'hktune[sign]'"),
        Finding("git", shutil.which("git"), None if shutil.which("git") else "sudo apt install git"),
        _cache(settings.cache_dir),
    )
    return Examination(findings, device)


def _device(settings: Settings) -> str:
    try:
        return choose_device("auto", None, settings)[0]
    except HktuneError:
        return "emulated"


def _vendor_libraries(device: str, settings: Settings) -> list[Finding]:
    """The libraries whose algorithms are candidates on the GPU found here; the emulated device has none."""
    if device == "emulated":
        return []
    found = ", ".join(f"{each.name} {each.version}" for each in vendor_libraries(device, settings))
    fix = None if found else "install a torch for this GPU, or ROCm's libraries: their algorithms are candidates too"
    return [Finding("vendor libraries", found or None, fix)]


def _guarded(name: str, needed: bool, look: Callable[[], str]) -> Finding:
    """The finding of `look`; the message of a ToolchainError already ends with the next step."""
    try:
        return Finding(name, look())
    except ToolchainError as error:
        return Finding(name, None, str(error), needed)


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    oldest = ".".join(map(str, _OLDEST_PYTHON))
    old = sys.version_info < _OLDEST_PYTHON
    return Finding("Python", found, f"install Python {oldest} or newer" if old else None, old)


def _torch(machine: Machine) -> Finding:
    """Which torch, what it was built for, and whether that is what this machine needs."""
    try:
        torch = _imported_torch()
    except Exception as error:  # whatever keeps a torch from being imported: a library, its own version check
        said = " ".join(str(error).split()) or type(error).__name__
        return Finding("torch", None, f"import torch says: {said}: pip install --force-reinstall torch", needed=True)
    build = "ROCm" if torch.hip else "CUDA" if torch.cuda else "CPU"
    wrong = complaint(machine, torch)
    return Finding("torch", f"{torch.version} ({build})", str(wrong) if wrong else None)


def _imported_torch() -> Torch:
    import torch

    # The list is empty where torch sees no GPU; what it was compiled for is known all the same.
    flags = getattr(torch._C, "_cuda_getArchFlags", str)() or ""
    return Torch(str(torch.__version__), torch.version.hip, torch.version.cuda, tuple(flags.split()))


def _packages() -> Finding:
    """Those without which the command line does not start, so they are there."""
    names = sorted({*PACKAGES.values()} - {"torch"})
    return Finding("packages", ", ".join(f"{name} {_version(name)}" for name in names))


def _optional(name: str, package: str, fix: str) -> Finding:
    version = _version(package)
    return Finding(name, version, None if version else fix)


def _rocm(machine: Machine) -> Finding:
    found = "; ".join(f"{rocm.version} ({rocm.place})" for rocm in machine.rocms) or None
    release = machine.rocm.release if machine.rocm else None
    fit = release is not None and release >= torch_choice.OLDEST_ROCM
    return Finding("ROCm", found, torch_choice.NEWER_ROCM if machine.wants_rocm and not fit else None)


def _compilers(settings: Settings, needed: bool) -> list[Finding]:
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
        Finding("ziglang compiler", zig.identity if zig else None, fix, needed and zig is None and rocm is None),
    ]


def _cuda_packages() -> list[Finding]:
    """What an NVIDIA GPU is compiled for, launched and watched with where there is no CUDA toolkit."""
    extra = "pip install 'hktune[cuda]'"
    return [
        _guarded("NVRTC compiler", False, _nvrtc),
        _optional("CUDA bindings", "cuda-bindings", extra),
        _optional("NVML", "nvidia-ml-py", extra),
    ]


def _nvrtc() -> str:
    """NVRTC's version, with its library loaded. Raises ToolchainError."""
    version = nvrtc_version()
    try:
        importlib.import_module("cuda.bindings.nvrtc").nvrtcVersion()
    except Exception as error:  # the bindings' own errors, of whichever part of the search failed
        raise ToolchainError(f"nvrtc {version} does not load: pip install --force-reinstall 'hktune[cuda]'") from error
    return version


def _headers(headers: HipKittens) -> str:
    return f"{headers.include} ({headers.layout} layout, from {headers.origin}, sha256 {headers.sha256[:12]})"


def _emulated() -> Finding:
    said = {board.name: f"{board.product} ({board.max_clock_ghz} GHz, {board.power_w} W)" for board in BOARDS.values()}
    usual = said.pop(DEFAULT_BOARD.name)
    others = "".join(f"; --board {name}: {board}" for name, board in said.items())
    return Finding("emulated GPU", f"{GFX950.name}, {GFX950.compute_units} CUs, modelled time of {usual}{others}")


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
        board = f"board {gpu.board}" if gpu.board else "board unknown"
        units, pci_id = f"{gpu.compute_units} CUs", gpu.pci_id or "PCI id unknown"
        parts = (gpu.name, board, device.target, units, pci_id, gpu.partition)
        listed.append(f"{ordinal}: " + ", ".join(part for part in parts if part))
    return "; ".join([*listed, f"HIP {hip.version} in {hip.path}"])


def _nvidia_gpu() -> Finding:
    """NVIDIA GPUs by the driver's own library."""
    count = c_int()
    try:
        driver = CDLL("libcuda.so.1")
    except OSError:
        return Finding("NVIDIA GPU", None)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(byref(count))
    if status in (0, _NO_DEVICE):
        return Finding("NVIDIA GPU", f"{count.value} by libcuda" if count.value else None)
    return Finding("NVIDIA GPU", f"libcuda answers error {status}", "nvidia-smi  # says what the driver lacks")


def _cache(folder: Path) -> Finding:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(
            "cache", f"{folder}: {error.strerror}", "export HKTUNE_CACHE=<a folder that you can write>", needed=True
        )
    return Finding("cache", f"{folder} ({shutil.disk_usage(folder).free / 1e9:.0f} GB free)")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
