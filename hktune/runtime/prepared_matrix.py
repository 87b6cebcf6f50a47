"""Frozen right-hand operands [K, N], copied once into the order in which kernels read them."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from hktune.core.errors import InputError
from hktune.runtime.operands import PLAIN, row_stride
from hktune.runtime.torch_state import is_capturing


def prepare(b: Tensor) -> PreparedMatrix:
    """A copy of the frozen b [K, N], bfloat16, in the order that kernels read: for `hktune.matmul(a, prepared)`.

    The copy is as large as b, and is b as it was when the copy was made. It is made anew at the next use after
    `invalidate()`, and after a change that torch counts (an in-place operation, another `.data`). Changes that torch
    does not count need `invalidate()`: fused optimizers, collectives, dlpack, numpy, `b.detach()` written through a
    storage, replayed graphs. Raises InputError when b requires a gradient, has not two dimensions, or is no plain
    bfloat16 tensor.
    """
    return PreparedMatrix(b)


class PreparedMatrix:
    """What `prepare` returns; keeps b. May be used by several threads, and by any stream of b's device."""

    def __init__(self, b: Tensor) -> None:
        _check(b)
        self._b = b
        k, n = b.shape
        self._lies_as_read = row_stride(b.detach().t(), k) is not None
        self._lock = threading.Lock()
        self._is_stale = True
        self._state: tuple[int, int] | None = None
        with torch.inference_mode(False), torch.no_grad():
            self._copy = b.detach().t() if self._lies_as_read else b.new_empty(n, k)
        if not self._lies_as_read:
            self._refresh()

    @property
    def shape(self) -> torch.Size:
        """(K, N)."""
        return self._b.shape

    def invalidate(self) -> None:
        """b has changed: the next use copies it anew, into the memory of the old copy, where a captured graph reads
        it."""
        self._is_stale = True

    def operands(self) -> tuple[Tensor, bool]:
        """The copy [N, K] and True; or b itself and False, where the copy cannot be made now."""
        if torch.compiler.is_dynamo_compiling():  # it watches `_is_stale`
            return (self._b, False) if self._is_stale or self._lies_as_read else (self._copy, True)
        if self._b.requires_grad:
            _check(self._b)
        if self._lies_as_read:
            return self._b, False
        with self._lock:
            if self._is_stale or self._state != _state(self._b):
                if is_capturing():
                    return self._b, False
                self._refresh()
        return self._copy, True

    def _refresh(self) -> None:
        _check(self._b)
        self._is_stale, self._state = False, _state(self._b)
        _finish(self._b)  # other streams may still read the old copy
        with torch.inference_mode(False), torch.no_grad():
            self._copy.copy_(self._b.t())
        _finish(self._b)

    def __repr__(self) -> str:
        k, n = self._b.shape
        return f"PreparedMatrix(K={k}, N={n}, {self._b.device})"


def _state(b: Tensor) -> tuple[int, int]:
    """What changes with b as far as torch knows."""
    return (-1 if b.is_inference() else b._version), b.data_ptr()


def _finish(b: Tensor) -> None:
    if b.is_cuda:
        torch.cuda.synchronize(b.device)


def _check(b: Tensor) -> None:
    if type(b) not in PLAIN or b.layout is not torch.strided:
        raise InputError(f"cannot prepare a {type(b).__name__}: pass a plain tensor b [K, N]")
    if b.requires_grad:
        raise InputError(
            "cannot prepare a b that requires a gradient, which its copy has not: pass b.detach() of frozen weights, "
            "or call hktune.matmul(a, w.T) with a weight w [N, K]"
        )
    if b.dim() != 2 or b.dtype is not torch.bfloat16:
        raise InputError(f"cannot prepare a b of shape {tuple(b.shape)} and {b.dtype}: kernels take bfloat16 [K, N]")
