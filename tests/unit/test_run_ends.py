"""However a run ends, its trials are kept, its table is written and nothing goes on running: by real processes and
signals, on the emulated device."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHAPES = "shapes:\n  - {name: square, m: 256, n: 256, k: 512}\n  - {name: wide, m: 128, n: 512, k: 256}\n"
PATIENCE_S = 120.0


class Run:
    """`hktune tune` of a few small shapes, in a session of its own; `before` is shell that becomes it."""

    def __init__(self, out: Path, *more: str, shell: str = "", **environment: str) -> None:
        self.out = out
        shapes = out.parent / "shapes.yaml"
        if not shapes.exists():
            shapes.write_text(SHAPES)
        words = ["--shapes", str(shapes), "--out", str(out), "--strategy", "random", "--workers", "2", *more]
        command = [sys.executable, str(ROOT / "tune.py"), *words]
        self.process = subprocess.Popen(
            ["sh", "-c", f'{shell} exec "$@"', "sh", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | environment,
        )

    def rows(self) -> list[dict[str, str]]:
        """What the file holds now."""
        if not (self.out / "trials.csv").exists():
            return []
        held = (self.out / "trials.csv").read_text()  # at once: the header may be written while it is read
        return list(csv.DictReader(held.splitlines()))

    def until(self, reached: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not reached():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)

    def until_both_are_served(self) -> None:
        self.until(lambda: {row["m"] for row in self.rows() if row["status"] == "ok"} == {"128", "256"})

    def workers(self) -> list[int]:
        """The processes that prove."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def end(self) -> tuple[int, str, str]:
        printed, complained = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, printed, complained


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def begin(*more: str, out: str = "out", **environment: str) -> Run:
        runs.append(Run(tmp_path / out, *more, **environment))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
        run.process.communicate()


def table_serves(out: Path) -> set[int]:
    return {entry["m"] for entry in json.loads((out / "table.json").read_text())["entries"]}


def still_running(pids: list[int]) -> list[int]:
    """Of `pids`, those that have not ended seconds later."""
    until = time.monotonic() + 10
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


@pytest.mark.parametrize(
    ("number", "shell"),
    [
        (signal.SIGINT, ""),
        (signal.SIGINT, "trap '' INT;"),
        (signal.SIGTERM, ""),
        (signal.SIGHUP, ""),
    ],
)
def test_a_signal_ends_the_search_and_the_table_is_written(start: Start, number: signal.Signals, shell: str) -> None:
    run = start("--trials", "5000", shell=shell)
    run.until_both_are_served()
    workers = run.workers()
    run.process.send_signal(number)
    code, printed, complained = run.end()
    assert code == 130, complained
    assert "interrupted, everything so far is kept" in printed
    assert not complained
    assert table_serves(run.out) == {128, 256}
    assert workers
    assert not still_running(workers)


def test_a_schedulers_timeout_signals_twice_and_is_one_request(start: Start) -> None:
    """coreutils' timeout signals its child, then the group that its child is in."""
    run = start("--trials", "5000")
    run.until_both_are_served()
    os.kill(run.process.pid, signal.SIGTERM)
    os.killpg(run.process.pid, signal.SIGTERM)
    code, printed, complained = run.end()
    assert code == 130, complained
    assert "interrupted, everything so far is kept" in printed
    assert table_serves(run.out) == {128, 256}


def test_nohup_is_respected(start: Start) -> None:
    run = start("--trials", "5000", shell="trap '' HUP;")
    run.until_both_are_served()
    run.process.send_signal(signal.SIGHUP)
    rows = len(run.rows())
    run.until(lambda: len(run.rows()) > rows + 2)
    run.process.send_signal(signal.SIGTERM)
    assert run.end()[0] == 130


def test_a_signal_before_anything_is_tried_is_one_line(start: Start) -> None:
    run = start("--trials", "5000", shell="sleep 0.5;")
    time.sleep(1.0)
    run.process.send_signal(signal.SIGTERM)
    code, _, complained = run.end()
    assert code in (130, -signal.SIGTERM)  # by Python itself, where it had not begun with hktune
    assert "Traceback" not in complained


def test_a_killed_run_leaves_nothing_running_and_the_next_goes_on(start: Start) -> None:
    run = start("--trials", "5000")
    run.until_both_are_served()
    workers, before = run.workers(), run.rows()
    run.process.kill()
    run.process.communicate()
    assert workers
    assert not still_running(workers)
    code, _, complained = start("--trials", str(len(before))).end()
    assert code == 0, complained
    assert run.rows()[: len(before)] == before
    assert table_serves(run.out) == {128, 256}
    assert not list(run.out.rglob("*.part"))


def test_workers_that_are_killed_are_replaced(start: Start) -> None:
    run = start("--trials", "12")
    run.until_both_are_served()
    for worker in run.workers():
        os.kill(worker, signal.SIGKILL)
    code, printed, complained = run.end()
    assert code == 0, complained
    assert "done:" in printed
    rows = run.rows()
    assert {row["status"] for row in rows} == {"ok"}, "no config is blamed for it"
    assert len({(row["m"], row["config_id"]) for row in rows}) == len(rows)
    for m in ("128", "256"):  # what the summary compares the best with may be added to the twelve
        assert 12 <= sum(row["m"] == m for row in rows) <= 14
    assert table_serves(run.out) == {128, 256}


def test_a_closed_standard_output_does_not_end_a_run(start: Start) -> None:
    run = start("--trials", "4")
    assert run.process.stdout
    run.process.stdout.close()
    run.process.stdout = None
    code, _, complained = run.end()
    assert (code, complained) == (0, "")
    assert table_serves(run.out) == {128, 256}


def test_a_full_standard_output_is_said_and_the_table_is_written(start: Start) -> None:
    run = start("--trials", "2", shell="exec > /dev/full;")
    code, _, complained = run.end()
    said = "hktune: standard output cannot be written (No space left on device): send it elsewhere\n"
    assert (code, complained) == (1, said)
    assert table_serves(run.out) == {128, 256}


def test_a_cache_that_cannot_be_written_is_said_and_the_run_goes_on(start: Start, tmp_path: Path) -> None:
    cache = own_cache(tmp_path)
    for name in ("objects", "proofs"):
        (cache / name).write_text("in the way")
    run = start("--trials", "1", HKTUNE_CACHE=str(cache))
    code, printed, complained = run.end()
    assert complained.count("\n") == 1, complained
    assert "the object cache" in complained
    assert "set HKTUNE_CACHE" in complained
    assert code == 0, printed
    assert {row["status"] for row in run.rows()} == {"ok"}
    assert table_serves(run.out) == {128, 256}


def test_headers_that_vanish_stop_the_run_and_are_no_trial(start: Start, tmp_path: Path) -> None:
    """With a header root of one's own, which nothing can fetch again."""
    headers = tmp_path / "headers"
    shutil.copytree(next((own_cache(tmp_path) / "hipkittens").glob("hk-*[0-9]")), headers)
    cache = tmp_path / "empty"
    run = start("--trials", "5000", HKTUNE_CACHE=str(cache), HIPKITTENS_ROOT=str(headers))
    run.until(lambda: len(run.rows()) > 0)
    shutil.rmtree(headers)
    code, printed, complained = run.end()
    assert code == 1, printed
    assert "stopped, everything so far is kept" in printed
    assert "no kittens.cuh in it" in complained
    assert complained.count("\n") == 1, complained
    assert {row["status"] for row in run.rows()} == {"ok"}
    assert b"file not found" not in b"".join(path.read_bytes() for path in cache.glob("objects/*/*.entry"))
    assert table_serves(run.out)


@pytest.mark.parametrize("gone", ["out", "out/trials.csv"])
def test_trials_that_vanish_end_the_run_with_its_summary(start: Start, tmp_path: Path, gone: str) -> None:
    run = start("--trials", "5000")
    run.until_both_are_served()
    lost = tmp_path / gone
    lost.rename(tmp_path / "elsewhere")
    code, printed, complained = run.end()
    assert code == 1, complained
    assert "kernel per shape" in printed
    assert "stopped, its trials cannot be read any more" in printed
    assert "trials, table" not in printed
    assert "trials.csv" in complained
    assert "Traceback" not in complained


def test_a_table_that_cannot_be_written_is_not_claimed(start: Start) -> None:
    run = start("--trials", "5000")
    run.until_both_are_served()
    shutil.rmtree(run.out / "objects", ignore_errors=True)
    (run.out / "objects").write_text("in the way", encoding="utf-8")
    run.process.send_signal(signal.SIGTERM)
    code, printed, complained = run.end()
    assert code == 130, complained
    assert f"trials are in {run.out}, no table was written" in printed
    assert "next: hktune tune --shapes" in printed
    assert "objects: is a file, not a folder of its own" in complained
    assert not (run.out / "table.json").exists()


def own_cache(tmp_path: Path) -> Path:
    """A cache of one's own with the headers in it, and nothing else."""
    from hktune.compile.hipkittens import find_hipkittens
    from hktune.core.settings import Settings

    found = find_hipkittens(Settings.from_environment(os.environ)).include
    cache = tmp_path / "cache"
    shutil.copytree(found, cache / "hipkittens" / found.name)
    return cache


@pytest.mark.parametrize("in_the_way", ["objects", "table.json"])
def test_what_the_end_needs_is_checked_at_the_start(start: Start, tmp_path: Path, in_the_way: str) -> None:
    (tmp_path / "out").mkdir()
    if in_the_way == "objects":
        (tmp_path / "out" / "objects").write_text("a file")
    else:
        (tmp_path / "out" / "table.json").mkdir()
    run = start("--trials", "5000")
    code, printed, complained = run.end()
    assert code == 2, printed
    assert complained.count("\n") == 1
    assert in_the_way in complained
    assert not run.rows()


def test_starting_afresh_twice_in_a_second_keeps_both_sets(tmp_path: Path) -> None:
    from hktune.tuning.ledger import set_aside

    kept = []
    for text in ("first", "second", "third"):
        (tmp_path / "trials.csv").write_text(text)
        os.utime(tmp_path / "trials.csv", (1_000_000_000, 1_000_000_000))
        set_aside(tmp_path)
        kept.append(text)
    assert sorted(path.read_text() for path in tmp_path.glob("trials-*.csv")) == sorted(kept)
    assert not (tmp_path / "trials.csv").exists()
