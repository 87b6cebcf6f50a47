"""How many rows the groups of recorded calls have: counted where their ends are, and read now and then."""

from __future__ import annotations

from collections import defaultdict
from time import monotonic

import torch
from torch import Tensor

from hktune.core.group_sizes import SIZE_BOUNDS, Tokens, merged_tokens, tokens_of
from hktune.core.problem import Problem
from hktune.runtime.calls.operands import PLAIN
from hktune.runtime.torch_state import is_capturing

_Place = tuple[torch.device, int]
"""A device, and a stream there: what two streams add to may not be one tensor."""


class TokenCounts:
    """Of each problem, how many groups had so many rows. On a GPU `add` waits for nothing, but for the one call in
    `read_every_s` that reads what its stream has by then: that is `read`, for other threads, which must ask no GPU
    that this one may be capturing on."""

    def __init__(self, read_every_s: float | None = None) -> None:
        self.read: dict[Problem, Tokens] = {}
        self._read_every_s, self._read_at_s = read_every_s, monotonic()
        self._bounds: dict[_Place, Tensor] = {}
        self._counts: dict[Problem, dict[_Place, Tensor]] = defaultdict(dict)

    def add(self, problem: Problem, offsets: Tensor) -> None:
        """Count the groups of one call, which end at `offsets`. A call that is captured into a graph has none yet."""
        if type(offsets) not in PLAIN or offsets.is_meta or is_capturing():
            return
        with torch.inference_mode(False), torch.no_grad():
            bounds, counts = self._tensors(problem, offsets.device)
            ends = offsets.clamp(0, problem.divided).long()
            rows = ends.diff(prepend=ends.new_zeros(1)).clamp(min=0)
            bins = torch.bucketize(rows, bounds, right=True) - 1
            counts.scatter_add_(0, bins, torch.ones_like(bins))
            if self._read_every_s is not None and monotonic() - self._read_at_s > self._read_every_s:
                self._read(_place(offsets.device))

    def of(self, problem: Problem) -> Tokens:
        """All that was counted of `problem`."""
        places = self._counts.get(problem, {})
        for device, _ in places:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return merged_tokens(tokens_of(counts.tolist()) for counts in places.values())

    def _read(self, own: _Place) -> None:
        self.read = {
            problem: tokens_of(counts[own].tolist()) for problem, counts in self._counts.items() if own in counts
        }
        self._read_at_s = monotonic()

    def _tensors(self, problem: Problem, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of a device's current stream, the bounds of sizes, and the counts between these."""
        place = _place(device)
        if place not in self._bounds:
            self._bounds[place] = torch.tensor(SIZE_BOUNDS).to(device, non_blocking=True)
        counts = self._counts[problem]
        if place not in counts:
            counts[place] = torch.zeros(len(SIZE_BOUNDS), dtype=torch.int64, device=device)
        return self._bounds[place], counts[place]


def _place(device: torch.device) -> _Place:
    return device, torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
