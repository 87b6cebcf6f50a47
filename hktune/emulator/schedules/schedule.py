"""In which order waves and workgroups execute, and when what they load arrives. A right kernel depends on neither."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hktune.emulator.machine.memory import Array

LOWEST, HIGHEST, RANDOM = "lowest", "highest", "random"


@dataclass(frozen=True)
class Schedule:
    """`order`: of the ready waves, those go first whose program counter is lowest or highest, or a random part of those
    at a random one (`seed`). `late`: what is loaded arrives at the wait that covers it, not at once. `last_first`:
    batches of workgroups run from the last to the first."""

    order: str = LOWEST
    late: bool = False
    last_first: bool = False
    seed: int = 0

    def __str__(self) -> str:
        words = {LOWEST: "waves behind first", HIGHEST: "waves ahead first", RANDOM: "waves at random"}
        groups = ", the last workgroups first" if self.last_first else ""
        return f"{words[self.order]}{groups}, data {'late' if self.late else 'early'}"

    def chooser(self) -> Chooser:
        """What chooses the waves of a launch."""
        return Chooser(self.order, np.random.default_rng(self.seed))


USUAL = Schedule()


@dataclass
class Chooser:
    """Picks the waves that execute next."""

    order: str
    random: np.random.Generator

    def choose(self, ready: Array, places: Array) -> Array:
        """Some of the waves `ready`, all at one of their program counters `places`."""
        if self.order == LOWEST:
            chosen: Array = ready[places == places.min()]
        elif self.order == HIGHEST:
            chosen = ready[places == places.max()]
        else:
            there: Array = ready[places == self.random.choice(places)]
            part = there[self.random.random(len(there)) < 0.5]
            chosen = part if len(part) else there
        return chosen
