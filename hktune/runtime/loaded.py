"""A loaded dispatch table: torch tensors in, the shape's kernel launched, the vendor library for everything else."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor

from hktune.device.device import Buffer, Device, Kernel
from hktune.dispatch import Entry, Validated
from hktune.dispatch.table import Key
from hktune.model import WORKSPACE_COUNTER_BYTES, Launch

# Whether a tensor lies where a kind of device computes; a flag of the tensor costs a tenth of its device's name.
_IS_HERE = {"emulated": attrgetter("is_cpu"), "hip": attrgetter("is_cuda"), "cuda": attrgetter("is_cuda")}
# The widest load that a kernel may make of its operands: a dwordx4.
_ALIGNMENT_BYTES = 16
_ALIGNMENT_ELEMENTS = 8
# Kernels reach the rows of one workgroup, at most 256 of them, by 31-bit byte offsets. The rows of a contiguous operand
# may be longer: its kernel was tuned for their length.
_ROW_STRIDE_MAX = 2**22
_CONTIGUOUS: Mapping[str, int] = {}


class Fallback(str, Enum):
    """Why a call went to the vendor library."""

    NO_ENTRY = "no entry for the shape"
    VENDOR_CHOSEN = "vendor chosen by the table"
    SHAPE = "operand shapes"
    TENSOR_TYPE = "tensor type"
    DTYPE = "dtype"
    DEVICE = "device"
    STRIDES = "strides"
    ALIGNMENT = "alignment"
    GRAD = "requires grad"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Stats:
    """Since the table was loaded: calls that ran a kernel, calls that went to the vendor and why, entries not used
    and why. Counted without a lock, so threads may lose a count."""

    hits: int
    fallbacks: dict[str, int]
    skipped: dict[str, int]


class _Route:
    """One entry made ready: its launch, the numbers that it binds, and its kernel once loaded."""

    def __init__(self, sha256: str, symbol: str, launch: Launch, key: Key) -> None:
        m, n, k, *_ = key
        numbers = {"m": m, "n": n, "k": k, "lda": k, "ldb": k, "ldc": n}
        self.sha256 = sha256
        self.symbol = symbol
        self.launch = launch
        self.fixed = {name: value for name, value in numbers.items() if launch.takes(name)}
        self.absent = {name: None for name in ("bias", "workspace") if launch.takes(name)}
        self.strides = launch.takes("lda") and launch.takes("ldb")
        self.kernel: Kernel | None = None


class LoadedTable:
    """The usable entries of a table on one device.

    Kernels are loaded at their first use, or all by `warm`. Calls may come from several threads. Raises DeviceError
    when the device refuses a kernel that validation let pass.
    """

    def __init__(self, validated: Validated, device: Device) -> None:
        self._device = device
        self._is_here = _IS_HERE[device.identity.kind]
        self._objects = validated.objects
        self._routes = {entry.problem.key: _route(entry) for entry in validated.usable}
        self._kernels: dict[tuple[str, str], Kernel] = {}
        self._workspace: Buffer | None = None
        self._loading = threading.Lock()
        self._hits = 0
        self._fallbacks: Counter[Fallback] = Counter()
        self._skipped = validated.skipped_by_reason

    def matmul(self, a: Tensor, bt: Tensor) -> Tensor:
        """a [..., K] @ bt [N, K]^T -> [..., N]."""
        return self.linear(a, bt)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [..., K] @ weight [N, K]^T (+ bias [N]) -> [..., N]; leading dimensions count as one M."""
        if weight.dim() != 2:
            return self._vendor(Fallback.SHAPE, x, weight, bias)
        n, k = weight.shape
        key = (x.numel() // (k or 1), n, k, "bf16", "none" if bias is None else "bias")
        route = self._routes.get(key, Fallback.NO_ENTRY)
        if isinstance(route, Fallback):
            return self._vendor(route, x, weight, bias)
        operands = (x, weight) if bias is None else (x, weight, bias)
        refusal = self._refusal(operands, n, k)
        if refusal is not None:
            return self._vendor(refusal, x, weight, bias)
        strides = self._strides(route, operands, k)
        if strides is None:
            return self._vendor(Fallback.STRIDES, x, weight, bias)
        return self._launch(route, operands, n, strides)

    def warm(self) -> None:
        """Load every kernel now, so that no call does."""
        for route in self._routes.values():
            if isinstance(route, _Route):
                self._load(route)

    def stats(self) -> Stats:
        return Stats(self._hits, {str(why): count for why, count in self._fallbacks.items()}, dict(self._skipped))

    def _refusal(self, operands: Sequence[Tensor], n: int, k: int) -> Fallback | None:
        """Why the kernel of this shape cannot take these operands (x, weight and perhaps bias), or None when it can."""
        if not operands[0].dim() or operands[0].size(-1) != k or (len(operands) == 3 and operands[2].shape != (n,)):
            return Fallback.SHAPE
        grad = torch.is_grad_enabled()
        for tensor in operands:
            refusal = self._unfit(tensor, grad)
            if refusal is not None:
                return refusal
        return None

    def _unfit(self, tensor: Tensor, grad: bool) -> Fallback | None:
        if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided:
            return Fallback.TENSOR_TYPE
        if tensor.dtype is not torch.bfloat16:
            return Fallback.DTYPE
        if not self._is_here(tensor):
            return Fallback.DEVICE
        if tensor.data_ptr() % _ALIGNMENT_BYTES:
            return Fallback.ALIGNMENT
        return Fallback.GRAD if grad and tensor.requires_grad else None

    def _strides(self, route: _Route, operands: Sequence[Tensor], k: int) -> Mapping[str, int] | None:
        """The row strides of operands that are not contiguous, by argument; None when this kernel cannot take them."""
        if all(tensor.is_contiguous() for tensor in operands):
            return _CONTIGUOUS
        lda, ldb = row_stride(operands[0], k), row_stride(operands[1], k)
        if lda is None or ldb is None or not route.strides or not all(each.is_contiguous() for each in operands[2:]):
            return None
        return {"lda": lda, "ldb": ldb}

    def _launch(self, route: _Route, operands: Sequence[Tensor], n: int, strides: Mapping[str, int]) -> Tensor:
        x = operands[0]
        out = torch.empty((*x.shape[:-1], n), dtype=x.dtype, device=x.device)
        binding: dict[str, Buffer | int | float | None] = {**route.fixed, **route.absent, **strides}
        for name, tensor in zip(("a", "bt", "bias"), operands, strict=False):
            binding[name] = self._device.borrow(tensor)
        binding["c"] = self._device.borrow(out)
        if route.launch.workspace_bytes:
            binding["workspace"] = self._scratch(route.launch.workspace_bytes)
        self._device.launch(route.kernel or self._load(route), route.launch, binding)
        self._hits += 1
        return out

    def _scratch(self, size_bytes: int) -> Buffer:
        """The workspace of the default stream, where every launch goes: one after another, so they share it."""
        with self._loading:
            if self._workspace is None or self._workspace.size_bytes < size_bytes:
                self._workspace = self._device.allocate(size_bytes)
                self._device.write(self._workspace, np.zeros(WORKSPACE_COUNTER_BYTES, np.uint8))
            return self._workspace

    def _load(self, route: _Route) -> Kernel:
        """Load the kernel of `route`, once for all entries that share it."""
        name = (route.sha256, route.symbol)
        with self._loading:
            if name not in self._kernels:
                self._kernels[name] = self._device.load(self._objects[route.sha256], route.symbol)
            route.kernel = self._kernels[name]
            return route.kernel

    def _vendor(self, why: Fallback, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        self._fallbacks[why] += 1
        return torch.nn.functional.linear(x, weight, bias)


def row_stride(tensor: Tensor, k: int) -> int | None:
    """Elements from one row of k to the next, the leading dimensions taken as one; None where rows lie otherwise, do
    not begin on 16 bytes, or lie too far apart."""
    sizes, strides = tensor.shape[:-1], tensor.stride()[:-1]
    if k > 1 and tensor.stride(-1) != 1:
        return None
    rows = [(size, stride) for size, stride in zip(sizes, strides, strict=True) if size > 1]
    for (_, outer), (size, inner) in itertools.pairwise(rows):
        if outer != size * inner:
            return None
    stride = rows[-1][1] if rows else k
    fits = stride == k or (stride > k and not stride % _ALIGNMENT_ELEMENTS and stride < _ROW_STRIDE_MAX)
    return stride if fits else None


def _route(entry: Entry) -> _Route | Fallback:
    if entry.kernel is None:
        return Fallback.VENDOR_CHOSEN
    kernel = entry.kernel
    launch = kernel.launch.rule.at(entry.m)
    assert launch is not None, "an entry is only read with a legal launch"
    return _Route(kernel.object_sha256, kernel.symbol, launch, entry.problem.key)
