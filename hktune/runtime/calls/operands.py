"""Whether a kernel can take torch tensors as they are stored."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from hktune.core.operation import LAYOUTS
from hktune.runtime.calls.call_operations import KERNEL_DTYPES
from hktune.runtime.calls.forms import Form
from hktune.runtime.counts import Fallback
from hktune.runtime.torch_state import compiling

# The widest load that a kernel may make of its operands: a dwordx4.
ALIGNMENT_BYTES = 16
# Kernels reach the rows of one workgroup, at most 256 of them, by 31-bit byte offsets. The rows of a contiguous operand
# may be longer: its kernel was tuned for their length.
_ROW_BYTES_MAX = 2**23
PLAIN = (Tensor, torch.nn.Parameter)


def refusal(operands: Sequence[Tensor], dtypes: Sequence[torch.dtype], n: int, device: torch.device) -> Fallback | None:
    """Why a kernel of these dtypes on `device` cannot take two operands whose shapes fit each other, and perhaps a bias
    of `n` elements; None when it can, but for their strides."""
    if any(type(tensor) not in PLAIN for tensor in operands):
        return Fallback.TENSOR_TYPE
    if len(operands) == 3 and operands[2].shape != (n,):
        return Fallback.SHAPE
    for tensor, dtype in zip(operands, dtypes, strict=False):
        why = _unfit(tensor, dtype, device)
        if why is not None:
            return why
    return None


def may_hold(
    out: Tensor, dtype: torch.dtype, shape: Sequence[int], where: torch.device, operands: Sequence[Tensor]
) -> bool:
    """Whether a kernel on `where` may write the product of `operands` to `out`, which none of them may overlap."""
    return (
        out.dtype is dtype
        and out.shape == shape
        and out.device == where
        and out.is_contiguous()
        and not out.is_neg()
        and not out.data_ptr() % ALIGNMENT_BYTES
        and not any(torch._C._overlaps(out, each) for each in operands)
    )


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


def traced_refusal(left: Tensor, right: Tensor, bias: Tensor | None) -> Fallback | None:
    """Why no kernel will take a left operand [..., K] and a right one of two dimensions that a tracer or a dispatch
    mode holds, which knows their metadata only; None where one may. A bias is that of a weight [N, K]."""
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
    return None


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


def layouts_of(form: Form, left: Tensor, right: Tensor, sizes: Mapping[str, int]) -> Iterator[str]:
    """Every layout of an operation as which the operands may be read."""
    for layout in LAYOUTS:
        if row_strides(form, layout, left, right, sizes) is not None:
            yield layout


def layout_of(form: Form, left: Tensor, right: Tensor, sizes: Mapping[str, int]) -> str:
    """The layout that the operands are stored in; that of contiguous ones for what no kernel reads as it is."""
    letters = ""
    for place, (tensor, own) in enumerate(zip((left, right), form.letters, strict=True)):
        other = "t" if own == "n" else "n"
        lengths = {letter: row_lengths(letter * 2, sizes)[place] for letter in "nt"}
        is_turned = _row_stride(tensor, True, lengths[own]) is None and _row_stride(tensor, False, lengths[other])
        letters += other if is_turned else own
    return letters


def row_strides(
    form: Form, layout: str, left: Tensor, right: Tensor, sizes: Mapping[str, int]
) -> tuple[int, int] | None:
    """Elements from row to row of A and of B as `layout` stores them; None where the operands are not stored so.
    `sizes` are m, n and k."""
    lengths = row_lengths(layout, sizes)
    operands = zip((left, right), form.letters, layout, lengths, strict=True)
    lda, ldb = (_row_stride(tensor, own == letter, length) for tensor, own, letter, length in operands)
    return None if lda is None or ldb is None else (lda, ldb)


def row_lengths(layout: str, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Elements of a row of A and of B, as they are stored."""
    return sizes["k" if layout[0] == "n" else "m"], sizes["n" if layout[1] == "n" else "k"]


def _row_stride(tensor: Tensor, as_it_is: bool, length: int) -> int | None:
    """Elements from one row of `length` to the next, the leading dimensions taken as one, of a tensor or of its
    transposed view; None where rows are not so, do not begin on 16 bytes, or are too far apart."""
    shape: tuple[int, ...] = tensor.shape
    strides = tensor.stride()
    if not as_it_is:
        if len(shape) != 2:
            return None
        shape, strides = shape[::-1], strides[::-1]
    if length > 1 and strides[-1] != 1:
        return None
    rows = [(size, stride) for size, stride in zip(shape[:-1], strides[:-1], strict=True) if size > 1]
    for (_, outer), (size, inner) in itertools.pairwise(rows):
        if outer != size * inner:
            return None
    stride = rows[-1][1] if rows else length
    row_bytes = stride * tensor.element_size()
    fits = stride == length or (stride > length and not row_bytes % ALIGNMENT_BYTES and row_bytes < _ROW_BYTES_MAX)
    return stride if fits else None
