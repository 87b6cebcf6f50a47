"""Calls of several products, torch's batched and grouped ones: which operation a call is, and whether kernels take its
operands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from hktune.core.operation import COUNT_MAX, GATES, Operation
from hktune.core.problem import Problem
from hktune.dispatch.calls import SEVERAL_OPERATIONS
from hktune.runtime.calls.operands import ALIGNMENT_BYTES, PLAIN
from hktune.runtime.counts import Fallback

Sizes = tuple[int, int, int, int]
"""m, n, k, and how many products there are."""
Words = tuple[str, str, torch.dtype, torch.dtype, tuple[str, ...], bool, bool]
"""The kind, the layout, the formats of A (and B) and of C, the steps, and whether there are scales, and fast sums."""


def _words(operation: Operation) -> Words:
    a, c = (getattr(torch, each.torch_name) for each in (operation.a_dtype, operation.c_dtype))
    is_fast = operation.accumulation == "fast"
    return operation.kind, operation.layout, a, c, operation.epilogue, bool(operation.scales), is_fast


_OPERATIONS: Mapping[Words, Operation] = {_words(each): each for each in SEVERAL_OPERATIONS}
_FORMATS = frozenset(a for _, _, a, _, _, scaled, _ in _OPERATIONS if not scaled)
"""Of A, B and C where there are no scales."""
_SCALED = {(kind, a, c) for kind, _, a, c, _, scaled, _ in _OPERATIONS if scaled}


class SeveralCall(NamedTuple):
    """a [M, K] and b [G, K, N], where the groups of rows of `a` end at `offsets`, int32 [G]. Or a [M, K] and b [K, N],
    where those of K end there. Or, without offsets, a [G, M, K] and b [G, K, N], and perhaps what is added to their
    products, [G, M, N]."""

    a: Tensor
    b: Tensor
    offsets: Tensor | None = None
    residual: Tensor | None = None
    scale_a: Tensor | None = None
    """Of each row of `a`, float32 [M], or [G, M] without offsets. Where there are scales, numbers have 8 bits."""
    scale_b: Tensor | None = None
    """Of each column of `b`, float32 [G, columns of `b`]."""
    out_dtype: torch.dtype | None = None
    """Of C; None is that of `a`."""
    steps: tuple[str, ...] = ()
    """What is done with the products, in the words of an operation. With gates `b` has 2N columns."""
    use_fast_accum: bool = False
    """Whether sums may be fast, as those of NVIDIA's tensor cores are. What may be fast may be exact."""
    bias: Tensor | None = None
    """Of each group what is added to its rows before the steps, [G, columns of `b`], of C's format."""
    add_to: Tensor | None = None
    """What the products of groups of K are added to, [G, M, N], of the format of `a` or float32: it becomes C."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What is read alone."""
        return (self.a, self.b, *(each for each in (*self[2:6], self.bias) if each is not None))

    @property
    def has_scales(self) -> bool:
        return self.scale_a is not None or self.scale_b is not None

    @property
    def c_dtype(self) -> torch.dtype:
        return self.add_to.dtype if self.add_to is not None else self.out_dtype or self.a.dtype

    @property
    def products(self) -> SeveralCall:
        """The same without what is done with the products."""
        return self._replace(steps=(), bias=None, add_to=None)

    @property
    def all_steps(self) -> tuple[str, ...]:
        """What is done with the products, and what is added to them, in the words of an operation."""
        if self.residual is not None:
            return (*self.steps, "residual")
        if self.add_to is not None:
            return ("accumulate", *self.steps)
        return self.steps if self.bias is None else ("bias", *self.steps)

    @property
    def is_finished(self) -> bool:
        """Whether there is more to do than torch's own calls do."""
        return bool(self.steps) or self.bias is not None or self.add_to is not None

    @property
    def sizes(self) -> Sizes | None:
        """m, n, k and how many products; None where the operands do not fit, or are no such call."""
        a, b, offsets, residual = self[:4]
        if residual is not None and residual.shape != self.out_shape:
            return None
        dims = (3, 3) if offsets is None else (2, 2 if self.divides_k else 3)
        if (a.dim(), b.dim()) != dims or a.shape[-1] != b.shape[-2]:
            return None
        if (self.bias is not None or self.add_to is not None) and not self._has_what_is_added:
            return None
        groups = a.shape[0] if offsets is None else offsets.shape[0] if offsets.dim() == 1 else -1
        counted = groups if self.divides_k else b.shape[0]
        n, odd = (b.shape[-1], 0) if not self.steps else divmod(b.shape[-1], self._columns_of_b)
        return (a.shape[-2], n, a.shape[-1], groups) if counted == groups <= COUNT_MAX and not odd else None

    @property
    def _columns_of_b(self) -> int:
        """For each column of C."""
        return 2 if self.steps and self.steps[-1] in GATES else 1

    @property
    def divides_k(self) -> bool:
        """Whether groups are of K, as they are for the gradient of grouped weights."""
        return self.offsets is not None and self.b.dim() == 2

    @property
    def out_shape(self) -> tuple[int, ...]:
        groups = self.offsets.shape if self.offsets is not None and self.divides_k else ()
        return (*groups, *self.a.shape[:-1], self.b.shape[-1] // self._columns_of_b)

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

    @property
    def _kind(self) -> str:
        return "batched" if self.offsets is None else "grouped"

    def operations(self, layout: str, groups: int) -> tuple[Operation, ...]:
        """What serves it where its operands are stored so, the first that a table has; () where no kernel computes
        such."""
        words = (self._kind, layout, self.a.dtype, self.c_dtype, self.all_steps, self.has_scales)
        found = (_OPERATIONS.get((*words, is_fast)) for is_fast in ((True, False) if self.use_fast_accum else (False,)))
        return tuple(replace(each, count=groups) for each in found if each is not None)

    @property
    def has_known_formats(self) -> bool:
        """Whether there are kernels for the formats of its operands, and of C."""
        a = self.a.dtype
        if self.b.dtype is not a:
            return False
        if self.has_scales:
            return (self._kind, a, self.c_dtype) in _SCALED
        return a in _FORMATS and (self.add_to is not None or self.out_dtype in (None, a))

    @property
    def _has_what_is_added(self) -> bool:
        """Whether a bias, and what products are added to, have the shapes and the format that kernels take."""
        b, bias, add_to = self.b, self.bias, self.add_to
        fits = bias is None or (bias.shape == (b.shape[0], b.shape[-1]) and bias.dtype is self.c_dtype)
        return fits and (add_to is None or add_to.shape == self.out_shape)

    @property
    def problem(self) -> Problem | None:
        """What is to be tuned for it; None where no kernel computes such. Its sums are exact: see `fastest`."""
        return self._replace(use_fast_accum=False).fastest

    @property
    def fastest(self) -> Problem | None:
        """The same with sums that may be fast, where the call says so."""
        sizes = self.sizes
        if sizes is None or 0 in sizes or not self.has_known_formats or not self.scales_fit(sizes):
            return None
        operations = (self.operations(layout, sizes[3]) for layout in self.layouts)
        return next((Problem(*sizes[:3], each[0]) for each in operations if each), None)

    def scales_fit(self, sizes: Sizes) -> bool:
        """Whether its scales, if it has any, are of the format and the shapes that kernels take."""
        if not self.has_scales:
            return True
        m, n, _, groups = sizes
        of_a, of_b = (m,) if self.offsets is not None else (groups, m), (groups, n * self._columns_of_b)
        wanted = ((self.scale_a, of_a), (self.scale_b, of_b))
        return not self.divides_k and all(
            scale is not None and scale.dtype is torch.float32 and scale.shape == shape for scale, shape in wanted
        )

    @property
    def has_dense_scales(self) -> bool:
        """Whether its scales, if it has any, are in the order that kernels take."""
        return all(each is None or each.is_contiguous() for each in (self.scale_a, self.scale_b))


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
    elements = ALIGNMENT_BYTES // stack.element_size()
    if rows > 1 and (row_stride < columns or row_stride % elements):
        return stack.is_contiguous()
    return matrices == 1 or not between % elements or stack.is_contiguous()


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


def refusal(call: SeveralCall, sizes: Sizes, where: torch.device) -> Fallback | None:
    """Why kernels on `where` cannot take the operands of a call, which has these sizes, whatever the table has; None
    where they can."""
    a, b, offsets, residual = call[:4]
    if any(type(each) not in PLAIN or each.layout is not torch.strided or each.is_neg() for each in call.tensors):
        return Fallback.TENSOR_TYPE
    if not call.has_known_formats or (offsets is not None and offsets.dtype is not torch.int32):
        return Fallback.DTYPE
    if residual is not None and residual.dtype is not a.dtype:
        return Fallback.DTYPE
    if any(each.device != where for each in call.tensors):
        return Fallback.DEVICE
    if offsets is not None and not offsets.is_contiguous():
        return Fallback.STRIDES
    if call.has_scales and not (call.scales_fit(sizes) and call.has_dense_scales):
        return Fallback.SCALES
    try:
        at = [each.data_ptr() for each in ((a, b) if residual is None else (a, b, residual))]
    except RuntimeError:  # a wrapper, such as a transform of torch.func leaves behind
        return Fallback.TENSOR_TYPE
    return Fallback.ALIGNMENT if any(not each or each % ALIGNMENT_BYTES for each in at) else None
