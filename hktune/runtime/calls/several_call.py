"""Calls of several products: torch's batched and grouped ones, which operation a call is, and torch's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from hktune.core.operation import COUNT_MAX, Operation
from hktune.core.problem import Problem
from hktune.dispatch.calls import CALL_DTYPES
from hktune.runtime.calls.operands import ALIGNMENT_BYTES, PLAIN
from hktune.runtime.counts import Fallback

_ALIGNMENT_ELEMENTS = ALIGNMENT_BYTES // 2  # all formats have two bytes
FORMATS = {getattr(torch, dtype.torch_name): dtype.name for dtype in CALL_DTYPES}


class SeveralCall(NamedTuple):
    """a [M, K] and b [G, K, N], where the groups of rows of `a` end at `offsets`, int32 [G]. Or a [M, K] and b [K, N],
    where those of K end there. Or, without offsets, a [G, M, K] and b [G, K, N], and perhaps what is added to their
    products, [G, M, N]."""

    a: Tensor
    b: Tensor
    offsets: Tensor | None = None
    residual: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(each for each in self if each is not None)

    @property
    def sizes(self) -> tuple[int, int, int, int] | None:
        """m, n, k and how many products; None where the operands do not fit, or are no such call."""
        a, b, offsets, residual = self
        if residual is not None and residual.shape != self.out_shape:
            return None
        dims = (3, 3) if offsets is None else (2, 2 if self.divides_k else 3)
        if (a.dim(), b.dim()) != dims or a.shape[-1] != b.shape[-2]:
            return None
        groups = a.shape[0] if offsets is None else offsets.shape[0] if offsets.dim() == 1 else -1
        counted = groups if self.divides_k else b.shape[0]
        return (*a.shape[-2:-1], *b.shape[:-3:-1], groups) if counted == groups <= COUNT_MAX else None

    @property
    def divides_k(self) -> bool:
        """Whether groups are of K, as they are for the gradient of grouped weights."""
        return self.offsets is not None and self.b.dim() == 2

    @property
    def out_shape(self) -> tuple[int, ...]:
        groups = self.offsets.shape if self.offsets is not None and self.divides_k else ()
        return (*groups, *self.a.shape[:-1], self.b.shape[-1])

    @property
    def layouts(self) -> Iterator[str]:
        """How `a` and `b` are stored, in the words of an operation; where both ways are one, both. Groups are of rows
        as they are stored."""
        if self.offsets is None:
            lefts, rights = _letters(self.a), _letters(self.b)
        else:
            lefts, rights = ("t", "n") if self.divides_k else ("n", "nt")
            lefts = "".join(letter for letter in lefts if letter in _contiguous(self.a))
            rights = "".join(letter for letter in rights if letter in _contiguous(self.b))
        for left in lefts:
            for right in rights:
                yield left + right

    def strides(self, layout: str) -> dict[str, int]:
        """By their names, what a launch of a batched call takes whose matrices are stored in `layout`; {} where all of
        them follow one another, or the call is none of this kind."""
        found: dict[str, int] = {}
        if self.offsets is not None:
            return found
        for name, tensor, letter in zip("ab", (self.a, self.b), layout, strict=True):
            stored = tensor if letter == "n" else tensor.mT
            if not stored.is_contiguous():
                (matrices, rows, columns), (between, row_stride, _) = stored.shape, stored.stride()
                row_stride = row_stride if rows > 1 else columns
                found[f"ld{name}"] = row_stride
                found[f"stride_{name}"] = between if matrices > 1 else rows * row_stride
        return found

    def operation(self, layout: str, groups: int) -> Operation | None:
        """What it is where its operands are stored so; None for formats that no kernel takes."""
        name = FORMATS.get(self.a.dtype)
        kind = "batched" if self.offsets is None else "grouped"
        steps = () if self.residual is None else ("residual",)
        return None if name is None else Operation(name, layout, epilogue=steps, kind=kind, count=groups)

    @property
    def problem(self) -> Problem | None:
        """What is to be tuned for it; None where no kernel computes such."""
        sizes, layout = self.sizes, next(self.layouts, None)
        if sizes is None or layout is None or 0 in sizes or self.b.dtype is not self.a.dtype:
            return None
        operation = self.operation(layout, sizes[3])
        return None if operation is None else Problem(*sizes[:3], operation)


def _contiguous(tensor: Tensor) -> str:
    """As which an operand may be read whose matrices follow one another: as it is, transposed, or as neither."""
    return "n" * tensor.is_contiguous() + "t" * tensor.mT.is_contiguous()


def _letters(stack: Tensor) -> str:
    """As which matrices may be read that are anywhere, or are one and the same: as they are, transposed, or as
    neither."""
    return "n" * _has_rows(stack) + "t" * _has_rows(stack.mT)


def _has_rows(stack: Tensor) -> bool:
    """Whether a tensor map can say where the rows of all matrices are: each contiguous, none overlapping the next."""
    (matrices, rows, columns), (between, row_stride, step) = stack.shape, stack.stride()
    if step != 1 and columns > 1:
        return False
    if rows > 1 and (row_stride < columns or row_stride % _ALIGNMENT_ELEMENTS):
        return stack.is_contiguous()
    return matrices == 1 or not between % _ALIGNMENT_ELEMENTS or stack.is_contiguous()


def added_to_products(added: Tensor, a: Tensor, b: Tensor) -> SeveralCall | None:
    """torch.baddbmm of two stacks; None where `added` cannot be expanded to their products."""
    shape = (a.shape[0], a.shape[1], b.shape[2])
    sizes = (1,) * (3 - added.dim()) + tuple(added.shape)
    if any(own not in (1, size) for own, size in zip(sizes, shape, strict=False)) or len(sizes) > 3:
        return None
    return SeveralCall(a, b, None, added.expand(shape))


def is_one_product(a: Tensor, b: Tensor) -> bool:
    """Whether the rows of all matrices of `a` [G, M, K] are multiplied by one, which `b` [G, K, N] is expanded from: so
    they are one product. Not if they are not evenly apart."""
    return b.stride(0) == 0 and a.stride(0) == a.shape[1] * a.stride(1)


def refusal(call: SeveralCall, where: torch.device) -> Fallback | None:
    """Why kernels on `where` cannot take the operands of a call whatever the table has; None where they can."""
    a, b, offsets, residual = call
    if any(type(each) not in PLAIN or each.layout is not torch.strided or each.is_neg() for each in call.tensors):
        return Fallback.TENSOR_TYPE
    if a.dtype not in FORMATS or b.dtype is not a.dtype or (offsets is not None and offsets.dtype is not torch.int32):
        return Fallback.DTYPE
    if residual is not None and residual.dtype is not a.dtype:
        return Fallback.DTYPE
    if any(each.device != where for each in call.tensors):
        return Fallback.DEVICE
    if offsets is not None and not offsets.is_contiguous():
        return Fallback.STRIDES
    try:
        at = [each.data_ptr() for each in (a, b, a if residual is None else residual)]
    except RuntimeError:  # a wrapper, such as a transform of torch.func leaves behind
        return Fallback.TENSOR_TYPE
    return Fallback.ALIGNMENT if any(not each or each % ALIGNMENT_BYTES for each in at) else None


def by_torch(call: SeveralCall) -> Tensor:
    """torch's own."""
    if call.residual is not None:
        return torch.baddbmm(call.residual, call.a, call.b)
    return torch.bmm(call.a, call.b) if call.offsets is None else torch._grouped_mm(call.a, call.b, offs=call.offsets)
