"""The model of the default strategy, held to the textbook's formulas and to integration."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.integrate import quad
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal, norm

from hktune.search.gaussian_process import (
    Kernel,
    Posterior,
    expected_kernel,
    fitted_kernel,
    log_expected_improvement,
)

Array = npt.NDArray[np.float64]
KERNEL = Kernel(np.array([0.4, 0.9, 2.0]), noise=0.01)


def points(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).random((count, 3))


def values(at: Array) -> Array:
    """A made-up cost; the third coordinate does not matter."""
    raw = np.sin(5 * at[:, 0]) + at[:, 1]
    return np.asarray((raw - raw.mean()) / raw.std())


def matern(a: Array, b: Array, kernel: Kernel) -> Array:
    """Matern 5/2 (Rasmussen and Williams, 2006, eq. 4.17)."""
    distance = math.sqrt(5) * cdist(a, b, "seuclidean", V=kernel.lengths**2)
    return np.asarray((1 + distance + distance**2 / 3) * np.exp(-distance))


def textbook(rows: Array, at: Array, given: Array, kernel: Kernel) -> tuple[Array, Array]:
    """Mean, and variance relative to the process', by the formulas that invert the whole matrix."""
    inverse = np.linalg.inv(matern(rows, rows, kernel) + kernel.on_diagonal * np.eye(len(rows)))
    across = matern(at, rows, kernel)
    return across @ inverse @ given, 1 - np.einsum("ij,jk,ik->i", across, inverse, across)


def test_the_kernel_is_matern() -> None:
    np.testing.assert_allclose(KERNEL.between(points(4, 0), points(5, 1)), matern(points(4, 0), points(5, 1), KERNEL))


def test_rows_and_candidates_that_come_one_by_one_are_as_if_all_were_there() -> None:
    rows, at = points(12, 0), points(40, 1)
    posterior = Posterior(KERNEL, at[:25], rows_max=20)
    posterior.add_rows(rows[:5])
    posterior.add_candidates(at[25:30])
    posterior.add_rows(rows[5:6])
    posterior.add_rows(rows[6:])
    posterior.add_candidates(at[30:])
    mean, _ = posterior.mean(values(rows), np.ones(12, dtype=bool))
    true_mean, true_variance = textbook(rows, at, values(rows), KERNEL)
    np.testing.assert_allclose(mean, true_mean, atol=1e-4)
    np.testing.assert_allclose(posterior.unexplained, true_variance, atol=1e-5)


def test_rows_without_a_value_narrow_and_change_no_mean() -> None:
    rows, at = points(12, 0), points(30, 1)
    known = np.arange(12) % 3 > 0
    posterior = Posterior(KERNEL, at, rows_max=20)
    posterior.add_rows(rows)
    mean, _ = posterior.mean(np.where(known, values(rows), 99.0), known)
    true_mean, _ = textbook(rows[known], at, values(rows)[known], KERNEL)
    _, true_variance = textbook(rows, at, values(rows), KERNEL)
    np.testing.assert_allclose(mean, true_mean, atol=1e-4)
    np.testing.assert_allclose(posterior.unexplained, true_variance, atol=1e-5)


def test_the_fitted_kernel_is_likelier_than_what_was_expected() -> None:
    at = points(60, 2)
    fitted = fitted_kernel(at, values(at), expected_kernel(3))

    def likelihood(kernel: Kernel) -> float:
        covariance = matern(at, at, kernel) + kernel.on_diagonal * np.eye(60)
        scale = float(values(at) @ np.linalg.solve(covariance, values(at))) / 60
        return float(multivariate_normal.logpdf(values(at), np.zeros(60), scale * covariance))

    assert likelihood(fitted) > likelihood(expected_kernel(3)) + 10
    assert fitted.lengths[2] > 2 * fitted.lengths[0], "what does not matter has a long length"


@pytest.mark.parametrize(("mean", "deviation", "best"), [(0.3, 0.5, 0.0), (-1.0, 0.2, 0.5), (0.8, 0.2, 0.0)])
def test_the_improvement_that_is_expected_is_the_integral(mean: float, deviation: float, best: float) -> None:
    integral, _ = quad(lambda x: (best - x) * norm.pdf(x, mean, deviation), mean - 12 * deviation, best)
    found = log_expected_improvement(np.array([mean]), np.array([deviation]), best)
    assert found[0] == pytest.approx(math.log(integral), rel=1e-5)


def test_where_no_improvement_is_expected_nearer_is_still_better() -> None:
    """Far below what floating point holds."""
    means = np.array([1.0, 2.0, 30.0, 1e3, 1e6])
    found = log_expected_improvement(means, np.full(5, 0.01), 0.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()
