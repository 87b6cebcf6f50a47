"""torch's own products of numbers of 8 bits or fewer on one device, asked of a table: `torch._scaled_mm`, what
`torch.nn.functional.scaled_mm` calls, and `torch._int_mm`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hktune.runtime.calls.scaled_call import ScaledCall, call_of_integers, call_of_operator, call_of_recipes
from hktune.runtime.loaded import LoadedTable

Keys = torch._C.DispatchKeySet

SCALED = tuple(
    f"{name}{overload}"
    for name in ("_scaled_mm", "_scaled_mm_v2")
    if hasattr(torch.ops.aten, name)  # the second since torch 2.10
    for overload in ("", ".out")
)
INTEGERS = ("_int_mm", "_int_mm.out")
"""The operators that a `ScaledDoor` has a kernel for: of products with scales, and without."""


class ScaledDoor:
    """Kernels of torch's dispatcher for these products. Operands come as torch's operators have them."""

    table: LoadedTable
    _before: dict[str, Callable[..., Tensor]]

    def _scaled_mm(self, keys: Keys, *operands: Any, **named: Any) -> Tensor:
        found = self._served(call_of_operator(*operands, **named))
        return self._before["_scaled_mm"](keys, *operands, **named) if found is None else found

    def _scaled_mm_out(self, keys: Keys, *operands: Any, out: Tensor, **named: Any) -> Tensor:
        found = self._served(call_of_operator(*operands, **named, out=out), out)
        return self._before["_scaled_mm.out"](keys, *operands, **named, out=out) if found is None else found

    def _scaled_mm_v2(self, keys: Keys, *operands: Any, **named: Any) -> Tensor:
        found = self._served(call_of_recipes(*operands, **named))
        return self._before["_scaled_mm_v2"](keys, *operands, **named) if found is None else found

    def _scaled_mm_v2_out(self, keys: Keys, *operands: Any, out: Tensor, **named: Any) -> Tensor:
        found = self._served(call_of_recipes(*operands, **named), out)
        return self._before["_scaled_mm_v2.out"](keys, *operands, **named, out=out) if found is None else found

    def _int_mm(self, keys: Keys, a: Tensor, b: Tensor) -> Tensor:
        found = self._served(call_of_integers(a, b))
        return self._before["_int_mm"](keys, a, b) if found is None else found

    def _int_mm_out(self, keys: Keys, a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
        found = self._served(call_of_integers(a, b), out)
        return self._before["_int_mm.out"](keys, a, b, out=out) if found is None else found

    def _served(self, call: ScaledCall | None, out: Tensor | None = None) -> Tensor | None:
        """None where torch's own is to be called."""
        return None if call is None else self.table.below_scaled(call, out)
