"""Clocks, power and throttling of an AMD GPU: from AMD SMI where its Python package is, else from the driver's hwmon.

AMD SMI knows why a clock is held down, and what energy was drawn; hwmon does not. Neither needs the other, or a
privilege.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, cast

from hktune.core.outcome import POWER_CAP
from hktune.device.device import Clocks
from hktune.device.hip_identity import PCI_DEVICES

# Time spent below the asked-for clock, summed since boot (AMD SMI, amdsmi_get_gpu_metrics_info), and the word for it.
_THROTTLES = {
    "prochot_residency_acc": "external",
    "ppt_residency_acc": POWER_CAP,
    "socket_thm_residency_acc": "thermal",
    "vr_thm_residency_acc": "voltage regulator thermal",
    "hbm_thm_residency_acc": "memory thermal",
}


class _AmdSmi(Protocol):
    """What is called of AMD SMI's package."""

    AmdSmiException: type[Exception]

    def amdsmi_init(self) -> None: ...

    def amdsmi_get_processor_handle_from_bdf(self, bdf: str, /) -> object: ...

    def amdsmi_get_gpu_metrics_info(self, handle: object, /) -> Mapping[str, object]: ...

    def amdsmi_get_energy_count(self, handle: object, /) -> Mapping[str, object]: ...


class Sensors:
    """The sensors of the GPU at a PCI address. `throttled` says what held the clock since the last reading."""

    def __init__(self, pci_address: str) -> None:
        self._pci_address = pci_address
        self._smi = _smi()
        self._held = _held(self._metrics())

    def read(self) -> Clocks:
        metrics = self._metrics()
        if not metrics:
            return _hwmon(PCI_DEVICES / self._pci_address)
        before, self._held = self._held, _held(metrics)
        power = _number(metrics, "current_socket_power")
        return Clocks(
            sm_mhz=_fastest(metrics.get("current_gfxclks")) or _number(metrics, "current_gfxclk"),
            memory_mhz=_number(metrics, "current_uclk"),
            power_w=_number(metrics, "average_socket_power") if power is None else power,
            temperature_c=_number(metrics, "temperature_hotspot"),
            throttled=tuple(word for word, held in self._held.items() if held > before.get(word, held)),
        )

    def energy_j(self) -> float | None:
        """What the package has drawn since its driver was loaded; None where AMD SMI is not here or does not say, as
        in a virtual machine."""
        said = self._said("amdsmi_get_energy_count")
        counted, unit_uj = said.get("energy_accumulator"), said.get("counter_resolution")
        if not isinstance(counted, int) or not isinstance(unit_uj, float):
            return None
        return counted * unit_uj * 1e-6

    def _metrics(self) -> Mapping[str, object]:
        return self._said("amdsmi_get_gpu_metrics_info")

    def _said(self, name: str) -> Mapping[str, object]:
        """What AMD SMI's function `name` says of the GPU; nothing where it fails, or an older one has none."""
        if self._smi is None:
            return {}
        try:
            handle = self._smi.amdsmi_get_processor_handle_from_bdf(self._pci_address)
            said: Mapping[str, object] = getattr(self._smi, name)(handle)
        except (self._smi.AmdSmiException, AttributeError):
            return {}
        return said


@functools.cache
def _smi() -> _AmdSmi | None:
    """AMD SMI, initialised for as long as the process lives; None where it or its library is not installed."""
    try:
        # Without its library the package prints so, and then fails over the name that is not bound.
        with contextlib.redirect_stdout(io.StringIO()):
            smi = cast("_AmdSmi", importlib.import_module("amdsmi"))
    except (ImportError, OSError, KeyError, AttributeError):
        return None
    try:
        smi.amdsmi_init()
    except smi.AmdSmiException:
        return None
    return smi


def _held(metrics: Mapping[str, object]) -> dict[str, int]:
    """How long each reason has held the clock down since boot, in units of its own, where AMD SMI knows."""
    found = ((word, _number(metrics, name)) for name, word in _THROTTLES.items())
    return {word: number for word, number in found if number is not None}


def _number(metrics: Mapping[str, object], name: str) -> int | None:
    """AMD SMI writes "N/A" for what a GPU does not measure."""
    value = metrics.get(name)
    return value if isinstance(value, int) else None


def _fastest(clocks: object) -> int | None:
    """The highest of the dies' clocks; an idle die's is low, and one that the package does not have says "N/A"."""
    each = clocks if isinstance(clocks, Iterable) else ()
    return max((clock for clock in each if isinstance(clock, int)), default=None)


def _hwmon(device: Path) -> Clocks:
    """The kernel driver's own sensors (its documentation, "GPU Power/Thermal Controls and Monitoring")."""
    folder = next(device.glob("hwmon/hwmon*"), None)
    if folder is None:
        return Clocks()
    power = _reading(folder / "power1_input")
    power = _reading(folder / "power1_average") if power is None else power
    core, memory, temperature = (_reading(folder / name) for name in ("freq1_input", "freq2_input", "temp2_input"))
    return Clocks(
        sm_mhz=None if core is None else core // 1_000_000,
        memory_mhz=None if memory is None else memory // 1_000_000,
        power_w=None if power is None else power / 1e6,
        temperature_c=None if temperature is None else temperature // 1000,
    )


def _reading(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
