"""The other runs of a directory, as the loop sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hktune.core.candidate import Candidate
from hktune.core.trial import Trial


class Peers(Protocol):
    """The other runs of the same directory. `claim` and `release` are about a candidate being tried. A claim that is
    refused is another's, who will record its rows or be gone."""

    def news(self) -> Sequence[Trial]:
        """The rows, this run's own among them, that were recorded since this was last called: at first all."""

    def claim(self, candidate: Candidate) -> bool: ...

    def release(self, candidate: Candidate) -> None: ...


class Alone:
    """No other run."""

    def news(self) -> Sequence[Trial]:
        return ()

    def claim(self, candidate: Candidate) -> bool:
        del candidate
        return True

    def release(self, candidate: Candidate) -> None:
        del candidate
