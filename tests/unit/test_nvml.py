"""Clocks, power and energy, from a stand-in for NVML."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from hktune.device import nvml
from hktune.device.device import Clocks
from hktune.device.nvml import nvml_clocks, nvml_energy_j


class StandIn(ModuleType):
    """One GPU at 0000:06:00.0, which has no thermometer."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    reasons = 0x01  # idle

    class NVMLError(Exception):
        """What every call may raise."""

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: str) -> str:  # noqa: N802
        if bus_id != "0000:06:00.0":
            raise self.NVMLError
        return "gpu"

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return 512_345

    def nvmlDeviceGetClockInfo(self, handle: str, clock: int) -> int:  # noqa: N802
        return {1: 1755, 2: 2619}[clock]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        raise self.NVMLError

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        return self.reasons

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        return 6_543_210  # mJ


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    module = StandIn("pynvml")
    monkeypatch.setitem(sys.modules, "pynvml", module)
    nvml._handle.cache_clear()
    yield module
    nvml._handle.cache_clear()


def test_what_the_sensors_read(stand_in: StandIn) -> None:
    assert nvml_clocks("0000:06:00.0") == Clocks(1755, 2619, 512.345, None, ())


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0x04, ("power cap",)),
        (0x24, ("power cap", "thermal")),
        (0x102, ()),
        (0x88, ("hardware slowdown", "power brake")),
    ],
)
def test_only_what_slows_a_busy_gpu_is_throttling(stand_in: StandIn, bits: int, words: tuple[str, ...]) -> None:
    stand_in.reasons = bits
    assert nvml_clocks("0000:06:00.0").throttled == words


def test_energy_is_in_joules_and_unknown_where_nvml_does_not_count_it(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nvml_energy_j("0000:06:00.0") == 6543.21
    assert nvml_energy_j("0000:07:00.0") is None

    def refuse(self: StandIn, handle: str) -> int:
        raise self.NVMLError

    monkeypatch.setattr(StandIn, "nvmlDeviceGetTotalEnergyConsumption", refuse)  # before Volta
    assert nvml_energy_j("0000:06:00.0") is None
    monkeypatch.delattr(StandIn, "nvmlDeviceGetTotalEnergyConsumption")
    assert nvml_energy_j("0000:06:00.0") is None


def test_an_unknown_gpu_or_no_bindings_read_nothing(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nvml_clocks("0000:07:00.0") == Clocks()
    nvml._handle.cache_clear()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml_clocks("0000:06:00.0") == Clocks()
