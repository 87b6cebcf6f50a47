"""Opens the vendor's libraries of a GPU. An implementation is imported when it is asked for, and not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from hktune.core.errors import DeviceError
from hktune.core.settings import Settings
from hktune.device.vendor_library import VendorLibrary


def vendor_libraries(kind: str, settings: Settings) -> list[VendorLibrary]:
    """Those that are here for the calling thread's current GPU, which is of `kind`; the emulated device has none."""
    found: list[VendorLibrary] = []
    for open_library in _OPENERS.get(kind, {}).values():
        with suppress(DeviceError):
            found.append(open_library(settings))
    return found


def open_vendor_library(kind: str, name: str, settings: Settings) -> VendorLibrary:
    """The library `name` for the calling thread's current GPU, which is of `kind`. Raises DeviceError where it is not
    here, or not one of this kind of device."""
    openers = _OPENERS.get(kind, {})
    if name not in openers:
        raise DeviceError(f"the {kind} device has no library {name}: its libraries are {', '.join(openers) or 'none'}")
    return openers[name](settings)


def _cublas_lt(settings: Settings) -> VendorLibrary:
    from hktune.device.cublaslt import CublasLt

    del settings
    return CublasLt()


def _hipblas_lt(settings: Settings) -> VendorLibrary:
    from hktune.device.hip_library import rocm_library
    from hktune.device.hipblaslt import HipblasLt

    return HipblasLt(rocm_library("libhipblaslt.so", settings.rocm_path))


def _rocblas(settings: Settings) -> VendorLibrary:
    from hktune.device.hip_library import rocm_library
    from hktune.device.rocblas import Rocblas

    return Rocblas(rocm_library("librocblas.so", settings.rocm_path))


_OPENERS: Mapping[str, Mapping[str, Callable[[Settings], VendorLibrary]]] = {
    "cuda": {"cublasLt": _cublas_lt},
    "hip": {"hipBLASLt": _hipblas_lt, "rocBLAS": _rocblas},
}
