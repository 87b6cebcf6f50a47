"""torch's own matrix products on one device, asked of a table.

What `@`, `F.linear`, einsum or a compiled graph makes of a product ends in these operators, and so do torch's own
gradients. A kernel of theirs is below autograd, autocast, modes, transforms and tracers: these have done their part,
and tensors are plain. What the table does not serve goes to the kernel that was there before, another library's too.
One that is Python costs a call 3 us more.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor

from hktune.runtime.calls.call_operations import KERNEL_DTYPES
from hktune.runtime.calls.forms import ADDED, ADDED_FLOAT32, MATMUL, MATMUL_BIAS, MATMUL_BIAS_FLOAT32, MATMUL_FLOAT32
from hktune.runtime.calls.several_call import SeveralCall, added_to_products, is_one_product
from hktune.runtime.grouped_door import GROUPED, SCALED_GROUPED, GroupedDoor
from hktune.runtime.loaded import LoadedTable
from hktune.runtime.scaled_door import INTEGERS, SCALED, ScaledDoor

Keys = torch._C.DispatchKeySet
Kernel = Callable[..., Tensor]
_FLOAT32 = torch.float32
_PRODUCTS = ("mm", "mm.out", "addmm", "addmm.out", "bmm", "bmm.out")
_SUMS_OF_BATCHES = ("baddbmm", "baddbmm.out")
_SUMS = ("addmm_", "baddbmm_", *_SUMS_OF_BATCHES)
_IN_FLOAT32 = tuple(f"{name}.{own}" for name in ("mm", "addmm", "bmm", "baddbmm") for own in ("dtype", "dtype_out"))


class Door(ScaledDoor, GroupedDoor):
    """The kernels of one device, as torch names it to its dispatcher."""

    def __init__(self, key: str, table: LoadedTable) -> None:
        self.table = table
        table.enabled(True)
        self._has_factors = any("alpha" in each or "beta" in each for each in table.endings)
        self._is_batched, self._adds_to_batches = "batched" in table.kinds, table.does("batched", "residual")
        kernels = {name: getattr(self, name.replace(".", "_")) for name in _operators(table)}
        # What was there before; it takes the keys of the call first.
        self._before = {name: _kernel_before(f"aten::{name}", key) for name in kernels}
        self._mm, self._addmm, self._bmm = (self._before[name] for name in ("mm", "addmm", "bmm"))
        self._library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
        impl: Callable[..., None] = self._library.impl
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Warning only once for all operators")
            for name, kernel in kernels.items():
                impl(name, kernel, key, with_keyset=True, allow_override=True)  # torch 2.11 asks for the word

    def close(self) -> None:
        self._library._destroy()
        self.table.enabled(False)

    def mm(self, keys: Keys, a: Tensor, b: Tensor) -> Tensor:
        if a.dtype in KERNEL_DTYPES and a.dim() == 2:
            out = self.table.below(MATMUL, a, b, None)
            if out is not None:
                return out
        return self._mm(keys, a, b)

    def mm_out(self, keys: Keys, a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
        is_one = a.dtype in KERNEL_DTYPES and a.dim() == 2
        if is_one and self.table.below(MATMUL, a, b, None, out) is not None:
            return out
        return self._before["mm.out"](keys, a, b, out=out)

    def mm_dtype(self, keys: Keys, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
        out = self.table.below(MATMUL_FLOAT32, a, b, None) if _is_float32(dtype, a) and a.dim() == 2 else None
        return self._before["mm.dtype"](keys, a, b, dtype) if out is None else out

    def mm_dtype_out(self, keys: Keys, a: Tensor, b: Tensor, dtype: torch.dtype, *, out: Tensor) -> Tensor:
        is_one = _is_float32(dtype, a) and a.dim() == 2
        if is_one and self.table.below(MATMUL_FLOAT32, a, b, None, out) is not None:
            return out
        return self._before["mm.dtype_out"](keys, a, b, dtype, out=out)

    def addmm(self, keys: Keys, bias: Tensor, a: Tensor, b: Tensor, *, beta: object = 1, alpha: object = 1) -> Tensor:
        if a.dtype in KERNEL_DTYPES and a.dim() == 2:
            out = self._sum(bias, a, b) if beta == alpha == 1 else self._factored(bias, a, b, beta, alpha)
            if out is not None:
                return out
        return self._addmm(keys, bias, a, b, beta=beta, alpha=alpha)

    def addmm_(self, keys: Keys, c: Tensor, a: Tensor, b: Tensor, *, beta: object = 1, alpha: object = 1) -> Tensor:
        is_one = a.dtype in KERNEL_DTYPES and a.dim() == 2 and beta == alpha == 1
        if is_one and self.table.added(ADDED, a, b, c, c) is not None:
            return c
        return self._before["addmm_"](keys, c, a, b, beta=beta, alpha=alpha)

    def addmm_out(
        self, keys: Keys, bias: Tensor, a: Tensor, b: Tensor, *, out: Tensor, beta: object = 1, alpha: object = 1
    ) -> Tensor:
        if a.dtype in KERNEL_DTYPES and a.dim() == 2:
            is_sum = beta == alpha == 1
            found = self._sum(bias, a, b, out) if is_sum else self._factored(bias, a, b, beta, alpha, out)
            if found is not None:
                return out
        return self._before["addmm.out"](keys, bias, a, b, beta=beta, alpha=alpha, out=out)

    def addmm_dtype(
        self,
        keys: Keys,
        bias: Tensor,
        a: Tensor,
        b: Tensor,
        dtype: torch.dtype,
        *,
        beta: object = 1,
        alpha: object = 1,
    ) -> Tensor:
        is_one = _is_float32(dtype, a) and a.dim() == 2 and beta == alpha == 1
        out = self._sum(bias, a, b, is_float32=True) if is_one else None
        return self._before["addmm.dtype"](keys, bias, a, b, dtype, beta=beta, alpha=alpha) if out is None else out

    def addmm_dtype_out(
        self,
        keys: Keys,
        bias: Tensor,
        a: Tensor,
        b: Tensor,
        dtype: torch.dtype,
        *,
        out: Tensor,
        beta: object = 1,
        alpha: object = 1,
    ) -> Tensor:
        is_one = _is_float32(dtype, a) and a.dim() == 2 and beta == alpha == 1
        if is_one and self._sum(bias, a, b, out, is_float32=True) is not None:
            return out
        return self._before["addmm.dtype_out"](keys, bias, a, b, dtype, beta=beta, alpha=alpha, out=out)

    def bmm(self, keys: Keys, a: Tensor, b: Tensor) -> Tensor:
        if a.dtype in KERNEL_DTYPES and a.dim() == b.dim() == 3 and a.shape[0] == b.shape[0]:
            if b.shape[0] == 1:
                out = self.table.below(MATMUL, a[0], b[0], None)
                if out is not None:
                    return out[None]
            elif b.shape[0] and is_one_product(a, b):
                out = self.table.below(MATMUL, a, b[0], None)
                if out is not None:
                    return out
            elif self._is_batched:
                out = self.table.below_several(SeveralCall(a, b))
                if out is not None:
                    return out
        return self._bmm(keys, a, b)

    def bmm_out(self, keys: Keys, a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
        is_one = a.dtype in KERNEL_DTYPES and _are_single(a, b, out)
        if is_one and self.table.below(MATMUL, a[0], b[0], None, out[0]) is not None:
            return out
        is_batched = self._is_batched and a.dtype in KERNEL_DTYPES and a.dim() == 3 and a.shape[0] > 1
        if is_batched and self.table.below_several(SeveralCall(a, b), out) is not None:
            return out
        return self._before["bmm.out"](keys, a, b, out=out)

    def bmm_dtype(self, keys: Keys, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
        is_one = _is_float32(dtype, a) and _are_single(a, b)
        out = self.table.below(MATMUL_FLOAT32, a[0], b[0], None) if is_one else None
        return self._before["bmm.dtype"](keys, a, b, dtype) if out is None else out[None]

    def bmm_dtype_out(self, keys: Keys, a: Tensor, b: Tensor, dtype: torch.dtype, *, out: Tensor) -> Tensor:
        is_one = _is_float32(dtype, a) and _are_single(a, b, out)
        if is_one and self.table.below(MATMUL_FLOAT32, a[0], b[0], None, out[0]) is not None:
            return out
        return self._before["bmm.dtype_out"](keys, a, b, dtype, out=out)

    def baddbmm(self, keys: Keys, bias: Tensor, a: Tensor, b: Tensor, *, beta: object = 1, alpha: object = 1) -> Tensor:
        is_one = a.dtype in KERNEL_DTYPES and _are_single(bias, a, b) and beta == alpha == 1
        if is_one:
            out = self._sum(bias[0], a[0], b[0])
            out = None if out is None else out[None]
        else:
            out = self._sums(bias, a, b) if beta == alpha == 1 else None
        return self._before["baddbmm"](keys, bias, a, b, beta=beta, alpha=alpha) if out is None else out

    def baddbmm_(self, keys: Keys, c: Tensor, a: Tensor, b: Tensor, *, beta: object = 1, alpha: object = 1) -> Tensor:
        is_one = a.dtype in KERNEL_DTYPES and _are_single(c, a, b) and beta == alpha == 1
        if is_one and self.table.added(ADDED, a[0], b[0], c[0], c[0]) is not None:
            return c
        return self._before["baddbmm_"](keys, c, a, b, beta=beta, alpha=alpha)

    def baddbmm_out(
        self, keys: Keys, bias: Tensor, a: Tensor, b: Tensor, *, out: Tensor, beta: object = 1, alpha: object = 1
    ) -> Tensor:
        is_one = a.dtype in KERNEL_DTYPES and _are_single(bias, a, b, out) and beta == alpha == 1
        if is_one and self._sum(bias[0], a[0], b[0], out[0]) is not None:
            return out
        if not is_one and beta == alpha == 1 and self._sums(bias, a, b, out) is not None:
            return out
        return self._before["baddbmm.out"](keys, bias, a, b, beta=beta, alpha=alpha, out=out)

    def baddbmm_dtype(
        self,
        keys: Keys,
        bias: Tensor,
        a: Tensor,
        b: Tensor,
        dtype: torch.dtype,
        *,
        beta: object = 1,
        alpha: object = 1,
    ) -> Tensor:
        is_one = _is_float32(dtype, a) and _are_single(bias, a, b) and beta == alpha == 1
        out = self._sum(bias[0], a[0], b[0], is_float32=True) if is_one else None
        if out is not None:
            return out[None]
        return self._before["baddbmm.dtype"](keys, bias, a, b, dtype, beta=beta, alpha=alpha)

    def baddbmm_dtype_out(
        self,
        keys: Keys,
        bias: Tensor,
        a: Tensor,
        b: Tensor,
        dtype: torch.dtype,
        *,
        out: Tensor,
        beta: object = 1,
        alpha: object = 1,
    ) -> Tensor:
        is_one = _is_float32(dtype, a) and _are_single(bias, a, b, out) and beta == alpha == 1
        if is_one and self._sum(bias[0], a[0], b[0], out[0], is_float32=True) is not None:
            return out
        return self._before["baddbmm.dtype_out"](keys, bias, a, b, dtype, beta=beta, alpha=alpha, out=out)

    def _sums(self, added: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor | None:
        """Of the products of a batch and what is added to them, expanded; None where torch is to be called."""
        if not self._adds_to_batches or a.dtype not in KERNEL_DTYPES or not a.dim() == b.dim() == 3 or a.shape[0] < 2:
            return None
        call = added_to_products(added, a, b)
        return None if call is None else self.table.below_several(call, out)

    def _factored(
        self, added: Tensor, a: Tensor, b: Tensor, beta: object, alpha: object, out: Tensor | None = None
    ) -> Tensor | None:
        """Of the product and a matrix of its shape, with their factors; None where torch is to be called."""
        if not (self._has_factors and is_number(alpha) and is_number(beta)) or added.dim() != 2:
            return None
        return self.table.factored(a, b, added, alpha, beta, out)

    def _sum(
        self, bias: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None, is_float32: bool = False
    ) -> Tensor | None:
        """Of the product and a bias [N], or a matrix of the product's shape; None where torch is to be called."""
        row = _row(bias, a, b)
        if row is not None:
            return self.table.below(MATMUL_BIAS_FLOAT32 if is_float32 else MATMUL_BIAS, a, b, row, out)
        if bias.dim() != 2:
            return None
        return self.table.added(ADDED_FLOAT32 if is_float32 else ADDED, a, b, bias, out)


def _operators(table: LoadedTable) -> tuple[str, ...]:
    """Those that an entry may serve: to take one over costs 15 us, and a call of it 3."""
    endings = table.endings
    sums = _SUMS if "+accumulate" in endings else _SUMS_OF_BATCHES if table.does("batched", "residual") else ()
    in_float32 = _IN_FLOAT32 if any(each.startswith("->f32") for each in endings) else ()
    grouped = GROUPED if "grouped" in table.kinds else ()
    grouped = (*grouped, *SCALED_GROUPED) if table.has_several_scaled else grouped
    scaled = (*(SCALED if table.has_scaled else ()), *(INTEGERS if table.has_integers else ()))
    return (*_PRODUCTS, *sums, *in_float32, *grouped, *scaled)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a real number as torch's operators have them."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _row(bias: Tensor, a: Tensor, b: Tensor) -> Tensor | None:
    """The bias [N] that an addmm adds to each row; None where it adds something else. A compiled graph expands it to
    as many rows as there are of `a`; torch refuses another number of them."""
    if b.dim() != 2 or bias.shape[-1:] != b.shape[1:]:
        return None
    if bias.dim() == 1:
        return bias
    is_row = bias.dim() == 2 and (len(bias) == 1 or (bias.stride(0) == 0 and len(bias) == len(a)))
    return bias[0] if is_row and len(bias) else None


def _is_float32(dtype: torch.dtype, a: Tensor) -> bool:
    return dtype is _FLOAT32 and a.dtype in KERNEL_DTYPES


def _are_single(*batches: Tensor) -> bool:
    """Whether each is a batch of one matrix."""
    return all(each.dim() == 3 and each.shape[0] == 1 for each in batches)


def _kernel_before(name: str, key: str) -> Kernel:
    """torch's kernel of an operator for a device; one that refuses, where it has none."""
    if torch._C._dispatch_has_computed_kernel_for_dispatch_key(name, key):  # its own, or one for all devices
        kernel: Kernel = torch.library.get_kernel(name, key).call_boxed
        return kernel

    def absent(keys: Keys, *operands: object, **named: object) -> Tensor:
        del keys, operands, named
        raise NotImplementedError(f"torch has no {name} for {key}, and the table has no row for this call")

    return absent
