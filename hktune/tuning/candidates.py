"""Kernels of other templates that a run takes as candidates of its shapes: a row of its table may launch one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hktune.core.config import Config
from hktune.core.errors import InputError, TemplateError
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import shipped_spaces, space_file
from hktune.search import create_strategy
from hktune.space import SearchSpace, Spaces
from hktune.space.listed import ListedDomain
from hktune.tuning.rivals import RIVALS, is_here
from hktune.tuning.searching.searches import Search


def candidate_spaces(words: Sequence[str]) -> tuple[Path, ...]:
    """The spaces that `words` name: all of a rival, or one by its file or its name. Raises InputError."""
    found: list[Path] = []
    for word in words:
        named = RIVALS[word].spaces if word in RIVALS else (space_file(word),)
        if not named[0].is_file():
            known = ", ".join([*RIVALS, *(path.stem for path in shipped_spaces())])
            raise InputError(f"no candidates {word}: known are {known}, and a search space of your own by its file")
        found += named
    return tuple(dict.fromkeys(found))


def candidate_searches(
    spaces: Spaces, problems: Sequence[Problem], strategy: str, seed: int, settings: Settings
) -> list[Search]:
    """A search for each problem and each of `spaces.others` that computes just this, by kernels that are here and that
    production can launch."""
    found: list[Search] = []
    for space in spaces.others:
        here = _described_here(space, settings)
        for problem in problems:
            if not space.template.does(problem.operation):
                continue
            own = space.for_operation(problem.operation)
            domain = own.domain(problem)
            if here is not None:
                legal = filter(domain.is_legal, here)
                domain = ListedDomain(own, problem, [each for each in legal if _can_be_launched(own, each, problem)])
            if not domain.is_empty:
                chosen = create_strategy(strategy, domain, seed)
                code, template = own.template.operation, space.template.sha256
                search = Search(problem, chosen, domain.is_legal, operation=code, template=template)
                search.configs = domain.count
                found.append(search)
    return found


def _described_here(space: SearchSpace, settings: Settings) -> list[Config] | None:
    """The configs of a space of described kernels whose files are here; None of a space of source, which has files of
    its own."""
    if space.template.objects is None:
        return None
    return [config for config in space.enumerate() if is_here(space, config, settings)]


def _can_be_launched(space: SearchSpace, config: Config, problem: Problem) -> bool:
    """Whether a table row may have the kernel: one that adds to C would need another launch before it."""
    try:
        space.launch_rule(config, problem)
    except TemplateError:
        return False
    return True
