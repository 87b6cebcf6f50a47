"""AMD's libraries over stand-ins: the contract of `VendorLibrary`, and what is theirs alone."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hipblaslt_stand_in import LONG, SOLUTIONS, HipblasLtStandIn, Solution
from rocblas_stand_in import RocblasStandIn
from test_vendor_library import BIASED, PLAIN, PROBLEMS, VendorLibraryContract, exact, launch, tensors

from hktune.core.errors import DeviceError
from hktune.core.operand import factors_of
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device import hip_library
from hktune.device.device import TimedDevice
from hktune.device.hipblaslt import HipblasLt
from hktune.device.opening import find_device
from hktune.device.rocblas import OWN_CHOICE, Rocblas
from hktune.device.vendor_libraries import open_vendor_library, vendor_libraries
from hktune.device.vendor_library import VendorLibrary

INTEGERS = Problem(24, 40, 64, operation_of("i8.nt->i32"))


def integers(problem: Problem) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    sizes = {"a": (problem.m, problem.k), "b": (problem.n, problem.k)}
    made = {name: torch.randint(-128, 128, size, generator=random, dtype=torch.int8) for name, size in sizes.items()}
    return {**made, "c": torch.full((problem.m, problem.n), -1, dtype=torch.int32)}


class IntegersContract:
    """Products of 8-bit integers are exact."""

    def test_integers_are_summed_exactly(self, library: VendorLibrary) -> None:
        for each in library.algorithms(INTEGERS):
            given = integers(INTEGERS)
            launch(library, each, INTEGERS, None)(given)
            assert torch.equal(given["c"].long(), given["a"].long() @ given["b"].long().T)


class TestRocblas(VendorLibraryContract, IntegersContract):
    problems = tuple(problem for problem in PROBLEMS if not problem.operation.has_bias)
    uncomputed = ("bf16.nt+bias", "e4m3.nt->bf16", "mxfp4.nt->bf16", "bf16.nt->f16", "i8.nt.rows->bf16")

    @pytest.fixture
    def stand_in(self) -> RocblasStandIn:
        return RocblasStandIn()

    @pytest.fixture
    def library(self, stand_in: RocblasStandIn) -> Rocblas:
        return opened(stand_in)

    @pytest.fixture
    def again(self, stand_in: RocblasStandIn) -> Rocblas:
        return opened(stand_in)

    @pytest.fixture
    def some(self, library: Rocblas) -> VendorAlgorithm:
        return library.algorithms(PLAIN)[1]

    def test_its_own_choice_is_first_and_the_others_follow_by_index(self, library: Rocblas) -> None:
        named = library.algorithms(PLAIN)
        assert [each.handle for each in named] == ["00000000", "fffffff9", "00000003"]
        assert [each.name for each in named] == [OWN_CHOICE, "", ""]
        assert {each.workspace_bytes for each in named} == {32 << 20}

    def test_each_launches_its_own_on_the_stream_that_is_given(
        self, library: Rocblas, stand_in: RocblasStandIn
    ) -> None:
        for stream, each in enumerate(library.algorithms(PLAIN)):
            launch(library, each, PLAIN, 5 + stream)(tensors(PLAIN))
            assert stand_in.stream == 5 + stream
        assert stand_in.used == [0, -7, 3]

    def test_a_handle_has_no_memory_of_its_own_when_launches_begin(
        self, library: Rocblas, stand_in: RocblasStandIn
    ) -> None:
        """It would be freed in the first launch with a workspace, which a capture does not allow."""
        del library
        assert stand_in.workspace is not None

    def test_its_handle_goes_with_the_last_launch(self, stand_in: RocblasStandIn) -> None:
        library = opened(stand_in)
        go = launch(library, library.algorithms(PLAIN)[0], PLAIN, None)
        del library
        gc.collect()
        assert stand_in.destroyed == 0
        go(tensors(PLAIN))
        del go
        gc.collect()
        assert stand_in.destroyed == 1

    def test_to_name_and_to_judge_solutions_launches_none(self, library: Rocblas, stand_in: RocblasStandIn) -> None:
        for each in library.algorithms(PLAIN):
            library.prepare(each, PLAIN)
        assert stand_in.used == []

    def test_a_number_that_it_does_not_list_is_none_of_its_solutions(self, library: Rocblas) -> None:
        [*_, some] = library.algorithms(PLAIN)
        said = library.refusal(replace(some, handle="0000000c"), PLAIN) or ""
        assert said == f"rocBLAS 5.2.0.abc solution 12 is none of the 3 solutions that it has for {PLAIN}"

    def test_what_an_older_version_called_otherwise_is_refused(self, stand_in: RocblasStandIn) -> None:
        before = opened(stand_in).algorithms(PLAIN)[2]
        stand_in.version = b"5.3.0.abc"
        said = opened(stand_in).refusal(before, PLAIN)
        assert said == "the algorithm is of another library: saved=rocBLAS 5.2.0.abc current=rocBLAS 5.3.0.abc"

    def test_a_launch_that_it_refuses_is_an_error(self, library: Rocblas, stand_in: RocblasStandIn) -> None:
        go = launch(library, library.algorithms(PLAIN)[1], PLAIN, None)
        stand_in.solutions = ()
        with pytest.raises(DeviceError, match=r"^rocblas_gemm_ex answers 11 \(rocblas_status\): take another solution"):
            go(tensors(PLAIN))


class TestHipblasLt(VendorLibraryContract, IntegersContract):
    uncomputed = ("mxfp4.nt->bf16", "bf16.nt->f16", "i8.nt.rows->bf16", "e4m3.nt.blocks->bf16")

    @pytest.fixture
    def stand_in(self) -> HipblasLtStandIn:
        return HipblasLtStandIn()

    @pytest.fixture
    def library(self, stand_in: HipblasLtStandIn) -> HipblasLt:
        return HipblasLt(stand_in.library)

    @pytest.fixture
    def again(self, stand_in: HipblasLtStandIn) -> HipblasLt:
        return HipblasLt(stand_in.library)

    def test_all_solutions_are_named_the_heuristics_first(self, library: HipblasLt) -> None:
        named = library.algorithms(PLAIN)
        assert [(each.handle, each.name) for each in named] == [
            ("fffffffb", "negative"),
            ("00000427", f"{LONG}_GSU3"),
            ("00000029", "short"),
            ("00016e06", LONG),
        ]
        assert [each.workspace_bytes for each in named] == [0, 4096, 0, 0]
        assert library.version == "1.2.2-5b3f1cd"

    def test_each_launches_its_own_on_the_stream_that_is_given(
        self, library: HipblasLt, stand_in: HipblasLtStandIn
    ) -> None:
        for stream, each in enumerate(library.algorithms(PLAIN)):
            launch(library, each, PLAIN, 5 + stream)(tensors(PLAIN))
            assert stand_in.stream == 5 + stream
        assert stand_in.used == [-5, 1063, 41, 93702]

    @pytest.mark.parametrize("scales", ["", ".tensor", ".rows"])
    @pytest.mark.parametrize("factors", ["e4m3", "e5m2", "e4m3*e5m2"])
    def test_small_floats_are_scaled(self, library: HipblasLt, factors: str, scales: str) -> None:
        problem = Problem(24, 40, 64, operation_of(f"{factors}.nt{scales}->bf16"))
        given = tensors(problem)
        operands = ("a", "b", "c", "scale_a", "scale_b", "workspace")
        a, b = factors_of(problem.operation, {name: given[name].double() for name in "ab"})
        right = a @ b
        if scales:
            right = right * given["scale_a"].double().reshape(-1, 1) * given["scale_b"].double().reshape(1, -1)
        for each in library.algorithms(problem):
            workspace = torch.empty(each.workspace_bytes, dtype=torch.uint8)
            go = library.prepare(each, problem, operands)
            go(*(given.get(name) for name in operands[:-1]), workspace, None)
            torch.testing.assert_close(given["c"].double(), right, rtol=2.0**-7, atol=1e-3)

    def test_what_a_call_has_no_place_for_is_refused(self, library: HipblasLt) -> None:
        problem = Problem(24, 40, 64, operation_of("e4m3.nt.rows->bf16"))
        [some, *_] = library.algorithms(problem)
        with pytest.raises(DeviceError, match=r"scale_b is no operand of a prepared launch: name it, of \('a', 'b',"):
            library.prepare(some, problem)

    def test_an_index_that_means_another_solution_is_refused(
        self, library: HipblasLt, stand_in: HipblasLtStandIn
    ) -> None:
        before = library.algorithms(PLAIN)[-1]
        stand_in.set_up([Solution(93702, LONG.replace("MT256", "MT128")), *SOLUTIONS[1:]])
        said = HipblasLt(stand_in.library).refusal(before, PLAIN) or ""
        assert said.startswith("hipBLASLt 1.2.2-5b3f1cd calls solution 93702 by another name: from character 47")
        assert "saved=256x128x64_" in said
        assert "current=128x128x64_" in said

    def test_a_solution_that_needs_another_workspace_is_refused(
        self, library: HipblasLt, stand_in: HipblasLtStandIn
    ) -> None:
        before = library.algorithms(PLAIN)[1]
        stand_in.set_up([replace(each, workspace_bytes=8192) for each in SOLUTIONS])
        said = HipblasLt(stand_in.library).refusal(before, PLAIN)
        assert said == (
            "hipBLASLt 1.2.2-5b3f1cd: solution 1063 needs another workspace (bytes): saved=4096 current=8192"
        )

    @pytest.mark.parametrize(
        ("version", "revision", "said"), [(100202, b"0123abc", "1.2.2-0123abc"), (10003, b"", "0.100.3")]
    )
    def test_another_version_is_refused(
        self, library: HipblasLt, stand_in: HipblasLtStandIn, version: int, revision: bytes, said: str
    ) -> None:
        before = library.algorithms(PLAIN)[0]
        stand_in.set_up(version=version, revision=revision)
        newer = HipblasLt(stand_in.library)
        assert newer.version == said
        assert f"current=hipBLASLt {said}" in (newer.refusal(before, PLAIN) or "")
        with pytest.raises(DeviceError, match="the algorithm is of another library"):
            newer.prepare(before, PLAIN)

    def test_the_library_never_sees_an_index_of_a_file(self, library: HipblasLt) -> None:
        """The stand-in ends the process that gives it one that is not its own."""
        for handle in ("7fffffff", "80000000", "ffffffff", "00000008", "z", "0" * 32, "0000000G"):
            hostile = unchecked(library.algorithms(PLAIN)[0], handle=handle)
            assert "is none of the 5 solutions" in (library.refusal(hostile, PLAIN) or "")
        for handle in ("00000007",):  # which is one, but computes nothing
            misfit = unchecked(library.algorithms(PLAIN)[0], handle=handle)
            assert "solution 7 does not compute" in (library.refusal(misfit, PLAIN) or "")

    def test_names_are_printable_and_bounded(self, stand_in: HipblasLtStandIn) -> None:
        stand_in.set_up([Solution(1, "x" * 4000), Solution(2, "tab\there")])
        assert {each.name for each in HipblasLt(stand_in.library).algorithms(PLAIN)} == {"x" * 1024, "tab?here"}

    def test_a_workspace_larger_than_any_is_not_named(self, stand_in: HipblasLtStandIn) -> None:
        stand_in.set_up([Solution(1, "large", workspace_bytes=(128 << 20) + 1), Solution(2, "small")])
        assert [each.name for each in HipblasLt(stand_in.library).algorithms(PLAIN)] == ["small"]

    def test_nothing_that_it_answers_is_left_behind(self, stand_in: HipblasLtStandIn) -> None:
        gc.collect()
        objects, allocated = stand_in.objects, stand_in.allocated
        library = HipblasLt(stand_in.library)
        for each in library.algorithms(BIASED):
            go = launch(library, each, BIASED, None)
            thread = threading.Thread(target=go, args=(tensors(BIASED),))
            thread.start()
            thread.join()
            go(tensors(BIASED))
        del library, go, thread
        gc.collect()
        assert (stand_in.objects, stand_in.allocated) == (objects, allocated)

    def test_a_library_without_a_list_of_solutions_is_one_line(self) -> None:
        with pytest.raises(DeviceError, match=r"^hipBLASLt lacks _ZN13hipblaslt_ext11getAllAlgos.*install ROCm 7's$"):
            HipblasLt(cast("Any", object()))


def opened(stand_in: RocblasStandIn) -> Rocblas:
    return Rocblas(cast("Any", stand_in))


def unchecked(algorithm: VendorAlgorithm, handle: str) -> VendorAlgorithm:
    """As no file is read: its fields are not looked at."""
    made = replace(algorithm)
    object.__setattr__(made, "handle", handle)
    return made


EVERY = 40
"""Of so many solutions one is tried on a GPU: there are up to 1,500 of a problem."""


@pytest.mark.skipif(not torch.cuda.is_available() or torch.version.hip is None, reason="needs an AMD GPU")
@pytest.mark.parametrize("text", [str(problem.operation) for problem in PROBLEMS])
@pytest.mark.parametrize("name", ["hipBLASLt", "rocBLAS"])
def test_solutions_on_a_gpu_are_right_launched_and_captured(name: str, text: str) -> None:
    library, device = open_vendor_library("hip", name), find_device()
    assert isinstance(device, TimedDevice)
    problem, stream = Problem(136, 264, 520, operation_of(text)), device.create_stream()
    for each in library.algorithms(problem)[::EVERY]:
        assert library.refusal(each, problem) is None
        go, given = launch(library, each, problem, stream), tensors(problem, 1, "cuda")
        right, held = exact(problem, given), given["c"].clone()
        torch.cuda.synchronize()
        graph = device.capture(partial(go, given), stream)
        for enqueue in (partial(device.replay, graph, stream), partial(go, given)):
            given["c"].copy_(held)
            torch.cuda.synchronize()
            enqueue()
            torch.cuda.synchronize()
            torch.testing.assert_close(given["c"].double(), right, rtol=2.0**-7, atol=1e-3)


def test_a_library_is_taken_from_where_the_hip_runtime_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in = HipblasLtStandIn()
    (tmp_path / "libhipblaslt.so.2").symlink_to(stand_in.library._name)
    (tmp_path / "libhipblaslt.so.1").write_text("an older one")
    monkeypatch.setattr(hip_library, "hip_library", lambda _: SimpleNamespace(path=str(tmp_path / "libamdhip64.so.7")))
    monkeypatch.setattr(hip_library, "_loaded", lambda name: [])
    [library] = vendor_libraries("hip")
    assert (library.name, library.version) == ("hipBLASLt", "1.2.2-5b3f1cd")
    with pytest.raises(DeviceError, match=r"^no librocblas.so \(.*\): install ROCm's, or go on without it$"):
        open_vendor_library("hip", "rocBLAS")


def test_people_read_an_index_and_a_tile() -> None:
    long = VendorAlgorithm("hipBLASLt", "1.2.2", "00016e06", LONG)
    assert str(long) == "hipBLASLt 1.2.2 solution 93702 MT256x128x64"
    assert str(replace(long, name="")) == "hipBLASLt 1.2.2 solution 93702"
    assert str(VendorAlgorithm("rocBLAS", "5.2.0.", "daf7cc1f")) == "rocBLAS 5.2.0. solution -621294561"
    assert str(VendorAlgorithm("rocBLAS", "5.2.0.", "00000000", OWN_CHOICE)) == "rocBLAS 5.2.0. its own choice"
