"""Kernels of rivals on a GPU: proved there first, then sides of the confirming rounds next to the vendor's library.

The GPU is a simulated one, or the emulator behind a stand-in for AMD's runtime: no AMD GPU has run this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from fakes import InstantExecutor
from hip_stand_in import StandIn
from naive_gemm import OBJECT, SHA256
from simulated_gpu import (
    SimulatedGpu,
    SimulatedKernel,
    SimulatedVendor,
    fault,
    multiply,
    multiply_less,
    refuse,
    torch_without_cuda,
)
from test_object_template import SPACE, TEMPLATE

from hktune.compile import compiler_for
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.errors import InputError, MachineError
from hktune.core.launch import Argument, Launch
from hktune.core.operation import BF16_NT_BIAS, operation_of
from hktune.core.outcome import Failure, Status, Timing
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE
from hktune.device.hip import HipDevice
from hktune.measure.measured import MeasuredStopwatch
from hktune.measure.stopwatch import Attempt
from hktune.space import load_space
from hktune.template import Template, Templates
from hktune.tuning import rivals
from hktune.tuning.begun_run import _rivals
from hktune.tuning.benches.contract import OpenBench
from hktune.tuning.benches.gpu_bench import GpuBench
from hktune.tuning.rival_sides import RivalSides
from hktune.tuning.rivals import AITER, RIVALS, chosen_rivals
from hktune.tuning.run_options import RunOptions
from hktune.verify import Proof, verify

PROBLEM, MEASURED = Problem(64, 256, 512), Problem(64, 64, 128)


class Launches:
    """A template of which nothing but its launch is asked."""

    def launch(self, config: object, problem: Problem) -> Launch:
        del config
        arguments = tuple(Argument(name, "pointer") for name in ("a", "b", "c"))
        return Launch((1, 1, 1), (64, 1, 1), 0, arguments, operation=problem.operation)


LAUNCHES = cast("Template", Launches())
LIBRARY_US = 60.0


def kernel(what: str, time_us: int) -> Attempt:
    return Attempt(Config({"kernel": what, "us": time_us}), object_sha256="0" * 64)


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Iterator[MeasuredStopwatch]:
    computes = {"right": multiply, "wrong": multiply_less, "refused": refuse, "lost": fault}
    gpu = SimulatedGpu()

    def loaded(attempt: Attempt) -> SimulatedKernel:
        return SimulatedKernel("gemm", computes[str(attempt.config["kernel"])], float(attempt.config["us"]))

    vendors = [SimulatedVendor(gpu, LIBRARY_US), SimulatedVendor(gpu, 50.0, "another library")]
    with torch_without_cuda(monkeypatch):
        yield MeasuredStopwatch(gpu, Templates(LAUNCHES), loaded, vendors, [MEASURED])  # type: ignore[arg-type]


def test_the_fastest_of_library_and_rivals_is_named(stopwatch: MeasuredStopwatch) -> None:
    sides = [("AITER: kernel=x", kernel("right", 45)), ("AITER: kernel=y", kernel("right", 48))]
    confirmation = stopwatch.confirm([kernel("right", 40)], MEASURED, sides)
    [timing] = confirmation.finalists
    assert isinstance(timing, Timing)
    assert (timing.baseline_us, timing.vendor_best) == (pytest.approx(LIBRARY_US), "AITER: kernel=x")
    assert (timing.time_us, timing.vendor_best_us) == (pytest.approx(40.0), pytest.approx(45.0))
    expected = {"another library": 1.2, "AITER: kernel=x": 60 / 45, "AITER: kernel=y": 60 / 48}
    assert confirmation.rivals == pytest.approx(expected)


@pytest.mark.parametrize("what", ["wrong", "refused"])
def test_a_rival_that_is_wrong_here_has_no_say(stopwatch: MeasuredStopwatch, what: str) -> None:
    confirmation = stopwatch.confirm([kernel("right", 40)], MEASURED, [("AITER: kernel=x", kernel(what, 10))])
    [timing] = confirmation.finalists
    assert isinstance(timing, Timing)
    assert timing.vendor_best == "another library"
    assert list(confirmation.rivals) == ["another library"]


class Works:
    """An open bench that proves at once; `failing` names configs that are wrong."""

    def __init__(self, failing: frozenset[str] = frozenset()) -> None:
        wrong = Failure(Status.WRONG, "C[0, 0]")
        self.executor = InstantExecutor(2, lambda config: wrong if config["kernel"] in failing else None)


@pytest.fixture
def all_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "is_here", lambda *_: True)


@pytest.mark.usefixtures("all_here")
class TestSides:
    def sides(self, work: Works, tmp_path: Path) -> RivalSides:
        return RivalSides([AITER], cast("OpenBench", work), Settings(tmp_path))

    def test_they_are_the_best_few_of_each_space_that_computes_the_very_product(self, tmp_path: Path) -> None:
        sides, spaces = self.sides(Works(), tmp_path), [load_space(path) for path in AITER.spaces]
        found = sides.of(PROBLEM)
        small = [f"AITER: kernel=pf3_{m}" for m in (32, 48, 64, 96)]
        assert sorted(name for name, _ in found) == ["AITER: kernel=large", *small]
        assert {attempt.template for _, attempt in found} == {space.template.sha256 for space in spaces[:2]}
        assert {str(attempt.operation) for _, attempt in found} == {"bf16.nt"}
        biased = sides.of(replace(PROBLEM, operation=BF16_NT_BIAS))
        assert sorted(name for name, _ in biased) == small
        assert sides.of(replace(PROBLEM, n=100)) == [], "no whole tiles"
        assert sides.of(replace(PROBLEM, operation=operation_of("f16.nt"))) == []
        assert not sides.trouble

    def test_what_adds_to_c_is_left_out(self, tmp_path: Path) -> None:
        wide = replace(PROBLEM, operation=operation_of("bf16.nt->f32"))
        found = self.sides(Works(), tmp_path).of(wide)
        template = load_space(AITER.spaces[3]).template.sha256
        assert [dict(each.config)["split_k"] for _, each in found if each.template == template] == [1] * 4

    def test_each_is_proved_once(self, tmp_path: Path) -> None:
        work = Works()
        sides = self.sides(work, tmp_path)
        sides.of(PROBLEM)
        proved = len(work.executor.submitted)
        sides.of(replace(PROBLEM, m=96))
        assert (proved, len(work.executor.submitted)) == (5, 5)

    def test_one_that_is_wrong_is_named_and_not_measured(self, tmp_path: Path) -> None:
        sides = self.sides(Works(frozenset({"pf3_32"})), tmp_path)
        assert "AITER: kernel=pf3_32" not in dict(sides.of(PROBLEM))
        assert sides.trouble == ["AITER: kernel=pf3_32 is not raced: wrong: C[0, 0]"]

    def test_what_cannot_be_proved_stops_nothing(self, tmp_path: Path) -> None:
        def broken(_: object) -> None:
            raise MachineError("no disk: free some")

        sides = self.sides(Works(), tmp_path)
        sides._work.executor.submit = broken  # type: ignore[method-assign]
        assert sides.of(PROBLEM) == []
        assert sides.trouble == ["kernels of rivals could not be proved: no disk: free some"]

    def test_a_candidate_is_no_rival_too(self, tmp_path: Path) -> None:
        own, settings = load_space(DEFAULT_SPACE), Settings(tmp_path)
        chosen = RunOptions(Path("shapes.yaml"), rivals=("aiter",), candidates=("gfx950_aiter_bf16_large",))
        [left] = _rivals(chosen, "hip", own, settings)
        assert left.spaces == AITER.spaces[1:]
        assert _rivals(replace(chosen, candidates=("aiter",)), "hip", own, settings) == []
        [raced] = _rivals(chosen, "emulated", own, settings)
        assert raced == AITER, "a model's times are alike, whenever they are made"


def test_rivals_are_for_their_architecture_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "is_here", lambda *_: True)
    assert chosen_rivals(None, Settings(tmp_path), "sm90a") == []
    assert chosen_rivals(None, Settings(tmp_path), "gfx950") == list(RIVALS.values())
    with pytest.raises(InputError, match="AITER's kernels are for gfx950, this is sm90a: leave it out"):
        chosen_rivals(("aiter",), Settings(tmp_path), "sm90a")


@pytest.fixture
def naive(tmp_path: Path) -> Path:
    """A space whose kernel is a file with its arguments by offset."""
    folder = tmp_path / "kernels" / "gfx950" / "naive"
    folder.mkdir(parents=True)
    (folder / "naive_gemm.hsaco").write_bytes(OBJECT)
    (folder / "template.yaml").write_text(TEMPLATE.replace("SHA256", SHA256))
    path = tmp_path / "search_spaces" / "naive.yaml"
    path.parent.mkdir()
    path.write_text(SPACE)
    return path


def test_a_described_kernel_is_right_through_amds_interface(naive: Path, stand_in: StandIn, tmp_path: Path) -> None:
    """On the stand-in for libamdhip64, whose launches the emulator runs with the argument bytes that arrive."""
    space = load_space(naive)
    variant = space.template.render(space.config({}))
    code = compiler_for("object", Settings(tmp_path / "cache")).compile(variant, 1.0)
    assert not isinstance(code, Failure)
    device = HipDevice(0, stand_in.rocm_path)
    loaded = device.load(code.data, code.symbol)
    for proof in space.template.proof_problems(space.config({})):
        launch = space.template.launch(space.config({}), proof.problem)
        assert isinstance(verify(device, loaded, launch, proof.problem, seed=1, exact_sums=proof.exact_sums), Proof)


def test_a_bench_of_a_gpu_has_what_its_other_spaces_need(naive: Path, tmp_path: Path) -> None:
    """The compiling workers, and the process that owns the GPU, find the template and the compiler of each candidate;
    a line that shows a failure again names its space."""
    bench = GpuBench("hip", DEFAULT_SPACE, 0, Settings(tmp_path / "cache"), others=(naive,))
    space = load_space(naive)
    named = Candidate(space.config({}), space.template.operation, space.template.sha256)
    attempt = bench()(named)
    assert (attempt.object_sha256, attempt.template, attempt.failure) == (SHA256, named.template, None)
    assert f"--space {naive} kernel=naive" in bench._reproduce(named, None)
