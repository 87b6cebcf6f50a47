from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from hktune.compile.process import STEERING, run_to_end
from hktune.core.errors import ToolchainError


def runs(pid: int) -> bool:
    """Whether `pid` still executes; a zombie that nobody has collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_a_program_runs_in_its_folder_and_reports_how_it_ended(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ['TMPDIR']); sys.stderr.write('oh'); sys.exit(3)"
    finished = run_to_end([sys.executable, "-c", code], tmp_path, 60)
    assert finished is not None
    assert (finished.status, finished.stdout.split(), finished.stderr) == (3, [str(tmp_path)] * 2, "oh")


def test_past_its_time_a_program_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, pathlib, time\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "pathlib.Path('pid.part').write_text(str(child.pid))\n"
        "pathlib.Path('pid.part').rename('pid')\n"
        "time.sleep(600)\n"
    )
    assert run_to_end([sys.executable, "-c", code], tmp_path, 2.0) is None
    grandchild = int((tmp_path / "pid").read_text())
    patience = time.monotonic() + 30
    while runs(grandchild) and time.monotonic() < patience:
        time.sleep(0.02)
    assert not runs(grandchild)


def test_variables_that_steer_a_compiler_do_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in STEERING:
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("UNRELATED", "kept")
    finished = run_to_end([sys.executable, "-c", "import os; print(*os.environ)"], tmp_path, 60)
    assert finished is not None
    seen = set(finished.stdout.split())
    assert not seen & STEERING
    assert {"UNRELATED", "PATH"} <= seen <= set(os.environ) | {"TMPDIR", "LC_ALL", "LC_CTYPE", "HKTUNE_OWNER"}


def test_a_program_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"cannot run /no/such/clang \(No such file or directory\)"):
        run_to_end(["/no/such/clang"], tmp_path, 60)
