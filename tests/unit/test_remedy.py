from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from hktune.compile import hipkittens
from hktune.core.errors import ToolchainError
from hktune.core.remedy import disk_error_in, with_remedy


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "free the disk, or pass another DIR"),
        (errno.EDQUOT, "free the disk, or pass another DIR"),
        (errno.EROFS, "pass another DIR"),
        (errno.EACCES, "pass another DIR"),
        (errno.ENOENT, "pass another DIR"),
        (errno.ENOMEM, "free memory"),
        (errno.EMFILE, "raise the limit of open files (ulimit -n)"),
    ],
)
def test_the_next_step_is_of_the_error(number: int, way_out: str) -> None:
    said = with_remedy("out: cannot be written", OSError(number, os.strerror(number)), "pass another DIR")
    assert said == f"out: cannot be written ({os.strerror(number)}): {way_out}"


def test_an_error_without_a_number_has_the_other_place() -> None:
    assert with_remedy("it failed", OSError("why"), "set TMPDIR") == "it failed (why): set TMPDIR"
    assert disk_error_in("ERROR: Could not find a version that satisfies the requirement") is None


@pytest.mark.parametrize(
    ("number", "way_out"),
    [(errno.ENOSPC, "free the disk, or set HKTUNE_CACHE"), (errno.EROFS, "set HKTUNE_CACHE")],
)
def test_pip_that_has_no_room_is_not_the_networks_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, way_out: str
) -> None:
    said = f"ERROR: Could not install packages due to an OSError: [Errno {number}] {os.strerror(number)}\n"
    monkeypatch.setattr(
        hipkittens.subprocess, "run", lambda argv, **how: subprocess.CompletedProcess(argv, 1, "", said)
    )
    with pytest.raises(ToolchainError) as refused:
        hipkittens.fetch_hipkittens(tmp_path)
    assert str(refused.value).endswith(f"({os.strerror(number)}): {way_out}")
    assert "network" not in str(refused.value)
