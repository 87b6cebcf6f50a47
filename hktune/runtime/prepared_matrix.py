"""Frozen right-hand operands [K, N], copied once into the order in which kernels read them."""

from __future__ import annotations

import threading

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from hktune.core.errors import InputError
from hktune.runtime.call_operations import KERNEL_DTYPES, named
from hktune.runtime.operands import PLAIN, row_stride
from hktune.runtime.torch_state import exporting, has_dispatch_mode, is_capturing, is_made_a_graph, is_transformed


def prepare(b: Tensor) -> PreparedMatrix:
    """A copy of the frozen b [K, N], bfloat16 or float16, in the order that kernels read, for
    `hktune.matmul(a, prepared)`.

    The copy is as large as b, and is b as it was when the copy was made. It is made anew at the next use after
    `invalidate()`, and after a change that torch counts (an in-place operation, another `.data`). Changes that torch
    does not count need `invalidate()`: fused optimizers, collectives, dlpack, numpy, `b.detach()` written through a
    storage, replayed graphs, and any in-place operation on a b made in inference mode. `w.data` counts by itself, so
    that changes of w are not seen: pass `w.detach()`. Raises InputError when b requires a gradient, has not two
    dimensions, or is no plain tensor of either dtype.
    """
    return PreparedMatrix(b)


class PreparedMatrix:
    """What `prepare` returns; keeps b. May be used by several threads, and by any stream of b's device."""

    def __init__(self, b: Tensor) -> None:
        _check(b)
        self._b = b
        self._lock = threading.Lock()
        self._copy: Tensor | None = None  # [N, K]
        self._view: Tensor | None = None  # of the copy, as [K, N]; None where b is used as it is
        self._is_stale = True
        self._state: tuple[object, ...] | None = None
        self._storage: StorageWeakRef | None = None
        if _may_copy():
            self._refresh()

    @property
    def shape(self) -> torch.Size:
        """(K, N)."""
        return self._b.shape

    def invalidate(self) -> None:
        """b has changed: the next use copies it anew, into the memory of the old copy, where a captured graph reads
        it."""
        self._is_stale = True

    def operand(self) -> Tensor:
        """[K, N]: the copy, or b itself where a kernel reads it as it is, or where no copy can be made now."""
        if self._b.requires_grad:
            _check(self._b)
        if not self._is_fresh():
            with self._lock:
                if not self._is_fresh():
                    if not _may_copy():
                        return self._b
                    self._refresh()
        return self._b if self._view is None else self._view

    def operand_if_watched(self) -> Tensor:
        """`operand` where something watches. A graph that may outlive this copy gets b."""
        return self._b if is_made_a_graph() else self.operand()

    def operand_in_graph(self) -> Tensor:
        """`operand` as torch.compile's tracer meets it: it watches `_is_stale`, and no change of b."""
        return self._b if self._is_stale or self._view is None or exporting() else self._view

    def _is_fresh(self) -> bool:
        return not self._is_stale and (self._view is None or self._state == _state(self._b))

    def _refresh(self) -> None:
        """The copy is fresh from the end of this, and from no earlier: what fails on the way leaves it stale."""
        b = self._b
        self._state, self._is_stale = None, False  # in this order, for those who ask without the lock
        try:
            state, self._storage = _state(b), StorageWeakRef(b.untyped_storage())  # type: ignore[no-untyped-call]
            _finish(b)  # other streams may still read the old copy
            with torch._C.DisableTorchFunction(), torch.inference_mode(False), torch.no_grad():
                self._view = self._made_copy()
            _finish(b)
        except BaseException:
            self._is_stale = True
            raise
        self._state = state

    def _made_copy(self) -> Tensor | None:
        """Of b as it is now, seen as [K, N], in the memory of the last one if that has its shape."""
        b = self._b
        if b.dim() != 2 or b.dtype not in KERNEL_DTYPES:  # another `.data`; the product is torch's, or its error
            return None
        transposed = b.detach().t()
        if row_stride(transposed, b.shape[0]) is not None:
            return None
        if self._copy is None or not _alike(self._copy, transposed):
            self._copy = transposed.new_empty(transposed.shape)
        self._copy.copy_(transposed)
        return self._copy.t()

    def __reduce__(self) -> tuple[type[PreparedMatrix], tuple[Tensor]]:
        """A copy, deep or pickled, is prepared anew of its own b."""
        return PreparedMatrix, (self._b,)

    def __repr__(self) -> str:
        return f"PreparedMatrix({list(self._b.shape)}, {self._b.device})"


def _alike(copy: Tensor, b: Tensor) -> bool:
    return copy.shape == b.shape and copy.dtype is b.dtype and copy.device == b.device


def _state(b: Tensor) -> tuple[object, ...]:
    """What changes with b as far as torch knows. A storage's address names it for as long as a weak reference to it
    is held; its memory's does not."""
    version = -1 if b.is_inference() else b._version
    return version, b.untyped_storage()._cdata, b.data_ptr(), b.shape, b.stride(), b.dtype


def _may_copy() -> bool:
    """Whether a copy would be one: a mode might fake it, a transform refuse it, a captured graph repeat it."""
    return not (has_dispatch_mode() or is_transformed() or is_capturing())


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
    if b.dim() != 2 or b.dtype not in KERNEL_DTYPES:
        taken = f"kernels take {named(KERNEL_DTYPES)} [K, N]"
        raise InputError(f"cannot prepare a b of shape {tuple(b.shape)} and {b.dtype}: {taken}")
