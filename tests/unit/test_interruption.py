"""Being asked to end, once and twice: in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys, time
from hktune.core.interruption import SAME_REQUEST_S, Interruption

def receive(number):
    os.kill(os.getpid(), number)
    time.sleep(0.05)

first, second, between_s, deferred = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "deferred"
interruption = Interruption()
with interruption.heard():
    try:
        if deferred:
            interruption.defer()
        receive(first)
        print("went on", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(interruption.requested, flush=True)
    if second:
        time.sleep(between_s * SAME_REQUEST_S)
        receive(second)
        print("survived", flush=True)
"""


def run(first: int, second: int = 0, between: float = 0.0, deferred: bool = False, shell: str = "") -> tuple[int, str]:
    """The exit code, and what was printed."""
    words = [str(first), str(second), str(between), "deferred" if deferred else "at once"]
    command = ["sh", "-c", f'{shell} exec "$@"', "sh", sys.executable, "-c", SCRIPT, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, " ".join(done.stdout.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_all_are_heard_alike(number: signal.Signals) -> None:
    assert run(number) == (0, "interrupted True")
    assert run(number, deferred=True) == (0, "went on True")


@pytest.mark.parametrize("deferred", [False, True])
def test_a_second_one_at_once_is_the_same_request_and_a_later_one_ends_the_process(deferred: bool) -> None:
    said = "went on True" if deferred else "interrupted True"
    assert run(signal.SIGTERM, signal.SIGHUP, 0.0, deferred) == (0, f"{said} survived")
    assert run(signal.SIGTERM, signal.SIGINT, 1.2, deferred) == (-signal.SIGINT, said)


def test_a_shell_that_makes_its_jobs_deaf_to_ctrl_c_does_not_count_and_nohup_does() -> None:
    assert run(signal.SIGINT, shell="trap '' INT;") == (0, "interrupted True")
    assert run(signal.SIGHUP, shell="trap '' HUP;") == (0, "went on False")
