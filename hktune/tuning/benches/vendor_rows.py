"""The algorithms of the vendor's libraries as candidates: each proved on its problem, timed, and a row of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Sequence
from typing import Protocol

from hktune.core.errors import DeviceError, MachineError
from hktune.core.outcome import Failure, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.measure.stopwatch import Attempt, ComparingStopwatch, attempt_of_algorithm
from hktune.tuning.searching.loop import Record
from hktune.tuning.searching.searches import Budget


class VendorBench(ComparingStopwatch, Protocol):
    """A stopwatch that has the vendor's libraries."""

    def algorithms(self, problem: Problem) -> Sequence[VendorAlgorithm]:
        """What the libraries name for `problem`, best first by their own estimate; nothing where there are none. Raises
        DeviceError where they cannot be asked."""

    def prove(self, attempt: Attempt, problem: Problem | None = None) -> Attempt:
        """`attempt` with what came of its proof on `problem`."""


class VendorRows:
    """Tries what the libraries of `bench` name, once for each problem; `record` stores each row, `heard` hears of it.

    Of a problem it tries the first `budget.trials`, for AMD's libraries list far over a thousand. With `budget.time_s`
    every problem has an even part of what is left of it, and its first algorithm is tried in any case. `named` has, by
    problem, the config ids of all algorithms that are named now. `trouble` says what kept a library from being asked.
    One thread at a time.
    """

    def __init__(self, bench: VendorBench, record: Record, heard: Callable[[Trial], None], budget: Budget) -> None:
        self._bench, self._record, self._heard, self._budget = bench, record, heard, budget
        self.named: dict[Problem, frozenset[str]] = {}
        self.trouble: list[str] = []

    def measure(self, problems: Sequence[Problem], rows: Sequence[Trial]) -> None:
        """Try what has no row among `rows` on every one of `problems`."""
        rows_of = by_problem(row for row in rows if not row.is_kernel)
        ends_s = time.monotonic() + (math.inf if self._budget.time_s is None else self._budget.time_s)
        for place, problem in enumerate(problems):
            known = {row.config_id for row in rows_of.get(problem, [])}
            now_s = time.monotonic()
            try:
                self._measure(problem, known, now_s + (ends_s - now_s) / (len(problems) - place))
            except (DeviceError, MachineError) as ended:  # a proof takes more memory than a search
                self.trouble.append(f"the vendor's algorithms were not tried to the end on {problem}: {ended}")

    def _measure(self, problem: Problem, known: Container[str], ends_s: float) -> None:
        """Try what is named for one problem until the clock says `ends_s`, but for the config ids that are `known`."""
        algorithms = self._bench.algorithms(problem)
        self.named[problem] = frozenset(each.config.id for each in algorithms)
        for rank, each in enumerate(algorithms[: self._budget.trials]):
            if rank and time.monotonic() >= ends_s:
                break
            if each.config.id not in known:
                self._try(attempt_of_algorithm(each, problem.operation), problem)

    @property
    def unnamed(self) -> str:
        """A line that counts the problems for which no library names an algorithm; "" where there are none."""
        without = [problem for problem, ids in self.named.items() if not ids]
        if not without:
            return ""
        counted = f"{len(without)} of {len(self.named)} shapes"
        return f"the vendor's libraries that are here name no algorithm for {counted}; the first is {without[0]}"

    def _try(self, attempt: Attempt, problem: Problem) -> None:
        proved = self._bench.prove(attempt, problem)
        outcome: Timing | Failure = proved.failure or self._bench.time(proved, problem)
        self._heard(self._record(proved, problem, outcome))
