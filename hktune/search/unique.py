"""What every strategy shares: seeds first, legal configs only, and none twice."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

from hktune.core.config import Config, Value
from hktune.search.strategy import Outcome
from hktune.space import Domain, Parameter

_DRAWS = 30  # uniform draws before the unseen configs are listed


class UniqueStrategy:
    """Turns proposals into a sequence that keeps the contract of `Strategy`.

    A subclass proposes: its `_propose` may return anything, or None to leave the choice to chance. A proposal that is
    illegal or already seen is dropped, and another one asked for: to move it would favour configs that are next to
    illegal ones. Only where legal configs are so rare that `proposals_max` are dropped, the last is moved to the
    nearest one that is unseen, at most two parameters away. If there is none, a config is drawn uniformly from the
    legal unseen ones. So every `ask` ends, and a strategy is exhausted only when every legal config has been seen.
    """

    name: str
    proposals_max = 8

    def __init__(self, domain: Domain, seed: int) -> None:
        self.domain = domain
        self.rng = random.Random(seed)
        self._seen: set[str] = set()

    def ask(self, n: int) -> list[Config]:
        chosen: list[Config] = []
        while len(chosen) < n:
            config = self._next_seed() or self._next_proposal() or self._uniform()
            if config is None:
                break
            self._seen.add(config.id)
            self._chosen(config)
            chosen.append(config)
        return chosen

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._seen.add(outcome.config.id)
            if self.domain.has_values_of(outcome.config):
                self._learn(outcome)

    def _propose(self) -> Mapping[str, Value] | None:
        """The next config to try, before legality and repetition are looked at."""
        return None

    def _learn(self, outcome: Outcome) -> None:
        """Takes in one outcome; its config has this domain's parameters and values, but may be illegal here."""

    def _dropped(self) -> None:
        """Says that the last proposal is not asked."""

    def _chosen(self, config: Config) -> None:
        """Says what is asked: the last proposal, unless that was dropped, a seed or a draw."""

    def _is_new(self, config: Config) -> bool:
        return config.id not in self._seen and self.domain.is_legal(config)

    def _next_seed(self) -> Config | None:
        return next((seed for seed in self.domain.seeds if seed.id not in self._seen), None)

    def _next_proposal(self) -> Config | None:
        for _ in range(self.proposals_max):
            proposal = self._propose()
            if proposal is None:
                return None
            config = Config(proposal)
            if self._is_new(config):
                return config
            self._dropped()
        return next(filter(self._is_new, self._ball(config)), None)

    def _ball(self, centre: Mapping[str, Value]) -> Iterator[Config]:
        """`centre`, then all that differs in one parameter, then in two; fewest steps along the values first, ties
        in random order."""
        yield Config(centre)
        moves = {p.name: _moves(p, centre[p.name]) for p in self.domain.parameters}
        for changes in (1, 2):
            shell = [move for names in combinations(moves, changes) for move in product(*(moves[n] for n in names))]
            self.rng.shuffle(shell)
            for move in sorted(shell, key=lambda move: sum(steps for steps, _ in move)):
                yield Config({**centre, **dict(change for _, change in move)})

    def _uniform(self) -> Config | None:
        """A legal config not seen yet, each equally likely; None if there is none."""
        if self.domain.is_empty:
            return None
        for _ in range(_DRAWS):
            config = self.domain.sample(self.rng)
            if config.id not in self._seen:
                return config
        unseen = [config for config in self.domain.enumerate() if config.id not in self._seen]
        return self.rng.choice(unseen) if unseen else None


def _moves(parameter: Parameter, value: Value) -> list[tuple[int, tuple[str, Value]]]:
    """Every other value of `parameter`, with how many steps along its list it is from `value`."""
    place = parameter.index(value)
    return [(abs(i - place), (parameter.name, other)) for i, other in enumerate(parameter.values) if i != place]
