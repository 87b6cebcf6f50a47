"""Workers that die or hang cost their own config and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.errors import MachineError, ToolchainError
from hktune.core.outcome import Failure, Status
from hktune.measure.stopwatch import Attempt
from hktune.workers import executor as workers_module
from hktune.workers.executor import Limits, LocalExecutor, Prove


def behave(candidate: Candidate) -> Attempt:
    config = candidate.config
    if config["does"] == "die once" and not Path(str(config["at"])).exists():
        Path(str(config["at"])).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if config["does"] == "lack a header":
        raise ToolchainError("no kittens.cuh: run `hktune doctor`")
    if config["does"] == "fill the disk":
        raise OSError(28, "No space left on device", "/cache/x")
    if config["does"] == "meet a defect":
        raise IndexError("tuple index out of range")
    if config["does"] == "allocate without end":
        return taken([bytearray(1 << 24)], config)
    if config["does"] == "leave a child":
        return Attempt(config, object_sha256=str(subprocess.Popen(["sleep", "600"]).pid))
    if config["does"] == "leave a child and die":
        Path(str(config["at"])).write_text(str(subprocess.Popen(["sleep", "600"], start_new_session=True).pid))
        os.kill(os.getpid(), signal.SIGKILL)
    if config["does"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if config["does"] == "hang":
        time.sleep(3600)
    return Attempt(config, object_sha256=str(os.getpid()))


def taken(memory: list[bytearray], config: Config) -> Attempt:
    while True:
        memory.append(bytearray(1 << 24))


def make_prove() -> Prove:
    return behave


def cannot_begin() -> Prove:
    os._exit(9)


def lacks_a_compiler() -> Prove:
    raise ToolchainError("no compiler for gfx950")


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
        executor.submit(Candidate(config))
    assert {attempt.config for attempt in drain(executor)} == set(configs)


def test_a_dead_worker_is_a_crash_of_its_config_only(executor: LocalExecutor) -> None:
    executor.submit(Candidate(Config({"does": "die"})))
    executor.submit(Candidate(Config({"does": "work"})))
    outcomes = {attempt.config["does"]: attempt.failure for attempt in drain(executor)}
    assert outcomes["work"] is None
    assert outcomes["die"] == Failure(Status.CRASHED, "the worker died with exit code -9, and so did the next one")
    executor.submit(Candidate(Config({"does": "work", "n": 2})))
    assert drain(executor)[0].failure is None


def test_a_hung_worker_is_a_timeout_and_is_replaced() -> None:
    executor = LocalExecutor(make_prove, workers=1, deadline_s=3.0)
    try:
        executor.submit(Candidate(Config({"does": "work"})))
        first = drain(executor)[0]
        executor.submit(Candidate(Config({"does": "hang"})))
        hung = drain(executor)[0]
        assert hung.failure is not None
        assert hung.failure.status is Status.TIMEOUT
        executor.submit(Candidate(Config({"does": "work"})))
        second = drain(executor)[0]
        assert second.object_sha256 != first.object_sha256
    finally:
        executor.close()


def test_closing_leaves_no_process_behind() -> None:
    executor = LocalExecutor(make_prove, workers=1, deadline_s=20.0)
    executor.submit(Candidate(Config({"does": "work"})))
    pid = int(drain(executor)[0].object_sha256 or 0)
    executor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def pid_of(executor: LocalExecutor) -> int:
    executor.submit(Candidate(Config({"does": "work"})))
    return int(drain(executor)[0].object_sha256 or 0)


def test_an_idle_worker_that_was_killed_is_replaced(executor: LocalExecutor) -> None:
    killed = {pid_of(executor) for _ in range(2)}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    configs = [Config({"does": "work", "n": n}) for n in range(2)]
    for config in configs:
        executor.submit(Candidate(config))
    attempts = drain(executor)
    assert {attempt.config for attempt in attempts} == set(configs)
    assert all(attempt.failure is None for attempt in attempts)
    assert not killed & {int(attempt.object_sha256 or 0) for attempt in attempts}


def test_a_kill_from_outside_is_no_configs_fault(executor: LocalExecutor, tmp_path: Path) -> None:
    executor.submit(Candidate(Config({"does": "die once", "at": str(tmp_path / "met")})))
    assert [attempt.failure for attempt in drain(executor)] == [None]


@pytest.mark.parametrize(
    ("does", "error", "said"),
    [
        ("lack a header", ToolchainError, r"^no kittens.cuh: run `hktune doctor`$"),
        ("fill the disk", MachineError, r"^a worker could not go on \(/cache/x: No space left on device\)"),
    ],
)
def test_what_a_worker_raises_on_purpose_is_raised_here(
    executor: LocalExecutor, does: str, error: type[Exception], said: str
) -> None:
    executor.submit(Candidate(Config({"does": does})))
    with pytest.raises(error, match=said):
        drain(executor)


def test_a_defect_costs_its_config_and_not_the_worker() -> None:
    executor = LocalExecutor(make_prove, workers=1, deadline_s=20.0)
    before = pid_of(executor)
    executor.submit(Candidate(Config({"does": "meet a defect"})))
    [attempt] = drain(executor)
    assert attempt.failure == Failure(Status.CRASHED, "in the worker: IndexError: tuple index out of range")
    assert pid_of(executor) == before
    executor.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (cannot_begin, r"^3 workers in a row died before they had begun \(exit code 9\): see what they printed"),
        (lacks_a_compiler, r"^no compiler for gfx950$"),
    ],
)
def test_workers_that_cannot_begin_are_not_started_without_end(make: Callable[[], Prove], said: str) -> None:
    executor = LocalExecutor(make, workers=1, deadline_s=20.0)
    executor.submit(Candidate(Config({"does": "work"})))
    with pytest.raises(MachineError, match=said):
        drain(executor)
    executor.close()


def test_memory_without_end_is_a_limit_reached() -> None:
    executor = LocalExecutor(make_prove, workers=1, deadline_s=60.0, memory_bytes=1 << 30)
    executor.submit(Candidate(Config({"does": "allocate without end"})))
    with pytest.raises(MachineError, match="a worker ran out of memory"):
        drain(executor)
    assert pid_of(executor)
    executor.close()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def gone(pid: int) -> bool:
    """Whether the process ends within seconds."""
    until = time.monotonic() + 20
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.1)
    return not runs(pid)


def test_what_a_worker_started_ends_with_it(executor: LocalExecutor, tmp_path: Path) -> None:
    executor.submit(Candidate(Config({"does": "leave a child and die", "at": str(tmp_path / "pid")})))
    drain(executor)
    assert gone(int((tmp_path / "pid").read_text()))


ORPHANED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_workers import make_prove, drain
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.workers.executor import LocalExecutor
if __name__ == "__main__":
    executor = LocalExecutor(make_prove, workers=2, deadline_s=60.0)
    executor.submit(Candidate(Config({"does": "leave a child"})))
    [child] = drain(executor)
    executor.submit(Candidate(Config({"does": "work"})))
    [worker] = drain(executor)
    executor.submit(Candidate(Config({"does": "hang"})))
    print(child.object_sha256, worker.object_sha256, flush=True)
    os.killpg(0, signal.SIGKILL)
"""


def test_kill_of_the_whole_group_leaves_nothing_running(tmp_path: Path) -> None:
    script = tmp_path / "orphaned.py"
    script.write_text(ORPHANED)
    command = [sys.executable, str(script), str(Path(__file__).parent)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, start_new_session=True, check=False)
    assert done.returncode == -signal.SIGKILL
    child, worker = map(int, done.stdout.split())
    assert gone(child)
    assert gone(worker)


@pytest.mark.parametrize(
    ("container", "workers", "gib"), [("max\n", 1, 4.0), (f"{2 << 30}\n", 1, 2.0), (f"{2 << 30}\n", 4, 0.5)]
)
def test_a_worker_has_its_share_of_the_container(
    container: str, workers: int, gib: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1 << 12, "SC_PHYS_PAGES": 1 << 24}.__getitem__)  # 64 GiB
    limit = tmp_path / "memory.max"
    limit.write_text(container)
    monkeypatch.setattr(workers_module, "_CONTAINER_LIMITS", (limit, tmp_path / "absent"))
    assert Limits().memory_of_each(workers) == gib * (1 << 30)
    assert Limits(memory_bytes=3 << 30).memory_of_each(workers) == 3 << 30
