"""hktune's functions as torch operators, which compilers, dispatch modes and exports see; and their gradients.

`hktune::linear` and `hktune::matmul` name their table by a number, for a graph holds tensors and numbers only. Number
`CURRENT` is the table that is current when the graph runs. Eager calls do not come this way: torch's dispatcher calling
back into Python costs 3.6 us, and 20 us with a gradient, against 7 us for `torch.autograd.Function` (torch 2.13, 2-core
x86-64, 2026-11-22).
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from hktune.errors import TableError
from hktune.runtime.counts import Stats
from hktune.runtime.torch_state import as_autocast

CURRENT = 0


class LinearServer(Protocol):
    """Serves products of plain tensors, outside of torch's dispatcher and autograd."""

    def serve_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor: ...


class Server(LinearServer, Protocol):
    """A loaded table. The `eager` functions are not for a compiler to trace; the `serve` functions work on plain
    tensors, outside of torch's dispatcher and autograd."""

    def eager_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor: ...

    def eager_matmul(self, a: Tensor, b: Tensor) -> Tensor: ...

    def stats(self) -> Stats: ...

    def serve_matmul(self, a: Tensor, b: Tensor) -> Tensor: ...


_numbers = itertools.count(CURRENT + 1)
_tables: weakref.WeakValueDictionary[int, Server] = weakref.WeakValueDictionary()
_current: Server | None = None


def register(server: Server) -> int:
    """The number of `server` for as long as it lives."""
    number = next(_numbers)
    _tables[number] = server
    return number


def make_current(server: Server) -> None:
    global _current
    _current = server


def table_numbered(number: int) -> Server:
    """Raises TableError when there is no such table, or none is current."""
    found = _current if number == CURRENT else _tables.get(number)
    if found is None:
        raise TableError("no dispatch table is loaded: call hktune.load(DIR) first")
    return found


def operand_gradients(grad: Tensor, x: Tensor | None, weight: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Of x [..., K] and weight [N, K] from that of the output [..., N]. An operand is None where only the gradient of
    the other one is needed.

    Both products read an operand across its rows, which no kernel of a table does, so they are the vendor library's.
    """
    for_x = None if weight is None else grad @ weight
    return for_x, None if x is None else _rows(grad).t() @ _rows(x)


def bias_gradient(grad: Tensor) -> Tensor:
    return _rows(grad).sum(0)


def matmul_gradients(grad: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Of a [..., K] and b [K, N] from that of the output [..., N]; an operand is None as for `operand_gradients`."""
    for_a = None if b is None else grad @ b.t()
    return for_a, None if a is None else _rows(a).t() @ _rows(grad)


def _rows(tensor: Tensor) -> Tensor:
    """[..., K] as [M, K]; a reshape that changes nothing costs 1.2 us."""
    return tensor if tensor.dim() == 2 else tensor.reshape(-1, tensor.shape[-1])


class Linear(torch.autograd.Function):
    """An eager linear that somebody will ask a gradient of. The bias comes last: an argument that is not there costs
    0.13 us less than None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, server: LinearServer, bias: Tensor | None = None) -> Tensor:
        needed = ctx.needs_input_grad
        ctx.save_for_backward(x if needed[1] else None, weight if needed[0] else None)
        return server.serve_linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        for_x, for_weight = operand_gradients(grad, x, weight)
        # Where there is no bias the last argument is the server, which needs none.
        return for_x, for_weight, None, bias_gradient(grad) if ctx.needs_input_grad[-1] else None


class Matmul(torch.autograd.Function):
    """An eager matmul that somebody will ask a gradient of."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, server: Server) -> Tensor:
        needed = ctx.needs_input_grad
        ctx.save_for_backward(a if needed[1] else None, b if needed[0] else None)
        return server.serve_matmul(a, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return *matmul_gradients(grad, *ctx.saved_tensors), None


# Function.apply asks in Python whether a transform of torch.func is active, and unwraps what one left behind; it costs
# 1.9 us of a call. These are what it calls then: for callers that have asked, and serve such a tensor as it comes.
apply_linear: Any = super(torch.autograd.Function, Linear).apply
apply_matmul: Any = super(torch.autograd.Function, Matmul).apply

_library: Any = torch.library.Library("hktune", "DEF")  # type: ignore[no-untyped-call]
_library.define("linear(Tensor x, Tensor weight, Tensor? bias, int table) -> Tensor")
_library.define("matmul(Tensor a, Tensor b, int table) -> Tensor")


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, table: int) -> Tensor:
    return table_numbered(table).serve_linear(x, weight, bias).contiguous()


def _matmul(a: Tensor, b: Tensor, table: int) -> Tensor:
    return table_numbered(table).serve_matmul(a, b).contiguous()


def _fake_linear(x: Tensor, weight: Tensor, bias: Tensor | None, table: int) -> Tensor:
    del table
    return functional.linear(x, weight, bias).contiguous()


def _fake_matmul(a: Tensor, b: Tensor, table: int) -> Tensor:
    del table
    return torch.matmul(a, b).contiguous()


def _linear_backward(ctx: Any, grad: Tensor) -> Any:
    gradients = operand_gradients(grad, *ctx.saved_tensors)
    return *gradients, bias_gradient(grad) if ctx.needs_input_grad[2] else None, None


def _save_operands(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    left, right = inputs[:2]
    needed = ctx.needs_input_grad
    ctx.save_for_backward(left if needed[1] else None, right if needed[0] else None)


for _name, _function, _fake, _backward in (
    ("linear", _linear, _fake_linear, _linear_backward),
    ("matmul", _matmul, _fake_matmul, Matmul.backward),
):
    _library.impl(_name, _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"hktune::{_name}", _fake, lib=_library)
    torch.library.register_autograd(f"hktune::{_name}", _backward, setup_context=_save_operands, lib=_library)

linear: Any = torch.ops.hktune.linear.default
matmul: Any = torch.ops.hktune.matmul.default


def traced_linear(x: Tensor, weight: Tensor, bias: Tensor | None, table: int) -> Tensor:
    """What a compiler's tracer makes of a linear."""
    return linear(*as_autocast(x, weight, bias), table)  # type: ignore[no-any-return]


def traced_matmul(a: Tensor, b: Tensor, table: int) -> Tensor:
    """What a compiler's tracer makes of a matmul."""
    return matmul(*as_autocast(a, b, None)[:2], table)  # type: ignore[no-any-return]
