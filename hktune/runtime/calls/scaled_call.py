"""torch's products of numbers of 8 bits or fewer: which operation a call is, whether kernels take its operands, and
torch's own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hktune.core.dtype import E4M3, MXFP8, Dtype
from hktune.core.errors import InputError
from hktune.core.operation import SCALE_BLOCK, SCALES, Operation
from hktune.core.problem import Problem
from hktune.core.torch_limits import INT_MM_ROWS_FEW
from hktune.dispatch.calls import (
    FINISHED_OUTPUTS,
    FINISHED_STEPS,
    INTEGER_OPERATIONS,
    MX_OPERATIONS,
    SCALED_FORMATS,
    SCALED_OUTPUTS,
    scaled_operation,
)
from hktune.runtime.calls.finish import in_float8
from hktune.runtime.calls.forms import FLOAT8
from hktune.runtime.calls.operands import ALIGNMENT_BYTES, PLAIN
from hktune.runtime.counts import Fallback

_FLOAT32, _E8M0 = torch.float32, torch.float8_e8m0fnu
_FLOATS = (torch.bfloat16, torch.float16, _FLOAT32)
_FLOAT4: torch.dtype = torch.float4_e2m1fn_x2
_MX = "mx"
Words = tuple[torch.dtype, torch.dtype, str, torch.dtype, bool, bool, tuple[str, ...]]
"""The formats of A and B, the scales, the format of C, whether a bias is added, whether sums may be fast, the steps
behind. Scales are those of an operation, or mx."""


def _operations() -> dict[Words, tuple[Operation, ...]]:
    found: dict[Words, tuple[Operation, ...]] = {}
    truths = (False, True)
    for (a, b), scales, c, bias, is_fast in itertools.product(SCALED_FORMATS, SCALES, SCALED_OUTPUTS, truths, truths):
        all_steps = ((), *FINISHED_STEPS) if a == b == E4M3 and c in FINISHED_OUTPUTS else ((),)
        for steps in all_steps:
            found[_torch(a), _torch(b), scales, _torch(c), bias, is_fast, steps] = tuple(
                scaled_operation(a, b, scales, c, bias, accumulation, steps)
                for accumulation in (("fast", "") if is_fast else ("",))
            )
    for each, is_fast in itertools.product((*INTEGER_OPERATIONS, *MX_OPERATIONS), truths):
        of_a, of_b, of_c = map(_torch, (each.a_dtype, each.b_dtype, each.c_dtype))
        found[of_a, of_b, _MX if each.a_dtype.block else each.scales, of_c, each.has_bias, is_fast, ()] = (each,)
    return found


def _torch(dtype: Dtype) -> torch.dtype:
    found: torch.dtype = getattr(torch, dtype.torch_name)
    return found


OPERATIONS: Mapping[Words, tuple[Operation, ...]] = _operations()
"""What serves a call, the first that a table has: what may be fast may be exact."""

_NO_SWIZZLE: tuple[list[int], ...] = ([], [0])
_SERVED_RECIPES = ([0], [1], [3], [4], [5])
"""Recipes of one scale: of a tensor, of rows, of 32 along K, of blocks of A and of B."""


class ScaledCall(NamedTuple):
    """A call of torch._scaled_mm or torch._int_mm: a [M, K] and b [K, N], a view of what is stored [N, K]. Without
    scales it is the latter, and C is int32."""

    a: Tensor
    b: Tensor
    scale_a: Tensor | None
    scale_b: Tensor | None
    bias: Tensor | None = None
    out_dtype: torch.dtype = torch.bfloat16
    use_fast_accum: bool = False
    out_scale: Tensor | None = None
    """Of float8: what C is multiplied by before it is rounded, 1 without one."""
    activation: str = ""
    is_gated: bool = False
    """Whether b has gates, and then as many columns that they gate: then it is [K, 2N]."""
    residual: Tensor | None = None
    """[M, N], added last."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        others = (*self[2:5], self.out_scale, self.residual)
        return (self.a, self.b, *(each for each in others if each is not None))

    @property
    def steps(self) -> tuple[str, ...]:
        """What is behind the product and its bias, in the words of an operation."""
        last = "gated" if self.is_gated else "" if self.residual is None else "residual"
        return tuple(step for step in (self.activation, last) if step)

    @property
    def bias_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.out_dtype is FLOAT8 else self.out_dtype

    @property
    def sizes(self) -> tuple[int, int, int] | None:
        """m, n and k; None where the operands are no matrices that fit."""
        a, b = self.a, self.b
        if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
            return None
        n, odd = divmod(b.shape[1], 2) if self.is_gated else (b.shape[1], 0)
        return None if odd else (a.shape[0], n, a.shape[1] * (2 if a.dtype is _FLOAT4 else 1))

    @property
    def problem(self) -> Problem | None:
        """What is to be tuned for it; None where no kernel computes such. Only NVIDIA's tensor cores are less exact
        where that is allowed."""
        sizes = self.sizes
        words = self.words(*sizes) if sizes else None
        found = OPERATIONS.get(words) if words else None
        if sizes is None or found is None or 0 in sizes:
            return None
        is_exact = torch.version.hip is not None or not self.a.is_cuda
        return Problem(*sizes, found[-1 if is_exact else 0])

    def words(self, m: int, n: int, k: int) -> Words | None:
        """What `OPERATIONS` has its operation under; None where the scales have the shapes of none."""
        scales = self.scales(m, n, k)
        if scales is None:
            return None
        has_bias, fast = self.bias is not None, self.use_fast_accum
        return self.a.dtype, self.b.dtype, scales, self.out_dtype, has_bias, fast, self.steps

    def scales(self, m: int, n: int, k: int) -> str | None:
        """Which scales have these shapes, as torch has them; "" without any."""
        if self.scale_a is None or self.scale_b is None:
            return "" if self.scale_a is self.scale_b else None
        n *= 2 if self.is_gated else 1
        of_a, of_b = self.scale_a.shape, self.scale_b.shape
        if self.scale_a.dtype is _E8M0:
            blocks, rest = divmod(k, MXFP8.block)
            return _MX if not rest and of_a == (m, blocks) and of_b == (n, blocks) else None
        if of_a.numel() == of_b.numel() == 1:
            return "tensor"
        if of_a == (m, 1) and of_b == (1, n):
            return "rows"
        blocks = -(-k // SCALE_BLOCK)
        return "blocks" if of_a == (m, blocks) and of_b == (blocks, -(-n // SCALE_BLOCK)) else None


def call_of_operator(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None = None,
    scale_result: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
    *,
    out: Tensor | None = None,
) -> ScaledCall | None:
    """A call of torch._scaled_mm; None where C has a scale and is not float8. On GPUs torch multiplies by it, on a CPU
    it divides."""
    dtype = (out_dtype or a.dtype) if out is None else out.dtype
    if out_dtype not in (None, dtype) or (scale_result is not None and dtype is not FLOAT8):
        return None
    scale = scale_result if scale_result is None or a.is_cuda else scale_result.reciprocal()
    return ScaledCall(a, b, scale_a, scale_b, bias, dtype, use_fast_accum, scale)


def call_of_recipes(
    a: Tensor,
    b: Tensor,
    scale_a: Sequence[Tensor],
    recipe_a: Sequence[int],
    swizzle_a: Sequence[int],
    scale_b: Sequence[Tensor],
    recipe_b: Sequence[int],
    swizzle_b: Sequence[int],
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    contraction_dim: Sequence[int] = (),
    use_fast_accum: bool = False,
) -> ScaledCall | None:
    """The call that torch.nn.functional.scaled_mm makes, by torch's _scaled_mm_v2; None where it is no other."""
    recipes, swizzles = (recipe_a, recipe_b), (swizzle_a, swizzle_b)
    has_own = any(list(each) not in _SERVED_RECIPES for each in recipes) or contraction_dim
    if has_own or any(list(each) not in _NO_SWIZZLE for each in swizzles) or out_dtype is None:
        return None
    return ScaledCall(a, b, scale_a[0], scale_b[0], bias, out_dtype, use_fast_accum)


def call_of_integers(a: Tensor, b: Tensor) -> ScaledCall:
    """The call of torch._int_mm."""
    return ScaledCall(a, b, None, None, out_dtype=torch.int32)


def refusal(call: ScaledCall, n: int, scales: str, where: torch.device) -> Fallback | None:
    """Why kernels on `where` cannot take the operands of a call as they are stored; None where they can. Scales of
    blocks of A may be row by row, or column by column as torch wants them. A bias, as b, has `n` columns."""
    a, b, scale_a, scale_b, bias = call[:5]
    if any(type(each) not in PLAIN or each.layout is not torch.strided or each.is_neg() for each in call.tensors):
        return Fallback.TENSOR_TYPE
    if any(each.device != where for each in call.tensors):
        return Fallback.DEVICE
    if scale_a is not None and scale_b is not None and not _are_stored(scale_a, scale_b, scales):
        return Fallback.SCALES
    if call.out_scale is not None and (call.out_scale.dtype is not _FLOAT32 or call.out_scale.numel() != 1):
        return Fallback.SCALES
    if bias is not None and (bias.shape != (n,) or bias.dtype is not call.bias_dtype):
        return Fallback.SHAPE if bias.shape != (n,) else Fallback.DTYPE
    if call.residual is not None and (call.residual.dtype, call.residual.shape) != (call.bias_dtype, (len(a), n)):
        return Fallback.SHAPE
    ends = [each for each in (bias, call.residual) if each is not None]
    if not a.is_contiguous() or not b.t().is_contiguous() or not all(each.is_contiguous() for each in ends):
        return Fallback.STRIDES
    try:
        at = [each.data_ptr() for each in (a, b, *ends)]
    except RuntimeError:  # a wrapper, such as a transform of torch.func leaves behind
        return Fallback.TENSOR_TYPE
    return Fallback.ALIGNMENT if any(not each or each % ALIGNMENT_BYTES for each in at) else None


def _are_stored(scale_a: Tensor, scale_b: Tensor, scales: str) -> bool:
    """Whether scales are of the format, and in the order, that kernels take."""
    dtype = _E8M0 if scales == _MX else _FLOAT32
    if scale_a.dtype is not dtype or scale_b.dtype is not dtype:
        return False
    if scales != "blocks":
        return scale_a.is_contiguous() and scale_b.is_contiguous()
    return scale_b.t().is_contiguous() and (scale_a.is_contiguous() or is_by_columns(scale_a))


def is_by_columns(scale: Tensor) -> bool:
    """Whether a matrix is stored column by column, and not row by row too, as a vector is."""
    return not scale.is_contiguous() and scale.t().is_contiguous()


def by_torch(call: ScaledCall) -> Tensor:
    """torch's own. It wants the scales of A's blocks column by column: either order is taken. Raises InputError for
    scales of integers that are of nothing, an output or a bias of these that is none, and where torch refuses a product
    of an MX format."""
    if call.out_dtype is FLOAT8:
        return _in_float8_by_torch(call)
    a, b, scale_a, scale_b, bias = call[:5]
    sizes = call.sizes if all(isinstance(each, Tensor) for each in call.tensors) else None
    scales = None if sizes is None or scale_a is None or scale_b is None else call.scales(*sizes)
    if sizes is not None and a.dtype is torch.int8 and scale_a is not None and scale_b is not None:
        return _integers_by_torch(call, sizes, scales)
    if scale_a is not None and scales == "blocks":
        scale_a = scale_a.t().contiguous().t()
    fast = call.use_fast_accum
    try:
        # Without scales torch says what is wrong.
        return torch._scaled_mm(a, b, scale_a, scale_b, bias=bias, out_dtype=call.out_dtype, use_fast_accum=fast)  # type: ignore[arg-type]
    except (RuntimeError, NotImplementedError, ValueError) as refused:
        if scales != _MX or sizes is None:
            raise
        m, n, k = sizes
        if not (m and n):  # as for an expert without tokens: there is nothing to compute
            return a.new_empty((m, n), dtype=call.out_dtype)
        reason = str(refused).strip().splitlines()[0].rstrip(".")
        rule = f"scaled_mm: scales of {MXFP8.block} elements are served by kernels of gfx950"
        step = "pass scales of rows, or a table of that device"
        raise InputError(f"{rule}, no entry here is of {m}x{n}x{k}, and torch refuses ({reason}): {step}") from None


def _in_float8_by_torch(call: ScaledCall) -> Tensor:
    """In float32 until the one rounding. Torch makes float8 of products with scales of a tensor alone, limits it on
    GPUs alone, and adds no bias to a float32 product: so it is asked for that, and the rest is here. GPUs on which
    products with scales of rows are bfloat16, or nothing, have that rounding too."""
    bias = call.bias
    _check_bias(call)
    wide = call._replace(out_dtype=_FLOAT32, bias=None, out_scale=None)
    try:
        product = by_torch(wide)
    except (ValueError, RuntimeError):  # torch has no such output
        product = by_torch(wide._replace(out_dtype=torch.bfloat16)).float()
    return in_float8(product if bias is None else product + bias, call.out_scale)


def _check_bias(call: ScaledCall) -> None:
    bias = call.bias
    if bias is not None and isinstance(call.b, Tensor) and getattr(bias, "shape", None) != call.b.shape[-1:]:
        got = list(bias.shape) if isinstance(bias, Tensor) else f"a {type(bias).__name__}"
        raise InputError(f"scaled_mm: bias must be [{call.b.shape[-1]}], got {got}: pass one element for each column")


def _integers_by_torch(call: ScaledCall, sizes: tuple[int, int, int], scales: str | None) -> Tensor:
    """The sums of torch._int_mm, and what torch has in further kernels: their scales and bias, in float32."""
    a, b, scale_a, scale_b, bias = call[:5]
    assert scale_a is not None, "what is asked for without scales is torch._int_mm"
    assert scale_b is not None, "as well"
    m, n, _ = sizes
    if scales not in ("tensor", "rows") or scale_a.dtype is not _FLOAT32 or scale_b.dtype is not _FLOAT32:
        got = f"{tuple(scale_a.shape)} {scale_a.dtype} and {tuple(scale_b.shape)} {scale_b.dtype}"
        wanted = f"must be float32, of one element each or [{m}, 1] and [1, {n}]"
        raise InputError(f"scaled_mm: scales of int8 {wanted}, got {got}: pass such".replace("torch.", ""))
    if call.out_dtype not in _FLOATS:
        known = ", ".join(map(str, _FLOATS))
        rule = f"scaled_mm: out_dtype of int8 with scales must be one of {known}, got {call.out_dtype}"
        raise InputError(f"{rule}: pass one of these".replace("torch.", ""))
    _check_bias(call)
    if scales == "tensor":
        scale_a, scale_b = scale_a.reshape(()), scale_b.reshape(())
    product = _sums(a, b) * (scale_a * scale_b)
    return (product if bias is None else product + bias).to(call.out_dtype)


def _sums(a: Tensor, b: Tensor) -> Tensor:
    rows = len(a)
    if a.is_cuda and rows <= INT_MM_ROWS_FEW:
        a = torch.nn.functional.pad(a, (0, 0, 0, INT_MM_ROWS_FEW + 1 - rows))
    return torch._int_mm(a, b)[:rows]
