"""A GPU's clock, simulated: launches of known length under noise and drift, behind the same seams as the real one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class SimulatedRounds:
    """`comparison.Play` over sides of known time. Noise is lognormal per side and round; the clock wanders by a random
    walk that all sides of a round share, and that moves on from side to side."""

    def __init__(self, times_us: Sequence[float], seed: int, noise: float = 0.004, drift: float = 0.002) -> None:
        self._times_us = times_us
        self._noise, self._drift = noise, drift
        self._random = np.random.default_rng(seed)
        self._clock = 0.0
        self.launched = [0] * len(times_us)

    def __call__(self, orders: Sequence[Sequence[int]]) -> list[list[float]]:
        return [[self._launch(side) for side in order] for order in orders]

    def _launch(self, side: int) -> float:
        self.launched[side] += 1
        self._clock += self._drift * self._random.standard_normal()
        return float(self._times_us[side] * np.exp(self._clock + self._noise * self._random.standard_normal()))
