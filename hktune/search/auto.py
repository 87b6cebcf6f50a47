"""The default: a model of the cost over the legal configs themselves."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

from hktune.core.config import Config
from hktune.search.strategy import Outcome
from hktune.search.unique import UniqueStrategy
from hktune.space import Domain

if TYPE_CHECKING:
    from hktune.search.surrogate import Surrogate

START = 10
"""So many configs are asked for, seeds among them, before a model is asked; the rest of them are uniform draws."""
TIMED_MIN = 3
"""So many of them have to be timed."""
NEAR_EVERY = 2
"""One choice in so many is a step from one of the best: a model is smoother than costs that jump from config to config,
and passes by what is next to the best."""


class AutoStrategy(UniqueStrategy):
    """Seeds, then some uniform draws, then what a Gaussian process over the legal configs expects most of.

    Each config that is in flight counts as known, at the cost that is expected of it. A failed one does too, and makes
    failures likelier around it. Where too many configs are legal to look at each, a pool of changes of the best is.
    """

    name = "auto"

    def __init__(self, domain: Domain, seed: int) -> None:
        super().__init__(domain, seed)
        self._rows: dict[str, Config] = {}
        self._log_costs: dict[str, float] = {}
        self._failed: set[str] = set()
        self._choices = 0

    @cached_property
    def _surrogate(self) -> Surrogate:
        """Made when it is first needed: a strategy can be pickled until then, and SciPy is not imported before."""
        from hktune.search.surrogate import Surrogate

        return Surrogate(self.domain, self.rng)

    def _propose(self) -> Config | None:
        if len(self._rows) < START or len(self._log_costs) < TIMED_MIN:
            return None
        self._choices += 1
        near = self._choices % NEAR_EVERY == 0
        return self._surrogate.most_promising(self._rows, self._log_costs, self._failed, near)

    def _chosen(self, config: Config) -> None:
        self._rows[config.id] = config

    def _learn(self, outcome: Outcome) -> None:
        config = outcome.config
        self._rows.setdefault(config.id, config)
        if outcome.cost is None:
            self._failed.add(config.id)
        else:
            self._log_costs[config.id] = math.log(outcome.cost.value)
