"""Random search: the yardstick for every other strategy."""

from __future__ import annotations

from hktune.search.unique import UniqueStrategy


class UniformStrategy(UniqueStrategy):
    """Every legal config equally likely. A random sampler with repair would favour configs next to illegal ones."""

    name = "random"
