"""What a hang, a death or a fault of the process that owns a GPU costs: with stand-ins that do each."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import InstantExecutor

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.errors import DeviceError, MachineError
from hktune.core.outcome import Failure, Source, Status, Timing
from hktune.core.problem import Problem
from hktune.measure.stopwatch import Attempt, Confirmation
from hktune.workers.gpu_worker import (
    Answer,
    Confirm,
    ContainedStopwatch,
    GpuExecutor,
    GpuWorker,
    Prove,
    Request,
    Screen,
    Serve,
    Usage,
    total_usage,
)

PROBLEM = Problem(256, 256, 256)
FAULT = Failure(Status.CRASHED, "illegal address")


def behave(attempts: tuple[Attempt, ...], when: str) -> bool:
    """Do what the configs say is done `when`; True when that is a fault."""
    for attempt in attempts:
        does = attempt.config["does"]
        if does == "die once" and not Path(str(attempt.config["at"])).exists():
            Path(str(attempt.config["at"])).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if does == f"lack memory when {when}":
            raise MachineError("GPU 0 has no memory left")
        if does == f"die when {when}":
            os.kill(os.getpid(), signal.SIGKILL)
        if does == f"hang when {when}":
            time.sleep(3600)
        if does == f"fault when {when}":
            return True
    return False


def serve(request: Request | None) -> Answer:
    timing = Timing(Source.MEASURED, 10.0, note=str(os.getpid()))
    if isinstance(request, Prove):
        lost = behave((request.attempt,), "proved")
        return Answer(FAULT if lost else request.attempt, 0.5, lost)
    if isinstance(request, Screen):
        lost = behave((request.attempt,), "timed")
        return Answer(FAULT if lost else timing, 1.0, lost)
    if isinstance(request, Confirm):
        lost = behave((*request.attempts, *(other for _, other in request.others)), "confirmed")
        return Answer(FAULT if lost else Confirmation((timing,) * len(request.attempts), {"other": 0.9}), 2.0, lost)
    return Answer(None)


def make_serve() -> Serve:
    return serve


def cannot_serve() -> Serve:
    os._exit(7)


def refuses_to_serve() -> Serve:
    raise DeviceError("fell off the bus")


@pytest.fixture
def stopwatch() -> Iterator[ContainedStopwatch]:
    worker = GpuWorker(make_serve, deadline_s=3.0)
    yield ContainedStopwatch(worker, lambda candidate, problem: f"bench {candidate.config['does']} on {problem}")
    worker.close()


def attempt(does: str) -> Attempt:
    return Attempt(Config({"does": does}), object_sha256="0" * 64)


def pid(outcome: Timing | Failure) -> str | None:
    assert isinstance(outcome, Timing), outcome
    return outcome.note


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("die", Status.CRASHED, "the worker died with exit code -9"),
        ("hang", Status.TIMEOUT, "no answer after 3 s; the worker was replaced"),
        ("fault", Status.CRASHED, "illegal address"),
    ],
)
@pytest.mark.parametrize("when", ["proved", "timed"])
def test_a_lost_worker_costs_its_config_and_no_other(
    stopwatch: ContainedStopwatch, how: str, status: Status, said: str, when: str
) -> None:
    before = pid(stopwatch.time(attempt("work"), PROBLEM))
    bad = attempt(f"{how} when {when}")
    proved = stopwatch.prove(bad)
    failure = proved.failure if when == "proved" else stopwatch.time(proved, PROBLEM)
    where = "None" if when == "proved" else str(PROBLEM)
    assert failure == Failure(status, f"{said}; quarantined, reproduce: bench {how} when {when} on {where}", True)
    after = pid(stopwatch.time(attempt("work"), PROBLEM))
    assert after != before
    assert stopwatch.worker.usage.workers_lost == (2 if how == "die" else 1), "what kill -9 ended gets another chance"


def test_a_quarantined_config_is_not_run_again(stopwatch: ContainedStopwatch) -> None:
    bad = attempt("die when timed")
    failure = stopwatch.time(bad, PROBLEM)
    assert stopwatch.time(bad, Problem(1, 8, 8)) == failure
    assert stopwatch.prove(bad).failure == failure
    assert stopwatch.confirm([bad], PROBLEM).finalists == (failure,)
    assert stopwatch.worker.usage.workers_lost == 2, "it died of it twice"


def test_a_kill_from_outside_is_no_configs_fault(stopwatch: ContainedStopwatch, tmp_path: Path) -> None:
    once = Attempt(Config({"does": "die once", "at": str(tmp_path / "met")}), object_sha256="0" * 64)
    assert pid(stopwatch.time(once, PROBLEM))
    assert not stopwatch.quarantine
    assert stopwatch.worker.usage.workers_lost == 1


def test_what_no_config_is_to_blame_for_is_raised_as_it_is(stopwatch: ContainedStopwatch) -> None:
    with pytest.raises(MachineError, match=r"^GPU 0 has no memory left$"):
        stopwatch.time(attempt("lack memory when timed"), PROBLEM)
    assert not stopwatch.quarantine
    assert pid(stopwatch.time(attempt("work"), PROBLEM))


def test_what_one_gpu_quarantines_no_other_runs(stopwatch: ContainedStopwatch) -> None:
    with_another = ContainedStopwatch(GpuWorker(make_serve), stopwatch.reproduce, stopwatch.quarantine)
    bad = attempt("die when timed")
    failure = stopwatch.time(bad, PROBLEM)
    assert with_another.time(bad, PROBLEM) == failure
    assert with_another.worker.usage.asked_s == 0, "its worker was never started"


def test_a_process_that_cannot_be_started_is_no_configs_fault() -> None:
    stopwatch = ContainedStopwatch(GpuWorker(cannot_serve, name="GPU 3"), lambda config, problem: "again")
    with pytest.raises(DeviceError, match=r"^no process can use GPU 3 \(2 times: the worker died with exit code 7\)"):
        stopwatch.time(attempt("work"), PROBLEM)
    assert not stopwatch.quarantine
    assert stopwatch.worker.usage.workers_lost == 0


def test_a_process_that_says_why_it_cannot_serve_is_quoted() -> None:
    worker = GpuWorker(refuses_to_serve, name="GPU 3")
    with pytest.raises(DeviceError, match=r"^no process can use GPU 3 \(2 times: fell off the bus\)"):
        worker.ask(Prove(attempt("work")))


def test_an_interrupt_ends_what_is_waited_for_and_blames_nobody() -> None:
    worker = GpuWorker(make_serve)
    stopwatch = ContainedStopwatch(worker, lambda config, problem: "again")
    assert pid(stopwatch.time(attempt("work"), PROBLEM))
    threading.Timer(0.3, worker.interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        stopwatch.time(attempt("hang when timed"), PROBLEM)
    with pytest.raises(KeyboardInterrupt):
        GpuExecutor(InstantExecutor(capacity=2), stopwatch).collect(0.0)
    assert not stopwatch.quarantine
    assert worker.usage.workers_lost == 0
    worker.close()


def test_usage_is_summed_over_gpus() -> None:
    assert total_usage([]) is None
    assert total_usage([Usage(1.0, 2.0, 3), Usage(10.0, 20.0, 30)]) == Usage(11.0, 22.0, 33, gpus=2)


def test_what_was_measured_beside_a_culprit_is_measured_again(stopwatch: ContainedStopwatch) -> None:
    culprit = attempt("die when confirmed")
    first, second, third = stopwatch.confirm([attempt("work"), culprit, attempt("more work")], PROBLEM).finalists
    assert isinstance(second, Failure)
    assert "quarantined, reproduce: bench die when confirmed" in second.detail
    assert pid(first) == pid(third), "in the same rounds"
    assert list(stopwatch.quarantine) == [culprit.candidate]


def test_a_rival_that_costs_the_worker_is_nobodys_fault(stopwatch: ContainedStopwatch) -> None:
    """Its side is left out, and the finalists are measured without it."""
    rival = ("AITER: kernel=x", attempt("die when confirmed"))
    first, second = stopwatch.confirm([attempt("work"), attempt("more work")], PROBLEM, [rival]).finalists
    assert pid(first) == pid(second), "in the same rounds"
    assert not stopwatch.quarantine


def test_a_failed_compile_is_not_proved(stopwatch: ContainedStopwatch) -> None:
    failed = Attempt(Config({"does": "die when proved"}), Failure(Status.COMPILE_ERROR, "no"))
    assert stopwatch.prove(failed) is failed
    assert stopwatch.worker.usage.asked_s == 0


def test_usage_survives_a_worker(stopwatch: ContainedStopwatch) -> None:
    stopwatch.time(attempt("work"), PROBLEM)
    stopwatch.time(attempt("fault when timed"), PROBLEM)
    stopwatch.time(attempt("work"), PROBLEM)
    assert stopwatch.worker.usage.busy_s == 2.0, "a second of each process"


def test_the_executor_proves_what_was_compiled(stopwatch: ContainedStopwatch) -> None:
    compiling = InstantExecutor(capacity=2)
    executor = GpuExecutor(compiling, stopwatch)
    for does in ("work", "die when proved"):
        executor.submit(Candidate(Config({"does": does})))
    assert executor.pending == 2
    outcomes = {done.config["does"]: done.failure for done in executor.collect(1.0)}
    assert outcomes["work"] is None
    assert outcomes["die when proved"] is not None
    executor.close()
    assert compiling.closed
