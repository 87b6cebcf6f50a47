"""The shapes that were found in files, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

from hktune.core.shapes import ShapeList
from hktune.exchange import FoundShapes
from hktune.exchange.foreign_shapes import LeftOut
from hktune.report.columns import Column, print_columns, print_prose
from hktune.report.operations import given_name, problem_columns

_SAID_MAX = 60  # characters of a product, as a file has it


def print_found(console: Console, shapes: ShapeList, found: Mapping[Path, FoundShapes]) -> None:
    """Print the shapes of all files, heaviest first, and then of each file what was left out."""
    ordered = sorted(shapes, key=lambda shape: -shape.weight)
    print_columns(
        console,
        [
            Column("name", [given_name(shape.name, shape.problem) for shape in ordered], folds=True),
            *problem_columns([shape.problem for shape in ordered]),
            Column("weight", [f"{shape.weight:.12g}" for shape in ordered], right=True),
        ],
    )
    for path, each in found.items():
        products = sum(left.lines for left in each.left_out)
        without = f"; left out: {products}" if products else ""
        print_prose(console, f"{path}: {each.format}, {counted(each.shapes)}{without}")
        for left in sorted(each.left_out, key=lambda left: -left.lines):
            print_prose(console, f"  {_counted(left)}: {left.why}, such as {_where(left)}", indent="    ")


def as_json(shapes: ShapeList, found: Mapping[Path, FoundShapes]) -> Iterator[str]:
    """One object for each shape, then one for each reason why products of a file were left out."""
    for shape in shapes:
        yield json.dumps(
            {
                "name": given_name(shape.name, shape.problem),
                **shape.problem.sizes,
                "operation": str(shape.problem.operation),
                "weight": shape.weight,
                **({"tokens": dict(shape.tokens)} if shape.tokens else {}),
            }
        )
    for path, each in found.items():
        for left in each.left_out:
            yield json.dumps(
                {
                    "left_out": left.why,
                    "file": str(path),
                    "format": each.format,
                    "products": left.lines,
                    "calls": left.calls,
                    "first": left.first.said[:_SAID_MAX],
                    "line": left.first.line or None,
                }
            )


def counted(shapes: ShapeList) -> str:
    """How many there are."""
    return f"{len(shapes)} shape{'s' * (len(shapes) != 1)}"


def _counted(left: LeftOut) -> str:
    calls = f" ({left.calls:.12g} calls)" if left.calls not in (None, left.lines) else ""
    return f"{left.lines}{calls}"


def _where(left: LeftOut) -> str:
    said = left.first.said[:_SAID_MAX] or "an empty one"
    return f"{said} in line {left.first.line}" if left.first.line else said
