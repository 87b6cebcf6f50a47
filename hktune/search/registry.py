"""Every strategy by name."""

from __future__ import annotations

from hktune.core.errors import InputError
from hktune.core.near import meant
from hktune.search.auto import AutoStrategy
from hktune.search.exhaustive import ExhaustiveStrategy
from hktune.search.hillclimb import HillClimbStrategy
from hktune.search.model_based import CmaEsStrategy, GpStrategy, QmcStrategy, TpeStrategy
from hktune.search.strategy import Strategy
from hktune.search.uniform import UniformStrategy
from hktune.search.unique import UniqueStrategy
from hktune.space import Domain

STRATEGIES: dict[str, type[UniqueStrategy]] = {
    strategy.name: strategy
    for strategy in (
        AutoStrategy,
        TpeStrategy,
        GpStrategy,
        CmaEsStrategy,
        QmcStrategy,
        UniformStrategy,
        HillClimbStrategy,
        ExhaustiveStrategy,
    )
}


def create_strategy(name: str, domain: Domain, seed: int) -> Strategy:
    """The strategy called `name` over `domain`. Raises InputError, naming the known ones, for an unknown name."""
    if name not in STRATEGIES:
        raise InputError(f"unknown strategy {name!r}{meant(name, STRATEGIES)}: known are {', '.join(STRATEGIES)}")
    return STRATEGIES[name](domain, seed)
