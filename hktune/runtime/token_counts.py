"""How many rows the groups of recorded calls have: counted where their ends are, and read at the end."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from hktune.core.group_sizes import SIZE_BOUNDS, Tokens, merged_tokens, tokens_of
from hktune.core.problem import Problem
from hktune.runtime.calls.operands import PLAIN
from hktune.runtime.torch_state import is_capturing

_Place = tuple[torch.device, int]
"""A device, and a stream there: what two streams add to may not be one tensor."""


class TokenCounts:
    """Of each problem, how many groups had so many rows. `add` waits for nothing on a GPU."""

    def __init__(self) -> None:
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

    def of(self, problem: Problem) -> Tokens:
        """All that was counted of `problem`."""
        places = self._counts.get(problem, {})
        for device, _ in places:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return merged_tokens(tokens_of(counts.tolist()) for counts in places.values())

    def _tensors(self, problem: Problem, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of a device's current stream, the bounds of sizes, and the counts between these."""
        place = device, torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
        if place not in self._bounds:
            self._bounds[place] = torch.tensor(SIZE_BOUNDS).to(device, non_blocking=True)
        counts = self._counts[problem]
        if place not in counts:
            counts[place] = torch.zeros(len(SIZE_BOUNDS), dtype=torch.int64, device=device)
        return self._bounds[place], counts[place]
