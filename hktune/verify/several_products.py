"""Operations of several products: the inputs that each product has, and all of their rows one after another.

A batched operation has as many products of one size. A grouped one has its groups of rows, which `offsets` ends. Here
both are products of some rows of A with a B of their own. Or groups are of elements of K, and each makes a C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from hktune.core.group_sizes import row_ranges
from hktune.core.operation import COUNTED
from hktune.core.problem import Problem
from hktune.verify.arrays import Array

_SPREAD, _EMPTY_BELOW = 2.0, -0.6745


def uneven_ends(problem: Problem, normal: Array) -> Array:
    """Where the groups of `problem` end, for as many standard normal numbers: sizes differ by powers of two, and a
    quarter of the groups is empty."""
    weights = 2.0 ** (normal * _SPREAD) * (normal > _EMPTY_BELOW)
    weights = weights + 1.0 * (weights.sum() == 0)
    ends = (weights.cumsum(0) * (problem.divided / weights.sum())).round().clip(0, problem.divided)
    ends[-1] = problem.divided
    return ends


def ranges_of(problem: Problem, offsets: Array | None) -> list[tuple[int, int]]:
    """The rows of each product, the first and the one behind its last, or where groups divide K, the elements of K."""
    if problem.operation.is_grouped:
        assert offsets is not None, "a grouped operation has offsets"
        return row_ranges(offsets.tolist())
    return row_ranges(problem.m * (each + 1) for each in range(problem.groups))


def product_of(problem: Problem, a: Array, b: Array, offsets: Array | None) -> Array:
    """A @ B of matrices, or of all products, whose rows follow one another."""
    if problem.operation.kind not in COUNTED:
        return a @ b
    if problem.operation.divides_k:
        products = (a[:, :1] @ b[:1])[None][[0] * problem.groups]  # room for all
        for group, (first, end) in enumerate(ranges_of(problem, offsets)):
            products[group] = a[:, first:end] @ b[first:end]
        return products.reshape(problem.rows, problem.n)
    rows = a.reshape(problem.rows, problem.k)
    products = rows[:, :1] * b[0, :1]  # room for all
    for group, (first, end) in enumerate(ranges_of(problem, offsets)):
        products[first:end] = rows[first:end] @ b[group]
    return products


def single_products(problem: Problem, tensors: Mapping[str, Array]) -> Iterator[tuple[int, Problem, dict[str, Array]]]:
    """Each product that has rows as a problem of its own: its first row among all, and views of its `tensors`."""
    if problem.operation.kind not in COUNTED:
        yield 0, problem, dict(tensors)
        return
    operation, divides_k = replace(problem.operation, kind="gemm", count=0), problem.operation.divides_k
    of_rows = {*tensors} - {"b", "scale_b", "bias"} if problem.operation.divides_rows else {*()}
    divided = {"a", "b"} if divides_k else of_rows
    matrices = {name: each for name, each in tensors.items() if name != "offsets"}
    for group, (first, end) in enumerate(ranges_of(problem, tensors.get("offsets"))):
        own = {name: each[first:end] if name in divided else each[group] for name, each in matrices.items()}
        if divides_k:
            yield group * problem.m, Problem(problem.m, problem.n, end - first, operation), own
        elif end > first:
            yield first, Problem(end - first, problem.n, problem.k, operation), own


def one_product(problem: Problem) -> Problem:
    """One matrix product with as many rows as all products have, and all their columns side by side. Where groups
    divide K, the product of all K."""
    operation = replace(problem.operation, kind="gemm", layout="nn", count=0)
    if problem.operation.divides_k:
        return Problem(problem.m, problem.n, problem.k, operation)
    return Problem(problem.rows, problem.n * problem.groups, problem.k, operation)


def parted(problem: Problem, values: dict[str, Array], units: Array) -> tuple[dict[str, Array], Array]:
    """`values` and units of `one_product` as those of `problem`, each product with its own rows of A and columns of B:
    units [rows, n]. `values` has offsets already, where `problem` has."""
    layout = problem.operation.layout
    if problem.operation.divides_k:
        own = {"c": _turned(problem, values["c"])} if "c" in values else {}
        return {**values, "a": values["a"].swapaxes(0, 1), **own}, units[None][[0] * problem.rows]
    stacked = values["a"] if problem.operation.is_grouped else values["a"].reshape(-1, problem.m, problem.k)
    a = stacked if layout[0] == "n" else stacked.swapaxes(-1, -2)
    if "residual" in values:
        # Of all rows and all columns those of each product, of whose units it is.
        own = values["residual"].reshape(problem.groups, problem.m, problem.groups, problem.n)
        each = list(range(problem.groups))
        values = {**values, "residual": own[each, :, each]}
    columns = _columns_of_products(problem)
    across = columns(values["b"].swapaxes(0, 1))
    b = across if layout[1] == "t" else across.swapaxes(-1, -2)
    values = {**values, "bias": columns(values["bias"])}
    if "scale_b" in values:
        scale_a = values["scale_a"] if problem.operation.is_grouped else values["scale_a"].reshape(-1, problem.m)
        values = {**values, "scale_a": scale_a, "scale_b": columns(values["scale_b"])}
    return {**values, "a": a, "b": b}, for_rows(problem, columns(units), values.get("offsets"))


def _turned(problem: Problem, c: Array) -> Array:
    """What C [groups,m,n] holds, of one matrix [m,n]: its rows, which begin with another one in each group."""
    rows = [(group + row) % problem.m for group in range(problem.groups) for row in range(problem.m)]
    return c[rows].reshape(problem.groups, problem.m, problem.n)


def for_rows(problem: Problem, of_products: Array, offsets: Array | None) -> Array:
    """What each product has, as many times as it has rows."""
    ranges = enumerate(ranges_of(problem, offsets))
    return of_products[[group for group, (first, end) in ranges for _ in range(first, end)]]


def _columns_of_products(problem: Problem) -> Callable[[Array], Array]:
    """What makes of something that all columns of `one_product` have the same for each product: [groups, columns, ..].
    Gates are the first half of a product's columns as they are of all."""
    groups, columns = problem.groups, problem.n * problem.operation.b_columns
    if problem.operation.gates_step != "gated":
        return lambda each: each.reshape(groups, columns, *each.shape[1:])
    return lambda each: (
        each.reshape(2, groups, problem.n, *each.shape[1:]).swapaxes(0, 1).reshape(groups, columns, *each.shape[1:])
    )
