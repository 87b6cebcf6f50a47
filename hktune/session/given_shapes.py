"""Shapes as a Python program has them: a file's path, values of many kinds, or a model and what to call it with."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import SupportsIndex, TypeVar, cast

from hktune.core.errors import InputError, ShapesError
from hktune.core.escaped import shown
from hktune.core.json_file import Json
from hktune.core.problem import Problem
from hktune.core.problem_text import is_problem_text, problem_of
from hktune.core.shapes import PROBLEMS_MAX, Shape, ShapeList, entry_shapes, merged_shapes, shapes_of
from hktune.exchange import read_shapes

_HINT = "give MxNxK texts, (m, n, k) tuples, mappings as in shapes.yaml, Problems, a shapes file's path, or a model"

_Value = TypeVar("_Value")


def given_shapes(shapes: object, inputs: object = None) -> tuple[ShapeList, tuple[str, ...]]:
    """The shapes that `shapes` says, and what of a model is left out. With `inputs`, and where `shapes` can be called,
    it is a model. Raises ShapesError and InputError."""
    if inputs is not None or callable(shapes):
        return _of_model(shapes, inputs)
    if isinstance(shapes, ShapeList):
        return shapes, ()
    if isinstance(shapes, PathLike) or (isinstance(shapes, str) and not is_problem_text(shapes)):
        found = read_shapes(Path(cast("str | PathLike[str]", shapes)).expanduser())
        return found.shapes, (found.note,) if found.note else ()
    if isinstance(shapes, Mapping) and "shapes" in shapes:
        return shapes_of(_plain(shapes), "shapes"), ()
    return _of_values(shapes), ()


def problem_given(value: object, where: str = "problem") -> Problem:
    """The one problem that `value` is. Raises ShapesError."""
    found = [shape.problem for shape in _shapes_of(value, where)]
    if len(found) != 1:
        raise ShapesError(f"{where}: must be one problem, got {len(found)}: {_HINT}")
    return found[0]


def _of_values(shapes: object) -> ShapeList:
    found: list[Shape] = []
    for index, value in enumerate(_values(shapes)):
        found += _shapes_of(value, f"shapes[{index}]")
        if len(found) > PROBLEMS_MAX:
            raise ShapesError(f"shapes[{index}]: over {PROBLEMS_MAX} problems: split them")
    if not found:
        raise ShapesError(f"shapes: must be at least one, got {shown(shapes)}: {_HINT}")
    return merged_shapes(found)


def _values(shapes: object) -> Iterable[object]:
    """What stands for one entry each."""
    if hasattr(shapes, "to_dict") and hasattr(shapes, "columns"):  # a DataFrame, of whichever library has such
        rows = cast("Iterable[Mapping[str, object]]", shapes.to_dict("records"))
        return [{name: cell for name, cell in row.items() if cell == cell} for row in rows]
    if isinstance(shapes, str | Problem | Shape | Mapping) or _is_sizes(shapes):
        return [shapes]
    if isinstance(shapes, Iterable):
        return shapes
    raise ShapesError(f"shapes: {shown(shapes)} is none: {_HINT}")


def _shapes_of(value: object, where: str) -> list[Shape]:
    if isinstance(value, Shape):
        return [_checked(value, where)]
    if isinstance(value, Mapping):
        return entry_shapes(cast("Mapping[str, Json]", _plain(value)), where)
    if isinstance(value, Problem):
        sizes = {**value.sizes, "operation": str(value.operation)}
        return entry_shapes(cast("Mapping[str, Json]", sizes), where)
    if isinstance(value, str):
        problem = _named(problem_of, value, where)
        return [Shape(problem, str(problem), 1.0)]
    if _is_sizes(value):
        names = ("m", "n", "k", "operation")
        given = dict(zip(names, cast("tuple[object, ...]", value), strict=False))
        return entry_shapes(cast("Mapping[str, Json]", _plain(given)), where)
    raise ShapesError(f"{where}: {shown(value)} is no shape: {_HINT}")


def _checked(shape: Shape, where: str) -> Shape:
    """`shape`, which a program made. Its name may be that of several shapes of a file, and so is longer than theirs."""
    sizes = {**shape.problem.sizes, "operation": str(shape.problem.operation)}
    tokens = {"tokens": {str(size): count for size, count in shape.tokens}} if shape.tokens else {}
    entry_shapes(cast("Mapping[str, Json]", {**sizes, **tokens}), where)
    if not shape.name or not shape.name.isprintable():
        raise ShapesError(f"{where}: name: must be printable characters, got {shown(shape.name)}")
    if not shape.weight > 0:
        raise ShapesError(f"{where}: weight: must be a number above 0 (calls per step), got {shown(shape.weight)}")
    return shape


def _is_sizes(value: object) -> bool:
    """Whether `value` is (m, n, k), or that and an operation."""
    return (
        isinstance(value, tuple | list)
        and len(value) in (3, 4)
        and all(isinstance(size, SupportsIndex) for size in value[:3])
        and (len(value) == 3 or not isinstance(value[3], SupportsIndex | tuple | list))
    )


def _plain(value: object) -> Json:
    """`value` as a file would say it: numbers of numpy's as Python's, an operation as its text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | float | str):
        return value
    return operator.index(value) if isinstance(value, SupportsIndex) else str(value)


def _named(read: Callable[[str], _Value], text: str, where: str) -> _Value:
    try:
        return read(text)
    except ShapesError as broken:
        raise ShapesError(f"{where}: {broken}") from None


def _of_model(model: object, inputs: object) -> tuple[ShapeList, tuple[str, ...]]:
    """What `model` calls with each of `inputs`; a weight is the number of its calls."""
    if not callable(model):
        raise InputError(f"inputs are for a model, and {shown(model)} is none: pass one as shapes, or leave inputs out")
    if inputs is None:
        raise InputError("a model needs inputs: a tensor, a tuple of arguments, a mapping by name, or a list of such")
    import torch

    from hktune.runtime import Recorder

    with torch.no_grad(), Recorder() as recorder:
        for arguments, named in _calls(inputs):
            model(*arguments, **named)
    left = f"of the model's GEMMs, what no table serves is left out ({recorder.others})" if recorder.left_out else ""
    return recorder.shapes, (left,) if left else ()


def _calls(inputs: object) -> Iterator[tuple[tuple[object, ...], dict[str, object]]]:
    """The arguments of each call, by position and by name."""
    for each in inputs if isinstance(inputs, list) else [inputs]:
        if isinstance(each, tuple):
            yield each, {}
        elif isinstance(each, Mapping):
            yield (), {str(name): value for name, value in each.items()}
        else:
            yield (each,), {}
