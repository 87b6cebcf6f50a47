"""What earlier rows say should be tried first: of each problem the configs that may be as fast as its best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from hktune.core.config import Config
from hktune.core.errors import InputError
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.emulator.clock.model_error import model_error
from hktune.space import Domain, SearchSpace
from hktune.store import merged_trials
from hktune.tables.standing import Standing, standings
from hktune.tuning.confirming.confirmation import deciding


class Prior:
    """The ok rows of earlier results, `places`: their directories or files. Raises StoreError for one that cannot be
    read, and InputError where none of them is of the template of `space`.

    A model that was wrong about a shape was wrong about all kernels that it cannot distinguish from its best. So these
    are favoured together, the fastest first; of measured rows those whose intervals say so.
    """

    def __init__(self, places: Sequence[Path], space: SearchSpace) -> None:
        template = space.template.name
        rows = [row for row in merged_trials(places) if row.status is Status.OK and row.template == template]
        if places and not rows:
            names = ", ".join(map(str, places))
            raise InputError(f"{names}: no ok row is of {template}: leave --prior out, or name results that are")
        self.rows: Sequence[Trial] = rows
        self._space = space

    @cached_property
    def _standings(self) -> dict[Problem, Standing]:
        return {each.problem: each for each in standings(deciding(self.rows))}

    def favoured(self, problem: Problem) -> list[Config]:
        """What to try first on `problem`: what its rows favour, else those of the nearest m with the same n, k and
        operation. Fastest first; nothing where there are no such rows."""
        alike = [each for each in self._standings if (each.n, each.k, each.operation) == _but_m(problem)]
        if not alike:
            return []
        nearest = min(alike, key=lambda each: (abs(math.log(each.m / problem.m)), each.m))
        return list(self._configs(self._standings[nearest]))

    def everything(self) -> Iterator[Config]:
        """What is favoured for any problem."""
        for standing in self._standings.values():
            yield from self._configs(standing)

    def first_in(self, domain: Domain) -> Domain:
        """`domain`, of which what is favoured for its problem is tried first."""
        return domain.preferring(self.favoured(domain.problem)) if domain.problem else domain

    def _configs(self, standing: Standing) -> Iterable[Config]:
        rows = standing.ties(model_error().tie_factor) or (standing.best,)
        return (self._space.completed(Config.from_json(row.config)) for row in rows)


def _but_m(problem: Problem) -> tuple[object, ...]:
    return (problem.n, problem.k, problem.operation)
