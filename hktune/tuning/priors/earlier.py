"""What earlier trials say to try first: those of a run's own shapes, and those of others."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.space import Domain, SearchSpace
from hktune.tuning.priors.prior import Prior
from hktune.tuning.priors.transfer import NOT_INSTALLED, Transfer, can_learn


class Earlier:
    """The results `places` that a run was given, and the earlier rows of its own directory. Raises as Prior does."""

    def __init__(self, places: Sequence[Path], space: SearchSpace) -> None:
        self._prior = Prior(places, space)
        self._transfer = Transfer(space)
        self._given = bool(places)

    def leads(self, domain: Domain) -> Domain:
        """`domain`, in which is tried first what earlier trials say, those too that are learned from later."""
        return self._prior.first_in(domain.led_by(self._transfer))

    def learn(self, before: Iterable[Trial], problems: Container[Problem], source: Source) -> list[str]:
        """Learn from trials whose times are of `source`, and say in a line what was learned, if anything.

        Of the rows `before`, which are the directory's, those of the run's own `problems` do not count: a run that is
        resumed learns the same as it did at first.
        """
        others = (row for row in before if row.problem not in problems and row.is_kernel)
        trials = [*self._prior.rows, *others]
        if not trials:
            return []
        if not can_learn():
            return [NOT_INSTALLED] if self._given else []
        self._transfer.learn(trials, source)
        return [self._transfer.said] if self._transfer.said else []
