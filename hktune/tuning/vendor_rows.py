"""The algorithms of the vendor's libraries as candidates: each proved on its problem, timed, and a row of its own."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Protocol

from hktune.core.errors import DeviceError, MachineError
from hktune.core.outcome import Failure, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.measure.stopwatch import Attempt, ComparingStopwatch, attempt_of_algorithm
from hktune.tuning.loop import Record


class VendorBench(ComparingStopwatch, Protocol):
    """A stopwatch that has the vendor's libraries."""

    def algorithms(self, problem: Problem) -> Sequence[VendorAlgorithm]:
        """What the libraries name for `problem`, best first by their own estimate; nothing where there are none. Raises
        DeviceError where they cannot be asked."""

    def prove(self, attempt: Attempt, problem: Problem | None = None) -> Attempt:
        """`attempt` with what came of its proof on `problem`."""


class VendorRows:
    """Tries what the libraries of `bench` name, once for each problem; `record` stores each row, `heard` hears of it.

    `named` has, by problem, the config ids of the algorithms that are named now. `trouble` says what kept a library
    from being asked. One thread at a time.
    """

    def __init__(self, bench: VendorBench, record: Record, heard: Callable[[Trial], None]) -> None:
        self._bench, self._record, self._heard = bench, record, heard
        self.named: dict[Problem, frozenset[str]] = {}
        self.trouble: list[str] = []

    def measure(self, problems: Sequence[Problem], rows: Sequence[Trial]) -> None:
        """Try what has no row among `rows` on every one of `problems`."""
        rows_of = by_problem(row for row in rows if not row.is_kernel)
        for problem in problems:
            known = {row.config_id for row in rows_of.get(problem, [])}
            try:
                self._measure(problem, known)
            except (DeviceError, MachineError) as ended:  # a proof takes more memory than a search
                self.trouble.append(f"the vendor's algorithms were not tried to the end on {problem}: {ended}")

    def _measure(self, problem: Problem, known: Container[str]) -> None:
        """Try what is named for one problem, but for the config ids that are `known`."""
        algorithms = self._bench.algorithms(problem)
        self.named[problem] = frozenset(each.config.id for each in algorithms)
        for each in algorithms:
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
