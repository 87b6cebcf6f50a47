"""A trace of PyTorch's profiler (Chrome's format), made with record_shapes=True.

`aten::linear` calls `aten::addmm` or `aten::matmul`, and that `aten::mm`. Each of these is an event of the trace, one
within the other on its thread. The innermost is the product that was computed, so that one is counted, once. How its
operands are stored is in their strides. A trace of a release of torch that wrote none does not say the layout, but that
of a linear layer is known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from hktune.core.problem import Problem
from hktune.exchange.product import BATCHED, NO_FORMATS, NotServed, Product, operation_named, served_problem

NAME = "a trace of PyTorch's profiler"
_EVENTS = re.compile(rb'"traceEvents"\s*:')
_LINEAR = "aten::linear"
_ADDED = ("aten::addmm", "aten::_addmm_activation")
_BATCHED = ("aten::bmm", "aten::baddbmm")
_PRODUCTS = {_LINEAR, "aten::matmul", "aten::mm", *_ADDED, *_BATCHED, "aten::_scaled_mm", "aten::mv", "aten::addmv"}
_FORMATS = {"c10::BFloat16": "bf16", "c10::Half": "f16", "float": "f32"}
_LAYOUT_UNKNOWN = "a layout that the trace does not say (no strides)"


class Arguments(msgspec.Struct, frozen=True):
    """Of an event, for each operand: its shape, its format, its strides, and what a number among them is."""

    dims: list[Any] | None = msgspec.field(name="Input Dims", default=None)
    types: list[Any] | None = msgspec.field(name="Input type", default=None)
    strides: list[Any] | None = msgspec.field(name="Input Strides", default=None)
    numbers: list[Any] | None = msgspec.field(name="Concrete Inputs", default=None)


class Event(msgspec.Struct, frozen=True):
    """One event. `ts` and `dur` are in us; only events of phase X have a duration."""

    name: str = ""
    ph: str = ""
    pid: int | str = 0
    tid: int | str = 0
    ts: float = 0.0
    dur: float = 0.0
    args: Arguments | None = None


class Trace(msgspec.Struct, frozen=True):
    events: list[Event] = msgspec.field(name="traceEvents")


def knows(data: bytes) -> bool:
    """Whether `data` looks like such a trace."""
    return data.lstrip()[:1] == b"{" and _EVENTS.search(data) is not None


def products(data: bytes) -> list[Product]:
    """The products of a trace. Raises ValueError for what is no such JSON."""
    trace = msgspec.json.decode(data, type=Trace)
    counted = Counter(_alike(event, in_linear) for event, in_linear in _innermost(trace.events))
    return [_product(msgspec.json.decode(alike), calls) for alike, calls in counted.items()]


def _innermost(events: Iterable[Event]) -> Iterator[tuple[Event, bool]]:
    """The products that call no other, and whether a linear layer called each."""
    threads: dict[tuple[int | str, int | str], list[Event]] = {}
    for event in events:
        if event.ph == "X" and event.name in _PRODUCTS:
            threads.setdefault((event.pid, event.tid), []).append(event)
    for calls in threads.values():
        calls.sort(key=lambda call: (call.ts, -call.dur))
        around: list[Event] = []
        for call, following in zip(calls, [*calls[1:], None], strict=True):
            around = [outer for outer in around if call.ts < outer.ts + outer.dur]
            if following is None or not call.ts <= following.ts < call.ts + call.dur:
                yield call, any(outer.name == _LINEAR for outer in around)
            else:
                around.append(call)


def _alike(event: Event, in_linear: bool) -> bytes:
    """What makes a product the same as another."""
    args = event.args or Arguments()
    return msgspec.json.encode([event.name, in_linear, args.dims, args.types, args.strides, args.numbers])


def _product(alike: list[Any], calls: int) -> Product:
    name, in_linear, dims, types, strides, numbers = alike
    said = f"{name} {dims}"
    try:
        return Product(said, problem=_problem(name, in_linear, dims, types, strides, numbers), calls=calls)
    except NotServed as why:
        return Product(said, why_not=str(why), calls=calls)


def _problem(name: str, in_linear: bool, dims: Any, types: Any, strides: Any, numbers: Any) -> Problem:
    if not dims:
        raise NotServed("no shapes (profile with record_shapes=True)")
    if name in _BATCHED:
        raise NotServed(BATCHED)
    if name == "aten::_scaled_mm":
        raise NotServed("scaled operands")
    if name == "aten::_addmm_activation":
        raise NotServed("an activation in its epilogue")
    is_linear, first = name == _LINEAR, 1 if name in _ADDED else 0
    left, right = (_dims(dims, at) for at in (first, first + 1))
    if len(right) != 2 or not left or (len(left) != 2 and name not in (_LINEAR, "aten::matmul")):
        raise NotServed("a vector, or more than one product" if len(right) < 3 else BATCHED)
    n, k = right if is_linear else right[::-1]
    if left[-1] != k:
        raise NotServed("shapes that do not fit each other")
    has_bias = _has_bias(name, dims, numbers, n)
    a, b = (_format(types, at) for at in (first, first + 1))
    layout = "nt" if is_linear else _layout(left, right, strides, first, in_linear)
    m = 1
    for size in left[:-1]:
        m *= size
    return served_problem(m, n, k, operation_named(a, b, a, layout=layout, has_bias=has_bias))


def _dims(dims: Sequence[Any], at: int) -> list[int]:
    """The shape of one operand; empty for what is no tensor."""
    shape = dims[at] if at < len(dims) else None
    if not isinstance(shape, list) or not all(isinstance(size, int) and size >= 0 for size in shape):
        return []
    return shape


def _format(types: Any, at: int) -> str:
    said = types[at] if isinstance(types, list) and at < len(types) else ""
    if not isinstance(said, str) or not said:
        raise NotServed(NO_FORMATS)
    return _FORMATS.get(said, said)


def _has_bias(name: str, dims: Sequence[Any], numbers: Any, n: int) -> bool:
    """Whether a vector [n] is added. Raises NotServed for what is added otherwise, or by another factor than 1."""
    if name == _LINEAR:
        return bool(_dims(dims, 2))
    if name not in _ADDED:
        return False
    factors = numbers[3:5] if isinstance(numbers, list) else []
    if any(str(factor) not in ("", "1", "1.0", "1.") for factor in factors):
        raise NotServed("alpha or beta is not 1")
    if _dims(dims, 0) != [n]:
        raise NotServed("a matrix is added to C")
    return True


def _layout(left: Sequence[int], right: Sequence[int], strides: Any, first: int, in_linear: bool) -> str:
    """How both operands are stored, `right` as [k,n]. A row or a column is stored both ways: of the left operand it is
    taken as n, of the right one as t, which is what most kernels do."""
    if not isinstance(strides, list) or len(strides) < first + 2:
        if in_linear:
            return "nt"
        raise NotServed(_LAYOUT_UNKNOWN)
    if len(left) > 2:
        left, strides = [left[-2], left[-1]], [*strides[:first], strides[first][-2:], *strides[first + 1 :]]
    return _stored(left, strides[first], "nt") + _stored(right, strides[first + 1], "tn")


def _stored(shape: Sequence[int], strides: Any, order: str) -> str:
    """The first of the layouts in `order` that `strides` have."""
    if not isinstance(strides, list) or len(strides) != 2 or not all(isinstance(each, int) for each in strides):
        raise NotServed(_LAYOUT_UNKNOWN)
    (rows, columns), (row, column) = shape, strides
    fits = {
        "n": (column == 1 or columns == 1) and (row >= columns or rows == 1),
        "t": (row == 1 or rows == 1) and (column >= rows or columns == 1),
    }
    found = next((layout for layout in order if fits[layout]), None)
    if found is None:
        raise NotServed("an operand whose elements are not stored next to each other")
    return found
