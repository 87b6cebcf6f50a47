"""The default: a model of the cost over the legal configs themselves."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

from hktune.core.config import Config
from hktune.search.known import Known
from hktune.search.round_draws import RoundDraws
from hktune.search.strategy import Outcome
from hktune.search.unique import UniqueStrategy
from hktune.space import Domain

if TYPE_CHECKING:
    from hktune.search.surrogate import Surrogate

START = 16
"""So many configs are asked for, seeds among them, before a model is asked; the rest of them are draws."""
COSTS_MIN = 3
"""So many of them need a cost."""
NEAR_EVERY = 2
"""One choice in so many is a step from one of the best: a model is smoother than costs that jump from config to config,
and passes by what is next to the best."""


class AutoStrategy(UniqueStrategy):
    """Seeds, then some draws, then what a Gaussian process over the legal configs expects most of.

    Draws are uniform over the configs of round values, as `RoundDraws` has it. Each config that is in flight counts as
    known, at the cost that is expected of it. A failed one does too, and makes failures likelier around it. A bound
    counts as a cost, but never as the best. Where too many configs are legal to look at each, a pool of changes of the
    best is.
    """

    name = "auto"

    def __init__(self, domain: Domain, seed: int) -> None:
        super().__init__(domain, seed)
        self._draws = RoundDraws(domain)
        self._known = Known()
        self._choices = 0

    @cached_property
    def _surrogate(self) -> Surrogate:
        """Made when it is first needed: a strategy can be pickled until then, and SciPy is not imported before."""
        from hktune.search.surrogate import Surrogate

        return Surrogate(self.domain, self.rng)

    def _propose(self) -> Config | None:
        known = self._known
        if len(known.rows) < START or len(known.log_costs) < COSTS_MIN or not known.has_best:
            return self._draws.one(self.rng)
        self._choices += 1
        return self._surrogate.most_promising(known, near=self._choices % NEAR_EVERY == 0)

    def _chosen(self, config: Config) -> None:
        self._known.rows[config.id] = config

    def _learn(self, outcome: Outcome) -> None:
        config, cost, known = outcome.config, outcome.cost, self._known
        known.rows.setdefault(config.id, config)
        if cost is None:
            known.failed.add(config.id)
            return
        known.log_costs[config.id] = math.log(cost.value)
        (known.bounds.add if cost.is_bound else known.bounds.discard)(config.id)
