"""NVIDIA's driver through its Python bindings: found once, and what its calls answer."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from hktune.core.errors import DeviceError, DeviceFull, KernelFault

# Errors that a kernel causes and that leave the context unusable (CUDA driver API, CUresult).
_FAULTS = {
    "CUDA_ERROR_ILLEGAL_ADDRESS": "crashed",
    "CUDA_ERROR_MISALIGNED_ADDRESS": "crashed",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION": "crashed",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE": "crashed",
    "CUDA_ERROR_INVALID_PC": "crashed",
    "CUDA_ERROR_HARDWARE_STACK_ERROR": "crashed",
    "CUDA_ERROR_ASSERT": "crashed",
    "CUDA_ERROR_LAUNCH_FAILED": "crashed",
    "CUDA_ERROR_LAUNCH_TIMEOUT": "timeout",
}


@functools.cache
def cuda_driver() -> ModuleType:
    """The driver's bindings, initialised. Raises DeviceError where they or the driver are absent."""
    try:
        driver = importlib.import_module("cuda.bindings.driver")
        status = driver.cuInit(0)
    except ImportError as absent:
        raise DeviceError("no CUDA bindings: pip install 'hktune[cuda]'") from absent
    except RuntimeError as absent:
        raise DeviceError("no CUDA driver on this machine: install NVIDIA's, or use the emulated device") from absent
    checked(status)
    return driver


def count_cuda_devices() -> int:
    """How many NVIDIA GPUs this process sees. Raises DeviceError where the bindings or the driver are absent."""
    return int(checked(cuda_driver().cuDeviceGetCount()))


def checked(result: tuple[Any, ...]) -> Any:
    """What a driver call returned besides its status. Raises KernelFault or DeviceError."""
    status, *values = result
    if status:
        detail = f"the CUDA driver says {status.name}"
        if status.name in _FAULTS:
            raise KernelFault(_FAULTS[status.name], detail)
        if status.name == "CUDA_ERROR_OUT_OF_MEMORY":
            raise DeviceFull(f"{detail}: end what else uses the device, or choose another")
        raise DeviceError(f"{detail}: see `nvidia-smi` for the device's state")
    return values[0] if values else None


def release(context: object, free: Callable[[object], object], handle: object) -> None:
    """Give memory or a module back. After a fault the driver refuses, and there is nothing left to give back."""
    driver = cuda_driver()
    if not driver.cuCtxSetCurrent(context)[0]:
        free(handle)
