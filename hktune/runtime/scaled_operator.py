"""`hktune::scaled_mm`, a scaled product of numbers of 8 bits or fewer as a torch operator, and the function that
programs call.

It has no gradient, as torch's own has none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from hktune.core.errors import TableError
from hktune.runtime import operators
from hktune.runtime.calls.finish import check_out_scale
from hktune.runtime.calls.given import check_bool, check_dtype, check_tensors
from hktune.runtime.calls.gradients import asks_gradient
from hktune.runtime.calls.scaled_call import ScaledCall, by_torch
from hktune.runtime.loaded import LoadedTable
from hktune.runtime.torch_state import compiling, has_dispatch_mode, is_plain

operators._library.define(
    "scaled_mm(Tensor a, Tensor b, Tensor scale_a, Tensor scale_b, Tensor? bias, ScalarType out_dtype, "
    "bool use_fast_accum, Tensor? out_scale=None) -> Tensor"
)


@runtime_checkable
class NotesScaled(Protocol):
    """A dispatch mode that counts these products as they are called: below, one may be others of torch's."""

    def without_table(self, call: ScaledCall) -> Tensor:
        """torch's own product, counted."""


def scaled_mm(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None = None,
    out_dtype: torch.dtype = torch.bfloat16,
    use_fast_accum: bool = False,
    out_scale: Tensor | None = None,
) -> Tensor:
    """As torch._scaled_mm, by the current table: (a * scale_a) @ (b * scale_b) (+ bias) in float32, rounded once.

    `a` [M, K] and `b` [K, N], the transposed view of a weight [N, K], are float8_e4m3fn or float8_e5m2. The scales are
    float32. They have one element each; or [M, 1] and [1, N]; or [M, K/128] and [K/128, N/128], of blocks of 1 x 128
    of `a` and of 128 x 128 of `b`. With `use_fast_accum` sums may be as inexact as the matrix unit makes them; without
    it, a kernel that is exact serves. What the table does not have is torch's own, which raises for what torch cannot.

    `a` and `b` may also be int8, with the first two kinds of scales; their sums are 32-bit integers. Or they are of an
    MX format: float8, or float4_e2m1fn_x2 with two numbers in each byte, and scales float8_e8m0fnu [M, K/32] and
    [N, K/32].

    With `out_dtype=torch.float8_e4m3fn` the result is multiplied by `out_scale` (float32, one element; 1 without one)
    before it is rounded, and what is beyond 448 becomes 448; a bias is bfloat16.

    Raises TableError when no table is loaded. Raises InputError, one line, for scales of int8 that are neither kind,
    for an `out_scale` that is none, and where neither the table nor torch has a product of an MX format.
    """
    needed = (a, b, scale_a, scale_b)
    check_tensors(partial(torch._scaled_mm, *needed, bias=bias), *needed, perhaps=(bias,))
    _check_types(out_dtype, use_fast_accum)
    check_out_scale(out_dtype, out_scale)
    if compiling() or not is_plain():
        if not compiling() and has_dispatch_mode() and operators.found_table(operators.CURRENT) is None:
            # A model can be recorded before there is a table.
            mode = _get_current_dispatch_mode()
            function = mode.without_table if isinstance(mode, NotesScaled) else by_torch
            return function(ScaledCall(*needed, bias, out_dtype, use_fast_accum, out_scale))
        return _operator(*needed, bias, out_dtype or a.dtype, use_fast_accum, out_scale)  # as torch has it
    call = ScaledCall(*needed, bias, out_dtype, use_fast_accum, out_scale)
    return by_torch(call) if asks_gradient(*needed, bias) else _table().scaled_mm(call)


def _check_types(out_dtype: object, use_fast_accum: object) -> None:
    check_dtype("scaled_mm", "out_dtype", out_dtype)
    check_bool("scaled_mm", "use_fast_accum", use_fast_accum)


def _table() -> LoadedTable:
    table = operators.table_numbered(operators.CURRENT)
    if not isinstance(table, LoadedTable):
        raise TableError(f"the current table is a {type(table).__name__}: load one by hktune.load")
    return table


def _served(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    out_dtype: torch.dtype,
    use_fast_accum: bool,
    out_scale: Tensor | None = None,
) -> Tensor:
    return _table().scaled_mm(ScaledCall(a, b, scale_a, scale_b, bias, out_dtype, use_fast_accum, out_scale))


def _fake(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None,
    out_dtype: torch.dtype,
    use_fast_accum: bool,
    out_scale: Tensor | None = None,
) -> Tensor:
    del scale_a, scale_b, bias, use_fast_accum, out_scale
    return a.new_empty((a.shape[0], b.shape[1]), dtype=out_dtype)


operators._library.impl("scaled_mm", _served, "CompositeExplicitAutograd")
torch.library.register_fake("hktune::scaled_mm", _fake, lib=operators._library)

_operator: Callable[..., Tensor] = torch.ops.hktune.scaled_mm.default
