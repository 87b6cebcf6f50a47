"""Deadlines count only what a process has run: by a simulated clock, and by real processes that are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hktune.core.attended import GAP_S, AttendedClock
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.outcome import Status
from hktune.measure.stopwatch import Attempt
from hktune.workers.executor import LocalExecutor, Prove

HERE = Path(__file__).parent
STOPPED_S = 4.5

A_COMPILER = """
import sys
from pathlib import Path
from hktune.compile.process import run_to_end
child = "import pathlib, time; pathlib.Path('began').touch(); time.sleep(1.5); print('built')"
print(run_to_end([sys.executable, "-c", child], Path(sys.argv[1]), 3.0))
"""

A_WORKER = """
import sys
from pathlib import Path
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.outcome import Status
from hktune.measure.stopwatch import Attempt
from hktune.workers.executor import LocalExecutor, Prove
from test_attended import make_slow_prove
if __name__ == "__main__":
    executor = LocalExecutor(make_slow_prove, 1, deadline_s=3.0)
    executor.submit(Candidate(Config({"at": sys.argv[1] + "/began"})))
    while not (found := executor.collect(0.2)):
        pass
    print(found[0].failure)
    executor.close()
"""


def make_slow_prove() -> Prove:
    return slow_prove


def slow_prove(candidate: Candidate) -> Attempt:
    config = candidate.config
    Path(str(config["at"])).touch()
    time.sleep(1.5)
    return Attempt(config)


def test_what_passes_between_two_looks_far_apart_is_not_counted() -> None:
    at_s = [100.0]
    clock = AttendedClock(lambda: at_s[0])
    began_s = clock.now_s()
    for step_s in (0.25, GAP_S, 3600.0, 0.25, GAP_S + 0.5, 0.5):
        at_s[0] += step_s
        clock.now_s()
    assert clock.now_s() - began_s == pytest.approx(0.25 + GAP_S + 0.25 + 0.5)


@pytest.mark.parametrize(("script", "said"), [(A_COMPILER, "built"), (A_WORKER, "None")], ids=["compiler", "worker"])
def test_a_process_that_was_stopped_blames_nobody(tmp_path: Path, script: str, said: str) -> None:
    """With a deadline of 3 s for what takes 1.5 s, and all of it stopped for longer than that."""
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parents[1]}"},
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "began").exists() and time.monotonic() < until:
            time.sleep(0.02)
        stopped = [process.pid, *started_by(process.pid)]
        assert len(stopped) > 1
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        printed, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert said in printed
    assert process.returncode == 0


def started_by(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_what_hangs_while_it_is_attended_is_still_overdue() -> None:
    executor = LocalExecutor(make_hang, 1, deadline_s=0.5)
    try:
        executor.submit(Candidate(Config({})))
        until = time.monotonic() + 60
        while not (found := executor.collect(0.2)) and time.monotonic() < until:
            continue
        assert found[0].failure
        assert found[0].failure.status is Status.TIMEOUT
    finally:
        executor.close()


def make_hang() -> Prove:
    return hang


def hang(candidate: Candidate) -> Attempt:
    time.sleep(3600)
    return Attempt(candidate.config)
