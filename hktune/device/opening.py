"""Opens a device by the word for its kind. An implementation is imported when it is asked for, and not before."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from hktune.core.errors import DeviceError, InputError
from hktune.core.settings import Settings
from hktune.device.device import Device


def open_device(kind: str, ordinal: int = 0, settings: Settings | None = None) -> Device:
    """The device number `ordinal` of `kind`: emulated (there is one, ordinal is ignored), hip or cuda.

    `settings` default to the environment's. Raises InputError for another kind, DeviceError where there is no such
    device, with what to install.
    """
    if kind not in _OPENERS:
        raise InputError(f"unknown kind of device {kind!r}: known are {', '.join(_OPENERS)}")
    return _OPENERS[kind](ordinal, settings or Settings.from_environment(os.environ))


def find_device(ordinal: int = 0, settings: Settings | None = None) -> Device:
    """The best device here: number `ordinal` of the AMD GPUs, else of the NVIDIA GPUs, else the emulated one."""
    for kind in ("hip", "cuda"):
        with suppress(DeviceError):
            return open_device(kind, ordinal, settings)
    return open_device("emulated", settings=settings)


def count_devices(kind: str, settings: Settings | None = None) -> int:
    """How many devices of `kind` (hip or cuda) this process sees, numbered from 0. Raises DeviceError as `open_device`
    does where there is no driver."""
    if kind == "cuda":
        from hktune.device.cuda_driver import count_cuda_devices

        return count_cuda_devices()
    from hktune.device.hip_library import hip_library

    return hip_library((settings or Settings.from_environment(os.environ)).rocm_path).number("hipGetDeviceCount")


def _emulated(ordinal: int, settings: Settings) -> Device:
    from hktune.device.emulated import EmulatedDevice

    del ordinal, settings
    return EmulatedDevice()


def _hip(ordinal: int, settings: Settings) -> Device:
    from hktune.device.hip import HipDevice

    return HipDevice(ordinal, settings.rocm_path)


def _cuda(ordinal: int, settings: Settings) -> Device:
    from hktune.device.cuda import CudaDevice

    del settings
    return CudaDevice(ordinal)


_OPENERS: Mapping[str, Callable[[int, Settings], Device]] = {"emulated": _emulated, "hip": _hip, "cuda": _cuda}
