"""Where a process that is one command begins. Importing the commands takes a while; the signals that ask to end are
heard before that."""

from __future__ import annotations

import sys

from hktune.core.interruption import end_when_asked


def main(*first: str) -> int:
    """Run the command that this process was started for, whose words begin with `first`; returns its exit code. From
    then on the signals are ignored: what is left to do is to end."""
    end_when_asked()
    from hktune.cli import run_last

    return run_last([*first, *sys.argv[1:]])
