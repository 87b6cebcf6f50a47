"""What one search knows of configs."""

from __future__ import annotations

from dataclasses import dataclass, field

from hktune.core.config import Config


@dataclass
class Known:
    """What a search knows, by config id. `rows` are all configs that were asked for or told of, in that order. Those
    with neither a cost nor a failure are in flight. The costs of `bounds` are measured too, but
    not to the end: they say what is slow, and are never the best."""

    rows: dict[str, Config] = field(default_factory=dict)
    log_costs: dict[str, float] = field(default_factory=dict)
    bounds: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    @property
    def has_best(self) -> bool:
        """Whether there is a cost that is no bound."""
        return len(self.log_costs) > len(self.bounds)

    def best_first(self) -> list[str]:
        """The ids of what has one, the least cost first."""
        return sorted(self.log_costs.keys() - self.bounds, key=lambda id_: (self.log_costs[id_], id_))
