"""What earlier results favour is tried first: all that may be as fast as a shape's best, the fastest before others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hktune.cli import main
from hktune.compile import CachedCompiler
from hktune.core.config import Config
from hktune.core.errors import InputError
from hktune.core.outcome import Failure, Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.variant import Variant
from hktune.emulator.clock.model_error import model_error
from hktune.search import STRATEGIES, create_strategy
from hktune.space import SearchSpace, load_space
from hktune.space.listed import ListedDomain
from hktune.store import TrialStore
from hktune.tuning.begun_run import _searches
from hktune.tuning.benches.prebuilt import read_built
from hktune.tuning.priors.earlier import Earlier
from hktune.tuning.priors.prior import Prior
from hktune.tuning.run_options import RunOptions

TIE = model_error().tie_factor
PROBLEM, LARGER = Problem(512, 1024, 1024), Problem(4096, 1024, 1024)
MEASURED = {"source": Source.MEASURED, "device": "AMD Instinct MI355X", "samples": 9, "cache": "cold"}


@pytest.fixture
def space(toy_space_path: Path) -> SearchSpace:
    return load_space(toy_space_path)


def row(
    space: SearchSpace, config: Config, time_us: float | None, problem: Problem = PROBLEM, **fields: object
) -> Trial:
    made = Trial(0, problem.m, problem.n, problem.k, problem.operation, config.id, config.json, Status.OK)
    template = {"template": space.template.name, "template_sha256": space.template.sha256, "target": "gfx950"}
    ok = {"source": Source.MODELLED, "time_us": time_us, "started_at": "2026-11-29T00:00:00+00:00", **template}
    return replace(made, **{**ok, **fields})  # type: ignore[arg-type]


def results(directory: Path, rows: Sequence[Trial]) -> Path:
    directory.mkdir()
    store = TrialStore(directory)
    for each in rows:
        store.append(each)
    return directory


def some_of(space: SearchSpace, count: int, problem: Problem = PROBLEM) -> list[Config]:
    """Legal configs that are no seeds."""
    domain = space.domain(problem)
    return [config for config in domain.enumerate() if config not in domain.seeds][:count]


def test_the_whole_tie_set_comes_first_and_the_fastest_of_it_before_others(space: SearchSpace, tmp_path: Path) -> None:
    a, b, c, d, wrong = some_of(space, 5)
    rows = [row(space, a, 10.0), row(space, b, 9.9 * TIE), row(space, c, 10.1 * TIE), row(space, d, 10.3)]
    rows.append(row(space, wrong, None, status=Status.WRONG, source=None))
    prior = Prior([results(tmp_path / "a", rows)], space)
    assert prior.favoured(PROBLEM) == [a, d, b]
    domain = space.domain(PROBLEM)
    assert prior.first_in(domain).seeds == (a, d, b, *domain.seeds)
    assert domain.seeds == space.domain(PROBLEM).seeds, "the domain itself is as it was"


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_begins_with_it(space: SearchSpace, tmp_path: Path, name: str) -> None:
    favoured = some_of(space, 4)
    rows = [row(space, config, 10.0 + at / 10) for at, config in enumerate(favoured)]
    prior = Prior([results(tmp_path / "a", rows)], space)
    strategy = create_strategy(name, prior.first_in(space.domain(PROBLEM)), 0)
    asked = [config for _ in range(6) for config in strategy.ask(1)]
    assert asked[:4] == favoured
    assert len(set(asked)) == len(asked)


def test_measured_rows_tie_by_their_intervals_and_count_for_more_than_modelled_ones(
    space: SearchSpace, tmp_path: Path
) -> None:
    a, b, c = some_of(space, 3)
    rows = [
        row(space, a, 10.0, time_us_low=9.9, time_us_high=10.1, **MEASURED),
        row(space, b, 10.15, time_us_low=10.05, time_us_high=10.3, **MEASURED),
        row(space, c, 10.3, time_us_low=10.2, time_us_high=10.4, **MEASURED),
    ]
    emulated = results(tmp_path / "emulated", [row(space, c, 1.0)])
    assert Prior([emulated, results(tmp_path / "gpu", rows)], space).favoured(PROBLEM) == [a, b]
    assert Prior([emulated], space).favoured(PROBLEM) == [c]


def test_a_shape_without_rows_takes_those_of_the_nearest_m(space: SearchSpace, tmp_path: Path) -> None:
    small, large = some_of(space, 2)
    rows = [row(space, small, 10.0), row(space, large, 10.0, LARGER)]
    prior = Prior([results(tmp_path / "a", rows)], space)
    favoured = {m: prior.favoured(replace(PROBLEM, m=m)) for m in (256, 1024, 2048, 8192)}
    assert favoured == {256: [small], 1024: [small], 2048: [large], 8192: [large]}
    other = replace(PROBLEM, n=2048)
    assert prior.favoured(other) == []
    assert prior.first_in(space.domain(other)).seeds == space.domain(other).seeds


def test_what_is_not_legal_or_of_no_use_here_is_passed_over(space: SearchSpace, tmp_path: Path) -> None:
    problem = replace(PROBLEM, m=64)  # no multiple of the larger blocks
    [good] = some_of(space, 1, problem)
    illegal = next(config for config in space.enumerate() if not space.is_legal(config, problem))
    foreign = Config({"variant": 3})
    rows = [row(space, each, 10.0, problem) for each in (foreign, illegal, good)]
    prior = Prior([results(tmp_path / "a", rows)], space)
    seeds = prior.first_in(space.domain(problem)).seeds
    assert seeds[0] == good
    assert not {illegal, foreign} & set(seeds)
    listed = ListedDomain(space, problem, some_of(space, 2, problem)[1:])
    assert prior.first_in(listed).seeds == listed.seeds, "of what was built nothing is favoured"


def test_results_of_another_template_are_refused(space: SearchSpace, tmp_path: Path) -> None:
    [config] = some_of(space, 1)
    other = results(tmp_path / "a", [row(space, config, 10.0, template="gfx950/other")])
    with pytest.raises(InputError, match=r"no ok row is of gfx950/toy: leave --prior out"):
        Prior([other], space)
    assert Prior([], space).favoured(PROBLEM) == []


def test_a_run_asks_for_what_the_results_favour(space: SearchSpace, toy_space_path: Path, tmp_path: Path) -> None:
    favoured = some_of(space, 3)
    rows = [row(space, config, 10.0 + at / 10) for at, config in enumerate(favoured)]
    options = RunOptions(tmp_path / "shapes.yaml", toy_space_path, prior=(results(tmp_path / "a", rows),))
    [search] = _searches(space, {PROBLEM: "toy"}, options, Earlier(options.prior, space))
    assert [config for _ in range(3) for config in search.strategy.ask(1)] == favoured


class Incapable:
    """A compiler that fails, for the list of what it was asked."""

    identity = "none 1"

    def compile(self, variant: Variant, deadline_s: float) -> Failure:
        return Failure(Status.COMPILE_ERROR, "toy.hip:3: error: no")


@pytest.mark.parametrize("with_shapes", [True, False])
def test_a_build_holds_what_the_results_favour(
    space: SearchSpace, toy_space_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_shapes: bool
) -> None:
    out, shapes = tmp_path / "built", tmp_path / "shapes.yaml"
    *favoured, slow = some_of(space, 4)
    [other] = some_of(space, 9, LARGER)[-1:]
    rows = [row(space, config, 10.0 + at / 10) for at, config in enumerate(favoured)]
    rows += [row(space, slow, 50.0), row(space, other, 3.0, LARGER)]
    shapes.write_text("operation: bf16.nt\nshapes:\n  - {m: 512, n: 1024, k: 1024}\n")
    monkeypatch.setattr("hktune.compile.compiler_for", lambda *_: CachedCompiler(Incapable(), out))
    words = ["--shapes", str(shapes)] if with_shapes else []
    prior = str(results(tmp_path / "a", rows))
    assert main(("build", "--space", str(toy_space_path), *words, "--prior", prior, "-o", str(out))) == 1
    listed = read_built(out, space)
    assert [config for config in listed if config in favoured] == favoured
    assert slow not in listed
    assert (other in listed) != with_shapes
