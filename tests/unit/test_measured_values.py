"""What a measured time carries beside the time, on a simulated GPU: what its sensors read, and the vendor's best way;
and what an open bench says of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from fakes import FormulaStopwatch, InstantExecutor
from simulated_gpu import SimulatedGpu, SimulatedKernel, SimulatedVendor, multiply, multiply_less, torch_without_cuda

from hktune.core.config import Config
from hktune.core.launch import Argument, Launch
from hktune.core.outcome import Failure, Source, Status, Timing
from hktune.core.problem import Problem
from hktune.device.device import Clocks
from hktune.measure.measured import MeasuredStopwatch
from hktune.measure.stopwatch import Attempt
from hktune.template import Templates
from hktune.tuning.benches.emulated_bench import OpenEmulatedBench
from hktune.tuning.benches.gpu_bench import OpenGpuBench
from hktune.tuning.trial_rows import outcome_fields
from hktune.workers.gpu_worker import Answer, ContainedStopwatch, GpuWorker, Serve

PROBLEM = Problem(64, 64, 128)
VENDOR_US = 60.0
MakeStopwatch = Callable[[SimulatedGpu, Sequence[tuple[str, float]]], MeasuredStopwatch]


class Launches:
    """The one thing that a stopwatch asks of a template."""

    def launch(self, config: Config, problem: Problem) -> Launch:
        pointers = tuple(Argument(name, "pointer") for name in ("a", "b", "c"))
        return Launch((1, 1, 1), (64, 1, 1), 0, pointers)


def attempt(kernel: str, time_us: int) -> Attempt:
    return Attempt(Config({"kernel": kernel, "us": time_us}), object_sha256="0" * 64)


@pytest.fixture
def stopwatch_of(monkeypatch: pytest.MonkeyPatch) -> MakeStopwatch:
    computes = {"right": multiply, "wrong": multiply_less}

    def loaded(attempt: Attempt) -> SimulatedKernel:
        return SimulatedKernel("gemm", computes[str(attempt.config["kernel"])], float(attempt.config["us"]))

    def make(gpu: SimulatedGpu, rivals: Sequence[tuple[str, float]]) -> MeasuredStopwatch:
        vendors = [SimulatedVendor(gpu, VENDOR_US), *(SimulatedVendor(gpu, us, name) for name, us in rivals)]
        return MeasuredStopwatch(gpu, Templates(Launches()), loaded, vendors, [PROBLEM])  # type: ignore[arg-type]

    with torch_without_cuda(monkeypatch):
        yield make


@pytest.mark.parametrize(
    ("sensors", "expected"),
    [
        (Clocks(sm_mhz=1980, power_w=312.5), (1980, 312.5, None)),
        (Clocks(sm_mhz=1410, power_w=699.0, throttled=("power cap", "thermal")), (1410, 699.0, "power cap, thermal")),
        (Clocks(), (None, None, None)),
    ],
)
def test_a_time_carries_what_the_sensors_read(
    stopwatch_of: MakeStopwatch, sensors: Clocks, expected: tuple[int | None, float | None, str | None]
) -> None:
    timing = stopwatch_of(SimulatedGpu(sensors=sensors), []).time(attempt("right", 40), PROBLEM)
    assert isinstance(timing, Timing)
    assert (timing.clock_mhz, timing.power_w, timing.throttled) == expected
    assert (timing.vendor_best, timing.vendor_best_us) == (None, None), "a search asks one way alone"
    assert "MHz" not in (timing.note or "")


def test_a_confirmed_time_carries_the_fastest_of_the_vendors_other_ways(stopwatch_of: MakeStopwatch) -> None:
    stopwatch = stopwatch_of(SimulatedGpu(), [("slow way", 80.0), ("fast way", 50.0), ("other way", 55.0)])
    confirmation = stopwatch.confirm([attempt("right", 40), attempt("wrong", 10), attempt("right", 45)], PROBLEM)
    first, wrong, third = confirmation.finalists
    assert isinstance(wrong, Failure)
    assert wrong.status is Status.WRONG
    for timing, time_us in ((first, 40.0), (third, 45.0)):
        assert isinstance(timing, Timing)
        assert timing.time_us == pytest.approx(time_us)
        assert (timing.baseline_us, timing.vendor_best) == (pytest.approx(VENDOR_US), "fast way")
        assert timing.vendor_best_us == pytest.approx(50.0)
    assert confirmation.rivals == pytest.approx({"slow way": 0.75, "fast way": 1.2, "other way": 60 / 55})


def test_without_another_way_there_is_no_best_of_them(stopwatch_of: MakeStopwatch) -> None:
    [timing] = stopwatch_of(SimulatedGpu(), []).confirm([attempt("right", 40)], PROBLEM).finalists
    assert isinstance(timing, Timing)
    assert (timing.vendor_best, timing.vendor_best_us) == (None, None)


def test_a_failure_clears_every_cell_that_a_time_had_filled() -> None:
    vendor, energies = ("vendor", 12.0, "fast way", 11.0), (0.005, 0.0049, 0.0051, 0.006)
    timing = Timing(
        Source.MEASURED, 10.0, 9.0, 11.0, True, 8, "cold", None, *vendor, 1, 1980, 300.0, "thermal", *energies
    )
    timed, failed = (outcome_fields(each, PROBLEM) for each in (timing, Failure(Status.CRASHED, "died", True)))
    assert timed["tflops"] == pytest.approx(2 * 64 * 64 * 128 / 10.0e-6 / 1e12)
    assert timed.keys() == failed.keys()
    kept = {"status", "quarantined", "detail", "left_early"}
    assert {name: timed[name] for name in timed.keys() - kept if timed[name] is None} == {}
    assert {name: failed[name] for name in failed.keys() - kept if failed[name] is not None} == {}
    assert [failed[name] for name in sorted(kept)] == ["died", False, True, Status.CRASHED]
    bound = outcome_fields(replace(timing, source=Source.MODELLED, bound="hbm"), PROBLEM)
    assert bound["detail"] == "bound by hbm"


def test_an_open_bench_says_what_it_does() -> None:
    modelled = OpenEmulatedBench(InstantExecutor(), FormulaStopwatch())
    assert (modelled.shares, modelled.comparing, modelled.usage) == (True, None, None)
    modelled.interrupt()
    modelled.check_interrupt()

    worker = GpuWorker(make_serve)
    contained = ContainedStopwatch(worker, lambda candidate, problem: "bench")
    measured = OpenGpuBench(InstantExecutor(), contained)
    assert (measured.shares, measured.comparing, measured.usage) == (False, contained, worker.usage)
    measured.check_interrupt()
    measured.interrupt()
    with pytest.raises(KeyboardInterrupt):
        measured.check_interrupt()


def make_serve() -> Serve:
    return lambda request: Answer(None)
