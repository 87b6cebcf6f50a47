"""One part of a run: the loop over the problems of one bench, and what is measured when that is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from hktune.core.outcome import Stage
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.measure.stopwatch import EnergyStopwatch
from hktune.space import Spaces
from hktune.tuning.benches.contract import OpenBench
from hktune.tuning.benches.vendor_rows import VendorBench, VendorRows
from hktune.tuning.confirming.confirmation import confirm, confirm_steady
from hktune.tuning.confirming.energies import measure_energies, usual_budget_s
from hktune.tuning.confirming.neighbours import time_neighbours
from hktune.tuning.confirming.yardsticks import time_yardsticks
from hktune.tuning.ledger import Ledger, Room, SharedDirectory
from hktune.tuning.rival_sides import RivalSides
from hktune.tuning.rivals import Rival
from hktune.tuning.searching.loop import LOOKAHEAD, Tuner
from hktune.tuning.searching.progress import Progress
from hktune.tuning.searching.searches import Budget, Search

WINDOW = 2
"""So many configs are on their way for each worker, where that is more than LOOKAHEAD. Outcomes are taken in the order
asked for: with one for each, workers wait half of the time for the slowest (benchmarks/compile_window.py)."""


@dataclass(frozen=True)
class Part:
    """What is searched, with what, and for how long; `rivals` are kernels of others that are measured beside the best.
    `vendor_only`: nothing is searched, and the algorithms of the vendor's libraries alone are tried. `steady`: where
    power holds the clock, loads of their own decide between the best. Picklable while no strategy has been asked."""

    searches: list[Search]
    spaces: Spaces
    budget: Budget
    rivals: Sequence[Rival]
    settings: Settings
    vendor_only: bool = False
    energy_budget_s: float | None = None
    steady: bool = False

    @property
    def problems(self) -> list[Problem]:
        """Each once: a problem may have several searches."""
        return list(dict.fromkeys(search.problem for search in self.searches))

    def room(self, shares: bool) -> Room:
        """How many rows it may have; with `shares` each search its own."""
        if shares:
            return Room(each=self.budget.trials)
        of = tuple((search.problem, search.template) for search in self.searches)
        return Room(in_all=sum(search.most(self.budget.trials) for search in self.searches), of=of)


def search_part(
    part: Part,
    work: OpenBench,
    ledger: Ledger,
    shared: SharedDirectory,
    progress: Progress,
    trouble: list[str],
    enough: Callable[[], bool],
) -> None:
    """Search `part` to its end on `work`, or until there is `enough`, and measure what was found again; `trouble` gets
    what could not be raced.

    Rows go to `ledger`, of a directory that `shared` shares with other runs.
    """
    if not part.vendor_only:
        _search(part, work, ledger, shared, progress, enough)
    with shared.alone_at("finishing", work.check_interrupt):
        if not part.vendor_only:
            time_yardsticks(part.spaces.own, part.searches, work, ledger.record)
        if work.comparing:
            _compare(part, work, work.comparing, ledger, progress, trouble)
        if not part.vendor_only:
            progress.phase("timing winners at their neighbours' m")
            record = partial(ledger.record, stage=Stage.NEIGHBOUR)
            time_neighbours(part.spaces, part.problems, work, ledger.rows, record, ledger.append)
        if part.steady and work.comparing:
            progress.phase("measuring the best under loads of their own")
            confirm_steady(ledger.rows(), part.problems, part.spaces.templates, work.comparing, ledger.append)
        if work.metered:
            progress.phase("measuring energy")
            _measure_energies(part, work, work.metered, ledger)


def _search(
    part: Part,
    work: OpenBench,
    ledger: Ledger,
    shared: SharedDirectory,
    progress: Progress,
    enough: Callable[[], bool],
) -> None:
    """Go through all searches, from where an earlier run of the directory ended."""
    tuner = Tuner(
        part.searches,
        work.executor,
        work.stopwatch,
        record=partial(ledger.record_all, part.room(work.shares)),
        budget=part.budget,
        listener=progress.listener(),
        share=work.shares,
        peers=shared,
        in_flight=max(LOOKAHEAD, WINDOW * work.executor.capacity),
        enough=enough,
    )
    tuner.replay(shared.news())
    progress.skipped(sum(len(search.tried) + len(search.recorded) for search in part.searches))
    progress.phase("searching")
    tuner.run()


def _compare(
    part: Part, work: OpenBench, bench: VendorBench, ledger: Ledger, progress: Progress, trouble: list[str]
) -> None:
    """Try the vendor's algorithms, and measure the best of all again, together."""
    progress.phase("trying the vendor's algorithms")
    budget = part.budget if part.vendor_only else part.budget.after_search
    vendor = VendorRows(bench, ledger.record, progress.listener().recorded, budget)
    vendor.measure(part.problems, ledger.rows())
    progress.phase("measuring the best again")
    sides = RivalSides(part.rivals, work, part.settings)
    templates = part.spaces.templates
    confirm(ledger.rows(), part.problems, templates, bench, ledger.append, sides.of, vendor.named)
    trouble.extend((*vendor.trouble, *sides.trouble))
    if part.vendor_only and vendor.unnamed:
        trouble.append(vendor.unnamed)


def _measure_energies(part: Part, work: OpenBench, stopwatch: EnergyStopwatch, ledger: Ledger) -> None:
    """What the best take, within the budget that was given or the usual one."""
    budget_s = part.energy_budget_s
    if budget_s is None:
        budget_s = usual_budget_s(work.usage.asked_s if work.usage else 0.0)
    weights = {search.problem: search.weight for search in part.searches}
    measure_energies(ledger.rows(), weights, part.spaces.templates, stopwatch, ledger.append, budget_s)
