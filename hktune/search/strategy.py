"""The Strategy protocol: ask/tell over configs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from hktune.core.config import Config
from hktune.core.outcome import Status


class CostName(str, Enum):
    """What a cost is: a time, or a time over the baseline's in the same rounds."""

    TIME_US = "time_us"
    TIME_OVER_BASELINE = "time over baseline"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Cost:
    """What a config cost on a problem. It is above 0, and less is better. `low` and `high` are the ends of its
    confidence interval, None where it has none, as of a model. Only costs of one name can be compared.

    With `is_bound` measuring was left early, because the config was clearly slower than the best known, or hopeless:
    it costs at least about `value`. That orders it among others, and it is never the best of a search.
    """

    value: float
    name: CostName = CostName.TIME_US
    low: float | None = None
    high: float | None = None
    is_bound: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a strategy learns of: the config, how it ended, and what it cost if it did not fail."""

    config: Config
    status: Status
    cost: Cost | None = None


class Strategy(Protocol):
    """Chooses what to try next for one problem. Knows configs and numbers; no kernel, clock, GPU or file.

    `ask` may return fewer than `n` configs, and none means done; it never repeats a config, its own or one it was
    told of. `tell` accepts failed outcomes (`cost` is None) and outcomes of configs that it never asked for (from
    another shape's search, or from an earlier run). A cost may be a bound, as `Cost` has it: the config is at least
    about that slow. Equal seeds and equal tellings give equal sequences, in a fresh process too. It can be pickled, and
    carried to another process, until it is first asked or told.
    """

    name: str

    def ask(self, n: int) -> list[Config]: ...

    def tell(self, outcomes: Sequence[Outcome]) -> None: ...
