"""The model of one search: which candidate is expected to improve most on the best."""

from __future__ import annotations

import random
from functools import cached_property

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from hktune.core.config import Config
from hktune.search.gaussian_process import (
    Kernel,
    Posterior,
    expected_kernel,
    fitted_kernel,
    log_expected_improvement,
)
from hktune.search.known import Known
from hktune.search.pool import Candidates
from hktune.space import Domain

FIT_EVERY = 1.25
"""The kernel is fitted anew when so many times as many costs are known."""
ROWS_MAX = 240
"""So many configs are in the model, the best half and the latest; one with all would take seconds where there are
thousands."""
ROWS_MORE = 80
"""So many rows come to them before the model is made anew."""
GOOD = 20
"""So many of the best are changed where not all legal configs are candidates."""
NEAR_BEST = 3
"""A choice near the best is a step from one of so many."""
FAILURE_MAX = 0.98
"""No candidate is given up for certain."""

Vector = npt.NDArray[np.float64]


class Surrogate:
    """A Gaussian process over the candidates of `domain`. Its linear algebra stays on one thread: the matrices are
    small, and the cores are busy compiling."""

    def __init__(self, domain: Domain, rng: random.Random) -> None:
        self._domain = domain
        self._rng = rng
        self._threads = ThreadpoolController()
        self._rows: list[str] = []
        self._in_rows: set[str] = set()
        self._fitted_at = 0
        self._kernel: Kernel | None = None
        self._posterior: Posterior | None = None

    @cached_property
    def _candidates(self) -> Candidates:
        return Candidates(self._domain)

    def most_promising(self, known: Known, near: bool = False) -> Config | None:
        """The candidate, none of the rows, of the greatest expected improvement; None where there is no candidate. At
        least one cost is no bound. With `near` it is the most promising one that is a step from one of the best, where
        there is one."""
        with self._threads.limit(limits=1):
            best_first = known.best_first()
            pool = self._candidates
            for id_, config in known.rows.items():
                if id_ not in self._in_rows:
                    pool.take(config)
            new = pool.renew([known.rows[id_] for id_ in best_first[:GOOD]], self._rng)
            if self._posterior is not None:
                self._posterior.add_candidates(new)
            if pool.taken.all():
                return None
            worth = self._worth(self._up_to_date(known, best_first), known)
            steps = [place for id_ in best_first[:NEAR_BEST] for place in pool.near(known.rows[id_])] if near else []
            places = np.array(steps) if steps else np.flatnonzero(~pool.taken)
            chosen = Config(pool.configs[int(places[np.argmax(worth[places])])])
            if pool.too_many:
                pool.shrink(worth)
                self._posterior = None
            return chosen

    def _up_to_date(self, known: Known, best_first: list[str]) -> Posterior:
        """The posterior with all rows."""
        new = [id_ for id_ in known.rows if id_ not in self._in_rows]
        posterior = self._posterior
        crowded = len(self._rows) + len(new) > ROWS_MAX + ROWS_MORE
        if posterior is None or crowded or len(known.log_costs) >= self._fitted_at * FIT_EVERY:
            return self._anew(known, best_first)
        if new:
            posterior.add_rows(self._candidates.coordinates.of(known.rows[id_] for id_ in new))
            self._rows += new
            self._in_rows.update(new)
        return posterior

    def _anew(self, known: Known, best_first: list[str]) -> Posterior:
        """A posterior of a kernel that is fitted to what is known."""
        self._rows = _chosen_rows(list(known.rows), best_first)
        self._in_rows = set(known.rows)
        coordinates = self._candidates.coordinates
        costly = [id_ for id_ in self._rows if id_ in known.log_costs]
        points = coordinates.of(known.rows[id_] for id_ in costly)
        values = _scaled(np.array([known.log_costs[id_] for id_ in costly]))
        self._kernel = fitted_kernel(points, values, self._kernel or expected_kernel(points.shape[1]))
        self._fitted_at = len(known.log_costs)
        self._posterior = Posterior(self._kernel, self._candidates.points, ROWS_MAX + ROWS_MORE)
        self._posterior.add_rows(coordinates.of(known.rows[id_] for id_ in self._rows))
        return self._posterior

    def _worth(self, posterior: Posterior, known: Known) -> Vector:
        """The logarithm of the expected improvement at each candidate, times the chance that it does not fail."""
        costly = np.array([id_ in known.log_costs for id_ in self._rows])
        values = np.zeros(len(self._rows))
        values[costly] = _scaled(np.array([known.log_costs[id_] for id_ in self._rows if id_ in known.log_costs]))
        mean, variance = posterior.mean(values, costly)
        deviation = np.sqrt(variance * posterior.unexplained)
        timed = costly & np.array([id_ not in known.bounds for id_ in self._rows])
        worth = log_expected_improvement(mean, deviation, float(values[timed].min()))
        fails = np.array([id_ in known.failed for id_ in self._rows])
        if fails.any():
            chance, _ = posterior.mean(fails.astype(np.float64), costly | fails)
            worth = worth + np.log1p(-np.clip(chance, 0.0, FAILURE_MAX))
        return worth


def _chosen_rows(ids: list[str], best_first: list[str]) -> list[str]:
    """Which rows are in the model, in their order."""
    if len(ids) <= ROWS_MAX:
        return ids
    chosen = {*best_first[: ROWS_MAX // 2], *ids[-ROWS_MAX // 2 :]}
    return [id_ for id_ in ids if id_ in chosen]


def _scaled(log_costs: Vector) -> Vector:
    """Minus the share of the best, so that the slowest, which nobody wants, are alike; of mean 0 and variance 1."""
    values = -np.exp(log_costs.min() - log_costs)
    return np.asarray((values - values.mean()) / (values.std() + 1e-12))
