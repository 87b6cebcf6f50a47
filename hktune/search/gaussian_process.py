"""A Gaussian process that is told its values late.

Rows are points that were asked for, in that order; a value comes when it comes. What is known of the candidates depends
on where the rows are for its spread, and on the values for its mean. So a row costs its part of a Cholesky factor once,
when it is asked for, and a value costs two triangular solves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, lapack, solve_triangular
from scipy.optimize import minimize
from scipy.special import erfc, erfcx

from hktune.search.coordinates import Points

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LENGTH = 1.0
"""What a length is expected to be, in sides of the unit cube, of four coordinates; of more, longer, by the root of
their number (Hvarfner, Hellsten and Nardi, ICML 2024)."""
LENGTH_SPREAD = 1.0  # of its logarithm
NOISE = 1e-3
"""The variance that a repeated measurement is expected to have, of a variance of all values of 1."""
NOISE_SPREAD = 1.0  # of its logarithm
VARIANCE_WEIGHT = 2.0
"""How many values the expectation that the variance is 1 counts for."""
LENGTHS_RANGE = (0.02, 50.0)
NOISE_RANGE = (1e-5, 0.3)
STEPS_MAX = 15

_JITTER = 1e-6
_SQRT5 = math.sqrt(5.0)


@dataclass(frozen=True)
class Kernel:
    """Matern 5/2 with a length for each coordinate, of variance 1, and the variance of noise relative to that."""

    lengths: Vector
    noise: float

    def between(self, a: Points, b: Points) -> Points:
        """The covariance of every point of `a` with every one of `b`."""
        _, distance = _distances(a / self.lengths, b / self.lengths)
        return np.asarray((1 + distance + distance * distance / 3) * np.exp(-distance))

    @property
    def on_diagonal(self) -> float:
        """What is added to the covariance of a row with itself."""
        return self.noise + _JITTER


def expected_kernel(coordinates: int) -> Kernel:
    """What is believed before there are values."""
    length = LENGTH * math.sqrt(coordinates / 4)
    return Kernel(np.full(coordinates, length), NOISE)


def fitted_kernel(points: Points, values: Vector, start: Kernel) -> Kernel:
    """The most likely kernel, by the values and by what is expected; the search begins at `start`."""
    expected = _logarithms(expected_kernel(points.shape[1]))
    spread = np.append(np.full(points.shape[1], LENGTH_SPREAD), NOISE_SPREAD)

    def unlikelihood(logarithms: Vector) -> tuple[float, Vector]:
        likelihood, slope = _unlikelihood(logarithms, points, values)
        off = (logarithms - expected) / spread
        return likelihood + 0.5 * float(off @ off), slope + off / spread

    bounds = [tuple(map(math.log, LENGTHS_RANGE))] * points.shape[1] + [tuple(map(math.log, NOISE_RANGE))]
    begin = _logarithms(start)
    found = minimize(unlikelihood, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS_MAX}).x
    return Kernel(np.exp(found[:-1]), float(np.exp(found[-1])))


def _logarithms(kernel: Kernel) -> Vector:
    return np.append(np.log(kernel.lengths), math.log(kernel.noise))


def _distances(a: Points, b: Points) -> tuple[Points, Points]:
    """The squares of the distances, and sqrt(5) times the distances."""
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2 * a @ b.T
    squares = np.maximum(squares, 0.0)
    return squares, _SQRT5 * np.sqrt(squares)


def _unlikelihood(logarithms: Vector, points: Points, values: Vector) -> tuple[float, Vector]:
    """Minus the logarithm of the values' likelihood where the variance is the most likely one, and its slope."""
    scaled, noise, count = points / np.exp(logarithms[:-1]), math.exp(logarithms[-1]), len(values)
    _, distance = _distances(scaled, scaled)
    decay = np.exp(-distance)
    covariance = (1 + distance + distance * distance / 3) * decay
    covariance[np.diag_indices(count)] += noise + _JITTER
    factor, failed = lapack.dpotrf(covariance, lower=1)
    if failed:
        return 1e10, np.zeros_like(logarithms)
    weights, _ = lapack.dpotrs(factor, values, lower=1)
    variance = (float(values @ weights) + VARIANCE_WEIGHT) / (count + VARIANCE_WEIGHT)
    result = 0.5 * (count + VARIANCE_WEIGHT) * math.log(variance) + float(np.log(np.diag(factor)).sum())
    inverse, _ = lapack.dpotri(factor, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    pull = np.outer(weights, weights) / variance - inverse
    by_square = pull * (5 / 3 * (1 + distance) * decay)
    sums = by_square.sum(axis=1)[:, None]
    by_length = -((scaled * scaled * sums).sum(axis=0) - (scaled * (by_square @ scaled)).sum(axis=0))
    return result, np.append(by_length, -0.5 * float(np.trace(pull)) * noise)


class Posterior:
    """What the rows say of the candidates, for one kernel."""

    def __init__(self, kernel: Kernel, candidates: Points, rows_max: int) -> None:
        self.kernel = kernel
        self._candidates = candidates
        self._points = np.empty((rows_max, candidates.shape[1]))
        self._factor = np.zeros((rows_max, rows_max))
        self._covariance = np.zeros((rows_max, rows_max))
        self._solved = np.empty((rows_max, len(candidates)), dtype=np.float32)
        self._explained = np.zeros(len(candidates))
        self.rows = 0

    def add_rows(self, points: Points) -> None:
        """Points that were asked for since."""
        first, last = self.rows, self.rows + len(points)
        old, kernel = self._points[:first], self.kernel
        own = kernel.between(points, points)
        own[np.diag_indices(len(points))] += kernel.on_diagonal
        to_old, to_candidates = kernel.between(points, old), kernel.between(points, self._candidates)
        self._covariance[first:last, :first], self._covariance[:first, first:last] = to_old, to_old.T
        self._covariance[first:last, first:last] = own
        if first:
            left = solve_triangular(self._factor[:first, :first], to_old.T, lower=True).T
            own = own - left @ left.T
            to_candidates = to_candidates - left.astype(np.float32) @ self._solved[:first]
            self._factor[first:last, :first] = left
        corner = cholesky(own, lower=True)
        self._factor[first:last, first:last] = corner
        solved = solve_triangular(corner, to_candidates, lower=True)
        self._solved[first:last] = solved
        self._explained += (solved * solved).sum(axis=0)
        self._points[first:last] = points
        self.rows = last

    def add_candidates(self, points: Points) -> None:
        """More candidates, behind those that there are."""
        solved = np.empty((len(self._solved), len(points)), dtype=np.float32)
        if self.rows:
            covariance = self.kernel.between(self._points[: self.rows], points)
            solved[: self.rows] = solve_triangular(self._factor[: self.rows, : self.rows], covariance, lower=True)
        self._solved = np.hstack([self._solved, solved])
        self._explained = np.append(self._explained, (solved[: self.rows].astype(np.float64) ** 2).sum(axis=0))
        self._candidates = np.vstack([self._candidates, points])

    def mean(self, values: Vector, known: Mask) -> tuple[Vector, float]:
        """The mean at the candidates, and the variance of the process, given the values of the `known` rows.

        The other rows are taken to have the mean there (Ginsbourger et al., 2010, call it the kriging believer). So
        they narrow what is unknown and change no mean.
        """
        believed = values.copy()
        if not known.all():
            covariance = self._covariance[: self.rows, : self.rows]
            weights, _ = lapack.dpotrs(cholesky(covariance[np.ix_(known, known)], lower=True), values[known], lower=1)
            believed[~known] = covariance[np.ix_(~known, known)] @ weights
        solved = solve_triangular(self._factor[: self.rows, : self.rows], believed, lower=True)
        variance = (float(solved @ solved) + VARIANCE_WEIGHT) / (self.rows + VARIANCE_WEIGHT)
        return np.asarray(solved.astype(np.float32) @ self._solved[: self.rows], dtype=np.float64), variance

    @property
    def unexplained(self) -> Vector:
        """At each candidate, how much of the variance of the process is left."""
        return np.maximum(1.0 - self._explained, 1e-9)


def log_expected_improvement(mean: Vector, deviation: Vector, best: float) -> Vector:
    """The logarithm of how far a value is expected to be below `best`, above which it counts 0 (Ament et al., NeurIPS
    2023: it orders candidates where the expectation itself is 0 in floating point)."""
    gain = (best - mean) / deviation
    result = np.empty_like(gain)
    near = gain > -1
    z = gain[near]
    result[near] = np.log(np.exp(-z * z / 2) / math.sqrt(2 * math.pi) + z * 0.5 * erfc(-z / math.sqrt(2)))
    z = gain[~near]
    tail = np.minimum(erfcx(-z / math.sqrt(2)) * np.abs(z) * math.sqrt(math.pi / 2), 1 - 1e-16)
    logarithm = np.where(z < -1e4, -2 * np.log(np.abs(z)), np.log1p(-tail))
    result[~near] = -z * z / 2 - 0.5 * math.log(2 * math.pi) + logarithm
    return result + np.log(deviation)
