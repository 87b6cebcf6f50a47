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

import yaml

from hktune.errors import ShapesError
from hktune.model import Problem

DTYPES = ("bf16",)
EPILOGUES = ("none", "bias")

# A dimension of 2^24 is beyond any model's; 2^31 elements is where a matrix passes 32-bit element offsets.
DIMENSION_MAX = 2**24
MATRIX_ELEMENTS_MAX = 2**31
PROBLEMS_MAX = 10_000
FILE_BYTES_MAX = 1 << 20

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
    document = _parse(_read(path), path)
    if not isinstance(document, dict):
        raise ShapesError(f"{path}: must be a mapping with a list `shapes`, got {_short(document)}")
    _only_keys(document, FILE_KEYS, str(path))
    entries = document.get("shapes")
    if not isinstance(entries, list) or not entries:
        raise ShapesError(f"{path}: `shapes` must be a list of at least one entry, got {_short(entries)}")
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


class _Loader(yaml.SafeLoader):
    """SafeLoader without aliases, which can name far more than a file holds, and without repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not supported: write the values out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for at, (key, _) in enumerate(node.value):
            if key.value in keys[:at]:
                problem = f"the key {key.value!r} stands twice: remove one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ShapesError(f"{path}: cannot read the shapes file ({error.strerror}): pass an existing file") from None
    if len(data) > FILE_BYTES_MAX:
        raise ShapesError(f"{path}: a shapes file has at most {FILE_BYTES_MAX} bytes: split it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ShapesError(f"{path}: must be UTF-8 text, byte {error.start} is not: save it as UTF-8") from None


def _parse(text: str, path: Path) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ShapesError(f"{path}: line {line}: not YAML that hktune reads: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ShapesError(f"{path}: not YAML that hktune reads: {' '.join(str(error).split())}") from None


def _entry_shapes(entry: Any, defaults: Mapping[str, str], where: str) -> list[Shape]:
    if not isinstance(entry, dict):
        raise ShapesError(f"{where}: must be a mapping such as {{m: 4096, n: 4096, k: 4096}}, got {_short(entry)}")
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
    problems = [Problem(m, n, k, dtype, epilogue) for m, n, k in product(*sizes)]
    for problem in problems:
        _matrices_fit(problem, where)
    return [Shape(problem, _name(entry, problem, where), weight) for problem in problems]


def _merge(shapes: list[Shape]) -> ShapeList:
    merged: dict[Problem, Shape] = {}
    for shape in shapes:
        known = merged.get(shape.problem, Shape(shape.problem, "", 0))
        names = [name for name in dict.fromkeys((known.name, shape.name)) if name]
        merged[shape.problem] = Shape(shape.problem, ", ".join(names), known.weight + shape.weight)
    return ShapeList(tuple(merged.values()))


def _only_keys(mapping: Mapping[Any, Any], known: set[str], where: str) -> None:
    unknown = [key for key in mapping if key not in known]
    if unknown:
        raise ShapesError(f"{where}: unknown key {_short(unknown[0])}: known are {', '.join(sorted(known))}")


def _sizes(value: Any, where: str) -> list[int]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ShapesError(f"{where}: the list is empty: give at least one size")
    for size in values:
        if type(size) is not int or not 1 <= size <= DIMENSION_MAX:
            raise ShapesError(f"{where}: must be an integer from 1 to {DIMENSION_MAX}, got {_short(size)}")
    return values


def _matrices_fit(problem: Problem, where: str) -> None:
    m, n, k = problem.m, problem.n, problem.k
    for matrix, rows, columns in (("A[m,k]", m, k), ("Bt[n,k]", n, k), ("C[m,n]", m, n)):
        if rows * columns > MATRIX_ELEMENTS_MAX:
            rule = f"{matrix} has at most {MATRIX_ELEMENTS_MAX} elements"
            raise ShapesError(f"{where}: {rule}, got {rows}x{columns}: make it smaller")


def _word(value: Any, known: tuple[str, ...], where: str) -> str:
    if value not in known:
        raise ShapesError(f"{where}: must be one of {', '.join(known)}, got {_short(value)}")
    return str(value)


def _weight(value: Any, where: str) -> float:
    if type(value) not in (int, float) or not 0 < value < 1e12:
        raise ShapesError(f"{where}: weight: must be a number above 0 (calls per step), got {_short(value)}")
    return float(value)


def _name(entry: Mapping[str, Any], problem: Problem, where: str) -> str:
    name = entry.get("name", str(problem))
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= 100:
        raise ShapesError(f"{where}: name: must be 1 to 100 printable characters, got {_short(name)}")
    return name


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
