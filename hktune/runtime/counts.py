"""What a loaded table has served, and why not more: counted on every call, said once for each cause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from hktune.runtime.callers_line import warn_caller
from hktune.runtime.calls.call_operations import named
from hktune.runtime.torch_state import is_jit_trace


class Fallback(str, Enum):
    """Why a call went to the vendor library."""

    NO_ENTRY = "no entry for the shape"
    VENDOR_CHOSEN = "vendor chosen by the table"
    EMPTY = "empty operand"
    SHAPE = "operand shapes"
    TENSOR_TYPE = "tensor type"
    DTYPE = "dtype"
    DEVICE = "device"
    STRIDES = "strides"
    SCALES = "scales"
    ALIGNMENT = "alignment"
    TRANSFORM = "functorch, forward-mode AD or jit trace"
    CAPTURE = "kernel not loaded before graph capture"
    ALGORITHM = "algorithm refused by the vendor library"

    __hash__ = str.__hash__  # Enum's own is Python, and each fallback asks for it

    def __str__(self) -> str:
        return self.value


_NEXT_STEP = {
    Fallback.NO_ENTRY: "record the shapes with hktune.record() and tune them",
    Fallback.SHAPE: "pass x [..., K], weight [N, K] and bias [N]",
    Fallback.TENSOR_TYPE: "pass plain torch tensors",
    Fallback.DTYPE: "cast to {dtypes}, or autocast to it",
    Fallback.DEVICE: "move the operands to the table's device, or load a table for theirs",
    Fallback.STRIDES: "pass rows whose elements are adjacent",
    Fallback.SCALES: "pass scales of a dtype, a shape and an order that the function names",
    Fallback.ALIGNMENT: "pass operands that begin on 16 bytes",
    Fallback.TRANSFORM: "call it outside of the transform",
    Fallback.CAPTURE: "call warm() on the loaded table before capturing",
}
"""What to do about each cause that warns; `dtypes` are the table's. The others are as they should be."""


class FallbackWarning(UserWarning):
    """A cause for which calls go to the vendor library, at its first call."""


@dataclass(frozen=True)
class Stats:
    """Counts since the table was loaded. `hits` ran the kernel or the algorithm of their own shape, `near_hits` the
    kernel of another M. `sibling_hits` ran one, of their own shape or another M, that was chosen on a sibling of the
    device, and are in neither. The others are calls that went to the vendor, and entries that are not used, by reason.
    Replays of a captured graph are not calls. Counted without a lock, so threads may lose a count."""

    hits: int
    near_hits: int
    fallbacks: dict[str, int]
    skipped: dict[str, int]
    sibling_hits: int = 0

    def __str__(self) -> str:
        def listed(counts: Mapping[str, int]) -> str:
            return ", ".join(f"{why}: {count}" for why, count in sorted(counts.items())) or "none"

        calls = self.hits + self.near_hits + self.sibling_hits + sum(self.fallbacks.values())
        siblings = f", {self.sibling_hits} sibling hits" if self.sibling_hits else ""
        return (
            f"hktune: {calls} calls, {self.hits} hits, {self.near_hits} near hits{siblings}; "
            f"fallbacks: {listed(self.fallbacks)}; rows not used: {listed(self.skipped)}"
        )


class _Leaving(threading.local):
    """Why this thread is leaving a product to torch, while it does."""

    why: Fallback | None = None


class Counts:
    """The counters behind Stats. A product counts once: one that the table left to torch may end in a product of
    torch's own that is asked of the table as well, while that is enabled."""

    def __init__(self, skipped: Mapping[str, int], dtypes: tuple[torch.dtype, ...]) -> None:
        """`skipped`: entries not used, by reason; `dtypes`: what those in use take."""
        self.hits = 0
        self.near_hits = 0
        self.sibling_hits = 0
        self.is_enabled = False
        """Whether torch's own products are asked of the table."""
        self._leaving = _Leaving()
        self._fallbacks: dict[Fallback, int] = {}
        self._said: set[Fallback] = set()
        self._skipped = dict(skipped)
        self._dtypes = named(dtypes)

    def fell_back(self, why: Fallback, left: Tensor, right: Tensor) -> None:
        """Count a call that went to the vendor; the first one for a cause warns."""
        self.left_to_torch(why)
        if why not in self._said and why in _NEXT_STEP:
            self._said.add(why)
            call = f"{_described(left)} and {_described(right)}"
            next_step = _NEXT_STEP[why].format(dtypes=self._dtypes)
            text = f"torch serves {call}, because of: {why} (said once, counted in hktune.stats()): {next_step}"
            warn_caller(text, FallbackWarning)

    def ran(self, near: bool, sibling: bool) -> None:
        """Count a product that a kernel of the table computed."""
        if sibling:
            self.sibling_hits += 1
        elif near:
            self.near_hits += 1
        else:
            self.hits += 1

    def left_to_torch(self, why: Fallback) -> None:
        """Count a product that is torch's and that the program did not ask of the table by name: no warning."""
        self._fallbacks[why] = self._fallbacks.get(why, 0) + 1

    def by_torch(self, why: Fallback, product: Callable[..., Tensor], *operands: object) -> Tensor:
        """What torch's `product` makes of a call that is counted as left to it, or will be."""
        if not self.is_enabled:
            return product(*operands)
        leaving = self._leaving
        leaving.why = why
        try:
            return product(*operands)
        finally:
            leaving.why = None

    def torchs_own_left(self, why: Fallback) -> None:
        """Count a product of torch's own that the table did not serve, unless it is what a counted one ends in."""
        if self._leaving.why is None:
            self.left_to_torch(why)

    def torchs_own_served(self) -> None:
        """That a kernel computed a product of torch's own. What ended in it, if anything, was not left to torch."""
        left = self._leaving.why
        if left is not None:
            self._leaving.why = None
            self._fallbacks[left] = self._fallbacks.get(left, 0) - 1

    def stats(self) -> Stats:
        fallbacks = {str(why): count for why, count in self._fallbacks.items() if count > 0}
        return Stats(self.hits, self.near_hits, fallbacks, dict(self._skipped), self.sibling_hits)


def _described(tensor: Tensor) -> str:
    if not isinstance(tensor, Tensor):
        return f"a {type(tensor).__name__}"
    shape: object = "nested"
    if not tensor.is_nested:  # under torch.jit.trace sizes are tensors, whose values it warns of giving away
        shape = "traced" if is_jit_trace() else list(tensor.shape)
    return f"{str(tensor.dtype)[6:]} {shape} on {tensor.device}"
