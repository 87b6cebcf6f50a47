"""shapes.yaml: the GEMM problems to tune for.

    dtype: bf16
    epilogue: none            # or bias
    shapes:
      - {m: 4096, n: 4096, k: 4096}
      - {name: llama-3-70b-qkv, m: [128, 2048], n: 10240, k: 8192, weight: 80}   # lists multiply out

`weight` is how often one step of the model calls the problem. Every rule is broken with one line: the rule, the value,
the next step, and the index of the entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hktune.core.errors import ShapesError
from hktune.core.escaped import shown
from hktune.core.operation import legacy_operation
from hktune.core.outside_file import FileKind
from hktune.core.problem import Problem
from hktune.core.yaml_file import value_of

DTYPES = ("bf16",)
EPILOGUES = ("none", "bias")

# A dimension of 2^24 is beyond any model's; 2^31 elements is where a matrix passes 32-bit element offsets.
DIMENSION_MAX = 2**24
MATRIX_ELEMENTS_MAX = 2**31
PROBLEMS_MAX = 10_000
NAMES_SHOWN = 4  # of one problem
SHAPES_FILE = FileKind("a shapes file", 1 << 20, ShapesError, "pass a file like shapes.yaml", "split it")

FILE_KEYS = {"dtype", "epilogue", "shapes"}
ENTRY_KEYS = {"name", "m", "n", "k", "weight", "dtype", "epilogue"}


@dataclass(frozen=True)
class Shape:
    """One problem, the name it is reported by, and its calls per step of the model."""

    problem: Problem
    name: str
    weight: float


@dataclass(frozen=True)
class ShapeList:
    """The problems of one file, in its order, each once: a problem that two entries ask for carries both names and
    the sum of both weights."""

    shapes: tuple[Shape, ...]

    def __iter__(self) -> Iterator[Shape]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(shape.problem for shape in self.shapes)


def load_shapes(path: Path) -> ShapeList:
    """Read and check a shapes file. Raises ShapesError, one line, for anything that is not legal in it."""
    document = value_of(SHAPES_FILE.read(path), path, SHAPES_FILE)
    if not isinstance(document, dict):
        raise ShapesError(f"{path}: must be a mapping with a list `shapes`, got {shown(document)}")
    _only_keys(document, FILE_KEYS, str(path))
    entries = document.get("shapes")
    if not isinstance(entries, list) or not entries:
        raise ShapesError(f"{path}: `shapes` must be a list of at least one entry, got {shown(entries)}")
    defaults = {
        "dtype": _word(document.get("dtype", "bf16"), DTYPES, f"{path}: dtype"),
        "epilogue": _word(document.get("epilogue", "none"), EPILOGUES, f"{path}: epilogue"),
    }
    shapes: list[Shape] = []
    named: dict[str, int] = {}
    for index, entry in enumerate(entries):
        where = f"{path}: shapes[{index}]"
        shapes += _entry_shapes(entry, defaults, where)
        if len(shapes) > PROBLEMS_MAX:
            raise ShapesError(f"{where}: over {PROBLEMS_MAX} problems in one file: split it")
        if "name" in entry and named.setdefault(entry["name"], index) != index:
            raise ShapesError(f"{where}: name {entry['name']!r} is taken by shapes[{named[entry['name']]}]: rename one")
    return _merge(shapes)


def _entry_shapes(entry: Any, defaults: Mapping[str, str], where: str) -> list[Shape]:
    if not isinstance(entry, dict):
        raise ShapesError(f"{where}: must be a mapping such as {{m: 4096, n: 4096, k: 4096}}, got {shown(entry)}")
    _only_keys(entry, ENTRY_KEYS, where)
    missing = [key for key in ("m", "n", "k") if key not in entry]
    if missing:
        raise ShapesError(f"{where}: {', '.join(missing)} missing: every shape needs m, n and k")
    dtype = _word(entry.get("dtype", defaults["dtype"]), DTYPES, f"{where}: dtype")
    epilogue = _word(entry.get("epilogue", defaults["epilogue"]), EPILOGUES, f"{where}: epilogue")
    weight = _weight(entry.get("weight", 1), where)
    sizes = [_sizes(entry[key], f"{where}: {key}") for key in ("m", "n", "k")]
    if math.prod(map(len, sizes)) > PROBLEMS_MAX:
        raise ShapesError(f"{where}: its lists multiply out to over {PROBLEMS_MAX} problems: shorten them")
    problems = [Problem(m, n, k, legacy_operation(dtype, epilogue)) for m, n, k in product(*sizes)]
    for problem in problems:
        matrices_fit(problem, where)
    return [Shape(problem, _name(entry, problem, where), weight) for problem in problems]


def _merge(shapes: list[Shape]) -> ShapeList:
    merged: dict[Problem, list[Shape]] = {}
    for shape in shapes:
        merged.setdefault(shape.problem, []).append(shape)
    return ShapeList(
        tuple(Shape(problem, _joined(same), sum(each.weight for each in same)) for problem, same in merged.items())
    )


def _joined(shapes: list[Shape]) -> str:
    """All names, each once; the first few where there are many."""
    names = list(dict.fromkeys(shape.name for shape in shapes))
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _only_keys(mapping: Mapping[Any, Any], known: set[str], where: str) -> None:
    unknown = [key for key in mapping if key not in known]
    if unknown:
        raise ShapesError(f"{where}: unknown key {shown(unknown[0])}: known are {', '.join(sorted(known))}")


def _sizes(value: Any, where: str) -> list[int]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ShapesError(f"{where}: the list is empty: give at least one size")
    for size in values:
        if type(size) is not int or not 1 <= size <= DIMENSION_MAX:
            raise ShapesError(f"{where}: must be an integer from 1 to {DIMENSION_MAX}, got {shown(size)}")
    return values


def matrices_fit(problem: Problem, where: str) -> None:
    """Raises ShapesError, beginning with `where`, when a matrix of `problem` has more elements than one may."""
    m, n, k = problem.m, problem.n, problem.k
    for matrix, rows, columns in (("A[m,k]", m, k), ("Bt[n,k]", n, k), ("C[m,n]", m, n)):
        if rows * columns > MATRIX_ELEMENTS_MAX:
            rule = f"{matrix} has at most {MATRIX_ELEMENTS_MAX} elements"
            raise ShapesError(f"{where}: {rule}, got {rows}x{columns}: make it smaller")


def _word(value: Any, known: tuple[str, ...], where: str) -> str:
    if value not in known:
        raise ShapesError(f"{where}: must be one of {', '.join(known)}, got {shown(value)}")
    return str(value)


def _weight(value: Any, where: str) -> float:
    if type(value) not in (int, float) or not 0 < value < 1e12:
        raise ShapesError(f"{where}: weight: must be a number above 0 (calls per step), got {shown(value)}")
    return float(value)


def _name(entry: Mapping[str, Any], problem: Problem, where: str) -> str:
    name = entry.get("name", str(problem))
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= 100:
        raise ShapesError(f"{where}: name: must be 1 to 100 printable characters, got {shown(name)}")
    return name
