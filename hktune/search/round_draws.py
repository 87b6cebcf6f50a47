"""Draws that prefer round values."""

from __future__ import annotations

import random
from itertools import pairwise

from hktune.core.config import Config, Value
from hktune.space import Domain, Parameter

VALUES_MIN = 5
ROUND_MAX = 0.4
"""Of at least so many numbers in even steps, at most this share may be powers of two: then what is good is one far more
often than chance has it."""


class RoundDraws:
    """Draws of legal configs, each equally likely of those whose parameters have round values. These are the powers of
    two of a range in even steps where those are rare, else all of a parameter's values."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._among = {
            parameter.name: rounds for parameter in domain.parameters if (rounds := _rare_powers_of_two(parameter))
        }

    def one(self, rng: random.Random) -> Config | None:
        """One draw; None where it would be like any other, or no such config was found to be legal."""
        return self._domain.draw(rng, self._among) if self._among else None


def _rare_powers_of_two(parameter: Parameter) -> list[Value]:
    """Those of its values; none where they are not rare."""
    values = parameter.values
    numbers = [value for value in values if type(value) is int and value > 0]
    steps = {after - before for before, after in pairwise(numbers)}
    if len(numbers) < max(len(values), VALUES_MIN) or len(steps) > 1:
        return []
    found = [number for number in numbers if number.bit_count() == 1]
    return [*found] if len(found) <= ROUND_MAX * len(values) else []
