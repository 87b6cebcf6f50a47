"""The contract of `Stopwatch`, run on every implementation and on the fake of other tests."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fakes import FormulaStopwatch
from simulated_gpu import (
    SimulatedGpu,
    SimulatedKernel,
    SimulatedVendor,
    fault,
    multiply,
    multiply_less,
    refuse,
    torch_without_cuda,
)

from hktune.core.config import Config
from hktune.core.errors import KernelFault
from hktune.core.launch import Argument, Launch
from hktune.core.outcome import Failure, Source, Status, Timing
from hktune.core.problem import Problem
from hktune.core.shipped import SPACES
from hktune.emulator.clock.profile import Profile, Residency
from hktune.measure.measured import MeasuredStopwatch
from hktune.measure.modelled import ModelledStopwatch
from hktune.measure.stopwatch import Attempt, Stopwatch
from hktune.space import SearchSpace, load_space
from hktune.template import Templates
from hktune.workers.gpu_worker import Answer, ContainedStopwatch, GpuWorker, Request, Screen, Serve

SMALL, LARGE = Problem(64, 64, 128), Problem(256, 128, 512)
RIGHT = Config({"kernel": "right"})
VENDOR_US, CANDIDATE_US = 60.0, 40.0
TIMES_US = {SMALL: 10.0, LARGE: 90.0}


def attempt_at(config: Config) -> Attempt:
    return Attempt(config, object_sha256="0" * 64)


class StopwatchContract:
    """Subclasses give the fixture `stopwatch`, and `attempt`, which is right on SMALL and LARGE."""

    def test_a_time_is_positive_and_inside_its_interval(self, stopwatch: Stopwatch, attempt: Attempt) -> None:
        for problem in (SMALL, LARGE):
            timing = stopwatch.time(attempt, problem)
            assert isinstance(timing, Timing), timing
            assert 0 < timing.time_us < float("inf")
            low, high = timing.time_us_low, timing.time_us_high
            assert (low is None) == (high is None)
            assert low is None or high is None or low <= timing.time_us <= high

    def test_its_source_is_in_every_time(self, stopwatch: Stopwatch, attempt: Attempt) -> None:
        assert stopwatch.source in (Source.MEASURED, Source.MODELLED)
        for problem in (SMALL, LARGE):
            timing = stopwatch.time(attempt, problem)
            assert isinstance(timing, Timing)
            assert timing.source is stopwatch.source

    def test_only_a_measured_time_has_a_vendors_beside_it(self, stopwatch: Stopwatch, attempt: Attempt) -> None:
        timing = stopwatch.time(attempt, SMALL)
        assert isinstance(timing, Timing)
        if stopwatch.source is Source.MEASURED:
            assert timing.baseline
            assert timing.baseline_us is not None
            assert timing.baseline_us > 0
        else:
            assert timing.baseline is timing.baseline_us is None

    def test_the_same_may_be_asked_again_and_nothing_is_changed(self, stopwatch: Stopwatch, attempt: Attempt) -> None:
        before = copy.deepcopy(attempt)
        outcomes = [stopwatch.time(attempt, problem) for problem in (SMALL, LARGE, SMALL)]
        assert all(isinstance(outcome, Timing) for outcome in outcomes), outcomes
        assert attempt == before


class Attempts:
    """Attempts that both stopwatches of a device know by their configs."""

    @pytest.fixture
    def attempt(self) -> Attempt:
        return attempt_at(RIGHT)

    @pytest.fixture
    def wrong(self) -> Attempt:
        return attempt_at(Config({"kernel": "wrong"}))

    @pytest.fixture
    def refused(self) -> Attempt:
        return attempt_at(Config({"kernel": "refused"}))


class FailureContract:
    """Of stopwatches that launch: `wrong`, `refused` and `lost` are attempts whose kernels do that."""

    def test_a_wrong_product_and_a_refused_launch_are_failures(
        self, stopwatch: Stopwatch, attempt: Attempt, wrong: Attempt, refused: Attempt
    ) -> None:
        outcome = stopwatch.time(wrong, SMALL)
        assert isinstance(outcome, Failure), outcome
        assert outcome.status is Status.WRONG
        outcome = stopwatch.time(refused, SMALL)
        assert isinstance(outcome, Failure), outcome
        assert outcome.status is Status.CRASHED
        assert isinstance(stopwatch.time(attempt, SMALL), Timing), "it goes on"


class TestFormulaStopwatch(StopwatchContract):
    @pytest.fixture
    def stopwatch(self) -> Stopwatch:
        return FormulaStopwatch(lambda config, problem: TIMES_US[problem])

    @pytest.fixture
    def attempt(self) -> Attempt:
        return attempt_at(RIGHT)


class TestModelledStopwatch(StopwatchContract):
    """On the shipped template's default config, with a profile in the order of what its proof leaves."""

    @pytest.fixture
    def space(self) -> SearchSpace:
        return load_space(SPACES / "gfx950_gemm_bf16.yaml")

    @pytest.fixture
    def stopwatch(self, space: SearchSpace) -> Stopwatch:
        return ModelledStopwatch(Templates(space.template))

    @pytest.fixture
    def attempt(self, space: SearchSpace) -> Attempt:
        alone = Residency(1, (900.0, 1300.0, 1700.0, 2100.0, 2900.0), (700.0,) * 5, (500.0,) * 5)
        profile = Profile((alone,), 2.0, 512.0, 300.0, 400.0, 350.0, 32768.0, 65536.0)
        return replace(attempt_at(space.config({})), profile=profile)


class TestMeasuredStopwatch(Attempts, StopwatchContract, FailureContract):
    """Over a simulated GPU, whose times are known."""

    @pytest.fixture
    def stopwatch(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[MeasuredStopwatch]:
        computes = {"right": multiply, "wrong": multiply_less, "refused": refuse, "lost": fault}
        gpu = SimulatedGpu()

        def loaded(attempt: Attempt) -> SimulatedKernel:
            return SimulatedKernel("gemm", computes[str(attempt.config["kernel"])], CANDIDATE_US)

        with torch_without_cuda(monkeypatch):
            yield MeasuredStopwatch(
                gpu,  # type: ignore[arg-type]
                Templates(Launches()),  # type: ignore[arg-type]
                loaded,
                [SimulatedVendor(gpu, VENDOR_US)],
                [SMALL, LARGE],
            )

    def test_the_time_is_the_devices(self, stopwatch: MeasuredStopwatch, attempt: Attempt) -> None:
        timing = stopwatch.time(attempt, SMALL)
        assert isinstance(timing, Timing)
        assert timing.time_us == pytest.approx(CANDIDATE_US)
        assert timing.baseline_us == pytest.approx(VENDOR_US)

    def test_a_lost_device_is_raised(self, stopwatch: MeasuredStopwatch) -> None:
        with pytest.raises(KernelFault, match="illegal address"):
            stopwatch.time(attempt_at(Config({"kernel": "lost"})), SMALL)


class Launches:
    """The one thing that a stopwatch asks of a template."""

    def launch(self, config: Config, problem: Problem) -> Launch:
        return Launch((1, 1, 1), (64, 1, 1), 0, tuple(Argument(name, "pointer") for name in ("a", "b", "c")))


def serve(request: Request | None) -> Answer:
    """A worker that times by a table, but for what its config says."""
    if not isinstance(request, Screen):
        return Answer(None)
    kernel = request.attempt.config["kernel"]
    if kernel == "lost":
        os.kill(os.getpid(), signal.SIGKILL)
    if kernel in ("wrong", "refused"):
        return Answer(Failure(Status.WRONG if kernel == "wrong" else Status.CRASHED, str(kernel)))
    time_us = TIMES_US[request.problem]
    return Answer(Timing(Source.MEASURED, time_us, baseline="a library", baseline_us=2 * time_us))


def make_serve() -> Serve:
    return serve


class TestContainedStopwatch(Attempts, StopwatchContract, FailureContract):
    """Over a true process, which stands in for the one that owns a GPU."""

    @pytest.fixture
    def stopwatch(self) -> Iterator[ContainedStopwatch]:
        worker = GpuWorker(make_serve)
        yield ContainedStopwatch(worker, lambda config, problem: "hktune bench")
        worker.close()

    def test_a_lost_device_is_its_configs_failure(self, stopwatch: ContainedStopwatch, attempt: Attempt) -> None:
        outcome = stopwatch.time(attempt_at(Config({"kernel": "lost"})), SMALL)
        assert isinstance(outcome, Failure)
        assert outcome.status is Status.CRASHED
        assert stopwatch.time(attempt, SMALL) == serve(Screen(attempt, SMALL)).value
