"""Signals at every moment of a process: before its commands are imported, while workers start, after its last line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hktune.core.interruption import SIGNALS
from hktune.workers.processes import start_worker

ROOT = Path(__file__).resolve().parents[2]

SIGNAL_AT_IMPORT = """
import os, signal, sys

class Signals:
    def find_spec(self, name, path=None, target=None):
        if name == "hktune.cli":
            os.kill(os.getpid(), int(os.environ["TEST_SIGNAL"]))

sys.meta_path.insert(0, Signals())
"""

SIGNAL_AT_EXIT = """
import atexit, os, signal, sys, time

def end():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
        time.sleep(0.02)

atexit.register(end)
"""

CONSOLE_SCRIPT = re.search(r'^hktune = "(.+):(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
assert CONSOLE_SCRIPT
STARTS = {
    "module": ["-m", "hktune"],
    "tune.py": [str(ROOT / "tune.py")],
    "script": ["-c", "import sys; from {} import {} as main; sys.exit(main())".format(*CONSOLE_SCRIPT.groups())],
}


def run(tmp_path: Path, code: str, words: list[str], **environment: str) -> tuple[int, str, str]:
    """What a Python with `words` came to in which `code` ran first."""
    (tmp_path / "sitecustomize.py").write_text(code, encoding="utf-8")
    places = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | places | environment)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("number", SIGNALS)
def test_before_the_commands_are_imported_it_is_one_line(tmp_path: Path, start: str, number: signal.Signals) -> None:
    words = [*STARTS[start], "--version"]
    assert run(tmp_path, SIGNAL_AT_IMPORT, words, TEST_SIGNAL=str(int(number))) == (130, "", "hktune: interrupted\n")


@pytest.mark.parametrize("start", STARTS)
def test_after_the_last_line_the_exit_code_stands(tmp_path: Path, start: str) -> None:
    code, printed, complained = run(tmp_path, SIGNAL_AT_EXIT, [*STARTS[start], "--help"])
    assert (code, complained) == (0, "")
    assert printed.startswith("usage: hktune ")
    code, printed, complained = run(tmp_path, SIGNAL_AT_EXIT, [*STARTS[start], "--nonsense"])
    assert (code, printed, complained.count("\n")) == (2, "", 1)


def test_a_command_within_a_process_leaves_its_signals_as_they_were() -> None:
    from hktune.cli import main

    before = [signal.getsignal(number) for number in SIGNALS]
    assert main(["--version"]) == 0
    assert [signal.getsignal(number) for number in SIGNALS] == before


def make_masks() -> Callable[[str], list[int]]:
    return masks


def masks(question: str) -> list[int]:
    """The signals that a child of this process holds back, as a number of bits, and how many this process does."""
    command = ["grep", "SigBlk", "/proc/self/status"]
    child = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]
    return [int(child, 16), len(signal.pthread_sigmask(signal.SIG_BLOCK, ()))]


def test_a_worker_that_starts_is_deaf_to_the_terminal_and_its_compilers_hold_nothing_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The signals come at every moment of its start, the first ones before its program is loaded."""
    worker = start_worker(make_masks)
    try:
        until = time.monotonic() + 60
        while not worker.heard() and not worker.ready and time.monotonic() < until:
            for number in SIGNALS:
                os.kill(worker.pid, number)
            time.sleep(0.002)
        worker.send("which?")
        assert worker.heard(60)
        assert worker.receive() == [0, 0]
    finally:
        worker.stop()
    assert capfd.readouterr() == ("", "")
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
