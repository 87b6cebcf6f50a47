"""Dispatch tables made from trials, described and examined, offline. May import core, dispatch and exchange."""

from hktune.tables.breakpoints import Regret, cross_trials, regrets
from hktune.tables.describe import describe
from hktune.tables.from_trials import BuildOptions, build_table, compilers_of

__all__ = ["BuildOptions", "Regret", "build_table", "compilers_of", "cross_trials", "describe", "regrets"]
