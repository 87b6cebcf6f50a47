"""torch's grouped products, with what torch needs further kernels for behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hktune.core.dtype import I8
from hktune.core.errors import DeviceError
from hktune.core.operand import factors_of
from hktune.core.operation import Operation
from hktune.measure.arena import OperandSet
from hktune.measure.torch_epilogue import finish

if TYPE_CHECKING:
    import torch


class GroupedProducts:
    """torch._grouped_mm on a stream, or torch._scaled_grouped_mm where there are scales, whose output is bfloat16.

    It has its output in memory of its own. Further kernels make C of that where there are steps. Else it is copied to
    C, but not when it is captured: a copy is no part of the product. What a graph writes then stays its own, in a pool
    of this.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        import torch

        self._stream, self._pool = stream, torch.cuda.MemPool()
        self._captured: list[torch.Tensor] = []

    def prepared(self, operation: Operation, operands: OperandSet) -> Callable[[OperandSet], None]:
        """See Baseline. Raises DeviceError where torch has no such product."""
        import torch

        if operation.a_dtype == I8:
            raise DeviceError(f"torch has no {operation}: none of its grouped products is of integers")

        def enqueue(operands: OperandSet) -> None:
            with torch.cuda.stream(self._stream), torch.cuda.use_mem_pool(self._pool):
                product = _product(operation, operands)
                is_captured = torch.cuda.is_current_stream_capturing()
                _end(operation, product, operands, is_captured)
                if is_captured:
                    self._captured.append(product)

        try:
            enqueue(operands)
        except (AttributeError, RuntimeError, ValueError) as refused:
            reason = str(refused).strip().partition("\n")[0]
            raise DeviceError(f"torch {torch.__version__} has no {operation}: {reason}") from None
        self._stream.synchronize()
        return enqueue


def _product(operation: Operation, operands: OperandSet) -> torch.Tensor:
    import torch

    (a, b), offsets = factors_of(operation, operands), operands["offsets"]
    if not operation.scales:
        return torch._grouped_mm(a, b, offs=offsets)
    scales, is_fast = (operands["scale_a"], operands["scale_b"]), operation.accumulation == "fast"
    return torch._scaled_grouped_mm(a, b, *scales, offs=offsets, out_dtype=torch.bfloat16, use_fast_accum=is_fast)


def _end(operation: Operation, product: torch.Tensor, operands: OperandSet, is_captured: bool) -> None:
    """Makes C of the products, whose rows are all of some group."""
    import torch

    if operation.accumulates:
        operands["c"].add_(product)
        return
    if operation.has_bias:
        rows = torch.arange(len(product), device=product.device)
        product.add_(operands["bias"][torch.bucketize(rows, operands["offsets"], right=True)])
    if operation.epilogue not in ((), ("bias",)):
        finish(operation, product, operands)
    elif not is_captured:
        operands["c"].copy_(product)
