"""Clocks, power and energy of an NVIDIA GPU, through NVML."""

from __future__ import annotations

import functools
import importlib
from typing import Protocol, cast

from hktune.core.outcome import POWER_CAP
from hktune.device.device import Clocks

# What slows a busy GPU below the clock asked for (nvml.h, nvmlClocksEventReasons); idling is none of them.
_REASONS = {
    0x04: POWER_CAP,
    0x08: "hardware slowdown",
    0x20: "thermal",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}


class _Nvml(Protocol):
    """What is named of NVML's bindings; functions that read a sensor may be absent, and are asked for by name."""

    NVMLError: type[Exception]
    NVML_CLOCK_SM: int
    NVML_CLOCK_MEM: int
    NVML_TEMPERATURE_GPU: int

    def nvmlInit(self) -> None: ...  # noqa: N802 - its name

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: str, /) -> object: ...  # noqa: N802


def nvml_clocks(bus_id: str) -> Clocks:
    """The sensors of the GPU at PCI address `bus_id` now; empty where NVML or its bindings are absent."""
    opened = _handle(bus_id)
    if opened is None:
        return Clocks()
    nvml, handle = opened
    read = functools.partial(_read, nvml, handle)
    power_mw, reasons = read("nvmlDeviceGetPowerUsage"), read("nvmlDeviceGetCurrentClocksEventReasons")
    return Clocks(
        sm_mhz=read("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        memory_mhz=read("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        power_w=power_mw / 1000 if power_mw is not None else None,
        temperature_c=read("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        throttled=tuple(word for bit, word in _REASONS.items() if (reasons or 0) & bit),
    )


def nvml_energy_j(bus_id: str) -> float | None:
    """What the GPU at PCI address `bus_id` has drawn since its driver was loaded; None where NVML does not say."""
    opened = _handle(bus_id)
    energy_mj = _read(*opened, "nvmlDeviceGetTotalEnergyConsumption") if opened else None
    return None if energy_mj is None else energy_mj / 1000


def _read(nvml: _Nvml, handle: object, name: str, *arguments: int) -> int | None:
    """What the function `name` says of the GPU; None where it is absent or fails."""
    try:
        value: int = getattr(nvml, name)(handle, *arguments)
    except (nvml.NVMLError, AttributeError):
        return None
    return value


@functools.cache
def _handle(bus_id: str) -> tuple[_Nvml, object] | None:
    """NVML's bindings and its handle of the GPU; None where either is absent."""
    try:
        nvml = cast("_Nvml", importlib.import_module("pynvml"))
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        return nvml, nvml.nvmlDeviceGetHandleByPciBusId(bus_id)
    except nvml.NVMLError:
        return None
