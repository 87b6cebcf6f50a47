"""The Strategy protocol: ask/tell over configs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hktune.core.config import Config
from hktune.core.outcome import Status


@dataclass(frozen=True)
class Outcome:
    """What a strategy learns of: the config, how it ended, and its time if it has one."""

    config: Config
    status: Status
    time_us: float | None = None


class Strategy(Protocol):
    """Chooses what to try next for one problem. Knows configs and numbers; no kernel, clock, GPU or file.

    `ask` may return fewer than `n` configs, and none means done; it never repeats a config, its own or one it was
    told of. `tell` accepts failed outcomes (`time_us` is None) and outcomes of configs that it never asked for (from
    another shape's search, or from an earlier run). Equal seeds and equal tellings give equal sequences, in a fresh
    process too. It can be pickled, and carried to another process, until it is first asked or told.
    """

    name: str

    def ask(self, n: int) -> list[Config]: ...

    def tell(self, outcomes: Sequence[Outcome]) -> None: ...
