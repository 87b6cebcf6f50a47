"""Opens the vendor's libraries of a GPU. An implementation is imported when it is asked for, and not before."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping
from contextlib import suppress

from hktune.core.errors import DeviceError
from hktune.core.settings import Settings
from hktune.device.vendor_library import VendorLibrary


def vendor_libraries(
    kind: str, settings: Settings | None = None, names: Container[str] | None = None
) -> list[VendorLibrary]:
    """Those that are here for the calling thread's current GPU, which is of `kind`; the emulated device has none. Of
    `names` alone, where there are some. `settings` default to the environment's."""
    found: list[VendorLibrary] = []
    for name in _OPENERS.get(kind, {}):
        if names is not None and name not in names:
            continue
        with suppress(DeviceError):
            found.append(open_vendor_library(kind, name, settings))
    return found


def open_vendor_library(kind: str, name: str, settings: Settings | None = None) -> VendorLibrary:
    """The library `name` for the calling thread's current GPU, which is of `kind`. Raises DeviceError where it is not
    here, or not one of this kind of device."""
    openers = _OPENERS.get(kind, {})
    if name not in openers:
        raise DeviceError(f"the {kind} device has no library {name}: its libraries are {', '.join(openers) or 'none'}")
    return openers[name](settings or Settings.from_environment(os.environ))


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
