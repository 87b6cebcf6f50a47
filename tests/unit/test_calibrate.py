"""hktune calibrate: constants that times were made with come back, what the rows do not identify stays, bad input is a
line."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from gemm_bf16_variants import space as gfx950_space

from hktune.cli import main
from hktune.commands.parser import BAD_INPUT, DONE, FAILED
from hktune.core.board import MI350X, MI355X
from hktune.core.calibration import Calibration, read_calibration, write_calibration
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.errors import InputError, SpaceError
from hktune.core.identity import Identity
from hktune.core.outcome import Source, Stage, Status
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE, SPACE_OF
from hktune.core.trial import Trial, by_problem
from hktune.device.emulated import EmulatedDevice
from hktune.emulator.clock.calibrated import calibrated_rates
from hktune.emulator.clock.constants import constants_of, with_constants
from hktune.emulator.clock.rates import rates_of
from hktune.measure.modelled import ModelledStopwatch
from hktune.measure.stopwatch import Attempt
from hktune.space import SearchSpace, Spaces, load_space
from hktune.store import TrialStore, capture_environment, write_environment
from hktune.template import Templates
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.calibrating.measured_trials import in_turn, measured_rows, pairs_wrong
from hktune.tuning.run_options import RunOptions, asked_bench, calibrated_spaces

GPU = Identity("hip", "gfx950", "AMD Instinct MI350X", 256, "1002:75a0:0ee9", "SPX/NPS1", "mi350x")
H200 = Identity("cuda", "sm90a", "NVIDIA H200", 132, "10de:2335:18be")
SHAPES = [(m, n, k) for m in (2048, 4096, 8192) for n in (4096, 8192) for k in (2048, 8192)]
SHAPES += [(256, n, k) for n in (28672, 57344) for k in (8192, 16384)] + [(256, 512, 512), (512, 512, 1024)]
MI350XS = rates_of(MI350X)
STEP = "clock_step[1]"
TRUTH = with_constants(MI350XS, {"hbm_ns": 1.2 * MI350XS.hbm_ns, STEP: 0.92 * constants_of(MI350XS, [STEP])[STEP]})


def results(directory: Path, identity: Identity, trials: list[Trial]) -> Path:
    """A results directory of a GPU."""
    store = TrialStore(directory)
    for trial in trials:
        store.append(trial)
    write_environment(capture_environment(identity, "a compiler", None, ["hktune", "tune"], 0, "now"), directory)
    return directory


def row(space: SearchSpace, config: Config, problem: Problem, time_us: float, **fields: object) -> Trial:
    made = Trial(
        trial=0, m=problem.m, n=problem.n, k=problem.k, operation=problem.operation,
        config_id=config.id, config=config.json, status=Status.OK, source=Source.MEASURED, time_us=time_us,
        baseline="a library", baseline_us=time_us, cache="cold", template=space.template.name,
        template_sha256=space.template.sha256, target=space.arch.name, device="a GPU", strategy="random", seed=0,
        started_at="2026-11-29T20:57:21+00:00",
    )  # fmt: skip
    return replace(made, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def attempts() -> list[Attempt]:
    """The proved default of the gfx950 GEMM, and a config that waits for every load."""
    prover = EmulatedBench(DEFAULT_SPACE, 0, Settings.from_environment(os.environ)).prover()
    waits = {"block_m": 128, "block_n": 128, "vmcnt_tiles": 0, "split": 1}
    configs = [gfx950_space().config(words) for words in ({}, waits)]
    return [prover(Candidate(config)) for config in configs]


@pytest.fixture
def measured(tmp_path: Path, attempts: list[Attempt]) -> Callable[[list[tuple[int, int, int]]], Path]:
    """Makes the directory of a run on an MI350X whose constants are TRUTH, with an error of 2 % of each time."""
    stopwatch = ModelledStopwatch(Templates(gfx950_space().template), board=MI350X, rates=TRUTH)
    errors = np.random.default_rng(3)

    def made(shapes: list[tuple[int, int, int]]) -> Path:
        trials = []
        for sizes in shapes:
            for attempt in attempts:
                timing = stopwatch.time(attempt, Problem(*sizes))
                time_us = timing.time_us * float(np.exp(errors.normal(0, 0.02)))
                sha256 = attempt.object_sha256
                trials.append(row(gfx950_space(), attempt.config, Problem(*sizes), time_us, object_sha256=sha256))
        return results(tmp_path / "run", GPU, trials)

    return made


def test_the_clock_of_a_machine_is_found_and_then_modelled(
    measured: Callable[[list[tuple[int, int, int]]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = measured(SHAPES)
    assert main(["calibrate", str(directory), "--workers", "1"]) == DONE
    said = capsys.readouterr().out
    assert "not identified" in said
    assert "pairs ordered wrong" in said
    assert f"{2 * len(SHAPES)} measured trials" in said
    found = read_calibration(directory)
    assert (found.of, found.board, found.rows, found.shapes) == ("clock", "mi350x", 2 * len(SHAPES), len(SHAPES))
    assert found.error_after < 0.03 < found.error_before
    rates = calibrated_rates(MI350X, found)
    for (share, ghz), (_, wanted) in zip(rates.clock_ghz[:3], TRUTH.clock_ghz[:3], strict=True):
        assert ghz == pytest.approx(wanted, rel=0.08), share
    for name, value in found.constants.items():
        before, wanted = (constants_of(of, [name])[name] for of in (MI350XS, TRUTH))
        assert value == before or value == pytest.approx(wanted, rel=0.1), f"{name} stays, or is found"
    bench = EmulatedBench(DEFAULT_SPACE, 0, Settings.from_environment(os.environ), board=MI350X, calibration=found)
    assert bench.identity.name == f"emulated MI350X as calibrated {found.id}"


def test_trials_of_one_class_leave_the_rest_and_too_few_leave_everything(
    measured: Callable[[list[tuple[int, int, int]]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = measured([(256, 256, 512), (256, 512, 512)])
    assert main(["calibrate", str(directory), "--workers", "1"]) == FAILED
    assert "these trials identify no constant" in capsys.readouterr().out
    assert not (directory / "calibration.json").exists()


def test_other_code_than_was_measured_is_left_out(
    measured: Callable[[list[tuple[int, int, int]]], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [replace(each, object_sha256="0" * 64) for each in measured_rows(measured(SHAPES[:2]))]
    directory = results(tmp_path / "other", GPU, rows)
    assert main(["calibrate", str(directory), "--workers", "1"]) == BAD_INPUT
    assert "no measured kernel can be proved here: 4 of other code than" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said_after_what_was_found(
    measured: Callable[[list[tuple[int, int, int]]], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()
    assert main(["calibrate", str(measured(SHAPES[:12])), "--workers", "1", "-o", str(tmp_path / "taken")]) == BAD_INPUT
    said = capsys.readouterr()
    assert "clock_step[1]" in said.out
    assert "cannot be written" in said.err.splitlines()[-1]


def test_one_row_counts_of_a_kernel_on_a_problem_the_confirmed_one(tmp_path: Path) -> None:
    space, config = gfx950_space(), gfx950_space().config({})
    problems = [Problem(256, 256, 512), Problem(512, 256, 512)]
    plain = [row(space, config, problem, 9.0) for problem in problems]
    confirmed = row(space, config, problems[0], 7.0, stage=Stage.CONFIRMED)
    unusable = [
        row(space, config, Problem(1024, 256, 512), 5.0, cache="warm"),
        row(space, config, Problem(2048, 256, 512), 5.0, source=Source.MODELLED),
    ]
    directory = results(tmp_path, GPU, [*plain, confirmed, replace(plain[0], time_us=8.0), *unusable])
    assert [(each.problem, each.time_us) for each in measured_rows(directory)] == [
        (problems[0], 7.0),
        (problems[1], 9.0),
    ]


def test_a_time_that_is_a_bound_is_none(tmp_path: Path) -> None:
    space, config = gfx950_space(), gfx950_space().config({})
    problems = [Problem(m, 256, 512) for m in (256, 512, 1024)]
    timed = [row(space, config, problem, 9.0) for problem in problems[:2]]
    early = [row(space, config, problem, 5.0, left_early=True) for problem in problems]
    left_out: Counter[str] = Counter()
    found = measured_rows(results(tmp_path, GPU, [early[0], *timed, *early[1:]]), left_out)
    assert [(each.problem, each.time_us) for each in found] == [(problem, 9.0) for problem in problems[:2]]
    assert left_out == {"left early, so that their times are bounds": 1}, "of the others there is a time"


def test_pairs_are_counted_that_are_ordered_the_other_way_round() -> None:
    measured = np.log([1.0, 2.0, 3.0, 3.0])
    assert pairs_wrong(measured, measured) == 0
    assert pairs_wrong(-measured, measured) == 1
    assert pairs_wrong(np.log([2.0, 1.0, 3.0, 4.0]), measured) == pytest.approx(1 / 5), "of five pairs that differ"


def test_rows_are_taken_from_each_shape_in_turn() -> None:
    space, config = gfx950_space(), gfx950_space().config({})
    rows = [
        row(space, config, Problem(m, 256, 512), time)
        for m, time in ((8, 3.0), (8, 1.0), (8, 2.0), (16, 9.0), (16, 8.0))
    ]
    assert [(each.m, each.time_us) for each in in_turn(rows)] == [(8, 1.0), (16, 8.0), (8, 2.0), (16, 9.0), (8, 3.0)]


@pytest.fixture(scope="module")
def sm90a() -> SearchSpace:
    return load_space(SPACE_OF["sm90a"])


def ordered_by(space: SearchSpace, factors: dict[str, float], shapes: list[tuple[int, int, int]]) -> list[Trial]:
    """Times of configs drawn at random, as the estimate has them with constants times `factors`, and a scale of each
    shape's own."""

    other = space.with_estimate(
        {name: round(value * factors.get(name, 1.0)) for name, value in space.estimate_constants.items()}
    )
    rng, errors, trials = random.Random(5), np.random.default_rng(5), []
    configs = dict.fromkeys(space.sample(rng, Problem(*shapes[-1])) for _ in range(24))
    for sizes in shapes:
        problem = Problem(*sizes)
        for config in (config for config in configs if space.is_legal(config, problem)):
            time_us = other.domain(problem).estimate(config) * 1e-3 * float(np.exp(errors.normal(0, 0.03)))
            trials.append(row(space, config, problem, time_us * sizes[0] ** 0.1))
    return trials


def test_an_estimates_constants_are_found_by_the_order_that_they_make(
    sm90a: SearchSpace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = [(m, n, k) for m in (64, 4096) for n in (1024, 6144) for k in (1024, 8192)]
    factors = {"l2_elements_per_kilocycle": 0.6}
    directory = results(tmp_path / "run", H200, ordered_by(sm90a, factors, shapes))
    assert main(["calibrate", str(directory), "-o", str(tmp_path / "h200.json")]) == DONE
    said = capsys.readouterr().out
    assert "pairs ordered wrong" in said
    found = read_calibration(tmp_path / "h200.json")
    assert (found.of, found.space, found.device) == ("estimate", sm90a.name, "NVIDIA H200 10de:2335:18be")
    # Only ratios decide an order: what matters is the one of two constants.
    constants, names = sm90a.estimate_constants, ("l2_elements_per_kilocycle", "device_elements_per_kilocycle")
    ratio, before = (of[names[0]] / of[names[1]] for of in (found.constants, constants))
    assert ratio == pytest.approx(0.6 * before, rel=0.1)
    assert "trials are left out" not in said
    after = sm90a.with_estimate({name: round(value) for name, value in found.constants.items()})
    assert after.estimate_constants != constants


def test_bounds_do_not_pull_an_estimates_constants(
    sm90a: SearchSpace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The slower half of each shape was left early, all of it at the time of the one in the middle: as times these
    would say that what is slow by the estimate is not."""
    shapes = [(m, n, k) for m in (64, 4096) for n in (1024, 6144) for k in (1024, 8192)]
    trials = ordered_by(sm90a, {"l2_elements_per_kilocycle": 0.6}, shapes)
    middle = {problem: float(np.median([each.time_us for each in own])) for problem, own in by_problem(trials).items()}
    rows = [
        each
        if each.time_us is not None and each.time_us <= middle[each.problem]
        else replace(each, time_us=middle[each.problem], left_early=True)
        for each in trials
    ]
    directory = results(tmp_path / "run", H200, rows)
    assert main(["calibrate", str(directory), "-o", str(tmp_path / "h200.json")]) == DONE
    early = sum(each.left_early for each in rows)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{early} trials are left out: left early, so that their times are bounds" in said
    found, constants = read_calibration(tmp_path / "h200.json").constants, sm90a.estimate_constants
    names = ("l2_elements_per_kilocycle", "device_elements_per_kilocycle")
    ratio, before = (of[names[0]] / of[names[1]] for of in (found, constants))
    assert ratio == pytest.approx(0.6 * before, rel=0.1)


def calibration(**fields: object) -> Calibration:
    made = {
        "of": "clock", "arch": "gfx950", "board": "mi350x", "device": "a GPU", "rows": 9, "shapes": 3,
        "error_before": 0.1, "error_after": 0.05, "constants": {"launch_us": 2.0},
        "clock_ghz": MI350XS.clock_ghz, "hktune": "0.1.0", "made_at": "now",
    }  # fmt: skip
    return msgspec.convert(msgspec.to_builtins({**made, **fields}), Calibration)


def test_a_calibration_survives_its_file_and_is_named_by_its_constants(tmp_path: Path) -> None:
    one = calibration()
    write_calibration(one, tmp_path / "calibration.json")
    assert read_calibration(tmp_path) == read_calibration(tmp_path / "calibration.json") == one
    assert one.id == calibration(device="another GPU").id != calibration(constants={"launch_us": 2.1}).id
    assert calibrated_rates(MI350X, one).launch_us == 2.0
    assert replace(calibrated_rates(MI350X, one), launch_us=MI350XS.launch_us) == MI350XS


def asked(device: str, **options: object) -> RunOptions:
    return RunOptions(Path("shapes.yaml"), device=device, **options)  # type: ignore[arg-type]


def test_a_run_takes_the_calibration_of_what_it_models_or_orders_by(sm90a: SearchSpace) -> None:
    """The clock's on the emulated device, with its board; the estimate's on a GPU."""
    settings, of_clock = Settings.from_environment(os.environ), calibration()
    bench, cluster = asked_bench("emulated", DEFAULT_SPACE, (), asked("emulated"), settings, of_clock)
    assert cluster is None
    assert isinstance(bench, EmulatedBench)
    assert (bench.board, bench.calibration) == (MI350X, of_clock)
    doubled = {"launch_cycles": 7200.0}
    of_estimate = calibration(of="estimate", board=None, space=sm90a.name, constants=doubled, clock_ghz=[])
    own = calibrated_spaces(Spaces([sm90a]), "cuda", of_estimate).own
    assert own.estimate_constants == {**sm90a.estimate_constants, "launch_cycles": 7200}
    assert calibrated_spaces(Spaces([sm90a]), "cuda", None).own is sm90a
    for wrong in (of_clock, calibration(of="estimate", space="another", constants=doubled)):
        with pytest.raises(InputError, match="what orders trials here is the estimate of sm90a_gemm_bf16"):
            calibrated_spaces(Spaces([sm90a]), "cuda", wrong)
    unknown = calibration(of="estimate", space=sm90a.name, constants={"speed": 1.0})
    with pytest.raises(SpaceError, match="has no constant speed: known are multiply_adds_per_kilocycle"):
        calibrated_spaces(Spaces([sm90a]), "cuda", unknown)
    with pytest.raises(InputError, match="--board mi350x is for the emulated device"):
        asked_bench("cuda", SPACE_OF["sm90a"], (), asked("cuda", board="mi350x"), settings, None)


@pytest.mark.parametrize(
    ("words", "fields", "says"),
    [
        (["--board", "mi355x"], {}, "--calibration is of the clock of mi350x: pass --board mi350x"),
        ([], {"of": "estimate", "board": None, "space": "sm90a_gemm_bf16"}, "is of the estimate of sm90a_gemm_bf16"),
        ([], {"constants": {"speed": 1.0}}, "has speed, which is no constant of the clock"),
        ([], {"constants": {"mall_bytes": 1.0}}, "has mall_bytes, which is no constant of the clock"),
        ([], {"clock_ghz": [[0.5, 2.0], [0.4, 1.0]]}, "MFMA shares do not rise"),
        ([], {"board": "mi300x"}, "unknown board 'mi300x'"),
    ],
)
def test_a_calibration_of_something_else_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], fields: dict[str, object], says: str
) -> None:
    write_calibration(calibration(**fields), tmp_path / "c.json")
    given = ["--time", "--problem", "256x256x512", "--calibration", str(tmp_path / "c.json"), *words]
    assert main(["explain", "block_m=256", *given]) == BAD_INPUT
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def changed(**fields: object) -> str:
    return json.dumps({**msgspec.to_builtins(calibration()), **fields})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no such file"),
        ("{", "not what hktune calibrate writes"),
        ('{"of": "clock"}', "not what hktune calibrate writes"),
        (
            json.dumps({**msgspec.to_builtins(calibration()), "constants": {"launch_us": -1}}),
            "not what hktune calibrate writes",
        ),
        (json.dumps({**msgspec.to_builtins(calibration()), "version": 2}), "not what hktune calibrate writes"),
    ],
)
def test_what_is_no_calibration_is_one_line(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(InputError) as refused:
        read_calibration(tmp_path)
    assert says in str(refused.value).lower()
    assert "\n" not in str(refused.value)


def test_trials_that_cannot_be_calibrated_with_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space, config = gfx950_space(), gfx950_space().config({})
    one = row(space, config, Problem(256, 256, 512), 9.0)
    modelled = results(
        tmp_path / "modelled", EmulatedDevice(board=MI355X).identity, [replace(one, source=Source.MODELLED)]
    )
    single = results(tmp_path / "single", GPU, [one])
    nameless = results(tmp_path / "nameless", replace(GPU, name="AMD gfx950", pci_id=None, board=None), [one])
    alone = tmp_path / "alone"
    TrialStore(alone).append(one)
    for words, says in [
        ([tmp_path / "none"], "is no results directory"),
        ([alone], "no environment.json"),
        ([modelled], "its times are modelled"),
        ([single], "1 usable measured trials of 1 shapes"),
        ([single, "--board", "mi355x"], "--board mi355x: the trials are of mi350x"),
        ([nameless], "is not known: pass --board"),
    ]:
        assert main(["calibrate", *map(str, words)]) == BAD_INPUT
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1
