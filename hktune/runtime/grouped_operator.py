"""Grouped products as torch operators: `hktune::grouped_finished`, with a bias, gates or an activation behind,
`hktune::scaled_grouped_mm`, of numbers of 8 bits, with these or without, and `hktune::grouped_added_`, of groups of K,
which adds to its first argument. All mean the table that is current when they run.

None has a gradient of its own. Where one is asked of the first, it is the product, and torch's own of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.flop_counter import register_flop_formula

from hktune.core.errors import TableError
from hktune.runtime import operators
from hktune.runtime.calls.call_operations import KERNEL_DTYPES
from hktune.runtime.calls.gradients import asks_gradient
from hktune.runtime.calls.several_by_torch import by_torch, finished
from hktune.runtime.calls.several_call import SeveralCall
from hktune.runtime.calls.several_operators import call_that_adds, call_with_scales, call_with_steps
from hktune.runtime.loaded import LoadedTable
from hktune.runtime.torch_state import has_dispatch_mode, is_transformed_in_trace

_library = operators._library
_library.define("grouped_finished(Tensor a, Tensor b, Tensor? offs, str[] steps, Tensor? bias=None) -> Tensor")
_library.define("grouped_added_(Tensor(a!) add_to, Tensor a, Tensor b, Tensor offs) -> ()")
_library.define(
    "scaled_grouped_mm(Tensor a, Tensor b, Tensor scale_a, Tensor scale_b, Tensor? offs, ScalarType out_dtype, "
    "bool use_fast_accum, Tensor? bias=None, str[]? steps=None) -> Tensor"
)


@runtime_checkable
class NotesSeveral(Protocol):
    """A dispatch mode that counts these products as they are called: below, they may be others of torch's."""

    def several_without_table(self, call: SeveralCall) -> Tensor:
        """torch's own products, counted."""


def noted_without_table(call: SeveralCall) -> Tensor | None:
    """What a mode that counts gets where there is no table: so a model can be recorded before there is one. None where
    no such mode is on, or there is a table."""
    if not has_dispatch_mode() or operators.found_table(operators.CURRENT) is not None:
        return None
    mode = _get_current_dispatch_mode()
    return mode.several_without_table(call) if isinstance(mode, NotesSeveral) else None


def current_table() -> LoadedTable:
    """Raises TableError where there is none."""
    table = operators.table_numbered(operators.CURRENT)
    if not isinstance(table, LoadedTable):
        raise TableError(f"the current table is a {type(table).__name__}: load one by hktune.load")
    return table


def _finished(*operands: Any) -> Tensor:
    return current_table().several(call_with_steps(*operands)).contiguous()


def _fake_finished(*operands: Any) -> Tensor:
    call = call_with_steps(*operands)
    return call.a.new_empty(call.out_shape)


def _first_finished(
    keys: object, a: Tensor, b: Tensor, offs: Tensor | None, steps: Sequence[str], bias: Tensor | None = None
) -> Tensor:
    """The operator as torch's dispatcher meets it first."""
    del keys
    if asks_gradient(a, b, bias):
        return by_torch(call_with_steps(a, b, offs, steps, bias))
    with torch._C._AutoDispatchBelowAutograd():
        return grouped_finished(a, b, offs, steps, bias)


def _added(*operands: Tensor) -> None:
    current_table().several(call_that_adds(*operands))


def _fake_added(*operands: Tensor) -> None:
    del operands  # what is written is one of them


def _scaled(*operands: Any) -> Tensor:
    return current_table().several(call_with_scales(*operands)).contiguous()


def _fake_scaled(*operands: Any) -> Tensor:
    call = call_with_scales(*operands)
    return call.a.new_empty(call.out_shape, dtype=call.c_dtype)


for _name, _function, _fake in (
    ("grouped_finished", _finished, _fake_finished),
    ("scaled_grouped_mm", _scaled, _fake_scaled),
    ("grouped_added_", _added, _fake_added),
):
    _library.impl(_name, _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"hktune::{_name}", _fake, lib=_library)
_library.impl("grouped_finished", _first_finished, "Autograd", with_keyset=True)


@register_flop_formula([torch.ops.hktune.grouped_finished, torch.ops.hktune.scaled_grouped_mm])
def _flops(
    left_shape: Sequence[int], right_shape: Sequence[int], *others: object, out_shape: Sequence[int], **named: object
) -> int:
    """Of a left [..., K] and a right [..., K, N]: all rows are of some product."""
    del others, named
    return 2 * math.prod(out_shape[:-1]) * right_shape[-1] * left_shape[-1]


@register_flop_formula([torch.ops.hktune.grouped_added_])
def _flops_of_added(
    add_to_shape: Sequence[int], left_shape: Sequence[int], *others: object, out_shape: object = None
) -> int:
    """Of a left [M, K], and sums [G, M, N]: all of K is of some product."""
    del others, out_shape
    return 2 * math.prod(left_shape) * add_to_shape[-1]


grouped_added: Callable[..., None] = torch.ops.hktune.grouped_added_.default
grouped_finished: Callable[..., Tensor] = torch.ops.hktune.grouped_finished.default
_scaled_grouped_mm: Callable[..., Tensor] = torch.ops.hktune.scaled_grouped_mm.default


def scaled_grouped_mm(call: SeveralCall) -> Tensor:
    """The operator of a call with scales."""
    scales, how = (call.scale_a, call.scale_b), (call.c_dtype, call.use_fast_accum)
    if not call.steps:  # an older hktune reads graphs without them
        return _scaled_grouped_mm(call.a, call.b, *scales, call.offsets, *how, call.bias)
    return _scaled_grouped_mm(call.a, call.b, *scales, call.offsets, *how, call.bias, list(call.steps))


def _does(steps: Sequence[str], scaled: bool) -> bool:
    """Whether the current table has an entry of grouped products with these steps, with scales or without."""
    found = operators.found_table(operators.CURRENT)
    return isinstance(found, LoadedTable) and found.does("grouped", *steps, scaled=scaled)


# To a tracer it is a constant.
_does_in_trace: Callable[[Sequence[str], bool], bool] = torch.compiler.assume_constant_result(  # type: ignore[no-untyped-call]
    _does
)


def traced_finished(call: SeveralCall) -> Tensor:
    """What torch.compile's tracer makes of products with steps behind: the operator where the table has such an entry
    by now, and a kernel may take these operands. Else it is torch's own, of which a compiler may fuse the steps."""
    a, b, offs = call[:3]
    may_take = a.dtype in KERNEL_DTYPES and b.dtype is a.dtype and (a.dim(), b.dim()) == (2, 2 if call.divides_k else 3)
    asks = asks_gradient(a, b, call.bias) or is_transformed_in_trace()
    if asks or not may_take or not _does_in_trace(call.all_steps, False):
        return by_torch(call)
    if call.add_to is None:
        return grouped_finished(a, b, offs, list(call.steps), call.bias)
    grouped_added(call.add_to, a, b, offs)
    return call.add_to


def traced_scaled(call: SeveralCall) -> Tensor:
    """The same of products with scales, of which torch has none for most devices: they are the operator. Steps behind
    them are torch's own where the table has no entry of these."""
    if not call.steps or _does_in_trace(call.all_steps, True):
        return scaled_grouped_mm(call)
    return finished(scaled_grouped_mm(call._replace(steps=())), call._replace(bias=None))
