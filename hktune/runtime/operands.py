"""Whether a kernel can take torch tensors as they are stored."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from hktune.runtime.call_operations import KERNEL_DTYPES
from hktune.runtime.counts import Fallback
from hktune.runtime.torch_state import compiling

# The widest load that a kernel may make of its operands: a dwordx4.
ALIGNMENT_BYTES = 16
# Kernels reach the rows of one workgroup, at most 256 of them, by 31-bit byte offsets. The rows of a contiguous operand
# may be longer: its kernel was tuned for their length.
_ROW_BYTES_MAX = 2**23
PLAIN = (Tensor, torch.nn.Parameter)


def refusal(operands: Sequence[Tensor], dtype: torch.dtype, n: int, k: int, device: torch.device) -> Fallback | None:
    """Why a kernel of `dtype` on `device` cannot take x [..., k], weight [n, k] and perhaps bias [n]; None when it can,
    but for their strides."""
    if any(type(tensor) not in PLAIN for tensor in operands):
        return Fallback.TENSOR_TYPE
    x = operands[0]
    if not x.dim() or x.size(-1) != k or (len(operands) == 3 and operands[2].shape != (n,)):
        return Fallback.SHAPE
    for tensor in operands:
        why = _unfit(tensor, dtype, device)
        if why is not None:
            return why
    return None


def _unfit(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Fallback | None:
    if tensor.layout is not torch.strided:
        return Fallback.TENSOR_TYPE
    if tensor.dtype is not dtype:
        return Fallback.DTYPE
    if tensor.is_neg():  # its memory holds the negated values
        return Fallback.TENSOR_TYPE
    if tensor.device != device:
        return Fallback.DEVICE
    try:
        address = tensor.data_ptr()
    except RuntimeError:  # a wrapper, such as a transform of torch.func leaves behind
        return Fallback.TENSOR_TYPE
    return Fallback.ALIGNMENT if not address or address % ALIGNMENT_BYTES else None


def traced_refusal(left: Tensor, right: Tensor, bias: Tensor | None, is_product: bool = False) -> Fallback | None:
    """Why no kernel will take a left operand [..., K] and a weight [N, K], or with `is_product` a b [K, N], that a
    tracer or a dispatch mode holds, which knows their metadata only; None where one may."""
    operands = (left, right) if bias is None else (left, right, bias)
    for tensor in operands:
        if not (type(tensor) in PLAIN or _is_stand_in(tensor)) or tensor.layout is not torch.strided:
            return Fallback.TENSOR_TYPE
        if tensor.is_nested:
            return Fallback.TENSOR_TYPE
        if tensor.dtype is not left.dtype or tensor.dtype not in KERNEL_DTYPES:
            return Fallback.DTYPE
    if not left.dim() or right.dim() != 2:
        return Fallback.SHAPE
    if bias is not None and (bias.dim() != 1 or _may_be(bias.shape[0] != right.shape[0])):
        return Fallback.SHAPE
    return Fallback.NOT_TRANSPOSED if is_product and _may_be(right.stride(0) != 1) else None


def _may_be(condition: bool | torch.SymBool) -> bool:
    """Whether `condition` holds as far as a tracer knows. Of sizes that only the run will tell it knows nothing, and
    torch's own product asks nothing of them either."""
    if not compiling() and isinstance(condition, bool):
        return condition
    from torch.fx.experimental import symbolic_shapes

    return bool(getattr(symbolic_shapes, "guard_or_true", bool)(condition))  # torch 2.8


def _is_stand_in(tensor: Tensor) -> bool:
    """Whether torch's own tracers have put `tensor` in the place of a plain one."""
    from torch._subclasses.fake_tensor import FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor

    return type(tensor) in (FakeTensor, FunctionalTensor)


def row_strides(operands: Sequence[Tensor], k: int, may_differ: bool) -> tuple[int, int] | tuple[()] | None:
    """Elements from row to row of x and of weight: () where all is contiguous, None where no kernel takes them so, as
    none does unless `may_differ`."""
    if all(tensor.is_contiguous() for tensor in operands):
        return ()
    lda, ldb = row_stride(operands[0], k), row_stride(operands[1], k)
    if lda is None or ldb is None or not may_differ or not all(each.is_contiguous() for each in operands[2:]):
        return None
    return lda, ldb


def row_stride(tensor: Tensor, k: int) -> int | None:
    """Elements from one row of k to the next, the leading dimensions taken as one; None where rows are not so,
    do not begin on 16 bytes, or are too far apart."""
    sizes, strides = tensor.shape[:-1], tensor.stride()[:-1]
    if k > 1 and tensor.stride(-1) != 1:
        return None
    rows = [(size, stride) for size, stride in zip(sizes, strides, strict=True) if size > 1]
    for (_, outer), (size, inner) in itertools.pairwise(rows):
        if outer != size * inner:
            return None
    stride = rows[-1][1] if rows else k
    row_bytes = stride * tensor.element_size()
    fits = stride == k or (stride > k and not row_bytes % ALIGNMENT_BYTES and row_bytes < _ROW_BYTES_MAX)
    return stride if fits else None
