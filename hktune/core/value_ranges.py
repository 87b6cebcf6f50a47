"""What a number that a caller chooses may be, typed in a shell or handed over in Python."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from numbers import Real
from typing import SupportsIndex

from hktune.core.errors import InputError
from hktune.core.escaped import shown


@dataclass(frozen=True)
class Integers:
    """The integers from `least` to `most`, both included."""

    least: int
    most: int

    def checked(self, value: object, name: str) -> int:
        """`value`, which the caller called `name`. Raises InputError where it is none of these."""
        if isinstance(value, SupportsIndex) and not isinstance(value, bool):
            number = operator.index(value)
            if self.least <= number <= self.most:
                return number
        raise InputError(f"{name}: must be an integer from {self.least} to {self.most}, got {shown(value)}")


@dataclass(frozen=True)
class Numbers:
    """The numbers from `least` to `most`, both included, of some `unit`."""

    least: float
    most: float
    unit: str

    def checked(self, value: object, name: str) -> float:
        """As `Integers.checked`."""
        if isinstance(value, Real) and not isinstance(value, bool):
            number = float(value)
            if self.least <= number <= self.most:
                return number
        ends = f"{self.least:g} to {self.most:g}"
        raise InputError(f"{name}: must be a number of {self.unit} from {ends}, got {shown(value)}")


COUNT = Integers(1, 1_000_000_000)
SEED = Integers(0, 2**32 - 1)  # numpy's, which optuna's samplers are given
WORKERS = Integers(1, 1024)  # processes; the largest machines have some 500 cores
SECONDS = Numbers(1e-3, 1e9, "seconds")
BUDGET_S = Numbers(0, 1e9, "seconds")  # none is a budget too
GIBIBYTES = Numbers(0.5, 1 << 20, "GiB")  # a worker does not begin with less
