"""What a person can do about a file that the machine would not read or write."""

from __future__ import annotations

import errno
import os

_FULL = (errno.ENOSPC, errno.EDQUOT)
_OTHER_WAYS_OUT = {
    errno.ENOMEM: "free memory",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "end some of what runs on this machine",
}


def with_remedy(what: str, error: OSError, elsewhere: str) -> str:
    """The line that says `what` failed, with `error`, and the next step: `elsewhere` is how another place is chosen,
    "pass another DIR"."""
    way_out = f"free the disk, or {elsewhere}" if error.errno in _FULL else elsewhere
    return f"{what} ({error.strerror or error}): {_OTHER_WAYS_OUT.get(error.errno or 0, way_out)}"


def of_a_newer(what: str, rule: str, elsewhere: str) -> str:
    """The line that says that `what`, of a file, is not known here: `rule` says how it shows, `elsewhere` what can be
    done without a newer hktune."""
    return f"{what} is of a newer hktune, or edited: {rule}; upgrade, or {elsewhere}"


def disk_error_in(text: str) -> OSError | None:
    """The error that a program, asked to write, has met by what it printed: no room, or a place that is read-only."""
    for number in (*_FULL, errno.EROFS, errno.EACCES):
        if os.strerror(number) in text:
            return OSError(number, os.strerror(number))
    return None
