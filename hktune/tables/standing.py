"""Who competes for a problem, who ties with the best, and which of the tied one table uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from hktune.core.errors import TableError
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.tables.cover import smallest_cover
from hktune.tables.thrift import thrifty


@dataclass(frozen=True)
class Standing:
    """The ok trials of one problem, best first: one per config, all of one source. Those that were left early compete
    for nothing: they are the `bounds`."""

    problem: Problem
    candidates: tuple[Trial, ...]
    bounds: tuple[Trial, ...] = ()

    @property
    def best(self) -> Trial:
        return self.candidates[0]

    @property
    def vendor_us(self) -> float | None:
        return self.best.baseline_us

    @cached_property
    def tied(self) -> tuple[Trial, ...]:
        """The configs that may be chosen for the best, it first: those that tie with it by their intervals, the whole
        of which is below the vendor's time. None where the vendor library is the choice. Of modelled times only those
        that are equal: the fastest is the best guess there is."""
        tied = [trial for trial in self.candidates if lower_us(trial) <= upper_us(self.best)]
        return tuple(trial for trial in tied if self._beats_vendor(trial)) if self._beats_vendor(self.best) else ()

    @property
    def tied_kernels(self) -> list[Trial]:
        """Those of `tied` that are kernels."""
        return [trial for trial in self.tied if trial.is_kernel]

    @cached_property
    def eligible(self) -> list[Trial]:
        """The kernels that a table may use: of those that tie, the ones that may need the least energy."""
        return thrifty(self.tied_kernels)

    def ties(self, model_tie: float) -> tuple[Trial, ...]:
        """What may be as fast as the best, it first: `tied`, or the modelled times within a factor of its."""
        if self.best.source is Source.MEASURED:
            return self.tied
        return tuple(trial for trial in self.candidates if time_us(trial) <= model_tie * time_us(self.best))

    def time_of(self, trial: Trial | None) -> float | None:
        """What the config of `trial` took here, at least that where it was left early; of None, the vendor library.
        None where that is not known."""
        if trial is None:
            return self.vendor_us
        known = (*self.candidates, *self.bounds)
        return next((time_us(each) for each in known if each.made_from == trial.made_from), None)

    def _beats_vendor(self, trial: Trial) -> bool:
        vendor_us = self.vendor_us if trial.baseline_us is None else trial.baseline_us
        return vendor_us is None or upper_us(trial) < vendor_us


@dataclass(frozen=True)
class Chosen:
    """What a table uses for one problem: one of its tied trials, or None for the vendor library."""

    standing: Standing
    trial: Trial | None

    @property
    def kernel(self) -> Trial | None:
        """The trial, if it is of a kernel. Only a kernel serves other m than its own."""
        return self.trial if self.trial and self.trial.is_kernel else None

    @property
    def time_us(self) -> float:
        time = self.standing.time_of(self.trial)
        assert time is not None, "the vendor is chosen only where its time is known"
        return time


def standings(trials: Iterable[Trial]) -> list[Standing]:
    """Who competes for every problem that has an ok trial with a time, in the order of problems."""
    standing = (_standing(problem, own) for problem, own in sorted(by_problem(trials).items()))
    return [each for each in standing if each.candidates]


def choose(trials: Iterable[Trial]) -> list[Chosen]:
    """What to use for every problem that has an ok trial with a time, in the order of problems.

    The last trial of a config counts. Measured times beat modelled ones wholly: a problem with any measured
    trial is decided among those. Of the kernels that tie with the best of their problem, those compete that may need
    the least energy (`thrifty`). Of them those are used that make the set of all kernels smallest; then the fastest,
    then by config id. Energy goes before the size of the set: a call costs it every time, a kernel is loaded once. An
    algorithm of the vendor's library is used
    where no kernel ties with it: a kernel holds for any version of the library, and for other m too.
    """
    standing = standings(trials)
    slowdowns = [{_kernel(trial): time_us(trial) / time_us(each.best) for trial in each.eligible} for each in standing]
    kept = smallest_cover([slowdown for slowdown in slowdowns if slowdown])
    return [Chosen(each, _fastest(each, kept)) for each in standing]


def _standing(problem: Problem, trials: Sequence[Trial]) -> Standing:
    measured = any(trial.source is Source.MEASURED for trial in trials if trial.status is Status.OK)
    source = Source.MEASURED if measured else Source.MODELLED
    last = {trial.made_from: trial for trial in trials if trial.status is not Status.OK or trial.source is source}
    ok = [trial for trial in last.values() if trial.status is Status.OK]
    ok.sort(key=lambda trial: (time_us(trial), trial.config_id, trial.template or ""))
    timed, bounds = ([trial for trial in ok if trial.left_early is left] for left in (False, True))
    return Standing(problem, tuple(timed), tuple(bounds))


def _fastest(standing: Standing, kept: frozenset[str]) -> Trial | None:
    kernel = next((trial for trial in standing.eligible if _kernel(trial) in kept), None)
    return kernel or next(iter(standing.tied), None)


def _kernel(trial: Trial) -> str:
    """What a table carries for a trial: its config as code, which differs between operations that need other code."""
    return f"{trial.config_id} {trial.object_sha256}"


def time_us(trial: Trial) -> float:
    """The time of an ok trial. Raises TableError when it has none."""
    if trial.time_us is None:
        raise TableError(f"trial {trial.trial} of {trial.problem} is ok without a time_us: tune that shape again")
    return trial.time_us


def lower_us(trial: Trial) -> float:
    """The lower end of a measured interval; the time itself where it has none."""
    low_us = trial.time_us_low if trial.source is Source.MEASURED else None
    return time_us(trial) if low_us is None else low_us


def upper_us(trial: Trial) -> float:
    """The upper end of a measured interval; the time itself where it has none."""
    high_us = trial.time_us_high if trial.source is Source.MEASURED else None
    return time_us(trial) if high_us is None else high_us
