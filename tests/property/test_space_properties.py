"""Search spaces of generated parameters and constraints against a brute-force filter."""

from __future__ import annotations

import random
from itertools import product

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hktune.core.config import Config
from hktune.core.errors import SpaceError
from hktune.core.problem import Problem
from hktune.space import SearchSpace, explain
from hktune.space.space_schema import ConstraintDescription, ParameterDescription, SpaceDescription
from hktune.template import Template
from hktune.template.template_schema import Extent, LaunchDescription, ProofDescription, TemplateDescription

PROBLEM = Problem(384, 1024, 256)
DERIVED = {"total": "p0 + 3 * p1", "load": "total * p2 % 7", "tiles": "ceil_div(m, 64 * p0)"}
PYTHON = {"min": min, "max": max, "ceil_div": lambda a, b: -(-a // b)}
RULES = [
    "p0 <= p1",
    "p0 * p1 % 4 != 1",
    "total <= 20",
    "load != 3 or p1 == 2",
    "p2 in [1, 2, 5]",
    "m % (64 * p0) == 0",
    "tiles >= 2",
    "max(p0, p2) - min(p1, p2) < 5",
    "n >= 0",
]
values = st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True)
spaces = st.builds(
    lambda lists, rules: make_space(lists, rules),
    st.tuples(values, values, values),
    st.sets(st.sampled_from(RULES), max_size=4),
)


def make_space(lists: tuple[list[int], ...], rules: set[str]) -> SearchSpace:
    """A space over p0, p1, p2 that keeps `rules`."""
    names = [f"p{place}" for place in range(len(lists))]
    extent = Extent(m="p0", n="p1", k="p2")
    template = TemplateDescription(
        name="t", arch="gfx950", language="hip", source="t.hip", symbol="t", arguments=(),
        fields={name: name for name in names}, tile=extent, proof=(ProofDescription(m="p0", n="p1", k="p2"),),
        launch=LaunchDescription(grid=(1, 1, 1), block=(64, 1, 1)),
    )  # fmt: skip
    description = SpaceDescription(
        name="s",
        template="gfx950/t",
        parameters={
            name: ParameterDescription(values=list(listed), default=listed[0], help="")
            for name, listed in zip(names, lists, strict=True)
        },
        derived=DERIVED,
        constraints=[ConstraintDescription(name=rule, require=rule, reason="p0={p0}") for rule in sorted(rules)],
    )
    source = " ".join(f"${{{name}}}" for name in names).encode()
    try:
        return SearchSpace(description, Template(template, b"", source))
    except SpaceError as error:
        assume("seed of defaults" not in str(error))
        raise


def brute_force(space: SearchSpace, problem: Problem | None) -> list[Config]:
    """Python's own evaluation of every rule on every point of the product."""
    legal = []
    for row in product(*(parameter.values for parameter in space.parameters)):
        config = Config({parameter.name: value for parameter, value in zip(space.parameters, row, strict=True)})
        scope: dict[str, object] = {**PYTHON, **config}
        if problem is not None:
            scope |= {"m": problem.m, "n": problem.n, "k": problem.k}
        for name, text in DERIVED.items():
            if name != "tiles" or problem is not None:
                scope[name] = eval(text, {}, scope)
        rules = [rule for rule in space.constraints if problem is not None or not rule.per_problem]
        if all(eval(rule.require.text, {}, scope) for rule in rules):
            legal.append(config)
    return legal


@settings(deadline=None)
@given(spaces, st.sampled_from([None, PROBLEM]))
def test_enumeration_is_what_the_constraints_allow(space: SearchSpace, problem: Problem | None) -> None:
    legal = brute_force(space, problem)
    assert list(space.enumerate(problem)) == legal
    assert space.count(problem) == len(legal)
    for row in product(*(parameter.values for parameter in space.parameters)):
        config = Config(dict(zip(("p0", "p1", "p2"), row, strict=True)))
        assert space.is_legal(config, problem) == (config in legal)
        assert (explain(space, config, problem) == []) == (config in legal)


@settings(deadline=None)
@given(spaces, st.integers(0, 2**32))
def test_samples_and_neighbours_are_legal(space: SearchSpace, seed: int) -> None:
    legal = set(brute_force(space, PROBLEM))
    rng = random.Random(seed)
    assume(legal)
    config = space.sample(rng, PROBLEM)
    assert config in legal
    neighbours = space.neighbours(config, PROBLEM)
    assert config not in neighbours
    assert set(neighbours) <= legal
    distance = {other: sum(config[name] != other[name] for name in config) for other in legal}
    assert {other for other in legal if distance[other] == 1} <= set(neighbours)
    assert all(distance[other] <= 2 for other in neighbours)


@given(spaces)
def test_configs_survive_json(space: SearchSpace) -> None:
    for config in space.enumerate():
        copy = Config.from_json(config.json)
        assert (copy, copy.id, dict(copy)) == (config, config.id, dict(config))
        assert space.config(copy) == config
