"""Dispatch tables made from trials, described and examined: offline work, which production does without.

May touch core, objects and dispatch.
"""

from hktune.tables.breakpoints import Regret, cross_trials, regrets
from hktune.tables.build import BuildOptions, build_table
from hktune.tables.describe import describe

__all__ = ["BuildOptions", "Regret", "build_table", "cross_trials", "describe", "regrets"]
