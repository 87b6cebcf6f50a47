from __future__ import annotations

import json
import pickle
import random
import shutil
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from naive_gemm import trial

from hktune.core.config import Config, Value
from hktune.core.errors import InputError, SpaceError, StoreError
from hktune.core.expression import Derived
from hktune.core.operation import BF16_NT, Operation
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.shipped import KERNELS, SPACE_OF
from hktune.space import SearchSpace, Spaces, explain, load_space
from hktune.space import domain as domains
from hktune.space.rules import roots
from hktune.tuning.own_trials import require_own

PROBLEM = Problem(512, 1024, 1024)


@pytest.fixture(scope="module")
def space(toy_space_path: Path) -> SearchSpace:
    return load_space(toy_space_path)


def legal_by_hand(config: Config, problem: Problem | None) -> bool:
    """The toy space's rules once more, in Python."""
    fits = config["stages"] * (config["block_m"] + config["block_n"]) * 128 <= 160 * 1024  # type: ignore[operator]
    eight = config["warps_m"] * config["warps_n"] == 8  # type: ignore[operator]
    free = fits and eight and (config["stages"] != 1 or config["eager"] is False)
    if not free or problem is None:
        return free
    tiles = -(-problem.m // config["block_m"]) * -(-problem.n // config["block_n"])  # type: ignore[operator]
    return problem.m % config["block_m"] == 0 and tiles >= 4  # type: ignore[operator]


@pytest.mark.parametrize("problem", [None, PROBLEM, Problem(64, 512, 64), Problem(256, 256, 64), Problem(100, 512, 64)])
def test_enumerate_is_the_filtered_product(space: SearchSpace, problem: Problem | None) -> None:
    names = [parameter.name for parameter in space.parameters]
    everything = [Config(dict(zip(names, row, strict=True))) for row in product(*(p.values for p in space.parameters))]
    expected = [config for config in everything if legal_by_hand(config, problem)]
    assert len(everything) == space.raw_count
    assert list(space.enumerate(problem)) == expected
    assert space.count(problem) == len(expected)
    assert all(space.is_legal(config, problem) == legal_by_hand(config, problem) for config in everything)


def test_a_config_gets_defaults_and_keeps_types(space: SearchSpace) -> None:
    config = space.config({"block_m": 256, "eager": True})
    assert (config["block_m"], config["block_n"], config["eager"]) == (256, 128, True)
    assert space.config(config) == config


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"blok_m": 64}, "unknown parameter 'blok_m', did you mean block_m\\?: known are block_m, block_n"),
        ({"block_m": 96}, "block_m=96 is not a legal value: legal are 64, 128, 256"),
        ({"stages": True}, "stages=True is not a legal value: legal are 1, 2, 3"),
        ({"eager": 1}, "eager=1 is not a legal value: legal are False, True"),
        ({"order": []}, r"order=\[\] is not a legal value"),
    ],
)
def test_a_config_outside_the_lists_is_refused(space: SearchSpace, values: dict[str, object], rule: str) -> None:
    with pytest.raises(SpaceError, match=rule):
        space.config(values)


def test_parses_assignments(space: SearchSpace) -> None:
    assert space.parse(["block_m=256", "eager=TRUE", "order=swizzled"]) == space.config(
        {"block_m": 256, "eager": True, "order": "swizzled"}
    )
    with pytest.raises(SpaceError, match="write PARAMETER=VALUE"):
        space.parse(["block_m"])
    with pytest.raises(SpaceError, match="block_m='12' is not a legal value"):
        space.parse(["block_m=12"])
    with pytest.raises(SpaceError, match="unknown parameter 'x'"):
        space.parse(["x=12"])


def test_explain_gives_every_reason_in_order(space: SearchSpace) -> None:
    config = space.parse(["block_m=256", "block_n=512", "stages=3", "warps_m=8"])
    assert explain(space, config) == [
        "lds_fits: needs lds_bytes=294912, but gfx950 has 163840",
        "eight_warps: 8 x 4 warps are 32, not 8",
    ]
    assert explain(space, config, Problem(100, 512, 64))[2:] == [
        "m_divides: m=100 is not a multiple of block_m=256",
        "enough_tiles: 1 tiles are fewer than 4",
    ]
    assert explain(space, space.config({})) == []


def test_samples_are_legal_and_even(space: SearchSpace) -> None:
    problem = Problem(64, 256, 64)
    legal = set(space.enumerate(problem))
    rng = random.Random(0)
    drawn = Counter(space.sample(rng, problem) for _ in range(100 * len(legal)))
    assert drawn.keys() == legal
    chi_squared = sum((count - 100) ** 2 / 100 for count in drawn.values())
    assert chi_squared < 1.6 * len(legal)  # the 99.8th percentile for 60 values is 1.59 a value


def test_samples_where_legal_configs_are_rare(space: SearchSpace) -> None:
    rare = Problem(64, 192, 64)  # 4 tiles only with the smallest block: none; 3 tiles are too few
    assert space.count(rare) == 0
    with pytest.raises(SpaceError, match="no config is legal: the default one breaks m_divides: m=64 is not"):
        space.sample(random.Random(0), rare)


def test_neighbours_are_the_legal_single_changes_and_repairs(space: SearchSpace) -> None:
    centre = space.config({})
    neighbours = space.neighbours(centre, PROBLEM)
    assert len(set(neighbours)) == len(neighbours)
    assert centre not in neighbours
    distances = [sum(centre[name] != other[name] for name in centre) for other in neighbours]
    single = [
        config for config in space.enumerate(PROBLEM) if sum(centre[name] != config[name] for name in centre) == 1
    ]
    assert {other for other, distance in zip(neighbours, distances, strict=True) if distance == 1} == set(single)
    repaired = {other for other, distance in zip(neighbours, distances, strict=True) if distance == 2}
    assert repaired == {
        space.config(values)  # warps_m * warps_n stays 8
        for values in (
            {"warps_m": 1, "warps_n": 8},
            {"warps_m": 4, "warps_n": 2},
            {"warps_m": 8, "warps_n": 1},
        )
    }


def test_neighbours_connect_the_whole_space(space: SearchSpace) -> None:
    domain = space.domain(PROBLEM)
    reached = {domain.seeds[0]}
    frontier = [domain.seeds[0]]
    while frontier:
        new = {other for config in frontier for other in domain.neighbours(config)} - reached
        reached |= new
        frontier = list(new)
    assert reached == set(domain.enumerate())


def test_seeds_are_those_legal_for_the_problem(space: SearchSpace) -> None:
    assert [seed["block_m"] for seed in space.seeds] == [256, 64]
    assert [seed["block_m"] for seed in space.domain(Problem(64, 512, 64)).seeds] == [64]


def test_survives_pickling(space: SearchSpace) -> None:
    copy = pickle.loads(pickle.dumps(space))
    assert list(copy.enumerate(PROBLEM)) == list(space.enumerate(PROBLEM))


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("name: toy", "nmae: toy", "unknown field `nmae`"),
        ("values: [64, 128, 256],", "values: [],", r"parameter block_m: values \[\] must be a list without repeats"),
        ("values: [64, 128, 256],", "values: [64, 64],", "without repeats"),
        ("values: [64, 128, 256],", "values: [64, none],", "mix types"),
        ("default: 128, help: rows", "default: 96, help: rows", "block_m=96 is not a legal value"),
        ("block_m: {values", "m: {values", "parameter m: not a free name"),
        ("block_m: {values", "block m: {values", "parameter block m: not a free name"),
        (
            "  stages: {values",
            "  spare: {values: [1], default: 1, help: none}\n  stages: {values",
            "changes nothing in",
        ),
        ("  eager: {values: [false, true], default: false, help: load early}\n", "", "unknown name 'eager'"),
        (
            "warps == 8",
            "warp == 8",
            "constraint eight_warps, require: `warp == 8`: unknown name 'warp': known are block_m",
        ),
        ("not {stages}", "not {stage}", "constraint eager_needs_stages, reason: `stage`: unknown name 'stage'"),
        ("not {stages}", "not {tiles}", "constraint eager_needs_stages, reason: `tiles`: unknown name 'tiles'"),
        ("name: m_divides", "name: lds_fits", "constraint 'lds_fits' appears twice"),
        ("tiles: ceil", "warps: ceil", "derived warps: a parameter, the template or the problem has"),
        ("tiles: ceil", "stages: ceil", "derived stages: a parameter, the template or the problem has"),
        ("tiles: ceil_div(m, block_m)", "tiles: ceil_div(m, block)", "derived tiles: .*unknown name 'block'"),
        ("stages: 2}", "stages: 4}", "stages=4 is not a legal value"),
        ("block_n: 256, stages: 2}", "block_n: 512, stages: 3}", "seed .* breaks lds_fits: needs"),
        ("default: 4, help: warps along the columns", "default: 8, help: warps", "seed of defaults alone breaks eight"),
        ("template: gfx950/toy", "template: gfx950/tory", "cannot be read"),
        ("template: gfx950/toy", "template: gfx950/../gfx950/toy", "Expected `str` matching regex"),
        ("values: [1, 2, 3], default: 2", "values: [1, 2, 3], default: 2, default: 3", "key 'default' is repeated"),
    ],
)
def test_mistakes_are_one_line(toy_space_path: Path, tmp_path: Path, old: str, new: str, rule: str) -> None:
    text = toy_space_path.read_text()
    assert old in text
    broken = tmp_path / "toy.yaml"
    broken.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=rule) as caught:
        load_space(broken, toy_space_path.parent.parent / "kernels")
    assert "\n" not in str(caught.value)


def test_a_template_that_lies_not_beside_the_space_is_hktunes_own(tmp_path: Path, toy_space_path: Path) -> None:
    own = SPACE_OF["gfx950"]
    for place in (tmp_path / "mine.yaml", tmp_path / "deep" / "er" / "mine.yaml"):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(own, place)
        assert load_space(place).template.sha256 == load_space(own).template.sha256
    beside = tmp_path / "kernels" / "gfx950" / "gemm_bf16"
    shutil.copytree(KERNELS / "gfx950" / "gemm_bf16", beside)
    with (beside / "gemm.hip").open("a") as source:
        source.write("// mine\n")
    (tmp_path / "search_spaces").mkdir()
    mine = Path(shutil.copy(own, tmp_path / "search_spaces"))
    assert load_space(mine).template.sha256 != load_space(own).template.sha256

    toy = Path(shutil.copy(toy_space_path, tmp_path / "toy.yaml"))
    with pytest.raises(SpaceError) as raised:
        load_space(toy)
    places = [root / "gfx950" / "toy" for root in (tmp_path.parent / "kernels", KERNELS)]
    rule = f"{toy}: template 'gfx950/toy': no template.yaml in {places[0]} nor {places[1]}: "
    assert str(raised.value).startswith(rule)


def test_names_that_lead_to_one_another_are_traced_once_each() -> None:
    texts = {"a0": "x", "b0": "y"}
    for n in range(1, 100):
        texts |= {f"a{n}": f"a{n - 1} + b{n - 1}", f"b{n}": f"a{n - 1} - b{n - 1}"}
    assert roots({"a99"}, Derived(texts)) == {"x", "y"}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"block_m": 7}, "block_m=7 is not a legal value: legal are 64, 128, 256"),
        ({"block_m": True}, "block_m=True is not a legal value"),
        ({"block_m": "128"}, "block_m='128' is not a legal value"),
        ({"order": 'rows"; #include "/etc/passwd'}, "is not a legal value: legal are rows, columns, swizzled"),
        ({"eager": 1}, "eager=1 is not a legal value"),
        ({"more": 1}, "has an unknown 'more'"),
        ({"warps_m": 8}, "is illegal: eight_warps: 8 x 4 warps are 32, not 8"),
        ({"block_m": 256, "block_n": 512, "stages": 3}, "is illegal: lds_fits"),
    ],
)
def test_no_other_config_reaches_a_source(space: SearchSpace, change: dict[str, Value], rule: str) -> None:
    good = space.config({})
    assert "block_m = 128" in space.template.render(good).source
    for ask in (space.template.render, space.template.field_texts):
        with pytest.raises(SpaceError) as caught:
            ask(Config({**good, **change}))
        assert rule in str(caught.value)
    with pytest.raises(SpaceError, match="lacks 'stages'"):
        space.template.render(Config({name: value for name, value in good.items() if name != "stages"}))


def test_a_row_whose_config_is_of_no_space_is_named_before_anything_is_tried(space: SearchSpace) -> None:
    good = Config(space.config({}))
    own = {"template_sha256": space.template.sha256}
    rows = [trial(PROBLEM, config=good.json, config_id=good.id, **own)]
    require_own(Spaces([space]), rows, Path("trials.csv"))
    for change in ({"block_m": 7}, {"order": "x"}, {"warps_m": 8}):
        bad = Config({**good, **change})
        rows.append(trial(PROBLEM, config=bad.json, config_id=bad.id, trial=len(rows), status=Status.WRONG, **own))
        require_own(Spaces([space]), rows, Path("trials.csv"))
        row = trial(PROBLEM, config=bad.json, config_id=bad.id, trial=len(rows), **own)
        with pytest.raises(StoreError, match=rf"^trials\.csv: trial {len(rows)}: .*: delete that line$"):
            require_own(Spaces([space]), [*rows, row], Path("trials.csv"))
        with pytest.raises(SpaceError):
            space.launch_rule(bad, PROBLEM)


@pytest.mark.parametrize("word", ["a b", "a;b", "x\\n", "", "é", "a" * 65, "a-b", '"'])
def test_text_that_is_no_word_is_no_value(toy_space_path: Path, tmp_path: Path, word: str) -> None:
    text = toy_space_path.read_text().replace("values: [rows,", f"values: [{json.dumps(word)}, rows,")
    (tmp_path / "toy.yaml").write_text(text)
    with pytest.raises(SpaceError, match="text goes into source"):
        load_space(tmp_path / "toy.yaml", toy_space_path.parent.parent / "kernels")


def test_a_search_for_a_legal_config_ends_where_constraints_fail_last(
    toy_space_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 switches, and a rule over all of them that no choice keeps but the default, which the problem forbids."""
    kernels = tmp_path / "kernels" / "gfx950" / "toy"
    shutil.copytree(toy_space_path.parent.parent / "kernels" / "gfx950" / "toy", kernels)
    switches = [f"s{number}" for number in range(20)]
    for name, begin in (("template.yaml", "fields: {"), ("toy.hip", "\nconstexpr int ")):
        text = (kernels / name).read_text()
        put = "".join(
            f"{each}: {each}, " if name == "template.yaml" else f"{each} = ${{{each}}}, " for each in switches
        )
        (kernels / name).write_text(text.replace(begin, begin + put, 1))
    lines = "".join(f"  {each}: {{values: [0, 1], default: 0, help: a switch}}\n" for each in switches)
    rule = f"  - {{name: never, require: '{' + '.join(switches)} == 0 and m == 1', reason: 'no'}}\n"
    text = (
        toy_space_path.read_text().replace("parameters:\n", f"parameters:\n{lines}").replace("seeds:", f"{rule}seeds:")
    )
    (tmp_path / "toy.yaml").write_text(text)
    domain = load_space(tmp_path / "toy.yaml", tmp_path / "kernels").domain(PROBLEM)
    monkeypatch.setattr(domains, "LOOKS_MAX", 20_000)
    for ask in (lambda: domain.is_empty, lambda: domain.sample(random.Random(0))):
        with pytest.raises(SpaceError, match="no legal config among 20000 partly chosen ones: loosen a constraint"):
            ask()


def test_words_are_read_as_the_first_value_that_is_written_so(space: SearchSpace) -> None:
    assert space.parse(["eager=TRUE", "order=Swizzled", "stages=3"]) == space.config(
        {"eager": True, "order": "swizzled", "stages": 3}
    )


def test_rules_may_ask_for_the_operation(own_toy_space_path: Path) -> None:
    """A config that is legal for one format alone is searched, rendered and launched for that one."""
    folder = own_toy_space_path.parent.parent / "kernels" / "gfx950" / "toy"
    template = (folder / "template.yaml").read_text()
    (folder / "template.yaml").write_text(template.replace("fields: {", "operations: [bf16.nt, f16.nt]\nfields: {"))
    rule = "  - {name: small_bf16, require: operation.a_dtype != 'bf16' or block_n < 512, reason: too wide for bf16}\n"
    own_toy_space_path.write_text(own_toy_space_path.read_text().replace("constraints:\n", f"constraints:\n{rule}"))
    both = load_space(own_toy_space_path)
    f16 = both.for_operation(Operation("f16"))
    wide = both.config({"block_n": 512, "stages": 1})
    problem = Problem(1024, 4096, 256, Operation("f16"))
    assert both.is_legal(wide, problem)
    assert not both.is_legal(wide, replace(problem, operation=BF16_NT))
    assert f16.template.render(wide).config == wide
    assert both.template.for_operation(Operation("f16")).render(wide).config == wide
    assert both.launch_rule(wide, problem).at(problem.m, problem.operation) == f16.template.launch(wide, problem)
    with pytest.raises(SpaceError, match="too wide for bf16"):
        both.template.render(wide)
