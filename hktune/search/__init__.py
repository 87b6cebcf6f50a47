"""Strategies: what to try next for one problem, behind ask and tell. May import core and space."""

from hktune.search.registry import STRATEGIES, create_strategy
from hktune.search.strategy import Cost, CostName, Outcome, Strategy

__all__ = ["STRATEGIES", "Cost", "CostName", "Outcome", "Strategy", "create_strategy"]
