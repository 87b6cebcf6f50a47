"""torch's own grouped products on one device, asked of a table: `torch._grouped_mm`, and those with scales,
`torch._scaled_grouped_mm` and what `torch.nn.functional.scaled_grouped_mm` calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hktune.runtime.calls.several_call import SeveralCall
from hktune.runtime.calls.several_operators import (
    call_of_grouped,
    call_of_scaled_grouped,
    call_of_scaled_grouped_recipes,
)
from hktune.runtime.loaded import LoadedTable

Keys = torch._C.DispatchKeySet


def _known(*names: str) -> tuple[str, ...]:
    return tuple(name for name in names if hasattr(torch.ops.aten, name))


GROUPED = _known("_grouped_mm")
"""Since torch 2.8."""
SCALED_GROUPED = _known("_scaled_grouped_mm", "_scaled_grouped_mm_v2")
"""The second since torch 2.10."""


class GroupedDoor:
    """Kernels of torch's dispatcher for these products. Operands come as torch's operators have them."""

    table: LoadedTable
    _before: dict[str, Callable[..., Tensor]]

    def _grouped_mm(self, keys: Keys, *operands: Any, **named: Any) -> Tensor:
        return self._several(call_of_grouped(*operands, **named), "_grouped_mm", keys, *operands, **named)

    def _scaled_grouped_mm(self, keys: Keys, *operands: Any, **named: Any) -> Tensor:
        call = call_of_scaled_grouped(*operands, **named)
        return self._several(call, "_scaled_grouped_mm", keys, *operands, **named)

    def _scaled_grouped_mm_v2(self, keys: Keys, *operands: Any, **named: Any) -> Tensor:
        call = call_of_scaled_grouped_recipes(*operands, **named)
        return self._several(call, "_scaled_grouped_mm_v2", keys, *operands, **named)

    def _several(self, call: SeveralCall | None, name: str, *operands: Any, **named: Any) -> Tensor:
        """None is a call that no table knows."""
        before = self._before[name]
        return (
            before(*operands, **named) if call is None else self.table.below_grouped(call, before, *operands, **named)
        )
