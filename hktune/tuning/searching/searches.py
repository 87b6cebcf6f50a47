"""One problem's search, as the loop keeps it, and when searches stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hktune.core.config import Config
from hktune.core.operation import BF16_NT, Operation
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.search.strategy import Strategy
from hktune.tuning.searching.search_curve import SearchCurve


@dataclass(frozen=True)
class Budget:
    """When to stop: trials for each problem in the mean, and wall-clock seconds for the whole run (None: no limit).
    `Turns` has how they are shared out. With `patience`, a search ends that gained nothing in so many trials.
    """

    trials: int
    time_s: float | None = None
    patience: int | None = None

    @property
    def after_search(self) -> Budget:
        """What the vendor's algorithms have once the search has ended: as many trials, and a quarter of the time."""
        return replace(self, time_s=None if self.time_s is None else self.time_s / 4)


@dataclass
class Search:
    """One problem's search: its strategy, which configs are legal for it, and the ids it has an outcome for.

    A strategy hears of outcomes when it is next asked: of thousands of shapes most are not asked for long, and those
    whose budget is spent never are. `untold` are the rows that it has not heard of, `asked` how often it was asked, and
    `in_flight` how many configs that it asked for are on their way. `configs` is how many it has to try, where that is
    known to be few. `operation` is the one whose code the problem runs, as `Template.code_operation` has it, and
    `template` the sha256 of the template that it searches. `recorded` are an earlier run's rows that this run has not
    come to, by config id. `curve` is how its best went, `weight` how much the problem matters.
    """

    problem: Problem
    strategy: Strategy
    legal: Callable[[Config], bool]
    tried: set[str] = field(default_factory=set)
    untold: list[Trial] = field(default_factory=list)
    exhausted: bool = False
    operation: Operation = BF16_NT
    template: str | None = None
    asked: int = 0
    in_flight: int = 0
    configs: int | None = None
    recorded: dict[str, Trial] = field(default_factory=dict)
    weight: float = 1.0
    curve: SearchCurve = field(default_factory=SearchCurve)

    def goes_on(self, patience: int | None) -> bool:
        """Whether there is something left to try, and hope that it gains."""
        return not self.exhausted and (patience is None or self.curve.since_gain < patience)

    @property
    def begun(self) -> int:
        """Its trials, those on their way among them."""
        return len(self.tried) + self.in_flight

    @property
    def worth(self) -> float:
        """Of its next trial, beside those of others: the weight of its problem times the chance that as many trials
        again gain, over the square of their number. So much a gain is spread out, and so much smaller it will be."""
        return self.weight * self.curve.chance_of_gain / max(self.begun, 1) ** 2

    def most(self, trials: int) -> int:
        """How many of so many trials it has a use for."""
        return trials if self.configs is None else min(trials, self.configs)
