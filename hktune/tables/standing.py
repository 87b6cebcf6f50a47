"""Who competes for a problem, who ties with the best, and which of the tied one table uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median_low

from hktune.core.errors import TableError
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.tables.cover import smallest_cover
from hktune.tables.thrift import thrifty

LOSS_MAX = 1.005
"""So many times the time of the best a kernel may take that is used for it. By their intervals alone more would tie
where rounds were noisy: of 16x7168x8192 on an H200 they are 6 % wide, and a kernel 2.1 % behind the best tied. What
such a choice saves, energy or a kernel to load, is worth half a percent."""


@dataclass(frozen=True)
class Standing:
    """The ok trials of one problem, best first: one per config, all of one source. Those that were left early compete
    for nothing: they are the `bounds`. What was measured in other rounds than the best is compared by its ratio to the
    vendor's time there: clocks differ between rounds."""

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
        """The configs that may be chosen for the best, the fastest first: those that tie with it by their intervals,
        the whole of which is below the vendor's time. None where the vendor library is the choice. The best may not be
        among them: of 16384x28672x4096 on an H200 the fastest was 1.067 times as fast as the vendor, or 0.999 to 1.138,
        and others 1.05, or 1.03 to 1.08. Of modelled times only those that are equal: the fastest is the best guess
        there is."""
        tied = (trial for trial in self.candidates if self._scaled(trial, lower_us) <= upper_us(self.best))
        return tuple(trial for trial in tied if self._beats_vendor(trial))

    @cached_property
    def eligible(self) -> list[Trial]:
        """The kernels that a table may use: of `replacements`, the ones that may need the least energy."""
        return thrifty(self.replacements)

    @property
    def replacements(self) -> list[Trial]:
        """The kernels that may be used for the first of `tied`, it among them if it is one: those of `tied` that take
        at most LOSS_MAX times as long, and are not behind the vendor's best where it is ahead of that."""
        if not self.tied:
            return []
        first_us, vendor_best_us = self.comparable_us(self.tied[0]), self.best.vendor_best_us
        limit_us = LOSS_MAX * first_us
        if vendor_best_us is not None and first_us < vendor_best_us:
            limit_us = min(limit_us, vendor_best_us)
        return [trial for trial in self.tied if trial.is_kernel and self.comparable_us(trial) <= limit_us]

    def comparable_us(self, trial: Trial) -> float:
        """The time of one of the trials as it would be in the rounds of the best."""
        return self._scaled(trial, time_us)

    def ties(self, model_tie: float) -> tuple[Trial, ...]:
        """What may be as fast as the best, the fastest first: `tied`, in which it may be missing, or the modelled times
        within a factor of its."""
        if self.best.source is Source.MEASURED:
            return self.tied
        return tuple(trial for trial in self.candidates if time_us(trial) <= model_tie * time_us(self.best))

    def time_of(self, trial: Trial | None) -> float | None:
        """What the config of `trial` took here, at least that where it was left early; of None, the vendor library.
        None where that is not known."""
        if trial is None:
            return self.vendor_us
        known = (*self.candidates, *self.bounds)
        return next((self.comparable_us(each) for each in known if each.made_from == trial.made_from), None)

    def _scaled(self, trial: Trial, end_us: Callable[[Trial], float]) -> float:
        """`end_us` of `trial`, times how much longer the vendor took in the rounds of the best than in its own."""
        here_us, there_us = self.best.baseline_us, trial.baseline_us
        is_comparable = here_us and there_us and trial.baseline == self.best.baseline
        return end_us(trial) * (here_us / there_us if here_us and there_us and is_comparable else 1.0)

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
    slowdowns = [
        {_kernel(trial): each.comparable_us(trial) / time_us(each.best) for trial in each.eligible} for each in standing
    ]
    kept = smallest_cover([slowdown for slowdown in slowdowns if slowdown])
    return [Chosen(each, _fastest(each, kept)) for each in standing]


def _standing(problem: Problem, trials: Sequence[Trial]) -> Standing:
    measured = any(trial.source is Source.MEASURED for trial in trials if trial.status is Status.OK)
    source = Source.MEASURED if measured else Source.MODELLED
    last = {trial.made_from: trial for trial in trials if trial.status is not Status.OK or trial.source is source}
    ok = [trial for trial in last.values() if trial.status is Status.OK]
    usual_us = _usual_vendor_us(ok)

    def slowness(trial: Trial) -> tuple[float, str, str]:
        vendor_us = trial.baseline_us
        in_usual_rounds = usual_us[trial.baseline] / vendor_us if vendor_us else 1.0
        return (time_us(trial) * in_usual_rounds, trial.config_id, trial.template or "")

    ok.sort(key=slowness)
    timed, bounds = ([trial for trial in ok if trial.left_early is left] for left in (False, True))
    return Standing(problem, tuple(timed), tuple(bounds))


def _usual_vendor_us(trials: Sequence[Trial]) -> dict[str | None, float]:
    """The time of each baseline in most of the rounds of `trials`, by its name."""
    known: dict[str | None, list[float]] = {}
    for trial in trials:
        if trial.baseline_us:
            known.setdefault(trial.baseline, []).append(trial.baseline_us)
    return {name: median_low(times_us) for name, times_us in known.items()}


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
