"""Runs a compiler as a child that can be stopped whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hktune.core.attended import LOOK_EACH_S, attended_s
from hktune.core.errors import MachineError, ToolchainError
from hktune.core.guard import mark
from hktune.core.remedy import with_remedy

# Variables by which a user's shell adds headers or flags to clang and hipcc behind the caller's back (clang's user
# manual; hipcc's documentation). An object must depend on what its identity names and on nothing else.
STEERING = frozenset(
    {
        "CPATH",
        "C_INCLUDE_PATH",
        "CPLUS_INCLUDE_PATH",
        "CCC_OVERRIDE_OPTIONS",
        "HIPCC_COMPILE_FLAGS_APPEND",
        "HIPCC_LINK_FLAGS_APPEND",
    }
)


# A process does not send itself these: someone else, or the kernel for want of memory (KILL) or disk (BUS), ended it.
_FROM_OUTSIDE = frozenset(
    {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT, -signal.SIGBUS, -signal.SIGXCPU, -signal.SIGXFSZ}
)


@dataclass(frozen=True)
class Finished:
    """How a child ended: its exit status (negative: killed by that signal) and what it printed."""

    status: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def disk_at_fault(folder: Path) -> Iterator[None]:
    """Turn what goes wrong with files in the block into MachineError: no source is to blame for it."""
    try:
        yield
    except OSError as error:
        raise MachineError(with_remedy(f"cannot compile in {folder}", error, "set TMPDIR")) from None


def run_to_end(argv: Sequence[str], cwd: Path, timeout_s: float) -> Finished | None:
    """Run `argv` in `cwd`, temporary files included; None when `timeout_s` passed, by `attended_s`, and its process
    group was killed.

    What was ended from outside is run once more. Raises MachineError when that was ended too, and ToolchainError when
    the program cannot be started.
    """
    until = attended_s() + timeout_s
    finished = _run_once(argv, cwd, until)
    if finished is not None and finished.status in _FROM_OUTSIDE:
        finished = _run_once(argv, cwd, until)
    if finished is not None and finished.status in _FROM_OUTSIDE:
        ended = f"{Path(argv[0]).name} was ended by signal {-finished.status}, twice"
        raise MachineError(f"{ended}: free memory and disk, or use fewer --workers")
    return finished


def _run_once(argv: Sequence[str], cwd: Path, until: float) -> Finished | None:
    environment = {name: value for name, value in os.environ.items() if name not in STEERING}
    environment |= {"TMPDIR": str(cwd), "LC_ALL": "C"} | mark()
    try:
        child = subprocess.Popen(
            argv,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise ToolchainError(f"cannot run {argv[0]} ({error.strerror}): run `hktune doctor`") from error
    with child:
        try:
            printed = _printed(child, until)
        except BaseException:
            _kill_group(child.pid)
            raise
        if printed is None:
            _kill_group(child.pid)
            return None
    return Finished(child.returncode, *printed)


def _printed(child: subprocess.Popen[str], until: float) -> tuple[str, str] | None:
    """What `child` wrote to its output and error until it ended; None when it has not ended by then."""
    while True:
        left_s = until - attended_s()
        try:
            return child.communicate(timeout=max(min(left_s, LOOK_EACH_S), 0.0))
        except subprocess.TimeoutExpired:
            if left_s <= 0:
                return None


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
