"""The default config and the fixed choice get a time of their own, so that a gain over them is a figure."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FormulaStopwatch, InstantExecutor

from hktune.core.config import Config
from hktune.core.errors import SpaceError
from hktune.core.outcome import Failure, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.measure.stopwatch import Attempt
from hktune.search import create_strategy
from hktune.space import load_space
from hktune.tuning.benches.emulated_bench import OpenEmulatedBench
from hktune.tuning.confirming.yardsticks import TRIALS_MIN, time_yardsticks, yardsticks
from hktune.tuning.searching.searches import Search

ROOT = Path(__file__).resolve().parents[2]
SPACE_FILE = ROOT / "search_spaces" / "gfx950_gemm_bf16.yaml"
SPACE = load_space(SPACE_FILE)
LARGE, LOW, UNALIGNED = Problem(512, 512, 4096), Problem(511, 4096, 4096), Problem(512, 512, 1001)


def search(problem: Problem, *tried: Config, others: int = TRIALS_MIN) -> Search:
    domain = SPACE.domain(problem)
    ids = {config.id for config in tried} | {f"{number:016x}" for number in range(others)}
    return Search(problem, create_strategy("random", domain, 0), domain.is_legal, ids)


def timed(*searches: Search) -> list[tuple[Problem, int]]:
    """The problem and block_m of what was tried beside the searches."""
    found: list[tuple[Problem, int]] = []

    def record(attempt: Attempt, problem: Problem, outcome: Timing | Failure) -> Trial:
        found.append((problem, int(attempt.config["block_m"])))
        return Trial(
            0, problem.m, problem.n, problem.k, problem.operation, attempt.config.id, attempt.config.json, Status.OK
        )

    time_yardsticks(SPACE, searches, OpenEmulatedBench(InstantExecutor(), FormulaStopwatch()), record)  # type: ignore[arg-type]
    return sorted(found)


def test_the_fixed_choice_is_the_specifications() -> None:
    """256x256 where min(M, N) >= 512, else 128x128, K-tiles of 64 by 2 x 4 warps."""
    for problem, block in ((LARGE, 256), (LOW, 128), (Problem(4096, 64, 64), 128)):
        fixed = SPACE.fixed_choice.of(problem) if SPACE.fixed_choice else None
        assert fixed is not None
        names = ("block_m", "block_n", "k_step", "warps_m", "warps_n", "stages", "schedule")
        assert [fixed[name] for name in names] == [block, block, 64, 2, 4, 2, "pipeline"]
        assert yardsticks(SPACE, problem) == list(dict.fromkeys([SPACE.config({}), fixed]))


def test_what_the_search_did_not_try_is_tried_once() -> None:
    assert timed(search(LARGE), search(LOW)) == [(LOW, 128), (LOW, 256), (LARGE, 256)]
    assert timed(search(LARGE, SPACE.config({})), search(LOW, SPACE.config({}))) == [(LOW, 128)]


def test_what_is_illegal_or_dear_is_left() -> None:
    assert timed(search(UNALIGNED)) == []
    assert timed(search(LOW, others=TRIALS_MIN - 1)) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("min(m, n) >= 512", "min(m, stages) >= 512", "stages"),
        ("block_n: 128, split: 1}}", "block_n: 127, split: 1}}", "block_n=127"),
        ("block_n: 128, split: 1}}", "stages: 4, split: 1}}", "fixed choice .* breaks lds_fits"),
        ("{when: true, config", "{whenever: true, config", "whenever"),
    ],
)
def test_a_fixed_choice_that_is_no_good_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = SPACE_FILE.read_text()
    assert old in text
    file = tmp_path / "space.yaml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(SpaceError, match=said):
        load_space(file, ROOT / "kernels")


def test_no_fixed_choice_means_the_default_alone() -> None:
    cuda = load_space(ROOT / "search_spaces" / "sm90a_gemm_bf16.yaml")
    assert cuda.fixed_choice is None
    assert yardsticks(cuda, LARGE) == [cuda.config({})]
