"""Fits constants of a model to measured times: which of them the times identify, what those then are, and how far the
model is off on shapes that a fit has not seen.

What is minimised is the square of log(modelled / measured) in units of a row's sigma, of outliers its absolute value.
Each constant is drawn to what it was, by a prior: where the rows say nothing, it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hktune.core.problem import Problem

Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Constants = Mapping[str, float]

PRIOR_SIGMA = 0.5
"""Of a constant, as a part of what it was."""

IDENTIFIED_SIGMA = 0.1
"""A constant that the rows leave less certain than this, as a part of it, is not identified by them."""

_FACTORS = (0.2, 5.0)
_STEPS, _STEPS_NEAR = 15, 6  # of a search that begins where constants were, and of one near its end
_LOOK = 0.1  # so much a constant is moved, either way, to see what it does


@dataclass(frozen=True)
class Fit:
    """A model of measured rows. `log_ratios` gives log(modelled / measured) of some rows with some constants in place
    of `constants`; `sigma` is that of each row, and `problems` are theirs. Fits look at the rows `seen`, by default at
    all of them; the others are judged only. `most` is what a constant can be at most, of those that have a limit."""

    constants: Constants
    log_ratios: Callable[[Constants, Rows], Values]
    sigma: Values
    problems: Sequence[Problem]
    prior_sigma: float = PRIOR_SIGMA
    seen: Rows | None = None
    most: Constants = field(default_factory=dict)

    @property
    def everything(self) -> Rows:
        """The numbers of all rows."""
        return np.arange(len(self.problems), dtype=np.intp)

    @property
    def rows(self) -> Rows:
        """The numbers of those that fits look at."""
        return self.everything if self.seen is None else self.seen

    def identified(self) -> tuple[str, ...]:
        """The constants that the rows identify: the least certain is left out until all that are left are."""
        left = list(self.constants)
        while left:
            spread = self._spread(left)
            worst = max(left, key=lambda name: spread[name])
            if spread[worst] <= IDENTIFIED_SIGMA:
                break
            left.remove(worst)
        return tuple(left)

    def uncertainty(self, names: Sequence[str]) -> dict[str, float]:
        """How uncertain the rows leave each of these constants, as a part of it, where no other moves."""
        return self._spread(names)

    def fitted(self, names: Sequence[str], rows: Rows | None = None, start: Constants | None = None) -> Constants:
        """All constants, those of `names` as they suit `rows` (by default those seen) best; sought from `start`."""
        if not names:
            return self.constants
        from scipy.optimize import least_squares

        own = self.rows if rows is None else rows

        def constants_at(factors: Values) -> Constants:
            moved = {name: self.constants[name] * float(each) for name, each in zip(names, factors, strict=True)}
            return {**self.constants, **moved}

        def residuals(factors: Values) -> Values:
            logs = self.log_ratios(constants_at(factors), own)
            return np.concatenate([logs / self.sigma[own], (factors - 1) / self.prior_sigma])

        first = np.array([(start or self.constants)[name] / self.constants[name] for name in names])
        most = [min(_FACTORS[1], self.most.get(name, np.inf) / self.constants[name]) for name in names]
        options = {
            "loss": "soft_l1",
            "x_scale": 0.1,
            "diff_step": 0.02,
            "max_nfev": _STEPS_NEAR if start else _STEPS,
            "bounds": (_FACTORS[0], most),
        }
        return constants_at(least_squares(residuals, np.clip(first, _FACTORS[0], most), **options).x)

    def left_out(self, names: Sequence[str], folds: int = 5, start: Constants | None = None) -> Values:
        """log(modelled / measured) of each row, with constants fitted to the shapes of the other folds. There must be
        two shapes."""
        fold = folds_of(self.problems, folds)
        found = np.empty(len(fold))
        for number in range(int(fold.max()) + 1):
            own, others = np.flatnonzero(fold == number), self.rows[fold[self.rows] != number]
            found[own] = self.log_ratios(self.fitted(names, others, start), own)
        return found

    @cached_property
    def _information(self) -> Values:
        """What rows and prior say of all constants together: the inverse of their covariance."""
        now = self.log_ratios(self.constants, self.rows)
        information = np.eye(len(self.constants)) / self.prior_sigma**2
        for step in (-_LOOK, _LOOK):  # what binds only beyond a value is seen from one side
            moved = [{**self.constants, name: value * (1 + step)} for name, value in self.constants.items()]
            slopes = [(self.log_ratios(each, self.rows) - now) / step / self.sigma[self.rows] for each in moved]
            jacobian = np.stack(slopes, axis=1)
            information += jacobian.T @ jacobian / 2
        return information

    def _spread(self, names: Sequence[str]) -> dict[str, float]:
        known = list(self.constants)
        at = [known.index(name) for name in names]
        spread = np.sqrt(np.diag(np.linalg.inv(self._information[np.ix_(at, at)])))
        return dict(zip(names, spread.tolist(), strict=True))


def folds_of(problems: Sequence[Problem], folds: int) -> Rows:
    """A fold for each problem, equal for equal ones. There are no more folds than problems."""
    distinct = {problem: number for number, problem in enumerate(dict.fromkeys(problems))}
    order = np.random.default_rng(0).permutation(len(distinct)) % min(folds, len(distinct))
    return np.array([order[distinct[problem]] for problem in problems], dtype=np.intp)
