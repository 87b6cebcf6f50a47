"""How far a modelled time may be from a measured one: intervals by class of launch, and when two times tie.

The figures are in model_error.yaml, which benchmarks/fit_model_error.py writes.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from hktune.core.errors import InputError
from hktune.core.outside_file import FileKind
from hktune.core.yaml_file import read_yaml

FILE = Path(__file__).with_name("model_error.yaml")
_KIND = FileKind("the errors of the clock", 1 << 16, InputError, "install hktune again")

Edges = tuple[int, int]
Factor = Annotated[float, Meta(ge=1.0)]
Three = Meta(min_length=3, max_length=3)
Row = Annotated[tuple[Factor, ...], Three]
Counts = Annotated[tuple[int, ...], Three]


class ModelError(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Errors of modelled times of launches of a class: a range of m, of split (workgroups that share the k of a tile)
    and of tiles. Each has three ranges: up to either of its two edges, and above.

    A measured time is within `factors` of the modelled one, up or down, for a share `coverage` of a class' launches;
    `rows` is how many residuals say so. Of two kernels of one problem much of the error is the same: modelled times
    within `tie_factor` of each other are a tie. For a share `coverage` of `pairs` of kernels the ratio of times was
    wrong by no more.
    """

    coverage: Annotated[float, Meta(gt=0, lt=1)]
    pairs: Annotated[int, Meta(ge=0)]
    tie_factor: Factor
    m_edges: Edges
    split_edges: Edges
    tiles_edges: Edges
    factors: Annotated[tuple[Annotated[tuple[Row, ...], Three], ...], Three]
    rows: Annotated[tuple[Annotated[tuple[Counts, ...], Three], ...], Three]

    def factor(self, m: int, split: float, tiles: int) -> float:
        """Of the class of a launch on `m` rows, of so many tiles, each of whose k is shared by `split` workgroups."""
        at_m, at_split = bisect_left(self.m_edges, m), bisect_left(self.split_edges, split)
        return self.factors[at_m][at_split][bisect_left(self.tiles_edges, tiles)]

    def interval_us(self, time_us: float, m: int, split: float, tiles: int) -> tuple[float, float]:
        """Where a measured time is expected, for the modelled one of such a launch."""
        factor = self.factor(m, split, tiles)
        return time_us / factor, time_us * factor

    def tied(self, time_us: float, best_us: float) -> bool:
        """Whether a modelled time of one problem cannot be distinguished from that of its fastest kernel."""
        return time_us <= best_us * self.tie_factor


@functools.cache
def model_error() -> ModelError:
    """The figures that come with the clock."""
    return read_yaml(FILE, _KIND, ModelError)
