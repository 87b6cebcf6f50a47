"""A recording is written now and then: a program that is killed has its calls. A child that it forked writes none."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hktune
from hktune.core.shapes import load_shapes
from hktune.runtime import now_and_then, token_counts

X, WEIGHT = torch.ones(4, 64).bfloat16(), torch.ones(32, 64).bfloat16()
ROWS, MATRICES = torch.ones(24, 32).bfloat16(), torch.ones(4, 32, 64).bfloat16()
OFFS = torch.tensor([5, 5, 20, 24], dtype=torch.int32)
LINEAR = "4x32x64 bf16.nt"

BEGIN = """
import os, signal, sys, torch, hktune
from hktune.runtime import now_and_then
now_and_then.EVERY_S = float(sys.argv[2])
x, weight = torch.ones(4, 64).bfloat16(), torch.ones(32, 64).bfloat16()
recording = hktune.record(sys.argv[1])
recording.__enter__()
for _ in range(3):
    torch.nn.functional.linear(x, weight)
"""


def weights(path: Path) -> dict[str, int]:
    return {str(shape.problem): shape.weight for shape in load_shapes(path)}


def until_there(path: Path) -> None:
    for _ in range(6000):  # a minute; in practice some milliseconds
        if path.exists():
            return
        time.sleep(0.01)
    pytest.fail(f"{path} was never written")


def run(text: str, path: Path, every_s: float) -> int:
    return subprocess.run([sys.executable, "-c", BEGIN + text, str(path), str(every_s)], check=False).returncode


def test_a_program_that_is_killed_has_its_calls(tmp_path: Path) -> None:
    path = tmp_path / "shapes.yaml"
    wait = "while not os.path.exists(sys.argv[1]): pass\nos.kill(os.getpid(), signal.SIGKILL)"
    assert run(wait, path, 0.05) == -signal.SIGKILL
    assert weights(path) == {LINEAR: 3}
    assert [each.name for each in tmp_path.iterdir()] == ["shapes.yaml"], "nothing else is left"


@pytest.mark.parametrize("ends", ["", "raise KeyboardInterrupt"])
def test_so_has_one_that_ends_within_its_recording(tmp_path: Path, ends: str) -> None:
    path = tmp_path / "shapes.yaml"
    run(ends, path, 3600)
    assert weights(path) == {LINEAR: 3}


def test_a_child_that_was_forked_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "shapes.yaml"
    child = """
if os.fork() == 0:
    recording._kept._calls.clear()  # as if it had called something else
    torch.nn.functional.linear(weight, weight)
    sys.exit()
os.wait()
assert not os.path.exists(sys.argv[1])
"""
    assert run(child, path, 3600) == 0
    assert weights(path) == {LINEAR: 3}


def test_what_came_before_an_error_is_kept_and_the_error_is_what_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "shapes.yaml"
    with pytest.raises(ZeroDivisionError):
        recorded_until_an_error(path)
    assert weights(path) == {LINEAR: 1}
    path.unlink()
    with pytest.raises(ZeroDivisionError):
        recorded_until_an_error(path, path.mkdir)  # nothing can take its place


def recorded_until_an_error(path: Path, before: Callable[[], None] = lambda: None) -> None:
    with hktune.record(path):
        torch.nn.functional.linear(X, WEIGHT)
        before()
        1 / 0  # noqa: B018


def test_it_grows_with_what_is_called_and_ends_with_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(now_and_then, "EVERY_S", 0.02)
    monkeypatch.setattr(token_counts, "monotonic", iter(range(0, 10**6, 100)).__next__)
    path, before = tmp_path / "shapes.yaml", threading.active_count()
    with hktune.record(path):
        assert threading.active_count() == before + 1
        torch._grouped_mm(ROWS, MATRICES, offs=OFFS)
        until_there(path)
        [shape] = load_shapes(path)
        assert (str(shape.problem), shape.weight) == ("24x64x32 grouped4.bf16.nn", 1)
        assert shape.tokens == ((0, 1), (4, 1), (5, 1), (15, 1)), "ends are 5, 5, 20, 24"
        path.unlink()
        torch.nn.functional.linear(X, WEIGHT)
        until_there(path)
        assert weights(path) == {"24x64x32 grouped4.bf16.nn": 1, LINEAR: 1}
    assert threading.active_count() == before
    assert weights(path) == {"24x64x32 grouped4.bf16.nn": 1, LINEAR: 1}


def test_a_recording_may_go_on_in_another_block(tmp_path: Path) -> None:
    path, before = tmp_path / "shapes.yaml", threading.active_count()
    recording = hktune.record(path)
    for calls in (1, 2):
        with recording:
            torch.nn.functional.linear(X, WEIGHT)
        assert weights(path) == {LINEAR: calls}
    assert threading.active_count() == before


def test_calls_are_counted_while_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one is in the file in the end, and no file is half of one."""
    monkeypatch.setattr(now_and_then, "EVERY_S", 0.0)
    path = tmp_path / "shapes.yaml"
    with hktune.record(path):
        for rows in range(1, 200):
            torch.nn.functional.linear(torch.ones(rows, 64).bfloat16(), WEIGHT)
            if path.exists():
                assert all(weight == 1 for weight in weights(path).values())
    assert weights(path) == {f"{rows}x32x64 bf16.nt": 1 for rows in range(1, 200)}
    assert [each.name for each in tmp_path.iterdir()] == ["shapes.yaml"]
