"""benchmarks/kills.py with few kills: what it finds with many is in benchmarks/README.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_nothing_and_leaves_nothing_running() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--kills", "10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 kills in " in done.stdout
    assert "\n0 rules broken\n" in done.stdout
