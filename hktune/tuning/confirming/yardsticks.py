"""What a summary says the gain over: the space's defaults, and what was fixed without tuning."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.problem import Problem
from hktune.space import SearchSpace
from hktune.tuning.benches.contract import OpenBench
from hktune.tuning.confirming.neighbours import try_configs
from hktune.tuning.searching.loop import Record
from hktune.tuning.searching.searches import Search

TRIALS_MIN = 8
"""With fewer trials of a shape, two more would cost more than what they tell is worth."""


def yardsticks(space: SearchSpace, problem: Problem) -> list[Config]:
    """The default config, and the fixed choice for `problem` where there is another; legal for it or not."""
    fixed = space.fixed_choice.of(problem) if space.fixed_choice else None
    return list(dict.fromkeys(config for config in (space.config({}), fixed) if config is not None))


def time_yardsticks(space: SearchSpace, searches: Sequence[Search], work: OpenBench, record: Record) -> None:
    """Try the yardsticks that the searches themselves did not, where they are legal; `record` stores each outcome."""
    wanted: defaultdict[Candidate, list[Problem]] = defaultdict(list)
    for search in searches:
        if len(search.tried) < TRIALS_MIN or search.template not in (None, space.template.sha256):
            continue
        for config in yardsticks(space, search.problem):
            if config.id not in search.tried and search.legal(config):
                wanted[Candidate(config, search.operation, search.template)].append(search.problem)
    try_configs(wanted, work, record)
