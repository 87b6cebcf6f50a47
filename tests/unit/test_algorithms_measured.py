"""Algorithms of a vendor's library, proved and timed: a stand-in for cuBLASLt on a simulated GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from cublaslt_stand_in import Algorithm, CublasLtStandIn, opened
from simulated_gpu import SimulatedGpu, SimulatedKernel, SimulatedVendor, multiply, torch_without_cuda

from hktune.core.config import Config
from hktune.core.launch import Argument, Launch
from hktune.core.operation import operation_of
from hktune.core.outcome import Failure, Status, Timing
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device import vendor_libraries
from hktune.device.cublaslt import CublasLt
from hktune.device.device import CALL_OPERANDS, PreparedLaunch
from hktune.measure.algorithms import launching
from hktune.measure.arena import OperandSet
from hktune.measure.measured import MeasuredStopwatch
from hktune.measure.scaled_baseline import multiply_scaled
from hktune.measure.stopwatch import Attempt, attempt_of_algorithm
from hktune.template import Template, Templates
from hktune.verify.algorithm_proof import AlgorithmProof
from hktune.verify.proof import Proof
from hktune.workers.gpu_service import GpuService, Serving
from hktune.workers.gpu_worker import NameAlgorithms, Prove

TEXTS = ("bf16.nt", "f16.nn+bias", "bf16.tn->f32+accumulate", "bf16.nt+accumulate", "f16.tt")
TEXTS_OF_8_BITS = (
    *("e4m3.nt.rows->bf16", "e4m3.nt.tensor->f16+bias", "e5m2*e4m3.nt.rows.fast->f32+accumulate", "i8.nt->i32"),
    "e4m3*e5m2.nt.tensor->bf16",
)
PROBLEM = Problem(64, 64, 128)
VENDOR_US = 60.0
RIGHT, WRONG = Algorithm(), Algorithm(factor=1.01)


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with torch_without_cuda(monkeypatch):
        yield


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[CublasLtStandIn]:
    with opened(CublasLtStandIn((RIGHT, WRONG, Algorithm(4096))), monkeypatch) as library:
        yield library


def outcomes(problem: Problem) -> list[Proof | Failure]:
    library = CublasLt()
    proof = AlgorithmProof(problem, seed=0, torch_device="cpu")
    return [proof.proved(launching(library, each, problem)) for each in library.algorithms(problem)]


@pytest.mark.parametrize("text", [*TEXTS, *TEXTS_OF_8_BITS])
def test_right_algorithms_are_proved_and_wrong_ones_are_not(stand_in: CublasLtStandIn, text: str) -> None:
    right, wrong, with_workspace = outcomes(Problem(40, 72, 96, operation_of(text)))
    for proof in (right, with_workspace):
        assert isinstance(proof, Proof), proof
        assert (-1 if text.endswith("i32") else 0) < proof.relative_error < 2.0**-7
    assert isinstance(wrong, Failure)
    assert wrong.status is Status.WRONG
    assert "elements wrong; first at [" in wrong.detail


@pytest.mark.parametrize(
    "text",
    [
        "e4m3.nt.rows->f32+bias", "e4m3.nt.blocks->bf16", "e5m2.nt.tensor->f32", "i8.nt.rows->bf16", "i8.nt->f32",
        "e4m3.nn.rows->bf16", "mxfp8.nt->bf16",
    ],
)  # fmt: skip
def test_what_the_library_does_not_compute_it_is_not_asked_for(stand_in: CublasLtStandIn, text: str) -> None:
    assert not CublasLt().algorithms(Problem(40, 72, 96, operation_of(text)))
    assert not stand_in.made


def test_a_second_rounding_is_caught(stand_in: CublasLtStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """By parts of K that are rounded to C's format before they are added, as a library may do it."""
    stand_in.algorithms = (RIGHT,)

    def in_two_parts(self: CublasLtStandIn, handle: Any, operation: Any, *rest: Any) -> int:
        _, a, a_layout, b, b_layout, _, _, _, d, d_layout, *_ = rest
        said = self.objects[operation.value]
        left, right = self._operand(a_layout, a, said[3]), self._operand(b_layout, b, said[4])
        half = left.shape[1] // 2
        out = self.objects[d_layout.value]
        parts = [(left[:, part] @ right[part]).to(out.dtype) for part in (slice(half), slice(half, None))]
        out.at(d.value).copy_(parts[0] + parts[1])
        return 0

    monkeypatch.setattr(CublasLtStandIn, "cublasLtMatmul", in_two_parts)
    [outcome] = outcomes(Problem(40, 72, 96))
    assert isinstance(outcome, Failure)
    assert outcome.status is Status.WRONG


def test_what_is_not_written_is_seen(stand_in: CublasLtStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CublasLtStandIn, "cublasLtMatmul", lambda *_: 0)
    outcome = outcomes(Problem(40, 72, 96))[0]
    assert isinstance(outcome, Failure)
    assert "2880 of 2880 elements wrong" in outcome.detail


def test_what_is_written_behind_c_is_seen(stand_in: CublasLtStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    right = CublasLtStandIn.cublasLtMatmul

    def writes_more(self: CublasLtStandIn, *arguments: Any) -> int:
        ctypes.memset(arguments[10].value + 2 * 40 * 72, 0, 6)
        return right(self, *arguments)

    monkeypatch.setattr(CublasLtStandIn, "cublasLtMatmul", writes_more)
    outcome = outcomes(Problem(40, 72, 96))[0]
    assert isinstance(outcome, Failure)
    assert outcome.detail.endswith("3 elements written outside C")


def test_parts_of_a_large_c_are_judged_as_the_whole(stand_in: CublasLtStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hktune.verify.algorithm_proof.PART_ELEMENTS", 72 * 7)
    for text in TEXTS:
        right, wrong, _ = outcomes(Problem(40, 72, 96, operation_of(text)))
        assert isinstance(right, Proof), right
        assert isinstance(wrong, Failure)


@dataclass
class SimulatedLibrary:
    """Algorithms of the stand-in whose launches take `times_us`, in the order of its list, on a simulated GPU."""

    gpu: SimulatedGpu
    library: CublasLt
    times_us: Sequence[float]
    name: str = "cublasLt"

    @property
    def version(self) -> str:
        return self.library.version

    def algorithms(self, problem: Problem) -> Sequence[VendorAlgorithm]:
        return self.library.algorithms(problem)

    def refusal(self, algorithm: VendorAlgorithm, problem: Problem) -> str | None:
        return self.library.refusal(algorithm, problem)

    def prepare(
        self, algorithm: VendorAlgorithm, problem: Problem, operands: Sequence[str] = CALL_OPERANDS
    ) -> PreparedLaunch:
        launch = self.library.prepare(algorithm, problem, operands)
        time_us = self.times_us[list(self.algorithms(problem)).index(algorithm)]
        return lambda *given: self.gpu.queue(time_us, lambda: launch(*given))


class Launches:
    """The one thing that a stopwatch asks of a template."""

    def launch(self, config: Config, problem: Problem) -> Launch:
        pointers = tuple(Argument(name, "pointer") for name in ("a", "b", "c"))
        return Launch((1, 1, 1), (64, 1, 1), 0, pointers)


def kernel(time_us: int) -> Attempt:
    return Attempt(Config({"us": time_us}), object_sha256="0" * 64)


def stopwatch_with(*times_us: float) -> tuple[MeasuredStopwatch, list[Attempt]]:
    """A stopwatch, and an attempt of each algorithm."""
    gpu = SimulatedGpu()
    library = SimulatedLibrary(gpu, CublasLt(), times_us)

    def loaded(attempt: Attempt) -> SimulatedKernel:
        return SimulatedKernel("gemm", multiply, float(attempt.config["us"]))

    stopwatch = MeasuredStopwatch(
        gpu, Templates(cast("Template", Launches())), loaded, [SimulatedVendor(gpu, VENDOR_US)], [PROBLEM],
        libraries={"cublasLt": library},
    )  # type: ignore[arg-type]  # fmt: skip
    return stopwatch, [attempt_of_algorithm(each, PROBLEM.operation) for each in library.algorithms(PROBLEM)]


def test_an_algorithm_is_timed_as_a_kernel_is(stand_in: CublasLtStandIn) -> None:
    stopwatch, (right, wrong, with_workspace) = stopwatch_with(50.0, 10.0, 40.0)
    for attempt, time_us in ((right, 50.0), (with_workspace, 40.0)):
        timing = stopwatch.time(attempt, PROBLEM)
        assert isinstance(timing, Timing), timing
        assert timing.time_us == pytest.approx(time_us)
    outcome = stopwatch.time(wrong, PROBLEM)
    assert isinstance(outcome, Failure)
    assert outcome.status is Status.WRONG


@dataclass
class IntegerVendor:
    """Baseline: torch's product of integers on a simulated GPU."""

    gpu: SimulatedGpu
    name: str = "cublas"

    def prepare(self, problem: Problem, operands: OperandSet, stream: int) -> Callable[[OperandSet], None]:
        del operands, stream
        return lambda given: self.gpu.queue(VENDOR_US, lambda: multiply_scaled(problem.operation, given))


def test_an_output_of_integers_which_has_no_nan_is_seen_to_be_written(
    stand_in: CublasLtStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, gpu = Problem(64, 64, 128, operation_of("i8.nt->i32")), SimulatedGpu()
    library = SimulatedLibrary(gpu, CublasLt(), (50.0, 10.0, 40.0))
    stopwatch = MeasuredStopwatch(
        gpu, Templates(cast("Template", Launches())), lambda _: pytest.fail("a kernel"), [IntegerVendor(gpu)],
        [problem], libraries={"cublasLt": library},
    )  # type: ignore[arg-type]  # fmt: skip
    right, *_ = (attempt_of_algorithm(each, problem.operation) for each in library.algorithms(problem))
    timing = stopwatch.time(right, problem)
    assert isinstance(timing, Timing), timing
    assert timing.time_us == pytest.approx(50.0)
    monkeypatch.setattr(CublasLtStandIn, "cublasLtMatmul", lambda *_: 0)
    outcome = stopwatch.time(right, problem)
    assert isinstance(outcome, Failure)
    assert "4096 of 4096 elements differ" in outcome.detail


def test_finalists_of_both_kinds_share_rounds_and_the_vendors_best_is_among_them(stand_in: CublasLtStandIn) -> None:
    stopwatch, (right, _, with_workspace) = stopwatch_with(50.0, 10.0, 40.0)
    confirmation = stopwatch.confirm([kernel(38), with_workspace], PROBLEM, [(str(right.algorithm), right)])
    first, second = confirmation.finalists
    assert isinstance(first, Timing)
    assert isinstance(second, Timing)
    assert (first.time_us, second.time_us) == (pytest.approx(38.0), pytest.approx(40.0))
    assert first.vendor_best == str(with_workspace.algorithm)
    assert first.vendor_best_us == pytest.approx(40.0)
    assert confirmation.rivals == pytest.approx({str(right.algorithm): 1.2})


def test_an_algorithm_of_a_library_that_is_not_here_fails_alone(stand_in: CublasLtStandIn) -> None:
    stopwatch, (right, *_) = stopwatch_with(50.0, 10.0, 40.0)
    stopwatch._libraries = {}
    outcome = stopwatch.time(right, PROBLEM)
    assert isinstance(outcome, Failure)
    assert "needs cublasLt, the vendor's libraries here are: none" in outcome.detail


def test_the_process_with_the_gpu_names_and_proves_them(
    stand_in: CublasLtStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vendor_libraries, "_OPENERS", {"cuda": {"cublasLt": lambda settings: CublasLt()}})
    service = GpuService("cuda", tmp_path, lambda: None, (PROBLEM,), Settings(tmp_path))  # type: ignore[arg-type,return-value]
    serving = Serving(SimulatedGpu(), Templates(cast("Template", Launches())), None, service)  # type: ignore[arg-type]
    named = serving(NameAlgorithms(PROBLEM)).value
    assert isinstance(named, tuple)
    assert [each.workspace_bytes for each in named] == [0, 0, 4096]
    proved = [serving(Prove(attempt_of_algorithm(each, PROBLEM.operation), PROBLEM)).value for each in named]
    statuses = [each.failure and each.failure.status for each in proved if isinstance(each, Attempt)]
    assert statuses == [None, Status.WRONG, None]
