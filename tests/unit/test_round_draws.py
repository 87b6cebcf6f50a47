"""Draws that prefer powers of two, where a parameter has few of them."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from hktune.core.config import Config
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.search import Cost, Outcome, create_strategy
from hktune.search.round_draws import RoundDraws
from hktune.space import Domain, load_space
from hktune.space.recorded import recorded_domain

EVEN = range(16, 257, 16)
IN_BOTH = [Config({"width": width, "tile": tile}) for width in EVEN for tile in (1, 2, 3, 4, 5)]


def drawn(domain: Domain, draws: int) -> list[Config]:
    rng, round_draws = random.Random(0), RoundDraws(domain)
    return [config for config in (round_draws.one(rng) for _ in range(draws)) if config is not None]


def test_each_legal_config_of_round_values_is_equally_likely() -> None:
    """`tile` has three powers of two in five values, so none is preferred; 16 with 5 is not legal."""
    legal = [config for config in IN_BOTH if config != {"width": 16, "tile": 5}]
    found = Counter(drawn(recorded_domain("even", legal), 4800))
    assert set(found) == {config for config in legal if config["width"] in (16, 32, 64, 128, 256)}
    assert all(140 < count < 260 for count in found.values()), "200 are expected of each"


@pytest.mark.parametrize(
    "values",
    [
        (16, 32, 64, 128, 256),
        (3, 6, 9, 12, 15),
        (2, 3, 5, 7, 9, 11, 16),
        (0, 1, 3, 5, 7),
        (False, True),
        ("a", "b", "c", "d", "e"),
    ],
)
def test_where_round_values_are_common_or_there_are_none_nothing_is_preferred(values: tuple[int | str, ...]) -> None:
    assert drawn(recorded_domain("plain", [Config({"width": value}) for value in values]), 5) == []


def test_where_no_config_of_round_values_is_legal_nothing_is_drawn() -> None:
    """Two ranges, of which a power of two goes with none of the other."""
    plain = [width for width in EVEN if width.bit_count() > 1]
    pairs = [*zip(plain, range(16, 177, 16), strict=True), *((width, 48) for width in (16, 32, 64, 128, 256))]
    assert drawn(recorded_domain("apart", [Config({"width": w, "depth": d}) for w, d in pairs]), 5) == []


def test_the_rules_of_a_space_hold(own_toy_space_path: Path) -> None:
    text = own_toy_space_path.read_text()
    own_toy_space_path.write_text(text.replace("[64, 128, 256, 512]", "[64, 96, 128, 160, 192, 224, 256, 288, 320]"))
    domain = load_space(own_toy_space_path).domain(Problem(1024, 1920, 1024))
    found = drawn(domain, 60)
    assert {config["block_n"] for config in found} == {64, 128, 256}
    assert all(map(domain.is_legal, found))
    assert len(set(found)) > 10


def test_the_default_begins_with_them() -> None:
    """So it finds what only a power of two makes fast, before it knows anything."""
    strategy = create_strategy("auto", recorded_domain("even", IN_BOTH), 0)
    begun = strategy.ask(16)
    assert {config["width"] for config in begun} == {16, 32, 64, 128, 256}
    strategy.tell([Outcome(config, Status.OK, Cost(1.0 + abs(int(config["width"]) - 144) / 100)) for config in begun])
    assert 144 in {config["width"] for config in strategy.ask(8)}, "other values are looked at too"
