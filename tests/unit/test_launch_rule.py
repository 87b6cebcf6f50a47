"""Launches as formulas in m: what a template says for every m, without the template."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from hktune.core.arch import GFX950
from hktune.core.errors import SpaceError, TemplateError
from hktune.core.expression import Expression
from hktune.core.launch import Argument
from hktune.core.launch_rule import LaunchRule, compiled, specialised
from hktune.core.problem import Problem
from hktune.space import SearchSpace, load_space

SPACES = Path(__file__).parents[2] / "search_spaces"
SIZES = [(4096, 4096), (50257, 768), (57344, 8192), (8, 16384)]
ROWS = [1, 2, 15, 16, 17, 100, 128, 1000, 4096, 8191, 100_000, 2**24]


def configs(space: SearchSpace) -> list[Any]:
    rng = random.Random(7)
    drawn = [space.sample(rng, Problem(512, 4096, 4096)) for _ in range(12)]
    return [*space.seeds, *drawn]


@pytest.mark.parametrize("name", ["gfx950_gemm_bf16", "sm90a_gemm_bf16"])
def test_a_rule_is_the_templates_launch_at_every_m_and_refuses_what_the_space_refuses(name: str) -> None:
    space = load_space(SPACES / f"{name}.yaml")
    launched = refused = 0
    for config in configs(space):
        for n, k in SIZES:
            rule = space.launch_rule(config, Problem(512, n, k))
            for m in ROWS:
                problem = Problem(m, n, k)
                legal = space.is_legal(config, problem)
                found = rule.at(m, problem.operation)
                if found and found.grid[0] * found.block[0] > space.arch.work_items_max:  # for terabytes of C
                    with pytest.raises(TemplateError, match="at most 4294967295 work-items are along an axis"):
                        space.template.launch(config, problem)
                    continue
                expected = space.template.launch(config, problem) if legal else None
                assert found == expected, (config, problem)
                launched += legal
                refused += not legal
    assert launched > 200
    assert refused > 20


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("ceil_div(m, block) * 2 * n", "ceil_div(m, 64) * 2 * 10"),
        ("block * n - 1", 639),
        ("-block", -64),
        ("m if block == 64 else 1 // 0", "m"),
        ("block == 32 and m // 0 == 1", 0),
        ("block == 64 or m // 0 == 1", 1),
        ("m > 1 and block == 64 and n == 10", "m > 1"),
        ("m < 5 or word == 'no'", "m < 5"),
        ("arch.wave_size * tiles", "64 * (ceil_div(m, 64) + 1)"),
        ("word == 'yes'", 1),
        ("block in [32, 64]", 1),
        ("1 if m > n else block", "1 if m > 10 else 64"),
    ],
)
def test_what_is_known_is_folded_away(text: str, formula: str | int) -> None:
    known = {"block": 64, "n": 10, "word": "yes", "arch": GFX950}
    definitions = {"tiles": Expression("ceil_div(m, block) + 1")}
    assert specialised(Expression(text), known, definitions) == formula


def test_other_names_and_other_values_are_refused() -> None:
    with pytest.raises(SpaceError, match="names 'k', but only m is known"):
        compiled("m * k")
    with pytest.raises(SpaceError, match="must be an integer"):
        specialised(Expression("word"), {"word": "yes"}, {})
    with pytest.raises(SpaceError, match="divides by zero"):
        specialised(Expression("1 // n"), {"n": 0}, {})


@pytest.mark.parametrize(
    "change",
    [
        {"grid": ("m - 5", 1, 1)},
        {"grid": ("m * 2147483647", 1, 1)},
        {"grid": ("1 // (m - 5)", 1, 1)},
        {"workspace_bytes": "m - 6"},
        {"workspace_bytes": "m * 68719476736"},
        {"requires": ("m > 5",)},
        {"requires": ("m < 9", "m // (m - 5) == 1")},
    ],
)
def test_a_rule_without_a_legal_value_has_no_launch(change: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"grid": ("m", 1, 1), "workspace_bytes": 0, "requires": (), **change}
    rule = LaunchRule(block=(64, 1, 1), dynamic_lds_bytes=0, arguments=(Argument("a", "pointer"),), **fields)
    assert rule.at(5) is None


@pytest.mark.parametrize("deep", [40, 2000])
def test_definitions_that_double_one_another_are_refused_before_they_are_written_out(deep: int) -> None:
    """As text each is a line; written out, the last would have 2**40 parts."""
    texts = {"d0": "m + 1"} | {f"d{n}": f"d{n - 1} * d{n - 1}" for n in range(1, deep)}
    definitions = {name: Expression(text) for name, text in texts.items()}
    with pytest.raises(SpaceError, match=r"has over 10000 parts|nested too deep"):
        specialised(Expression(f"d{deep - 1}"), {}, definitions)
