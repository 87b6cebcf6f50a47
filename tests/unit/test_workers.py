"""Workers that die or hang cost their own config and nothing else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from hktune.measure.stopwatch import Attempt
from hktune.model import Config, Failure, Status
from hktune.workers import LocalExecutor, Prove


def behave(config: Config) -> Attempt:
    if config["does"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if config["does"] == "hang":
        time.sleep(3600)
    return Attempt(config, object_sha256=str(os.getpid()))


def make_prove() -> Prove:
    return behave


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor(make_prove, workers=2, deadline_s=20.0)
    yield executor
    executor.close()


def drain(executor: LocalExecutor) -> list[Attempt]:
    attempts: list[Attempt] = []
    while executor.pending:
        attempts += executor.collect(timeout_s=30.0)
    return attempts


def test_results_come_back_for_the_configs_that_were_submitted(executor: LocalExecutor) -> None:
    configs = [Config({"does": "work", "n": n}) for n in range(2)]
    for config in configs:
        executor.submit(config)
    assert {attempt.config for attempt in drain(executor)} == set(configs)


def test_a_dead_worker_is_a_crash_of_its_config_only(executor: LocalExecutor) -> None:
    executor.submit(Config({"does": "die"}))
    executor.submit(Config({"does": "work"}))
    outcomes = {attempt.config["does"]: attempt.failure for attempt in drain(executor)}
    assert outcomes["work"] is None
    assert outcomes["die"] == Failure(Status.CRASHED, "the worker died with exit code -9")
    executor.submit(Config({"does": "work", "n": 2}))
    assert drain(executor)[0].failure is None


def test_a_hung_worker_is_a_timeout_and_is_replaced() -> None:
    executor = LocalExecutor(make_prove, workers=1, deadline_s=3.0)
    try:
        executor.submit(Config({"does": "work"}))
        first = drain(executor)[0]
        executor.submit(Config({"does": "hang"}))
        hung = drain(executor)[0]
        assert hung.failure is not None
        assert hung.failure.status is Status.TIMEOUT
        executor.submit(Config({"does": "work"}))
        second = drain(executor)[0]
        assert second.object_sha256 != first.object_sha256
    finally:
        executor.close()


def test_closing_leaves_no_process_behind() -> None:
    executor = LocalExecutor(make_prove, workers=1, deadline_s=20.0)
    executor.submit(Config({"does": "work"}))
    pid = int(drain(executor)[0].object_sha256 or 0)
    executor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
