"""What is tried first whatever the estimate says: fewest whole waves, counted here by a formula of the test's own."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest

from hktune.core.config import Config, Value
from hktune.core.errors import SpaceError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.space import Domain, SearchSpace, load_space

SPACE = Path("search_spaces/sm90a_gemm_bf16.yaml")
H200, H100_PCIE = 132, 114
SHAPES = [
    (5000, 1000, 3000), (1024, 1280, 8192), (896, 896, 8192), (1280, 768, 28672), (16, 7168, 8192), (512, 6144, 4096),
    (2048, 4096, 4096), (8192, 3584, 3584), (700, 1500, 1000), (1001, 1003, 1000), (4096, 8192, 512),
]  # fmt: skip


@functools.cache
def space(compute_units: int) -> SearchSpace:
    return load_space(SPACE).on(compute_units)


@functools.cache
def tiles() -> frozenset[tuple[int, int]]:
    """The sides of every tile that a kernel of whole K can have, found by asking about one config after the other."""
    domain = load_space(SPACE).domain(None)
    values = {parameter.name: parameter.values for parameter in domain.parameters}
    rest: dict[str, Value] = {parameter.name: parameter.default for parameter in domain.parameters}
    rest |= {"cluster_rows": 1, "persistent": False, "stages": 4}
    found = set()
    for block_m, block_n, swapped, schedule in product(
        values["block_m"], values["block_n"], (False, True), ("single", "cooperative")
    ):
        tile = {"block_m": block_m, "block_n": block_n, "swapped": swapped, "schedule": schedule}
        if domain.is_legal({**rest, **tile}):
            found.add((int(block_m), int(block_n)))
    return frozenset(found)


def waves(m: int, n: int, side_m: int, side_n: int, compute_units: int) -> int:
    """Whole waves of so many blocks at once."""
    blocks = -(-m // side_m) * -(-n // side_n)
    return -(-blocks // compute_units)


def sides(config: Mapping[str, Value]) -> tuple[int, int]:
    return int(config["block_m"]), int(config["block_n"])


def foremost(domain: Domain) -> list[Config]:
    return list(domain._foremost())


@pytest.mark.parametrize("compute_units", [H200, H100_PCIE, 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_tile_of_the_fewest_and_fullest_waves_is_among_the_first(
    shape: tuple[int, int, int], compute_units: int
) -> None:
    m, n, k = shape
    domain = space(compute_units).domain(Problem(m, n, k))
    fewest = min(waves(m, n, *tile, compute_units) for tile in tiles())
    least = min(a * b for a, b in tiles() if waves(m, n, a, b, compute_units) == fewest)
    whole = next(config for config in foremost(domain) if config["split_k"] == 1)
    side_m, side_n = sides(whole)
    assert (waves(m, n, side_m, side_n, compute_units), side_m * side_n) == (fewest, least)
    alike = [tile for tile in tiles() if tile[0] * tile[1] == least and waves(m, n, *tile, compute_units) == fewest]
    assert side_m + side_n == min(map(sum, alike))
    assert whole in domain.seeds[:3]
    assert domain.is_legal(whole)


def test_132_tiles_of_152x256_fill_one_wave_where_the_recorded_search_made_two() -> None:
    """5000x1000x3000 on an H200: 33 x 4 tiles. The recorded run's best has 29 x 8 of 176x128."""
    domain = space(H200).domain(Problem(5000, 1000, 3000))
    first, *_ = foremost(domain)
    assert sides(first) == (152, 256)
    assert waves(5000, 1000, 152, 256, H200) == 1
    assert waves(5000, 1000, 176, 128, H200) == 2


@pytest.mark.parametrize("compute_units", [H200, H100_PCIE])
@pytest.mark.parametrize("shape", [(1280, 768, 28672), (384, 640, 12288), (256, 256, 16384), (896, 896, 8192)])
def test_few_tiles_with_a_long_k_are_shared_within_one_wave(shape: tuple[int, int, int], compute_units: int) -> None:
    m, n, k = shape
    shared = [config for config in foremost(space(compute_units).domain(Problem(m, n, k))) if config["split_k"] != 1]
    assert 1 <= len(shared) <= 2
    for config in shared:
        side_m, side_n = sides(config)
        assert -(-m // side_m) * -(-n // side_n) * int(config["split_k"]) <= compute_units


# The fastest tiles of a sweep on an H200, none of which the search of that day had tried.
@pytest.mark.parametrize(
    ("shape", "tile"),
    [((896, 896, 8192), (64, 112)), ((1024, 1280, 8192), (64, 160)), ((1000, 1000, 8192), (64, 128)),
     ((1152, 1280, 10240), (96, 128)), ((768, 768, 1024), (64, 72))],
)  # fmt: skip
def test_the_smallest_tiles_of_one_wave_are_among_the_first(shape: tuple[int, int, int], tile: tuple[int, int]) -> None:
    alone = [
        config for config in foremost(space(H200).domain(Problem(*shape)))
        if config["split_k"] == config["cluster_rows"] == config["cluster_columns"] == 1 and not config["persistent"]
    ]  # fmt: skip
    areas = [a * b for a, b in map(sides, alone)]
    assert tile in {*map(sides, alone)} | {sides(config)[::-1] for config in alone}
    assert all(waves(*shape[:2], *sides(config), H200) == 1 for config in alone)
    smallest = min(a * b for a, b in tiles() if min(a, b) >= 64 and waves(*shape[:2], a, b, H200) == 1)
    assert min(areas) == smallest


def test_where_rows_are_no_whole_lines_blocks_share_what_they_read() -> None:
    """Rows of 6000 bytes, as 3000 elements have, are no multiple of the L2's 128; those of 3008 elements are."""
    split, whole = (foremost(space(H200).domain(Problem(5000, 1000, k))) for k in (3000, 3008))
    assert sum(int(config["cluster_rows"]) * int(config["cluster_columns"]) > 1 for config in split) >= 4
    assert all(config["cluster_rows"] == config["cluster_columns"] == 1 for config in whole)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_costs_at_most_nine_trials(shape: tuple[int, int, int]) -> None:
    domain = space(H200).domain(Problem(*shape))
    assert 1 <= len(foremost(domain)) <= 9
    assert len(set(domain.seeds)) == len(domain.seeds)


def test_as_many_stages_as_there_is_room_for_are_taken() -> None:
    for shape in SHAPES:
        domain = space(H200).domain(Problem(*shape))
        for config in foremost(domain):
            stages = next(parameter.values for parameter in domain.parameters if parameter.name == "stages")
            larger = [value for value in stages if int(value) > int(config["stages"])]
            assert not [value for value in larger if domain.is_legal({**config, "stages": value})]


@pytest.mark.parametrize("said", ["grouped8.bf16.nt", "batched4.bf16.nt", "e4m3.nt.tensor->bf16", "bf16.nt->f32"])
def test_other_operations_have_one_too(said: str) -> None:
    domain = space(H200).domain(Problem(2048, 4096, 2048, operation_of(said)))
    assert foremost(domain)
    assert all(map(domain.is_legal, foremost(domain)))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{varied: [block], bases: [{}], least: [waves]}", "foremost names no parameter 'block'"),
        ("{varied: [block_m], bases: [{}], least: [rounds]}", "unknown name 'rounds'"),
        ("{varied: [block_m], bases: [{block_m: 3}], least: [waves]}", "block_m=3 is not a legal value"),
        ("{varied: [block_m], bases: [{}], least: [waves], when: block_m > 8}", "unknown name 'block_m'"),
        ("{varied: [block_m], bases: [{}], least: [waves], most: [depths]}", "foremost names no parameter 'depths'"),
        ("{varied: [block_m], bases: [{}], least: [waves], first: 0}", "first"),
    ],
)
def test_a_rule_that_names_what_is_not_there_is_refused(rule: str, said: str, tmp_path: Path) -> None:
    text = SPACE.read_text()
    start, end = text.index("foremost:\n"), text.index("# Those that were fastest on nine shapes")
    path = tmp_path / "space.yaml"
    path.write_text(f"{text[:start]}foremost:\n  - {rule}\n\n{text[end:]}")
    with pytest.raises(SpaceError, match=re.escape(said)) as refused:
        load_space(path)
    assert len(str(refused.value).splitlines()) == 1
