"""The contract of `Executor`, run on every implementation and on the fakes of other tests."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import InstantExecutor, LastFirstExecutor

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.errors import MachineError
from hktune.core.outcome import Failure, Status
from hktune.measure.stopwatch import Attempt
from hktune.workers.executor import Executor, Limits, LocalExecutor
from hktune.workers.executor import Prove as ProveFunction
from hktune.workers.gpu_worker import Answer, ContainedStopwatch, GpuExecutor, GpuWorker, Prove, Request, Serve

CAPACITY = 2
DEADLINE_S = 4.0
PATIENCE_S = 60.0
WRONG = Failure(Status.WRONG, "1 of 4 elements")


def work(number: int = 0) -> Candidate:
    return Candidate(Config({"does": "work", "number": number}))


def failing(config: Config) -> Failure | None:
    """What all implementations make of a config that cannot be proved."""
    return WRONG if config["does"] == "fail" else None


def behave(candidate: Candidate, where: str) -> Attempt:
    """What a worker does that is asked to do `config["does"]`, if that is to be done `where` it works."""
    config = candidate.config
    if config.get("where", where) == where:
        if config["does"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if config["does"] == "hang":
            time.sleep(3600)
        if config["does"] == "lack memory":
            raise MachineError("no memory left")
        if config["does"] == "announce and hang":
            Path(str(config["at"])).write_text(str(os.getpid()))
            time.sleep(3600)
    return Attempt(config, failing(config), "0" * 64, operation=candidate.operation)


def compile_in_worker(candidate: Candidate) -> Attempt:
    return behave(candidate, "compiling")


def make_compile() -> ProveFunction:
    return compile_in_worker


def serve(request: Request | None) -> Answer:
    return Answer(behave(request.attempt.candidate, "proving") if isinstance(request, Prove) else None)


def make_serve() -> Serve:
    return serve


def drained(executor: Executor) -> list[Attempt]:
    attempts: list[Attempt] = []
    until = time.monotonic() + PATIENCE_S
    while executor.pending and time.monotonic() < until:
        attempts += executor.collect(timeout_s=1.0)
    return attempts


class ExecutorContract:
    """Subclasses give the fixture `opened`, with a capacity of two."""

    @pytest.fixture
    def executor(self, opened: Executor) -> Iterator[Executor]:
        yield opened
        opened.close()

    def test_nothing_is_in_hand_before_something_is_submitted(self, executor: Executor) -> None:
        assert executor.capacity == CAPACITY
        assert executor.pending == 0
        started_s = time.monotonic()
        assert executor.collect(timeout_s=PATIENCE_S) == []
        assert time.monotonic() - started_s < PATIENCE_S, "nothing is pending, so there is nothing to wait for"

    def test_every_config_comes_back_once(self, executor: Executor) -> None:
        configs = [work(number) for number in range(5)]
        waiting, back = list(configs), list[Attempt]()
        until = time.monotonic() + PATIENCE_S
        while (waiting or executor.pending) and time.monotonic() < until:
            while waiting and executor.pending < executor.capacity:
                before = executor.pending
                executor.submit(waiting.pop())
                assert executor.pending == before + 1
            before = executor.pending
            found = executor.collect(timeout_s=1.0)
            assert executor.pending == before - len(found)
            back += found
        assert sorted(attempt.config["number"] for attempt in back) == list(range(5))
        assert all(attempt.failure is None and attempt.object_sha256 for attempt in back)
        assert configs == [work(number) for number in range(5)], "configs are not changed"
        assert executor.capacity == CAPACITY

    def test_a_failure_is_its_configs_own(self, executor: Executor) -> None:
        executor.submit(Candidate(Config({"does": "fail"})))
        executor.submit(work())
        found = {attempt.config["does"]: attempt.failure for attempt in drained(executor)}
        assert found == {"fail": WRONG, "work": None}

    def test_it_may_be_closed_twice_and_with_work_in_hand(self, opened: Executor) -> None:
        opened.submit(work())
        opened.close()
        opened.close()


def ended(pid: int, within_s: float) -> bool:
    """Whether a process is gone, or soon."""
    until = time.monotonic() + within_s
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.05)


class WorkerContract(ExecutorContract):
    """Of executors with processes; `where` names a place in which their workers can come to grief. Closing waits for
    the end of their workers, or asks for it: then they are gone `ends_within_s`."""

    ends_within_s = 0.0

    def test_a_config_whose_workers_die_costs_no_other(self, executor: Executor, where: str) -> None:
        executor.submit(Candidate(Config({"does": "die", "where": where})))
        executor.submit(work())
        found = {attempt.config["does"]: attempt.failure for attempt in drained(executor)}
        assert found["work"] is None
        assert found["die"] is not None
        assert found["die"].status is Status.CRASHED
        executor.submit(work(2))
        assert [attempt.failure for attempt in drained(executor)] == [None], "it goes on"

    def test_a_config_past_its_deadline_costs_no_other(self, executor: Executor, where: str) -> None:
        executor.submit(Candidate(Config({"does": "hang", "where": where})))
        executor.submit(work())
        found = {attempt.config["does"]: attempt.failure for attempt in drained(executor)}
        assert found["work"] is None
        assert found["hang"] is not None
        assert found["hang"].status is Status.TIMEOUT

    def test_what_no_config_is_to_blame_for_is_raised(self, executor: Executor, where: str) -> None:
        executor.submit(Candidate(Config({"does": "lack memory", "where": where})))
        with pytest.raises(MachineError, match=r"^no memory left$"):
            drained(executor)

    def test_closing_ends_what_hangs(self, opened: Executor, tmp_path: Path) -> None:
        at = tmp_path / "pid"
        opened.submit(Candidate(Config({"does": "announce and hang", "where": "compiling", "at": str(at)})))
        until = time.monotonic() + PATIENCE_S
        while not (at.exists() and at.read_text()) and time.monotonic() < until:
            assert opened.collect(timeout_s=0.05) == [], "the time is up, and nothing has finished"
        opened.close()
        assert ended(int(at.read_text()), self.ends_within_s)


class TestLocalExecutor(WorkerContract):
    @pytest.fixture
    def where(self) -> str:
        return "compiling"

    @pytest.fixture
    def opened(self) -> Executor:
        return LocalExecutor(make_compile, CAPACITY, DEADLINE_S)


class TestGpuExecutor(WorkerContract):
    """Over real processes, one of which stands in for the one that owns a GPU."""

    @pytest.fixture(params=["compiling", "proving"])
    def where(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def opened(self) -> Executor:
        worker = GpuWorker(make_serve, deadline_s=DEADLINE_S)
        compiling = LocalExecutor(make_compile, CAPACITY, DEADLINE_S)
        return GpuExecutor(compiling, ContainedStopwatch(worker, lambda config, problem: "hktune bench"))


@pytest.fixture(scope="module")
def connected_to_ray() -> Iterator[None]:
    """This process, to a cluster of two nodes on this machine with a CPU each."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'hktune[ray]'")
    from local_ray import add_nodes, local_cluster

    with local_cluster() as cluster:
        add_nodes(cluster, 2, num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield
        ray.shutdown()


@pytest.mark.usefixtures("connected_to_ray")
class TestRayExecutor(WorkerContract):
    """Over a real cluster."""

    ends_within_s = 10.0

    @pytest.fixture
    def where(self) -> str:
        return "compiling"

    @pytest.fixture
    def opened(self) -> Executor:
        from hktune.workers.ray_executor import RayExecutor

        return RayExecutor(make_compile, CAPACITY, DEADLINE_S, Limits())


class TestInstantExecutor(ExecutorContract):
    @pytest.fixture
    def opened(self) -> Executor:
        return InstantExecutor(CAPACITY, failing)


class TestLastFirstExecutor(ExecutorContract):
    @pytest.fixture
    def opened(self) -> Executor:
        return LastFirstExecutor(CAPACITY, failing)
