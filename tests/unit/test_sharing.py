"""Runs that share a directory share the work: each row is made once, and all end with the same table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from fakes import FormulaStopwatch, InstantExecutor
from filelock import FileLock
from test_run_ends import Run, Start, start, table_serves
from test_tuner import LARGE, SMALL, InOrder, Quiet, block_plus_m, configs, run, search

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.outcome import Failure, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.measure.stopwatch import Attempt
from hktune.store.claims import Claims
from hktune.store.trials import holder_of
from hktune.tuning.searching.loop import Tuner
from hktune.tuning.searching.searches import Budget

__all__ = ["start"]

HOLDS = """
import sys
from pathlib import Path
from hktune.store.claims import Claims
claims = Claims(Path(sys.argv[1]), "scope")
print(claims.take("abc"), flush=True)
sys.stdin.read()
"""


def holder(directory: Path) -> subprocess.Popen[str]:
    """A process that has claimed abc."""
    command = [sys.executable, "-c", HOLDS, str(directory)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "True\n"
    return process


def test_a_claim_is_one_runs_until_it_is_given_back(tmp_path: Path) -> None:
    first, second = Claims(tmp_path, "scope"), Claims(tmp_path, "scope")
    assert first.take("abc")
    assert first.take("abc"), "it holds it"
    assert not second.take("abc")
    assert second.take("def")
    assert Claims(tmp_path, "another").take("abc"), "of other problems"
    first.release("abc")
    assert second.take("abc")
    assert not first.take("abc")
    second.close()
    assert first.take("abc")
    first.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_claim_ends_with_its_process(tmp_path: Path, number: signal.Signals) -> None:
    with holder(tmp_path) as process:
        ours = Claims(tmp_path, "scope")
        assert not ours.take("abc")
        process.send_signal(number)
        process.wait()
        assert ours.take("abc")
        ours.close()
    assert not (tmp_path / "claims").exists()


def test_many_takers_are_never_two_holders(tmp_path: Path) -> None:
    held, most = Counter[str](), []

    def take_and_release() -> None:
        claims = Claims(tmp_path, "scope")
        for number in range(300):
            name = str(number % 3)
            if claims.take(name):
                held[name] += 1
                most.append(held[name])
                held[name] -= 1
                claims.release(name)

    threads = [threading.Thread(target=take_and_release) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_where_no_claim_can_be_made_every_one_is_given(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("in the way")
    claims = Claims(tmp_path, "scope")
    assert claims.take("abc")
    claims.close()


def test_who_holds_a_lock_is_told(tmp_path: Path) -> None:
    with FileLock(tmp_path / "trials.csv.lock"):
        assert holder_of(str(tmp_path / "trials.csv.lock")) == f"another process (pid {os.getpid()})"
    assert holder_of(str(tmp_path / "trials.csv.lock")) == "another process"


class Other:
    """Another run, which has some configs in hand and records their rows after a while, or gives them back."""

    def __init__(self, in_hand: Sequence[Config], rows: Sequence[Trial], asked_before: int = 3) -> None:
        self.in_hand = {config.id for config in in_hand}
        self._rows = list(rows)
        self._asked_before = asked_before
        self.released: list[str] = []

    def news(self) -> list[Trial]:
        if self._asked_before:
            return []
        rows, self._rows = self._rows, []
        return rows

    def claim(self, candidate: Candidate) -> bool:
        self._asked_before = max(0, self._asked_before - 1)
        if not self._asked_before:
            self.in_hand.clear()
        return candidate.config.id not in self.in_hand

    def release(self, candidate: Candidate) -> None:
        self.released.append(candidate.config.id)


def tuned(
    peers: Other, candidates: Sequence[Config], trials: int = 100
) -> tuple[list[Trial], InstantExecutor, InOrder]:
    """What one of two runs records and proves, and its strategy."""
    rows: list[Trial] = []

    def record(attempt: Attempt, results: Sequence[tuple[Problem, Timing | Failure]]) -> list[Trial]:
        made = [row_of(attempt.config, problem, result.time_us) for problem, result in results]
        rows.extend(made)
        return made

    searches = [search(SMALL, candidates), search(LARGE, candidates)]
    executor = InstantExecutor(capacity=2)
    Tuner(searches, executor, FormulaStopwatch(block_plus_m), record, Budget(trials), Quiet(), peers=peers).run()
    strategy = searches[0].strategy
    assert isinstance(strategy, InOrder)
    return rows, executor, strategy


def row_of(config: Config, problem: Problem, time_us: float) -> Trial:
    return Trial(
        0, problem.m, problem.n, problem.k, problem.operation, config.id, config.json, Status.OK, time_us=time_us
    )


def test_what_another_has_in_hand_is_waited_for_and_not_done_again() -> None:
    given = configs(6)
    theirs = given[1:3]
    made = [row_of(config, problem, 5.0) for config in theirs for problem in (SMALL, LARGE)]
    other = Other(theirs, made)
    rows, executor, _ = tuned(other, given)
    assert [config["block"] for config in executor.submitted] == [0, 3, 4, 5]
    assert len(rows) == 8
    assert set(other.released) == {config.id for config in given}


def test_what_another_gave_back_undone_is_done_here() -> None:
    given = configs(6)
    rows, executor, strategy = tuned(Other(given[1:3], []), given)
    assert sorted(int(config["block"]) for config in executor.submitted) == [0, 1, 2, 3, 4, 5]
    assert len(rows) == 12
    assert [outcome.config for outcome in strategy.told] == given[: len(strategy.told)], "in the order of asking"


def test_rows_of_others_count_towards_the_budget() -> None:
    given = configs(9)
    made = [row_of(config, problem, 5.0) for config in given[4:] for problem in (SMALL, LARGE)]
    rows, _, strategy = tuned(Other([], made, asked_before=0), given[:4], trials=7)
    assert len(rows) == 2 * 2
    assert {outcome.config for outcome in strategy.told} >= set(given[4:])


def test_alone_nothing_changes() -> None:
    rows, executor = run([search(SMALL, configs(6)), search(LARGE, configs(6))], Budget(trials=100))
    assert (len(rows), len(executor.submitted)) == (12, 6)


def distinct(run: Run) -> set[tuple[str, str]]:
    return {(row["m"], row["config_id"]) for row in run.rows()}


def test_two_runs_of_one_directory_make_each_row_once(start: Start) -> None:
    runs = [start("--trials", "6") for _ in range(2)]
    ended = [run.end() for run in runs]
    assert [code for code, _, _ in ended] == [0, 0], ended
    rows = runs[0].rows()
    assert len(rows) == len(distinct(runs[0]))
    alone = start("--trials", "6", out="alone")
    assert alone.end()[0] == 0
    assert len(rows) == len(alone.rows()), "as many as one run makes"
    assert [row["trial"] for row in rows] == [str(number) for number in range(len(rows))]
    assert table_serves(runs[0].out) == {128, 256}
    assert not (runs[0].out / "claims").exists()


def test_two_runs_of_other_seeds_share_a_budget(start: Start) -> None:
    runs = [start("--trials", "7", "--seed", seed) for seed in ("1", "2")]
    ended = [run.end() for run in runs]
    assert [code for code, _, _ in ended] == [0, 0], ended
    rows = runs[0].rows()
    assert len(rows) == len(distinct(runs[0])) == 14
    assert table_serves(runs[0].out) == {128, 256}


def test_what_a_killed_run_had_in_hand_is_done_by_the_other(start: Start) -> None:
    runs = [start("--trials", "12") for _ in range(2)]
    runs[0].until(lambda: len(runs[0].rows()) > 4)
    time.sleep(0.3)
    os.killpg(runs[0].process.pid, signal.SIGKILL)
    runs[0].process.communicate()
    code, _, complained = runs[1].end()
    assert code == 0, complained
    rows = runs[1].rows()
    assert len(rows) == len(distinct(runs[1]))
    assert Counter(row["m"] for row in rows)["128"] >= 12
    assert {row["status"] for row in rows} == {"ok"}
