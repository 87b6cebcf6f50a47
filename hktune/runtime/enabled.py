"""torch's own products by a table, with no module patched.

While enabled, the kernels that torch's dispatcher calls for mm, addmm and bmm on the table's device are those below.
What `@`, `F.linear`, einsum or a compiled graph makes of a product ends there, and so do torch's own gradients. It is
below autograd, autocast, modes, transforms and tracers: these have done their part, and tensors are plain. What the
table does not serve goes to the kernel that was there before, another library's too.

An operator whose kernel is Python costs a call 3 us more. When nothing is enabled the kernels are taken back, and
nothing is left.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from hktune.core.errors import InputError, TableError
from hktune.runtime import operators
from hktune.runtime.call_operations import KERNEL_DTYPES
from hktune.runtime.forms import MATMUL, MATMUL_BIAS
from hktune.runtime.loaded import LoadedTable

Keys = torch._C.DispatchKeySet
_OPERATORS = ("mm", "mm.out", "addmm", "addmm.out", "bmm", "bmm.out")


class Enabled:
    """What `enable` returns: leaving it as a context ends what it began."""

    def __init__(self, table: LoadedTable) -> None:
        self.table = table

    def __enter__(self) -> Enabled:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _lock:
            if self in _enabled:
                _enabled.remove(self)
                _follow()


_lock = threading.Lock()
_enabled: list[Enabled] = []
_doors: dict[str, _Door] = {}


def enable(table: LoadedTable | None = None) -> Enabled:
    """Serve torch's own products on the device of `table`, or of the table that is current now, in every thread. Ends
    with `disable()`, or when what this returns is left as a context; another one within takes its place until then.

    Raises TableError when there is no table. Raises InputError where torch is older than 2.9, which cannot say what
    kernel it has.
    """
    if table is None:
        current = operators.table_numbered(operators.CURRENT)
        if not isinstance(current, LoadedTable):
            raise TableError(f"the current table is a {type(current).__name__}: pass one that hktune.load returned")
        table = current
    if not hasattr(torch.library, "get_kernel"):
        raise InputError(f"torch {torch.__version__} cannot give its kernels back: hktune.enable() needs torch 2.9")
    entered = Enabled(table)
    with _lock:
        _enabled.append(entered)
        _follow()
    return entered


def disable() -> None:
    """End all that `enable` began; nothing happens where there is nothing."""
    with _lock:
        _enabled.clear()
        _follow()


def _follow() -> None:
    """Have the last table of each device serve there, and leave a device that has none."""
    wanted = {each.table.dispatch_key: each.table for each in _enabled}
    for key in _doors.keys() - wanted.keys():
        _doors.pop(key).close()
    for key, table in wanted.items():
        if key in _doors:
            _doors[key].lead_to(table)
        else:
            _doors[key] = _Door(key, table)


class _Door:
    """The kernels of one device, as torch names it to its dispatcher."""

    def __init__(self, key: str, table: LoadedTable) -> None:
        self.table = table
        table.enabled(True)
        # What was there before; it takes the keys of the call first.
        self._before: Mapping[str, Callable[..., Tensor]] = {
            name: torch.library.get_kernel(f"aten::{name}", key).call_boxed for name in _OPERATORS
        }
        self._mm, self._addmm, self._bmm = (self._before[name] for name in ("mm", "addmm", "bmm"))
        kernels: dict[str, Callable[..., Tensor]] = {
            "mm": self.mm,
            "mm.out": self.mm_out,
            "addmm": self.addmm,
            "addmm.out": self.addmm_out,
            "bmm": self.bmm,
            "bmm.out": self.bmm_out,
        }
        self._library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
        impl: Callable[..., None] = self._library.impl
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Warning only once for all operators")
            for name, kernel in kernels.items():
                impl(name, kernel, key, with_keyset=True, allow_override=True)  # torch 2.11 asks for the word

    def lead_to(self, table: LoadedTable) -> None:
        self.table.enabled(False)
        self.table = table
        table.enabled(True)

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

    def addmm(self, keys: Keys, bias: Tensor, a: Tensor, b: Tensor, *, beta: object = 1, alpha: object = 1) -> Tensor:
        if a.dtype in KERNEL_DTYPES and a.dim() == 2 and beta == alpha == 1:
            row = _row(bias, b)
            out = None if row is None else self.table.below(MATMUL_BIAS, a, b, row)
            if out is not None:
                return out
        return self._addmm(keys, bias, a, b, beta=beta, alpha=alpha)

    def addmm_out(
        self, keys: Keys, bias: Tensor, a: Tensor, b: Tensor, *, out: Tensor, beta: object = 1, alpha: object = 1
    ) -> Tensor:
        if a.dtype in KERNEL_DTYPES and a.dim() == 2 and beta == alpha == 1:
            row = _row(bias, b)
            if row is not None and self.table.below(MATMUL_BIAS, a, b, row, out) is not None:
                return out
        return self._before["addmm.out"](keys, bias, a, b, beta=beta, alpha=alpha, out=out)

    def bmm(self, keys: Keys, a: Tensor, b: Tensor) -> Tensor:
        if a.dtype in KERNEL_DTYPES and a.dim() == b.dim() == 3 and a.shape[0] == b.shape[0]:
            if b.shape[0] == 1:
                out = self.table.below(MATMUL, a[0], b[0], None)
                if out is not None:
                    return out[None]
            elif b.shape[0] and b.stride(0) == 0:  # one matrix, which was expanded
                out = self.table.below(MATMUL, a, b[0], None)
                if out is not None:
                    return out
        return self._bmm(keys, a, b)

    def bmm_out(self, keys: Keys, a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
        are_batches = a.dtype in KERNEL_DTYPES and a.dim() == b.dim() == out.dim() == 3
        is_one = are_batches and a.shape[0] == b.shape[0] == out.shape[0] == 1
        if is_one and self.table.below(MATMUL, a[0], b[0], None, out[0]) is not None:
            return out
        return self._before["bmm.out"](keys, a, b, out=out)


def _row(bias: Tensor, b: Tensor) -> Tensor | None:
    """The bias [N] that an addmm adds to each row; None where it adds something else. A compiled graph expands it."""
    if bias.dim() == 1 and b.dim() == 2 and bias.shape[0] == b.shape[1]:
        return bias
    is_expanded = bias.dim() == 2 and bias.stride(0) == 0 and b.dim() == 2 and bias.shape[1] == b.shape[1]
    return bias[0] if is_expanded and len(bias) else None
