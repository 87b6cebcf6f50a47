"""What the HIP device offers a stopwatch, over a runtime that stands in for AMD's: streams, events, graphs, sensors."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from gfx950_code import assemble
from hip_stand_in import LAUNCH_US, StandIn

from hktune.core.errors import DeviceError
from hktune.core.launch import Argument, Launch
from hktune.device import hip_sensors
from hktune.device.device import Clocks
from hktune.device.device_buffer import DeviceBuffer
from hktune.device.hip import HipDevice, HipKernel

LAUNCH = Launch((1, 1, 1), (64, 1, 1), 0, (Argument("c", "pointer"),))
INCREMENT = """
    s_load_dwordx2 s[4:5], s[0:1], 0x0
    v_lshlrev_b32 v0, 2, v0
    s_waitcnt lgkmcnt(0)
    global_load_dword v1, v0, s[4:5]
    s_waitcnt vmcnt(0)
    v_add_u32 v1, 1, v1
    global_store_dword v0, v1, s[4:5]
    s_endpgm
"""


@pytest.fixture
def device(stand_in: StandIn) -> HipDevice:
    return HipDevice(rocm_path=stand_in.rocm_path)


@pytest.fixture
def counting(device: HipDevice) -> tuple[HipKernel, DeviceBuffer]:
    """A kernel that counts its launches, and where it does so."""
    buffer = device.allocate(256)
    device.write(buffer, np.zeros(64, np.uint32))
    return device.load(assemble(INCREMENT, pointers=1), "kernel"), buffer


def count(device: HipDevice, buffer: DeviceBuffer) -> int:
    out = np.zeros(64, np.uint32)
    device.read(buffer, out)
    assert len(set(out.tolist())) == 1
    return int(out[0])


def test_cold_operands_must_exceed_the_infinity_cache(device: HipDevice, stand_in: StandIn) -> None:
    assert device.last_level_cache_bytes == 256 << 20
    stand_in.targets = ("gfx90a:sramecc+:xnack-",)
    assert HipDevice(rocm_path=stand_in.rocm_path).last_level_cache_bytes == 4 << 20


def test_streams_wait_for_no_other_and_go_with_the_device(stand_in: StandIn) -> None:
    device = HipDevice(rocm_path=stand_in.rocm_path)
    first, second = device.create_stream(), device.create_stream()
    assert {first, second} == set(stand_in.streams)
    assert stand_in.streams[first].flags == 1
    del device
    gc.collect()
    assert stand_in.streams == {}


def test_events_time_what_lies_between_them(
    device: HipDevice, stand_in: StandIn, counting: tuple[HipKernel, DeviceBuffer]
) -> None:
    kernel, buffer = counting
    stream = device.create_stream()
    start = device.record(stream)
    for _ in range(3):
        device.launch(kernel, LAUNCH, {"c": buffer}, stream)
    end = device.record(stream)
    assert device.elapsed_us(start, end) == pytest.approx(3 * LAUNCH_US)
    assert "hipEventSynchronize" in stand_in.calls
    del start, end
    gc.collect()
    assert stand_in.events == {}


def test_a_graph_runs_what_was_captured_when_it_is_replayed(
    device: HipDevice, stand_in: StandIn, counting: tuple[HipKernel, DeviceBuffer]
) -> None:
    kernel, buffer = counting
    stream = device.create_stream()

    def enqueue() -> None:
        for _ in range(4):
            device.launch(kernel, LAUNCH, {"c": buffer}, stream)

    graph = device.capture(enqueue, stream)
    assert count(device, buffer) == 0
    assert stand_in.words["hipStreamBeginCapture"] == (stream, 2)
    for _ in range(2):
        device.replay(graph, stream)
    assert count(device, buffer) == 8
    assert stand_in.graphs == {}
    del graph
    gc.collect()
    assert stand_in.executables == {}


def test_a_capture_that_breaks_leaves_the_stream_usable(device: HipDevice, stand_in: StandIn) -> None:
    stream = device.create_stream()

    def enqueue() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        device.capture(enqueue, stream)
    assert stand_in.streams[stream].captured is None
    assert stand_in.graphs == {}
    stand_in.refuse("hipGraphInstantiate", 2)
    with pytest.raises(DeviceError, match="hipGraphInstantiate: the HIP runtime says hipErrorOutOfMemory"):
        device.capture(lambda: None, stream)
    assert stand_in.graphs == {}
    stand_in.refuse("hipStreamEndCapture", 901)
    with pytest.raises(DeviceError, match=r"hipErrorStreamCaptureInvalidated \(901\)"):
        device.capture(lambda: None, stream)


def test_events_and_graphs_of_another_device_are_refused(device: HipDevice) -> None:
    with pytest.raises(DeviceError, match="object was made by another device: make it here"):
        device.replay(object(), device.create_stream())


class TestSensors:
    @pytest.fixture(autouse=True)
    def _forget(self) -> None:
        hip_sensors._smi.cache_clear()

    @pytest.fixture
    def hwmon(self, stand_in: StandIn, tmp_path: Path) -> Path:
        folder = tmp_path / "pci" / "0000:e5:00.0" / "hwmon" / "hwmon4"
        folder.mkdir(parents=True)
        for name, value in {"freq1_input": 2_105_000_000, "freq2_input": 1_900_000_000, "temp2_input": 54_000}.items():
            (folder / name).write_text(f"{value}\n")
        (folder / "power1_input").write_text("987000000\n")
        return folder

    @pytest.fixture
    def smi(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """A package like AMD SMI's, with the names and the "N/A" of its release 7.0.2 (PyPI, amdsmi_interface.py)."""
        package = ModuleType("amdsmi")
        package.AmdSmiException = type("AmdSmiException", (Exception,), {})  # type: ignore[attr-defined]
        package.amdsmi_init = lambda: None  # type: ignore[attr-defined]
        package.amdsmi_get_processor_handle_from_bdf = lambda address: address  # type: ignore[attr-defined]
        package.metrics = {  # type: ignore[attr-defined]
            "current_gfxclk": 132,
            "current_gfxclks": [2100, 2095, 132, "N/A"],
            "current_uclk": 1900,
            "current_socket_power": 998,
            "average_socket_power": "N/A",
            "temperature_hotspot": 61,
            "prochot_residency_acc": "N/A",
            "ppt_residency_acc": 50,
            "socket_thm_residency_acc": 7,
        }
        package.amdsmi_get_gpu_metrics_info = lambda handle: dict(package.metrics)  # type: ignore[attr-defined]
        package.amdsmi_get_energy_count = lambda handle: {  # type: ignore[attr-defined]
            "energy_accumulator": 2_000_000,
            "counter_resolution": 15.25,
            "timestamp": 1,
        }
        monkeypatch.setitem(sys.modules, "amdsmi", package)
        return package

    def test_amd_smi_counts_energy_in_units_that_it_names(self, device: HipDevice, smi: ModuleType) -> None:
        assert device.energy_j() == pytest.approx(30.5)
        smi.amdsmi_get_energy_count = lambda handle: {"energy_accumulator": "N/A", "counter_resolution": 15.25}
        assert device.energy_j() is None

    def test_energy_is_unknown_where_amd_smi_refuses_or_lacks_it(self, device: HipDevice, smi: ModuleType) -> None:
        def fail(handle: object) -> None:
            raise smi.AmdSmiException

        smi.amdsmi_get_energy_count = fail
        assert device.energy_j() is None
        del smi.amdsmi_get_energy_count
        assert device.energy_j() is None

    def test_amd_smi_tells_clocks_power_and_what_held_them_down(self, device: HipDevice, smi: ModuleType) -> None:
        assert device.clocks() == Clocks(2100, 1900, 998, 61)
        smi.metrics["ppt_residency_acc"] = 90
        assert device.clocks() == Clocks(2100, 1900, 998, 61, ("power cap",))
        smi.metrics |= {"socket_thm_residency_acc": 8, "current_socket_power": "N/A", "average_socket_power": 700}
        assert device.clocks() == Clocks(2100, 1900, 700, 61, ("thermal",))
        assert device.clocks().throttled == ()

    @pytest.mark.parametrize("failing", ["amdsmi_init", "amdsmi_get_gpu_metrics_info"])
    def test_the_drivers_own_sensors_serve_where_amd_smi_does_not(
        self, device: HipDevice, smi: ModuleType, hwmon: Path, failing: str
    ) -> None:
        def fail(*arguments: object) -> None:
            raise smi.AmdSmiException

        setattr(smi, failing, fail)
        assert device.clocks() == Clocks(2105, 1900, 987.0, 54)

    def test_they_serve_where_its_library_is_not_installed(
        self, device: HipDevice, hwmon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        (tmp_path / "amdsmi.py").write_text("print('Unable to find libamd_smi.so')\n{}['libamd_smi.so']\n")
        monkeypatch.delitem(sys.modules, "amdsmi", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        (hwmon / "power1_input").rename(hwmon / "power1_average")
        assert device.clocks() == Clocks(2105, 1900, 987.0, 54)
        assert capsys.readouterr().out == ""

    def test_what_cannot_be_read_is_none(self, device: HipDevice, hwmon: Path, tmp_path: Path) -> None:
        for sensor in hwmon.iterdir():
            sensor.write_text("")
        assert device.clocks() == Clocks()
        hwmon.rename(tmp_path / "elsewhere")
        assert device.clocks() == Clocks()
