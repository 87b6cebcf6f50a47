"""Logs and files of hipBLASLt and rocBLAS: command lines, YAML, and what their benchmarks print, among other lines.

Each call counts. What a benchmark prints of a call says the call again, so it counts only where nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.core.yaml_file import Malformed
from hktune.exchange import bench_command, bench_table, bench_yaml
from hktune.exchange.blas import blas_problem
from hktune.exchange.lines import numbered_lines
from hktune.exchange.product import NotServed, Product, calls_of, time_of

NAME = "a log of hipBLASLt or rocBLAS"
_SAID = ("transa", "transb", "m", "n", "k", "a_type")


@dataclass(frozen=True)
class _Call:
    """One call as a file says it, and how many lines say the same."""

    line: int
    words: Mapping[str, object]
    calls: object
    lines: int = 1


def products(text: str, operation: Operation | None) -> list[Product]:
    """The products that `text` names; none where it is no such file. `operation` is what a file computes that does not
    say."""
    calls = list(_calls(text)) or list(_listed(text))
    if calls:
        return [_product(call, operation) for call in calls]
    return [_timed(each, operation) for each in bench_table.timed(numbered_lines(text))]


def _calls(text: str) -> Iterator[_Call]:
    """The calls that have a line of their own. Most logs say few of them, very often."""
    alike: dict[str, list[int]] = {}
    for number, line in numbered_lines(text):
        if "-bench" in line or "function:" in line:
            alike.setdefault(line, []).append(number)
    for line, numbers in alike.items():
        found = bench_command.call_of(line) or bench_yaml.call_of(line)
        if found:
            yield _Call(numbers[0], *found, len(numbers))


def _listed(text: str) -> Iterator[_Call]:
    """The calls of a document, which have several lines each."""
    if not bench_yaml.knows(text):
        return
    try:
        found = bench_yaml.calls_in(text)
    except Malformed:
        return
    for words, calls in found:
        yield _Call(0, words, calls)


def _product(call: _Call, operation: Operation | None) -> Product:
    said = _said(call.words)
    try:
        calls = call.lines * calls_of(call.calls)
        return Product(said, call.line, _problem(call.words, operation), calls=calls)
    except NotServed as why:
        return Product(said, call.line, why_not=str(why), calls=call.lines)


def _timed(each: bench_table.Timed, operation: Operation | None) -> Product:
    said = _said(each.words)
    try:
        problem = _problem(each.words, operation)
    except NotServed as why:
        return Product(said, each.line, why_not=str(why))
    return Product(said, each.line, problem, way=each.way, time_us=time_of(each.words.get("us")))


def _problem(words: Mapping[str, object], operation: Operation | None) -> Problem:
    """As the file says it; of one that names no formats, what `operation` says, in the file's own layout."""
    if operation is None or "a_type" in words:
        return blas_problem(words)
    return blas_problem({**words, "a_type": operation.a, "bias_vector": operation.has_bias})


def _said(words: Mapping[str, object]) -> str:
    return " ".join(f"{name}={words[name]}" for name in _SAID if name in words)
