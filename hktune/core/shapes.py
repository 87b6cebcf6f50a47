"""shapes.yaml: the GEMM problems to tune for.

    operation: bf16.nt
    shapes:
      - {m: 4096, n: 4096, k: 4096}
      - {name: llama-3-70b-qkv, m: [128, 2048], n: 10240, k: 8192, weight: 80}   # lists multiply out
      - {m: 16, n: 4608, k: 3584, operation: [bf16.nt+bias, f16.nt+bias]}        # these too
      - {m: 64, n: 768, k: 2048, operation: grouped128.bf16.nt, tokens: {0: 80, 1: 36, 2: 9, 3: 3}}

`weight` is how often one step of the model calls the problem. `tokens` says of a grouped one how often its groups had
how many rows: 80 of 128 experts none, and so on. Tuning divides the rows so. Files from before there were operations
say `dtype` and `epilogue` instead. Every rule is broken with one line: the rule, the value, the next step, and the
index of the entry.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from hktune.core.errors import InputError, ShapesError
from hktune.core.escaped import shown
from hktune.core.group_sizes import Tokens, checked_tokens, merged_tokens
from hktune.core.json_file import Json
from hktune.core.operand import operands_of
from hktune.core.operation import (
    BF16_NT,
    BF16_NT_BIAS,
    LEGACY_WORDS,
    Operation,
    legacy_operation,
    legacy_words,
    problem_operation,
)
from hktune.core.outside_file import FileKind
from hktune.core.problem import Problem
from hktune.core.yaml_file import value_of

_SAY_ALL = f"say all of it in operation, such as {BF16_NT_BIAS}"

# A dimension of 2^24 is beyond any model's; 2^31 elements is where a matrix passes 32-bit element offsets.
DIMENSION_MAX = 2**24
MATRIX_ELEMENTS_MAX = 2**31
MATRICES_ELEMENTS_MAX = 2**36  # of all matrices of an operand: more than the memory of a GPU
PROBLEMS_MAX = 10_000
NAMES_SHOWN = 4  # of one problem
NAME_CHARACTERS_MAX = 100
WEIGHT_MAX = 1e12  # of one entry, itself too much
SHAPES_FILE = FileKind("a shapes file", 1 << 20, ShapesError, "pass a file like shapes.yaml", "split it")

FILE_KEYS = {"operation", "shapes", *LEGACY_WORDS}
ENTRY_KEYS = {"name", "m", "n", "k", "weight", "operation", "tokens", *LEGACY_WORDS}


@dataclass(frozen=True)
class Shape:
    """One problem, the name it is reported by, its calls per step of the model, and the sizes that its groups had."""

    problem: Problem
    name: str
    weight: float
    tokens: Tokens = ()


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

    @property
    def tokens(self) -> dict[Problem, Tokens]:
        """The sizes that groups of a problem had, where that is known."""
        return {shape.problem: shape.tokens for shape in self.shapes if shape.tokens}


def merged_shapes(shapes: Iterable[Shape]) -> ShapeList:
    """`shapes` with each problem once, where it first comes."""
    merged: dict[Problem, list[Shape]] = {}
    for shape in shapes:
        merged.setdefault(shape.problem, []).append(shape)
    return ShapeList(
        tuple(
            Shape(
                problem, _joined(same), sum(each.weight for each in same), merged_tokens(each.tokens for each in same)
            )
            for problem, same in merged.items()
        )
    )


def shapes_yaml(shapes: Iterable[Shape]) -> str:
    """`shapes` as the text of a shapes file that `load_shapes` takes, an entry on a line, in the order of n, k, m. A
    name is written where it says more than the problem. Those of one name are one entry where they differ in m alone;
    a further entry of that name gets a number, since no two are named alike."""
    entries: dict[tuple[object, ...], list[Shape]] = {}
    for shape in sorted(shapes, key=lambda shape: (shape.problem.n, shape.problem.k, shape.problem)):
        problem = shape.problem
        alone = problem.m if shape.name == str(problem) else 0
        alike = (shape.name, problem.n, problem.k, problem.operation, shape.weight, shape.tokens, alone)
        entries.setdefault(alike, []).append(shape)
    taken: set[str] = set()
    return "\n".join(["shapes:", *(_entry_text(alike, taken) for alike in entries.values())]) + "\n"


def _entry_text(alike: Sequence[Shape], taken: set[str]) -> str:
    """The entry of shapes that differ in m alone, under a name that is not `taken`, which gets it."""
    shape, problem = alike[0], alike[0].problem
    own_name = "" if shape.name == str(problem) else _own_name(shape.name, taken)
    named = f"name: {json.dumps(own_name, ensure_ascii=False)}, " if own_name else ""
    m = str(problem.m) if len(alike) == 1 else f"[{', '.join(str(each.problem.m) for each in alike)}]"
    counts = ", ".join(f"{size}: {count}" for size, count in shape.tokens)
    tokens = f", tokens: {{{counts}}}" if counts else ""
    weight = min(shape.weight, WEIGHT_MAX * (1 - 1e-9))  # a sum of entries may be more than one may have
    sizes = f"m: {m}, n: {problem.n}, k: {problem.k}"
    return f"  - {{{named}{sizes}, operation: {problem.operation}, weight: {weight:.12g}{tokens}}}"


def _own_name(name: str, taken: set[str]) -> str:
    """`name`, cut to what one may have, with a number where it is `taken`; it is from now on."""
    own, number = name[:NAME_CHARACTERS_MAX], 1
    while own in taken:
        number += 1
        own = f"{name[: NAME_CHARACTERS_MAX - 6]} {number}"
    taken.add(own)
    return own


def load_shapes(path: Path) -> ShapeList:
    """Read and check a shapes file. Raises ShapesError, one line, for anything that is not legal in it."""
    return shapes_of(value_of(SHAPES_FILE.read(path), path, SHAPES_FILE), str(path))


def shapes_of(document: Json, origin: str) -> ShapeList:
    """The shapes of what a shapes file says, which came from `origin`. Raises ShapesError as `load_shapes` does."""
    if not isinstance(document, dict):
        raise ShapesError(f"{origin}: must be a mapping with a list `shapes`, got {shown(document)}")
    _only_keys(document, FILE_KEYS, origin)
    entries = document.get("shapes")
    if not isinstance(entries, list) or not entries:
        raise ShapesError(f"{origin}: `shapes` must be a list of at least one entry, got {shown(entries)}")
    usual = _operations(document, origin, [BF16_NT])
    shapes: list[Shape] = []
    named: dict[str, int] = {}
    for index, entry in enumerate(entries):
        where = f"{origin}: shapes[{index}]"
        if not isinstance(entry, dict):
            raise ShapesError(f"{where}: must be a mapping such as {{m: 4096, n: 4096, k: 4096}}, got {shown(entry)}")
        shapes += _entry_shapes(entry, document, usual, where)
        if len(shapes) > PROBLEMS_MAX:
            raise ShapesError(f"{where}: over {PROBLEMS_MAX} problems in one file: split it")
        name = str(entry.get("name", ""))
        if name and named.setdefault(name, index) != index:
            raise ShapesError(f"{where}: name {name!r} is taken by shapes[{named[name]}]: rename one")
    return merged_shapes(shapes)


def entry_shapes(entry: Mapping[str, Json], where: str) -> list[Shape]:
    """The shapes of one entry that is in no file. Raises ShapesError as `load_shapes` does, of `where`."""
    return _entry_shapes(entry, {}, [BF16_NT], where)


def _entry_shapes(
    entry: Mapping[str, Json], document: Mapping[str, Json], usual: Sequence[Operation], where: str
) -> list[Shape]:
    """The shapes of one entry; its operations are those of the file, `usual`, where it names none."""
    _only_keys(entry, ENTRY_KEYS, where)
    missing = [key for key in ("m", "n", "k") if key not in entry]
    if missing:
        raise ShapesError(f"{where}: {', '.join(missing)} missing: every shape needs m, n and k")
    old = _old_keys(entry)
    if old and "operation" in document and "operation" not in entry:
        raise ShapesError(
            f"{where}: has {old[0]} under the file's operation={shown(document['operation'])}: {_SAY_ALL}"
        )
    operations = _operations(entry, where, usual)
    weight = _weight(entry.get("weight", 1), where)
    sizes = [_sizes(entry[key], f"{where}: {key}") for key in ("m", "n", "k")]
    if math.prod(map(len, (*sizes, operations))) > PROBLEMS_MAX:
        raise ShapesError(f"{where}: its lists multiply out to over {PROBLEMS_MAX} problems: shorten them")
    problems = [Problem(m, n, k, operation) for operation in operations for m, n, k in product(*sizes)]
    tokens = _tokens(entry, operations, where)
    for problem in problems:
        matrices_fit(problem, where)
    return [Shape(problem, _name(entry, problem, where), weight, tokens) for problem in problems]


def _tokens(entry: Mapping[str, Json], operations: Sequence[Operation], where: str) -> Tokens:
    """The sizes that groups had, as an entry of such `operations` says."""
    if "tokens" not in entry:
        return ()
    found, where = entry["tokens"], f"{where}: tokens"
    other = next((each for each in operations if not each.is_grouped), None)
    if other is not None:
        raise ShapesError(f"{where}: are of grouped operations, got {other}: leave them out")
    hint = "write how many groups were of each size, such as {0: 80, 1: 40, 12: 8}, or leave it out"
    if not isinstance(found, dict):
        raise ShapesError(f"{where}: must be counts by size, got {shown(found)}: {hint}")
    try:
        return checked_tokens(found)
    except ValueError as wrong:
        raise ShapesError(f"{where}: {wrong}: {hint}") from None


def _operations(mapping: Mapping[str, Json], where: str, usual: Sequence[Operation]) -> Sequence[Operation]:
    """What a file or an entry says that its shapes compute; `usual` where it says nothing."""
    old = _old_keys(mapping)
    if "operation" in mapping:
        value = mapping["operation"]
        if old:
            raise ShapesError(f"{where}: has operation={shown(value)} and {old[0]}: {_SAY_ALL}")
        texts = value if isinstance(value, list) else [value]
        if not texts:
            raise ShapesError(f"{where}: operation: the list is empty: give at least one, such as {BF16_NT}")
        operations = [_operation(text, f"{where}: operation") for text in texts]
        twice = next((each for each, count in Counter(operations).items() if count > 1), None)
        if twice:
            raise ShapesError(f"{where}: operation: {twice} is there {operations.count(twice)} times: keep one")
        return operations
    if not old:
        return usual
    [before] = usual  # the file has no `operation`, so no list of them either
    words = dict(zip(LEGACY_WORDS, legacy_words(before), strict=True))
    for key, known in LEGACY_WORDS.items():
        words[key] = _word(mapping.get(key, words[key]), known, f"{where}: {key}")
    return [legacy_operation(**words)]


def _old_keys(mapping: Mapping[str, Json]) -> list[str]:
    return [key for key in LEGACY_WORDS if key in mapping]


def _operation(text: Json, where: str) -> Operation:
    if not isinstance(text, str):
        raise ShapesError(f"{where}: must be a text such as {BF16_NT}, got {shown(text)}")
    try:
        return problem_operation(text)
    except InputError as unknown:
        raise ShapesError(f"{where}: {unknown}") from None


def _joined(shapes: list[Shape]) -> str:
    """All names, each once; the first few where there are many."""
    names = list(dict.fromkeys(shape.name for shape in shapes))
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _only_keys(mapping: Mapping[str, Json], known: set[str], where: str) -> None:
    unknown = [key for key in mapping if key not in known]
    if unknown:
        raise ShapesError(f"{where}: unknown key {shown(unknown[0])}: known are {', '.join(sorted(known))}")


def _sizes(value: Json, where: str) -> list[int]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ShapesError(f"{where}: the list is empty: give at least one size")
    sizes: list[int] = []
    for size in values:
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= DIMENSION_MAX:
            raise ShapesError(f"{where}: must be an integer from 1 to {DIMENSION_MAX}, got {shown(size)}")
        sizes.append(size)
    return sizes


def matrices_fit(problem: Problem, where: str) -> None:
    """Raises ShapesError, beginning with `where`, when an operand of `problem` has more elements than one may, or its
    operation one whose operands are not known for its sizes."""
    try:
        operands = operands_of(problem.operation).values()
        shapes = [operand.extents(problem.sizes) for operand in operands]
    except InputError as unknown:
        raise ShapesError(f"{where}: {unknown}") from None
    for operand, shape in zip(operands, shapes, strict=True):
        of_one = math.prod(shape[-2:])
        if of_one > MATRIX_ELEMENTS_MAX or math.prod(shape) > MATRICES_ELEMENTS_MAX:
            most, each = MATRIX_ELEMENTS_MAX, ""
            if len(shape) > 2:
                most, each = (most, " in each matrix") if of_one > most else (MATRICES_ELEMENTS_MAX, "")
            rule = f"{operand.name.upper()}[{','.join(operand.axes)}] has at most {most} elements{each}"
            raise ShapesError(f"{where}: {rule}, got {'x'.join(map(str, shape))}: make it smaller")


def _word(value: Json, known: tuple[str, ...], where: str) -> str:
    if value not in known:
        rule = f"{where}: must be one of {', '.join(known)}, got {shown(value)}"
        raise ShapesError(f"{rule}: write operation, such as {BF16_NT_BIAS}, for what these keys cannot say")
    return str(value)


def _weight(value: Json, where: str) -> float:
    if isinstance(value, int | float) and value >= WEIGHT_MAX:
        raise ShapesError(f"{where}: weight: must be below {WEIGHT_MAX:g} (calls per step), got {shown(value)}")
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ShapesError(f"{where}: weight: must be a number above 0 (calls per step), got {shown(value)}")
    return float(value)


def _name(entry: Mapping[str, Json], problem: Problem, where: str) -> str:
    if "name" not in entry:
        return str(problem)
    name = entry["name"]
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= NAME_CHARACTERS_MAX:
        rule = f"{where}: name: must be 1 to {NAME_CHARACTERS_MAX} printable characters"
        raise ShapesError(f"{rule}, got {shown(name)}")
    return name
