"""Draws that prefer round values."""

from __future__ import annotations

import random

from hktune.core.config import Config, Value
from hktune.space import Domain, Parameter

VALUES_MIN = 5
ROUND_MAX = 0.4
"""A list of at least so many numbers, of which at most this share are powers of two, is a range in even steps. What is
good on it is a power of two far more often than chance has it."""


class RoundDraws:
    """Draws of legal configs, each equally likely of those whose parameters have round values. These are the powers of
    two of a parameter where those are rare, else all of its values."""

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
    if len(values) < VALUES_MIN or not all(type(value) is int and value > 0 for value in values):
        return []
    found = [value for value in values if isinstance(value, int) and value.bit_count() == 1]
    return list(found) if len(found) <= ROUND_MAX * len(values) else []
