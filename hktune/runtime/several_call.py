"""Calls of several products: torch's batched and grouped ones, which operation a call is, and torch's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from hktune.core.operation import COUNT_MAX, Operation
from hktune.core.problem import Problem
from hktune.dispatch.calls import CALL_DTYPES
from hktune.runtime.counts import Fallback
from hktune.runtime.operands import ALIGNMENT_BYTES, PLAIN

FORMATS = {getattr(torch, dtype.torch_name): dtype.name for dtype in CALL_DTYPES}


class SeveralCall(NamedTuple):
    """a [M, K] and b [G, K, N], where the groups of rows of `a` end at `offsets`, int32 [G]. Or, without offsets,
    a [G, M, K] and b [G, K, N]."""

    a: Tensor
    b: Tensor
    offsets: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.a, self.b) if self.offsets is None else (self.a, self.b, self.offsets)

    @property
    def sizes(self) -> tuple[int, int, int, int] | None:
        """m, n, k and how many products; None where the operands do not fit, or are no such call."""
        a, b, offsets = self
        if b.dim() != 3 or a.dim() != (3 if offsets is None else 2) or a.shape[-1] != b.shape[1]:
            return None
        groups, k, n = b.shape
        counted = a.shape[0] if offsets is None else offsets.shape[0] if offsets.dim() == 1 else -1
        return (a.shape[-2], n, k, groups) if counted == groups <= COUNT_MAX else None

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (*self.a.shape[:-1], self.b.shape[2])

    @property
    def layouts(self) -> Iterator[str]:
        """How `a` and `b` are stored, in the words of an operation; where both ways are one, both."""
        for left in _letters(self.a) if self.offsets is None else _letters(self.a)[:1]:
            for right in _letters(self.b):
                yield left + right

    def operation(self, layout: str, groups: int) -> Operation | None:
        """What it is where its operands are stored so; None for formats that no kernel takes."""
        name = FORMATS.get(self.a.dtype)
        kind = "batched" if self.offsets is None else "grouped"
        return None if name is None else Operation(name, layout, kind=kind, count=groups)

    @property
    def problem(self) -> Problem | None:
        """What is to be tuned for it; None where no kernel computes such."""
        sizes, layout = self.sizes, next(self.layouts, None)
        if sizes is None or layout is None or 0 in sizes or self.b.dtype is not self.a.dtype:
            return None
        operation = self.operation(layout, sizes[3])
        return None if operation is None else Problem(*sizes[:3], operation)


def _letters(tensor: Tensor) -> str:
    """As which an operand may be read: as it is, by its transposed matrices, or by neither."""
    return "n" * tensor.is_contiguous() + "t" * (tensor.dim() == 3 and tensor.mT.is_contiguous())


def refusal(call: SeveralCall, where: torch.device) -> Fallback | None:
    """Why kernels on `where` cannot take the operands of a call whatever the table has; None where they can."""
    a, b, offsets = call
    if any(type(each) not in PLAIN or each.layout is not torch.strided or each.is_neg() for each in call.tensors):
        return Fallback.TENSOR_TYPE
    if a.dtype not in FORMATS or b.dtype is not a.dtype or (offsets is not None and offsets.dtype is not torch.int32):
        return Fallback.DTYPE
    if any(each.device != where for each in call.tensors):
        return Fallback.DEVICE
    if offsets is not None and not offsets.is_contiguous():
        return Fallback.STRIDES
    try:
        at = [each.data_ptr() for each in (a, b)]
    except RuntimeError:  # a wrapper, such as a transform of torch.func leaves behind
        return Fallback.TENSOR_TYPE
    return Fallback.ALIGNMENT if any(not each or each % ALIGNMENT_BYTES for each in at) else None


def by_torch(call: SeveralCall) -> Tensor:
    """torch's own."""
    return torch.bmm(call.a, call.b) if call.offsets is None else torch._grouped_mm(call.a, call.b, offs=call.offsets)
