"""The shapes of a file: shapes.yaml, or what another tool wrote."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hktune.core.errors import ShapesError
from hktune.core.operation import Operation
from hktune.core.shapes import PROBLEMS_MAX, WEIGHT_MAX, Shape, ShapeList, load_shapes, merged_shapes
from hktune.exchange.foreign_file import FORMATS, ForeignFile, read_foreign
from hktune.exchange.product import Product

_OWN = "shapes.yaml"
_NAMED_MAX = 3  # reasons in one line


@dataclass(frozen=True)
class LeftOut:
    """The products of a file that one thing keeps from being served: how many lines say one, how many calls they are
    where the file counts, and the first of them."""

    why: str
    lines: int
    calls: float | None
    first: Product


@dataclass(frozen=True)
class FoundShapes:
    """The shapes of a file of `format`, and what of it is none."""

    shapes: ShapeList
    format: str = _OWN
    left_out: tuple[LeftOut, ...] = ()

    @property
    def note(self) -> str | None:
        """What was left out, in one line; None where nothing was."""
        if not self.left_out:
            return None
        lines = sum(each.lines for each in self.left_out)
        return f"{self.format}: {len(self.shapes)} shapes; left out: {lines} ({reasons(self.left_out)})"


def read_shapes(path: Path, operation: Operation | None = None) -> FoundShapes:
    """The shapes of the file at `path`, whatever its format. `operation` is what a file computes that does not say.
    Raises ShapesError, one line, where it cannot be read, is of no known format, or has no shape."""
    found = read_foreign(path, operation)
    if found is None:
        return FoundShapes(_own_shapes(path))
    return shapes_of(found, path)


def _own_shapes(path: Path) -> ShapeList:
    try:
        return load_shapes(path)
    except ShapesError as wrong:
        if "must be a mapping with a list `shapes`" not in str(wrong):
            raise
        raise ShapesError(f"{wrong}: nor is it {', '.join(FORMATS)}") from None


def shapes_of(found: ForeignFile, path: Path) -> FoundShapes:
    """The shapes among the products of the file at `path`. Raises ShapesError where there are none, or too many."""
    taken = [product for product in found.products if product.problem is not None]
    left_out = tuple(grouped(product for product in found.products if product.problem is None))
    if not taken:
        lines = sum(each.lines for each in left_out)
        rule = f"{path}: {found.format} with {lines} products, none of which a table can serve"
        raise ShapesError(f"{rule}{f': {reasons(left_out)}' if left_out else ''}: pass another file")
    shapes = merged_shapes(_counted(taken))
    if len(shapes) > PROBLEMS_MAX:
        raise ShapesError(f"{path}: {len(shapes)} problems, at most {PROBLEMS_MAX} are tuned at once: split it")
    return FoundShapes(shapes, found.format, left_out)


def reasons(left_out: Iterable[LeftOut]) -> str:
    """Why, most lines first, with how many each are."""
    ordered = sorted(left_out, key=lambda each: -each.lines)
    said = [f"{each.lines} {each.why}" for each in ordered[:_NAMED_MAX]]
    rest = sum(each.lines for each in ordered[_NAMED_MAX:])
    return "; ".join([*said, *([f"{rest} for other reasons"] if rest else [])])


def _counted(products: Iterable[Product]) -> list[Shape]:
    """One shape for each problem. Its weight is its calls; 1 where the file does not count them, however often it names
    the problem: there it was tuned for several boards, or for several epilogues."""
    weights: dict[object, float] = {}
    problems = {}
    for product in products:
        assert product.problem is not None
        problems[product.problem.key] = product.problem
        if product.calls is None:
            weights.setdefault(product.problem.key, 1.0)
        else:
            weights[product.problem.key] = weights.get(product.problem.key, 0.0) + product.calls
    most = WEIGHT_MAX * (1 - 1e-9)
    return [Shape(problem, str(problem), min(weights[key], most)) for key, problem in problems.items()]


def grouped(products: Iterable[Product]) -> list[LeftOut]:
    """The products that are not served, by what keeps them from it."""
    groups: dict[str, list[Product]] = {}
    for product in products:
        groups.setdefault(product.why_not, []).append(product)
    return [
        LeftOut(why, len(group), sum(each.calls or 0 for each in group) or None, group[0])
        for why, group in groups.items()
    ]
