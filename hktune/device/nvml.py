"""Clocks and power of an NVIDIA GPU, through NVML."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from hktune.device.device import Clocks

# What slows a busy GPU below the clock asked for (nvml.h, nvmlClocksEventReasons); idling is none of them.
_REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}


def nvml_clocks(bus_id: str) -> Clocks:
    """The sensors of the GPU at PCI address `bus_id` now; empty where NVML or its bindings are absent."""
    nvml, handle = _handle(bus_id)
    if handle is None:
        return Clocks()

    def read(name: str, *arguments: int) -> Any:
        try:
            return getattr(nvml, name)(handle, *arguments)
        except (nvml.NVMLError, AttributeError):
            return None

    power_mw, reasons = read("nvmlDeviceGetPowerUsage"), read("nvmlDeviceGetCurrentClocksEventReasons")
    return Clocks(
        sm_mhz=read("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        memory_mhz=read("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        power_w=power_mw / 1000 if power_mw is not None else None,
        temperature_c=read("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        throttled=tuple(word for bit, word in _REASONS.items() if (reasons or 0) & bit),
    )


@functools.cache
def _handle(bus_id: str) -> tuple[Any, Any]:
    """NVML's bindings and its handle of the GPU; None for what is absent."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None, None
    try:
        nvml.nvmlInit()
        return nvml, nvml.nvmlDeviceGetHandleByPciBusId(bus_id)
    except nvml.NVMLError:
        return nvml, None
