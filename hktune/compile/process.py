"""Runs a compiler as a child that can be stopped whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hktune.errors import ToolchainError

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


@dataclass(frozen=True)
class Finished:
    """How a child ended: its exit status (negative: killed by that signal) and what it printed."""

    status: int
    stdout: str
    stderr: str


def run_to_end(argv: Sequence[str], cwd: Path, timeout_s: float) -> Finished | None:
    """Run `argv` in `cwd`, temporary files included; None when `timeout_s` passed and its process group was killed.

    Raises ToolchainError when the program cannot be started.
    """
    environment = {name: value for name, value in os.environ.items() if name not in STEERING}
    environment |= {"TMPDIR": str(cwd), "LC_ALL": "C"}
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
            stdout, stderr = child.communicate(timeout=max(timeout_s, 0.0))
        except subprocess.TimeoutExpired:
            _kill_group(child.pid)
            return None
        except BaseException:
            _kill_group(child.pid)
            raise
    return Finished(child.returncode, stdout, stderr)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
