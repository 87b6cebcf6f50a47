"""What a model compares of configs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hktune.core.config import Config
from hktune.core.problem import Problem
from hktune.core.shipped import space_file
from hktune.search.coordinates import Coordinates
from hktune.space import load_space
from hktune.space.recorded import recorded_domain


def test_numbers_are_compared_by_ratios_and_words_only_for_being_equal(toy_space_path: Path) -> None:
    domain = load_space(toy_space_path).domain(Problem(512, 1024, 1024))
    seed = domain.seeds[0]
    blocks = [{**seed, "block_n": value} for value in (64, 128, 512)]
    orders = [{**seed, "order": value} for value in ("rows", "columns", "swizzled")]
    at = Coordinates(domain).of([*blocks, *orders])
    narrow, middle, wide = at[:3]
    np.testing.assert_allclose(np.linalg.norm(middle - narrow), 1 / 3)
    np.testing.assert_allclose(np.linalg.norm(wide - narrow), 1.0)
    distances = [np.linalg.norm(at[3 + a] - at[3 + b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(distances, 1.0)


def test_a_number_of_many_values_has_its_halvings_too() -> None:
    widths = (16, 48, 64, 80, 96, 128)
    domain = recorded_domain("widths", [Config({"width": width, "tile": tile}) for width in widths for tile in (1, 2)])
    at = {width: Coordinates(domain).of([{"width": width, "tile": 1}])[0] for width in widths}
    assert len(at[16]) == 3
    by_ratio = np.log(np.array(widths) / 16) / np.log(8)
    columns = np.array([at[width] for width in widths]).T
    assert any(np.allclose(column, by_ratio) for column in columns)
    assert any(np.allclose(column, [0, 0, 2 / 3, 0, 1 / 3, 1]) for column in columns), "of 4, 4, 6, 4, 5, 7"


def test_four_values_are_enough_to_have_halvings_but_powers_of_two_say_them_themselves() -> None:
    """A tile of 3 may be slow where 2 and 4 are fast."""
    configs = [Config({"tile": tile, "block": 64 << tile}) for tile in (1, 2, 3, 4)]
    block, tile, halvings = Coordinates(recorded_domain("tiles", configs)).of(configs).T
    np.testing.assert_allclose(tile, np.log([1, 2, 3, 4]) / np.log(4))
    np.testing.assert_allclose(halvings, [0, 1 / 2, 0, 1])
    np.testing.assert_allclose(block, [0, 1 / 3, 2 / 3, 1])


def test_the_estimate_of_a_space_is_a_coordinate() -> None:
    """Configs of equal parameters but other problems differ by what the estimate says of them."""
    space = load_space(space_file("sm90a_gemm_bf16"))
    config = space.seeds[0]
    one, four = (space.domain(Problem(4096 * waves, 4096, 4096)) for waves in (1, 4))
    a, b = Coordinates(one).of([config])[0], Coordinates(four).of([config])[0]
    np.testing.assert_allclose(a[:-1], b[:-1])
    ratio = np.log(four.estimate(config) / one.estimate(config)) / np.log(4)
    np.testing.assert_allclose(b[-1] - a[-1], ratio)
