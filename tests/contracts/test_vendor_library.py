"""The contract of `VendorLibrary`, run on every implementation that works on this machine.

An implementation subclasses `VendorLibraryContract`, with the fixtures `library`, `again` (the same library, opened
anew), and on a GPU `where` and `run`.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pytest
import torch
from activation_truths import TORCH
from cublaslt_stand_in import Algorithm, CublasLtStandIn, opened

from hktune.core.errors import DeviceError
from hktune.core.operand import factors_of, operands_of
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device.cublaslt import CublasLt
from hktune.device.device import CALL_OPERANDS
from hktune.device.opening import find_device
from hktune.device.vendor_library import VendorLibrary

TEXTS = (
    *("bf16.nt", "bf16.nn", "bf16.tn", "bf16.tt", "f16.nt", "bf16.nt+bias", "f16.nn+bias"),
    *("bf16.nt->f32", "f16.tn->f32+accumulate", "bf16.nt+accumulate"),
)
PROBLEMS = tuple(Problem(24, 40, 72, operation_of(text)) for text in TEXTS)
FINISHED = tuple(
    Problem(24, 40, 72, operation_of(text))
    for text in (
        *("bf16.nt+relu", "f16.nn+gelu_tanh", "bf16.nn+bias+relu", "bf16.nt+bias+gelu_tanh"),
        *("bf16.nt+residual", "f16.nn+bias+residual"),
    )
)
"""What NVIDIA's library does, and AMD's are not asked for."""
PLAIN, BIASED = PROBLEMS[0], Problem(24, 40, 72, operation_of("bf16.nt+bias"))
Tensors = Mapping[str, torch.Tensor]
Run = Callable[[Callable[[], None]], None]


def tensors(problem: Problem, seed: int = 0, where: str = "cpu") -> dict[str, torch.Tensor]:
    """Standard normal inputs; C holds such numbers where it is read, and NaN where it is not."""
    random = torch.Generator().manual_seed(seed)
    made = {}
    for name, operand in operands_of(problem.operation).items():
        dtype = getattr(torch, operand.dtype.torch_name)
        made[name] = torch.randn(operand.shape(problem.sizes), generator=random).to(dtype).to(where)
    if not problem.operation.accumulates:
        made["c"].fill_(float("nan"))
    return made


def exact(problem: Problem, given: Tensors) -> torch.Tensor:
    """What C must be, in float64, from what the tensors hold now."""
    a, b = factors_of(problem.operation, {name: tensor.double() for name, tensor in given.items()})
    added = [given[name].double() for name, used in ADDED.items() if used in problem.operation.epilogue]
    total = sum(added, a @ b)
    for activation in problem.operation.activations:
        total = TORCH[activation](total)
    return total


ADDED = {"bias": "bias", "c": "accumulate", "residual": "residual"}


def launch(
    library: VendorLibrary, algorithm: VendorAlgorithm, problem: Problem, stream: int | None, where: str = "cpu"
) -> Callable[[Tensors], None]:
    """One launch on any tensors of `problem`, with a workspace of just what the algorithm needs, full of rubbish at
    first."""
    prepared = library.prepare(algorithm, problem, (*CALL_OPERANDS, "residual"))
    size_bytes = algorithm.workspace_bytes
    workspace = torch.full((size_bytes,), 0xFF, dtype=torch.uint8, device=where)

    def launched(given: Tensors) -> None:
        own = {**given, "workspace": workspace if size_bytes else None}
        prepared(*(own.get(name) for name in (*CALL_OPERANDS, "residual")), stream)

    return launched


class VendorLibraryContract:
    """What any library does."""

    problems: tuple[Problem, ...] = PROBLEMS
    atol = 1e-3
    uncomputed = ("e4m3.nt.rows->bf16", "mxfp4.nt->bf16")

    @pytest.fixture
    def where(self) -> str:
        return "cpu"

    @pytest.fixture
    def stream(self) -> int | None:
        return None

    @pytest.fixture
    def run(self) -> Run:
        return lambda enqueue: enqueue()

    @pytest.fixture
    def some(self, library: VendorLibrary) -> VendorAlgorithm:
        return library.algorithms(PLAIN)[0]

    def test_its_algorithms_are_its_own_each_once_and_always_the_same(
        self, library: VendorLibrary, again: VendorLibrary
    ) -> None:
        for problem in self.problems:
            named = list(library.algorithms(problem))
            assert named
            assert len(set(named)) == len(named)
            assert all((each.library, each.version) == (library.name, library.version) for each in named)
            assert named == list(library.algorithms(problem)) == list(again.algorithms(problem))

    def test_what_it_names_it_takes_back_from_a_file(self, library: VendorLibrary, again: VendorLibrary) -> None:
        for problem in self.problems:
            for each in library.algorithms(problem):
                assert again.refusal(VendorAlgorithm.of_config(each.config), problem) is None

    def test_every_algorithm_computes_the_product(
        self, library: VendorLibrary, where: str, stream: int | None, run: Run
    ) -> None:
        for problem in self.problems:
            for each in library.algorithms(problem):
                go = launch(library, each, problem, stream, where)
                for seed in (1, 2):
                    given = tensors(problem, seed, where)
                    right = exact(problem, given)
                    kept = {name: tensor.clone() for name, tensor in given.items() if name != "c"}
                    run(lambda go=go, given=given: go(given))
                    torch.testing.assert_close(given["c"].double(), right, rtol=2.0**-7, atol=self.atol)
                    assert all(torch.equal(was, given[name]) for name, was in kept.items())

    def test_another_version_and_another_library_are_refused(
        self, library: VendorLibrary, some: VendorAlgorithm
    ) -> None:
        older = replace(some, version="1.2.3")
        said = f"saved={library.name} 1.2.3 current={library.name} {library.version}"
        assert said in (library.refusal(older, PLAIN) or "")
        other = next(name for name in ("cublasLt", "rocBLAS") if name != library.name)
        assert f"saved={other} " in (library.refusal(replace(some, library=other), PLAIN) or "")
        with pytest.raises(DeviceError, match=r"saved=.* current="):
            library.prepare(older, PLAIN)

    def test_an_algorithm_that_it_did_not_name_is_refused(self, library: VendorLibrary, some: VendorAlgorithm) -> None:
        for made_up in (
            replace(some, handle="0" * len(some.handle)),
            replace(some, handle="f" * 256),
            replace(some, handle="7"),
            replace(some, workspace_bytes=some.workspace_bytes + 1),
            replace(some, workspace_bytes=1 << 30),
        ):
            said = library.refusal(made_up, PLAIN)
            assert said
            assert said.isprintable()
            with pytest.raises(DeviceError):
                library.prepare(made_up, PLAIN)

    def test_what_it_does_not_compute_has_no_algorithms(self, library: VendorLibrary, some: VendorAlgorithm) -> None:
        for text in self.uncomputed:
            problem = Problem(128, 128, 128, operation_of(text))
            assert list(library.algorithms(problem)) == []
            assert library.refusal(some, problem)

    def test_threads_launch_at_once(self, library: VendorLibrary, where: str, stream: int | None, run: Run) -> None:
        """With biases of their own, which are part of what the library is told of an operation."""
        if BIASED not in self.problems:
            pytest.skip("it adds no bias")
        go = launch(library, library.algorithms(BIASED)[0], BIASED, stream, where)
        sets = [tensors(BIASED, seed, where) for seed in range(8)]

        def often(given: Tensors) -> None:
            for _ in range(20):
                go(given)

        threads = [threading.Thread(target=often, args=(given,)) for given in sets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run(lambda: None)
        for given in sets:
            torch.testing.assert_close(given["c"].double(), exact(BIASED, given), rtol=2.0**-7, atol=self.atol)


class TestCublasLt(VendorLibraryContract):
    problems = (*PROBLEMS, *FINISHED)
    uncomputed = ("e4m3.nt.blocks->bf16", "e5m2.nt.tensor->bf16", "mxfp4.nt->bf16", "bf16.nt+silu", "bf16.nt+bias+gelu")

    @pytest.fixture
    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[CublasLtStandIn]:
        with opened(CublasLtStandIn(), monkeypatch) as library:
            yield library

    @pytest.fixture
    def library(self, stand_in: CublasLtStandIn) -> CublasLt:
        return CublasLt()

    @pytest.fixture
    def again(self, stand_in: CublasLtStandIn) -> CublasLt:
        return CublasLt()

    def test_algorithms_of_all_workspaces_are_found(self, library: CublasLt) -> None:
        assert [each.workspace_bytes for each in library.algorithms(PLAIN)] == [32 << 20, 0, 4096]

    def test_those_that_need_more_alignment_than_operands_have_are_not(
        self, library: CublasLt, stand_in: CublasLtStandIn
    ) -> None:
        stand_in.algorithms = (Algorithm(alignment=256), Algorithm(alignment=16))
        assert [each.name for each in library.algorithms(PLAIN)] == ["id=101"]

    def test_each_launches_its_own(self, library: CublasLt, stand_in: CublasLtStandIn) -> None:
        for place, each in enumerate(library.algorithms(PLAIN)):
            launch(library, each, PLAIN, 1)(tensors(PLAIN))
            assert stand_in.used.pop() == place

    def test_what_the_librarys_own_check_refuses_is_refused(self, library: CublasLt, stand_in: CublasLtStandIn) -> None:
        before = library.algorithms(BIASED)[0]
        stand_in.algorithms = (Algorithm(checks=15), Algorithm())
        [each] = library.algorithms(PLAIN)
        assert each.name == "id=101"
        assert "is none of the 1 that" in (library.refusal(before, PLAIN) or "")

    def test_an_algorithm_is_checked_before_it_is_launched(self, library: CublasLt, stand_in: CublasLtStandIn) -> None:
        go = launch(library, library.algorithms(PLAIN)[1], PLAIN, 1)
        assert set(stand_in.checked) == {0, 1, 2}
        go(tensors(PLAIN))
        assert stand_in.used == [1]

    def test_it_has_the_workspace_that_the_check_wants(self, library: CublasLt, stand_in: CublasLtStandIn) -> None:
        stand_in.algorithms = (Algorithm(workspace_bytes=4, said_bytes=0), Algorithm(workspace_bytes=0, said_bytes=64))
        assert [each.workspace_bytes for each in library.algorithms(PLAIN)] == [4, 64]
        for each in library.algorithms(PLAIN):
            given = tensors(PLAIN)
            launch(library, each, PLAIN, 1)(given)
            torch.testing.assert_close(given["c"].double(), exact(PLAIN, given), rtol=2.0**-7, atol=1e-3)

    def test_a_thread_that_ends_leaves_nothing_behind(self, library: CublasLt, stand_in: CublasLtStandIn) -> None:
        go = launch(library, library.algorithms(BIASED)[0], BIASED, 1)
        go(tensors(BIASED))
        before = len(stand_in.objects)
        thread = threading.Thread(target=go, args=(tensors(BIASED),))
        thread.start()
        thread.join()
        gc.collect()
        assert len(stand_in.objects) == before

    def test_a_library_that_is_not_there_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", "99.0")
        with pytest.raises(DeviceError, match=r"^torch has no cuBLASLt \(.*\): its algorithms cannot be asked for$"):
            CublasLt()


@pytest.mark.skipif(not torch.cuda.is_available() or torch.version.cuda is None, reason="needs an NVIDIA GPU")
class TestCublasLtOnGpu(VendorLibraryContract):
    """The library itself, each launch captured and replayed."""

    problems = tuple(Problem(136, 264, 520, problem.operation) for problem in (*PROBLEMS, *FINISHED))
    uncomputed = TestCublasLt.uncomputed
    atol = 2.0**-6 * 520**0.5  # some add parts of a sum in the format of C

    @pytest.fixture(scope="class")
    def library(self) -> CublasLt:
        return CublasLt()

    @pytest.fixture(scope="class")
    def again(self) -> CublasLt:
        return CublasLt()

    @pytest.fixture
    def where(self) -> str:
        return "cuda"

    @pytest.fixture
    def stream(self) -> int | None:
        return find_device().create_stream()  # type: ignore[attr-defined,no-any-return]

    @pytest.fixture
    def run(self, stream: int) -> Run:
        device = find_device()

        def captured(enqueue: Callable[[], None]) -> None:
            torch.cuda.synchronize()
            device.replay(device.capture(enqueue, stream), stream)  # type: ignore[attr-defined]
            torch.cuda.synchronize()

        return captured
