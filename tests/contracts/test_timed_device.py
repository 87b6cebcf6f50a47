"""The contract of `TimedDevice`, what it promises beyond `Device`: on the HIP device over a stand-in and over AMD's own
runtime, and on the GPU of other tests that is simulated."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from simulated_gpu import SimulatedGpu

from hktune.core.launch import Argument, Launch
from hktune.device.device import Clocks, TimedDevice
from hktune.device.hip import HipDevice

CODE = (Path(__file__).parents[1] / "recorded" / "naive_gemm" / "naive_gemm.hsaco").read_bytes()
M, N, K = 1, 64, 4
ARGUMENTS = (*(Argument(name, "pointer") for name in ("a", "b", "c")), Argument("n", "u32"), Argument("k", "u32"))
LAUNCH = Launch((1, M, 1), (64, 1, 1), 0, ARGUMENTS)
UNWRITTEN = np.full((M, N), 0x7FC1, np.uint16)


class Product:
    """A launch of a kernel that writes C: `enqueue` puts it on a stream, `has_run` says whether it ran since the last
    time it was asked."""

    def __init__(self, device: HipDevice) -> None:
        self._device, self._kernel = device, device.load(CODE, "naive_gemm")
        self._buffers = {name: device.allocate(2 * size) for name, size in (("a", M * K), ("b", N * K), ("c", M * N))}
        for name in ("a", "b"):
            device.write(self._buffers[name], np.ones(self._buffers[name].size_bytes // 2, np.uint16))
        device.write(self._buffers["c"], UNWRITTEN)

    def enqueue(self, stream: int) -> None:
        self._device.launch(self._kernel, LAUNCH, {**self._buffers, "n": N, "k": K}, stream)

    def has_run(self) -> bool:
        found = np.zeros_like(UNWRITTEN)
        self._device.read(self._buffers["c"], found)
        self._device.write(self._buffers["c"], UNWRITTEN)
        return bool((found != UNWRITTEN).all())


@dataclass
class Counted:
    """The same of a simulated GPU."""

    device: SimulatedGpu
    runs: list[None] = field(default_factory=list)

    def enqueue(self, stream: int) -> None:
        self.device.queue(25.0, lambda: self.runs.append(None))

    def has_run(self) -> bool:
        ran = bool(self.runs)
        self.runs.clear()
        return ran


class TimedDeviceContract:
    """Subclasses give the fixtures `device` and `work`."""

    def test_every_stream_is_a_new_one(self, device: TimedDevice) -> None:
        streams = [device.create_stream() for _ in range(3)]
        assert len(set(streams)) == 3
        assert all(streams), "none is the default one"

    def test_captured_work_runs_with_every_replay_and_not_before(
        self, device: TimedDevice, work: Product | Counted
    ) -> None:
        stream, calls = device.create_stream(), []

        def enqueue() -> None:
            calls.append(None)
            work.enqueue(stream)

        graph = device.capture(enqueue, stream)
        assert len(calls) == 1
        assert not work.has_run()
        for _ in range(2):
            device.replay(graph, stream)
            assert work.has_run()
        assert len(calls) == 1
        work.enqueue(stream)
        assert work.has_run(), "what comes after a capture is not captured"

    def test_a_capture_that_breaks_leaves_the_stream_usable(self, device: TimedDevice, work: Product | Counted) -> None:
        stream = device.create_stream()

        def broken() -> None:
            work.enqueue(stream)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            device.capture(broken, stream)
        assert not work.has_run()
        work.enqueue(stream)
        assert work.has_run()

    def test_events_time_the_work_between_them(self, device: TimedDevice, work: Product | Counted) -> None:
        stream = device.create_stream()
        graph = device.capture(lambda: work.enqueue(stream), stream)
        marks = [device.record(stream)]
        for launches in (1, 3):
            for _ in range(launches):
                device.replay(graph, stream)
            marks.append(device.record(stream))
        one, three = (device.elapsed_us(marks[i], marks[i + 1]) for i in range(2))
        assert 0 < one < three
        assert device.elapsed_us(marks[0], marks[2]) == pytest.approx(one + three, rel=1e-3)

    def test_cold_operands_have_something_to_exceed(self, device: TimedDevice) -> None:
        assert device.last_level_cache_bytes >= 1 << 10

    def test_sensors_read_nothing_or_something_that_can_be(self, device: TimedDevice) -> None:
        clocks = device.clocks()
        assert isinstance(clocks, Clocks)
        for value in (clocks.sm_mhz, clocks.memory_mhz, clocks.power_w, clocks.temperature_c):
            assert value is None or value > 0
        assert all(word and "\n" not in word for word in clocks.throttled)

    def test_energy_never_falls_or_is_unknown(self, device: TimedDevice, work: Product | Counted) -> None:
        before = device.energy_j()
        work.enqueue(device.create_stream())
        after = device.energy_j()
        assert (before is None) == (after is None)
        assert before is None or after is None or 0 <= before <= after


class TestHipDevice(TimedDeviceContract):
    @pytest.fixture
    def device(self, request: pytest.FixtureRequest) -> HipDevice:
        device = HipDevice(rocm_path=request.getfixturevalue("stand_in").rocm_path)
        assert isinstance(device, TimedDevice)
        return device

    @pytest.fixture
    def work(self, device: HipDevice) -> Product:
        return Product(device)


@pytest.mark.rocm_virtual
class TestHipDeviceOnRocm(TimedDeviceContract):
    @pytest.fixture
    def device(self, rocm_virtual: HipDevice) -> HipDevice:
        return rocm_virtual

    @pytest.fixture
    def work(self, device: HipDevice) -> Product:
        return Product(device)

    def test_events_time_the_work_between_them(self, device: TimedDevice, work: Product | Counted) -> None:
        """Their times are 0, as ROCr's model interface has no clock; but they wait for what is before them."""
        stream = device.create_stream()
        start = device.record(stream)
        work.enqueue(stream)
        assert device.elapsed_us(start, device.record(stream)) == 0
        assert work.has_run()


class TestSimulatedGpu(TimedDeviceContract):
    @pytest.fixture
    def device(self) -> SimulatedGpu:
        return SimulatedGpu(host_us=5.0)

    @pytest.fixture
    def work(self, device: SimulatedGpu) -> Counted:
        return Counted(device)


class TestSimulatedGpuWithACounter(TestSimulatedGpu):
    @pytest.fixture
    def device(self) -> SimulatedGpu:
        return SimulatedGpu(host_us=5.0, update_us=20.0)
