"""Solutions of hipBLASLt under the proof of algorithms: right ones pass, of any operation, and wrong ones do not."""

from __future__ import annotations

import pytest
from hipblaslt_stand_in import HipblasLtStandIn, Solution

from hktune.core.operation import operation_of
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem
from hktune.device.hipblaslt import HipblasLt
from hktune.measure.algorithms import launching
from hktune.verify.algorithm_proof import AlgorithmProof
from hktune.verify.proof import Proof

TEXTS = (
    *("bf16.nt", "f16.tn", "bf16.nn+bias", "bf16.nt->f32+accumulate", "e4m3.nt->bf16", "e4m3.nt.tensor->bf16"),
    *("e4m3*e5m2.nt.rows->f16", "i8.nt->i32"),
)


@pytest.fixture
def library() -> HipblasLt:
    stand_in = HipblasLtStandIn()
    stand_in.set_up([Solution(41, "right"), Solution(42, "wrong", factor=1.02)])
    return HipblasLt(stand_in.library)


@pytest.mark.parametrize("text", TEXTS)
def test_right_solutions_pass_and_wrong_ones_do_not(library: HipblasLt, text: str) -> None:
    problem = Problem(24, 40, 64, operation_of(text))
    proof = AlgorithmProof(problem, seed=1, torch_device="cpu")
    outcomes = {each.name: proof.proved(launching(library, each, problem)) for each in library.algorithms(problem)}
    assert isinstance(outcomes["right"], Proof), outcomes["right"]
    assert isinstance(outcomes["wrong"], Failure)
    assert outcomes["wrong"].status is Status.WRONG
