"""AMD's HIP runtime, libamdhip64, through ctypes: where it is, the functions that are used, and its errors.

Signatures and numbers are those of HIP 7's hip_runtime_api.h and hip_common.h. Nothing here depends on the layout of a
structure but for one field of hipDeviceProp_tR0600, whose name fixes its layout for as long as the library exports it.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path

from hktune.core.errors import DeviceError, DeviceFull, KernelFault

LIBRARY = "libamdhip64.so"
ROCM_HOME = Path("/opt/rocm")
OLDEST_ROCM = 7  # the first release that knows MI350X and MI355X (its release notes, "hardware support")

_PROPERTIES = "hipGetDevicePropertiesR0600"
_PROPERTIES_BYTES = 4096  # hipDeviceProp_tR0600 has 1472; room for what the library may write
_ARCH_NAME = slice(1160, 1160 + 256)  # its field gcnArchName
_TEXT_BYTES = 256

_HANDLE = c_void_p
_OUT = POINTER(c_void_p)
_SIGNATURES: dict[str, tuple[type, ...]] = {
    "hipGetDeviceCount": (POINTER(c_int),),
    "hipGetDevice": (POINTER(c_int),),
    "hipSetDevice": (c_int,),
    "hipDeviceGetName": (c_char_p, c_int, c_int),
    "hipDeviceGetPCIBusId": (c_char_p, c_int, c_int),
    "hipDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    _PROPERTIES: (c_void_p, c_int),
    "hipRuntimeGetVersion": (POINTER(c_int),),
    "hipDeviceSynchronize": (),
    "hipGetLastError": (),
    "hipMalloc": (_OUT, c_size_t),
    "hipFree": (_HANDLE,),
    "hipMemcpyHtoD": (_HANDLE, c_void_p, c_size_t),
    "hipMemcpyDtoH": (c_void_p, _HANDLE, c_size_t),
    "hipModuleLoadData": (_OUT, c_char_p),
    "hipModuleUnload": (_HANDLE,),
    "hipModuleGetFunction": (_OUT, _HANDLE, c_char_p),
    "hipModuleLaunchKernel": (_HANDLE, *[c_uint] * 7, _HANDLE, _OUT, _OUT),
    "hipStreamCreateWithFlags": (_OUT, c_uint),
    "hipStreamDestroy": (_HANDLE,),
    "hipStreamBeginCapture": (_HANDLE, c_int),
    "hipStreamEndCapture": (_HANDLE, _OUT),
    "hipGraphInstantiate": (_OUT, _HANDLE, _OUT, c_char_p, c_size_t),
    "hipGraphLaunch": (_HANDLE, _HANDLE),
    "hipGraphDestroy": (_HANDLE,),
    "hipGraphExecDestroy": (_HANDLE,),
    "hipEventCreateWithFlags": (_OUT, c_uint),
    "hipEventRecord": (_HANDLE, _HANDLE),
    "hipEventSynchronize": (_HANDLE,),
    "hipEventElapsedTime": (POINTER(c_float), _HANDLE, _HANDLE),
    "hipEventDestroy": (_HANDLE,),
}
# Errors that a kernel causes, after which the device refuses every call of this process. hipModuleLaunchKernel also
# answers hipErrorLaunchFailure to a block larger than the kernel's launch bounds, which is refused before it is asked.
_FAULTS = {
    "hipErrorECCNotCorrectable": "crashed",
    "hipErrorIllegalAddress": "crashed",
    "hipErrorAssert": "crashed",
    "hipErrorLaunchFailure": "crashed",
    "hipErrorLaunchTimeOut": "timeout",
}


class HipLibrary:
    """The functions of one libamdhip64. Raises DeviceError where it cannot be loaded or lacks one of them."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            library = ctypes.CDLL(path)
        except OSError as error:
            raise DeviceError(f"{path} does not load ({error}): install ROCm {OLDEST_ROCM} or newer") from error
        missing = [name for name in (*_SIGNATURES, "hipGetErrorName") if not hasattr(library, name)]
        if missing:
            raise DeviceError(f"{path} is too old, it lacks {missing[0]}: install ROCm {OLDEST_ROCM} or newer")
        self._library = library
        self._functions = {}
        for name, arguments in _SIGNATURES.items():
            function = library[name]
            function.argtypes, function.restype = arguments, c_int
            self._functions[name] = function
        self._error_name = library["hipGetErrorName"]
        self._error_name.argtypes, self._error_name.restype = (c_int,), c_char_p

    def call(self, name: str, *arguments: object) -> None:
        """Call one function. Raises `error` when it does not answer success."""
        status = self.status(name, *arguments)
        if status:
            raise self.error(name, status)

    def status(self, name: str, *arguments: object) -> int:
        """Call one function; returns its hipError_t."""
        return int(self._functions[name](*arguments))

    def error(self, name: str, status: int) -> DeviceError:
        """What the `status` of function `name` means: KernelFault for what a kernel caused, else DeviceError."""
        # The runtime keeps the error until the next one asks, and torch asks after each of its own launches.
        self._functions["hipGetLastError"]()
        error = (self._error_name(status) or b"an unknown error").decode()
        detail = f"{name}: the HIP runtime says {error} ({status})"
        if error in _FAULTS:
            return KernelFault(_FAULTS[error], detail)
        if error == "hipErrorOutOfMemory":
            return DeviceFull(f"{detail}: end what else uses the device, or choose another")
        return DeviceError(f"{detail}: see `amd-smi` and dmesg for the device's state")

    def unconverted(self, name: str) -> Callable[..., int]:
        """One function, for arguments that are ctypes objects already; returns its status. Converting the eleven of a
        launch takes 60 % of the time of its call (Python 3.11, 2-core x86-64, 2026-11-22)."""
        function: Callable[..., int] = self._library[name]  # whose result is a C int where nothing else is said
        return function

    def discard(self, name: str, *arguments: object) -> None:
        """Give something back. After a fault the runtime refuses, and there is nothing left to give back."""
        if self._functions[name](*arguments):
            self._functions["hipGetLastError"]()

    def number(self, name: str, *arguments: object) -> int:
        """Call a function that leaves an int where its first argument points; returns that."""
        found = c_int()
        self.call(name, byref(found), *arguments)
        return found.value

    def text(self, name: str, ordinal: int) -> str:
        """Call a function that fills a text about device number `ordinal`; returns that."""
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        self.call(name, buffer, _TEXT_BYTES, ordinal)
        return buffer.value.decode(errors="replace")

    @property
    def version(self) -> str:
        """HIP's own version, 7.0.51831; the first two parts are ROCm's."""
        number = self.number("hipRuntimeGetVersion")  # HIP_VERSION of hip_version.h
        return f"{number // 10**7}.{number // 10**5 % 100}.{number % 10**5}"

    def target(self, ordinal: int) -> str:
        """The LLVM target of a device with the features it runs with: gfx950:sramecc+:xnack-."""
        properties = ctypes.create_string_buffer(_PROPERTIES_BYTES)
        self.call(_PROPERTIES, properties, ordinal)
        return properties.raw[_ARCH_NAME].split(b"\0")[0].decode(errors="replace")


@functools.cache
def hip_library(rocm_path: Path | None = None) -> HipLibrary:
    """The HIP runtime of this process. Raises DeviceError where there is none, or none new enough."""
    path = next(_candidates(rocm_path), None)
    if path is None:
        raise DeviceError(f"no HIP runtime ({LIBRARY}): install ROCm {OLDEST_ROCM} or newer, or set ROCM_PATH to it")
    return HipLibrary(path)


def rocm_library(name: str, rocm_path: Path | None = None) -> ctypes.CDLL:
    """Another library of ROCm, like librocblas.so, of the release that the HIP runtime of this process is of: one that
    is loaded already, one next to the runtime, or the one that the loader knows. Raises DeviceError where there is
    none."""
    folder = Path(hip_library(rocm_path).path).parent
    path = next(iter((*_loaded(name), *_in_folder(folder, name), name)))
    try:
        return ctypes.CDLL(path)
    except OSError as absent:
        raise DeviceError(f"no {name} ({absent}): install ROCm's, or go on without it") from None


def _candidates(rocm_path: Path | None) -> Iterator[str]:
    """Where the library may be, best first.

    Two copies in one process are two runtimes that know nothing of each other's memory, so the one already loaded comes
    first, and the one that torch will load before ROCm's own.
    """
    yield from _loaded()
    packages = [_package_folder(name) for name in ("torch", "_rocm_sdk_core")]
    for root in (*packages, rocm_path, ROCM_HOME):
        if root is not None:
            yield from _in_folder(root / "lib")
    yield from _known_to_loader()


def _loaded(name: str = LIBRARY) -> list[str]:
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return []
    return re.findall(rf"\s(/\S*/{re.escape(name)}[.\d]*)$", maps, re.MULTILINE)[:1]


def _known_to_loader() -> list[str]:
    """By LD_LIBRARY_PATH under its plain name, else by the loader's cache under the name of its version."""
    with suppress(OSError):
        ctypes.CDLL(LIBRARY)
        return [LIBRARY]
    found = ctypes.util.find_library("amdhip64")
    return [found] if found else []


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _in_folder(folder: Path, name: str = LIBRARY) -> list[str]:
    """The library in `folder`; of several names the one of the newest version."""
    found = sorted(folder.glob(f"{name}*"), key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)])
    return [str(path) for path in found[-1:]]
