"""hktune's functions as torch operators, which compilers, dispatch modes and exports see; and their gradients.

`hktune::linear` and `hktune::matmul` name their table by a number, for a graph holds tensors and numbers only. Number
`CURRENT` is the table that is current when the graph runs. Eager calls do not come this way: torch's dispatcher calling
back into Python costs 3.6 us, and 20 us with a gradient, against 7 us for `torch.autograd.Function` (torch 2.13, 2-core
x86-64, 2026-11-22).

Another number, `entries`, stands for what the table had when the graph was made: what the backward pass asks is decided
by that. So a graph that torch keeps in its caches, on disk too, is found again only where the table has the same.

An operator is put into a graph only where a kernel may take the call by all that a tracer knows (`traced_refusal`).
Its gradient holds for every such call, whatever serves it in the end. All else is torch's own operator.
"""

from __future__ import annotations

import itertools
import math
import sys
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._library.autograd import Info, make_autograd_impl
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from hktune.core.errors import TableError
from hktune.runtime.calls.forms import MATMUL, Form, linear_form
from hktune.runtime.calls.gradients import Context, Gradients, bias_gradient, rows
from hktune.runtime.calls.operands import traced_refusal
from hktune.runtime.counts import Fallback, Stats
from hktune.runtime.torch_state import as_autocast, exporting, is_made_a_graph, is_plain, is_transformed_in_trace

CURRENT = 0


class Server(Protocol):
    """A loaded table. `plain` is for calls that nothing watches, `serve` for plain tensors below torch's dispatcher and
    autograd."""

    def again(self, form: Form, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor | None: ...

    def plain(self, form: Form, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor: ...

    def autocast(self, form: Form, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor: ...

    def serve(self, form: Form, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor: ...

    def finished(
        self,
        form: Form,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        residual: Tensor | None,
        alpha: float = 1.0,
        beta: float = 1.0,
        out_scale: Tensor | None = None,
    ) -> Tensor | Fallback: ...

    def vendor(self, why: Fallback, form: Form, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor: ...

    def may_serve(
        self, dtype: torch.dtype, layout: str, *sizes: int | torch.SymInt | None, ending: str = ""
    ) -> bool: ...

    def has_entry(self, dtype: torch.dtype, ending: str, m: int, n: int, k: int) -> bool: ...

    def stats(self) -> Stats: ...

    @property
    def entries_number(self) -> int: ...


_numbers = itertools.count(CURRENT + 1)
_tables: weakref.WeakValueDictionary[int, Server] = weakref.WeakValueDictionary()
_current: Server | None = None


def register(server: Server) -> int:
    """The number of `server` for as long as it lives."""
    number = next(_numbers)
    _tables[number] = server
    return number


def make_current(server: Server | None) -> None:
    global _current
    _current = server


def found_table(number: int) -> Server | None:
    return _current if number == CURRENT else _tables.get(number)


def table_numbered(number: int) -> Server:
    """Raises TableError when there is no such table, or none is current."""
    found = found_table(number)
    if found is None:
        raise TableError("no dispatch table is loaded: call hktune.load(DIR) first")
    return found


def number_in_graph(number: int) -> int:
    """`number`, or CURRENT in a graph that may be kept longer than its table: there and in another process a number of
    this one would mean nothing, or another table."""
    return CURRENT if is_made_a_graph() else number


def _entries_number(number: int) -> int:
    """That of the entries of table `number`; 0 where there is none."""
    found = found_table(number)
    return 0 if found is None else found.entries_number


def current_entries() -> int:
    """That of the current table."""
    return _entries_number(CURRENT)


def _has_rows(number: int, dtype: torch.dtype, ending: str, n: int, k: int) -> bool:
    """Whether table `number` has kernels for linears [N, K] with this ending, of whatever number of rows; it may where
    there is no such table yet."""
    found = found_table(number)
    return found is None or found.may_serve(dtype, "nt", None, n, k, ending=ending)


# To a tracer they are constants.
entries_number: Callable[[int], int] = torch.compiler.assume_constant_result(_entries_number)  # type: ignore[no-untyped-call]
_has_known_rows: Callable[..., bool] = torch.compiler.assume_constant_result(_has_rows)  # type: ignore[no-untyped-call]


def has_rows(number: int, dtype: torch.dtype, ending: str, n: int, k: int) -> bool:
    """`_has_rows`, as a tracer asks it; False where it knows a size only when the graph runs."""
    from torch.fx.experimental import symbolic_shapes

    is_known = getattr(symbolic_shapes, "has_static_value", None)  # torch 2.7
    if is_known is not None and not (is_known(n) and is_known(k)):
        return False
    return _has_known_rows(number, dtype, ending, int(n), int(k))


_library: Any = torch.library.Library("hktune", "DEF")  # type: ignore[no-untyped-call]
_library.define("linear(Tensor x, Tensor weight, Tensor? bias, int table, int entries=0, int place=0) -> Tensor")
_library.define("matmul(Tensor a, Tensor b, int table, int entries=0) -> Tensor")


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, table: int, entries: int = 0, place: int = 0) -> Tensor:
    del entries, place
    return table_numbered(table).serve(linear_form(bias), x, weight, bias)


def _matmul(a: Tensor, b: Tensor, table: int, entries: int = 0) -> Tensor:
    del entries
    return table_numbered(table).serve(MATMUL, a, b, None)


when_traced: list[Callable[[], None]] = []
"""Called when a tracer asks for a product's fake output: what is to be told to a compiler, which is there by then."""


def _tell_inductor() -> None:
    """That operands are memory, as those of torch's own products are. Inductor would copy what it has not computed yet
    and keeps for the backward pass too."""
    for tell in when_traced:
        tell()
    lowering: Any = sys.modules.get("torch._inductor.lowering")
    if lowering is not None:
        lowering.needs_realized_inputs.update((torch.ops.hktune.linear.default, torch.ops.hktune.matmul.default))


def _fake_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, table: int, entries: int = 0, place: int = 0
) -> Tensor:
    del table, entries, place
    _tell_inductor()
    return functional.linear(x, weight, bias).contiguous()


def _fake_matmul(a: Tensor, b: Tensor, table: int, entries: int = 0) -> Tensor:
    del table, entries
    _tell_inductor()
    return torch.matmul(a, b).contiguous()


class _Context(Context, Protocol):
    table: int


def _linear_backward(ctx: _Context, grad: Tensor | None) -> Gradients:
    if grad is None:
        return None, None, None, None, None, None
    x, weight = ctx.saved_tensors
    for_x = None if weight is None else _asked(ctx.table, "nn", grad, weight)
    for_weight = None if x is None else _asked_outer(ctx.table, grad, x)
    return for_x, for_weight, bias_gradient(grad) if ctx.needs_input_grad[2] else None, None, None, None


def _matmul_backward(ctx: _Context, grad: Tensor | None) -> Gradients:
    if grad is None:
        return None, None, None, None
    a, b = ctx.saved_tensors
    for_a = None if b is None else _asked(ctx.table, "nt", grad, b.t())
    return for_a, None if a is None else _asked_outer(ctx.table, a, grad), None, None


def _asked_outer(table: int, left: Tensor, right: Tensor) -> Tensor:
    return _asked(table, "tn", rows(left).t(), rows(right))


def _asked(table: int, layout: str, left: Tensor, right: Tensor) -> Tensor:
    """A product of a backward pass: of the table if it has an entry as far as the sizes are known, else torch's own,
    which a compiler can fuse and choose for."""
    server = found_table(table)
    if server is None or traced_refusal(left, right, None) is not None:
        return torch.matmul(left, right)
    m, (k, n) = math.prod(left.shape[:-1]), right.shape
    asks = server.may_serve(left.dtype, layout, m, n, k)
    return matmul(left, right, number_in_graph(table)) if asks else torch.matmul(left, right)


def _save_operands(ctx: _Context, inputs: tuple[Any, ...], output: Tensor, table_at: int) -> None:
    del output
    ctx.set_materialize_grads(False)
    left, right = inputs[:2]
    ctx.table = inputs[table_at]
    needed = ctx.needs_input_grad
    ctx.save_for_backward(left if needed[1] else None, right if needed[0] else None)


_watched_linear: Callable[..., Tensor] = make_autograd_impl(
    torch.ops.hktune.linear.default, Info(_linear_backward, partial(_save_operands, table_at=3))
)
_watched_matmul: Callable[..., Tensor] = make_autograd_impl(
    torch.ops.hktune.matmul.default, Info(_matmul_backward, partial(_save_operands, table_at=2))
)


# The operators as torch's dispatcher meets them first. Where nothing watches, as in a compiled graph that runs, the
# table serves them at once: to go on to the dispatcher costs two more calls into Python. Else torch's own functions
# tell autograd of the gradients.
def _first_linear(
    keys: object, x: Tensor, weight: Tensor, bias: Tensor | None, table: int, entries: int = 0, place: int = 0
) -> Tensor:
    form = linear_form(bias)
    server = found_table(table)
    out = None if server is None else server.again(form, x, weight, bias)
    if out is None and is_plain():
        out = table_numbered(table).plain(form, x, weight, bias)
    if out is None:
        return _watched_linear(keys, x, weight, bias, table, entries, place)
    return out.contiguous()


def _first_matmul(keys: object, a: Tensor, b: Tensor, table: int, entries: int = 0) -> Tensor:
    server = found_table(table)
    out = None if server is None else server.again(MATMUL, a, b, None)
    if out is None and is_plain():
        out = table_numbered(table).plain(MATMUL, a, b, None)
    if out is None:
        return _watched_matmul(keys, a, b, table, entries)
    return out.contiguous()


for _name, _function, _fake, _first in (
    ("linear", _linear, _fake_linear, _first_linear),
    ("matmul", _matmul, _fake_matmul, _first_matmul),
):
    _library.impl(_name, _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"hktune::{_name}", _fake, lib=_library)
    _library.impl(_name, _first, "Autograd", with_keyset=True)


def _flops(
    left_shape: Sequence[int], right_shape: Sequence[int], *others: object, out_shape: Sequence[int], **named: object
) -> int:
    """Of left [..., K]: a multiplication and an addition for each output and each of K."""
    del right_shape, others, named
    return 2 * math.prod(out_shape) * left_shape[-1]


register_flop_formula([torch.ops.hktune.linear, torch.ops.hktune.matmul])(_flops)

linear: Callable[..., Tensor] = torch.ops.hktune.linear.default
matmul: Callable[..., Tensor] = torch.ops.hktune.matmul.default


def call(form: Form, left: Tensor, right: Tensor, bias: Tensor | None, table: int) -> Tensor:
    """The operator of a form that has one."""
    return matmul(left, right, table) if form is MATMUL else linear(left, right, bias, table)


def traced_linear(x: Tensor, weight: Tensor, bias: Tensor | None, table: int, place: int = 0) -> Tensor:
    """What torch.compile's tracer makes of a linear. `place` is that of its weight among others that follow one another
    in memory, from 1 on: see graph_fusion.py."""
    cast = as_autocast(x, weight, bias)
    if is_transformed_in_trace() or traced_refusal(*cast) is not None:
        return functional.linear(x, weight, bias)
    return linear(*cast, CURRENT) if exporting() else linear(*cast, table, entries_number(table), place)


def traced_matmul(a: Tensor, b: Tensor, table: int) -> Tensor:
    """What torch.compile's tracer makes of a matmul."""
    a_cast, b_cast, _ = as_autocast(a, b, None)
    if is_transformed_in_trace() or traced_refusal(a_cast, b_cast, None) is not None:
        return torch.matmul(a, b)
    if exporting():
        return matmul(a_cast, b_cast, CURRENT)
    return matmul(a_cast, b_cast, table, entries_number(table))
