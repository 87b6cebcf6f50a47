"""The judge is judged: kernels that are right pass, and every way of being subtly wrong is caught and counted."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hktune.core.dtype import BF16
from hktune.core.errors import KernelFault
from hktune.core.launch import Argument, Launch
from hktune.core.operation import BF16_NT_BIAS
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem
from hktune.verify import Proof, random_operands, verify

PROBLEM = Problem(m=64, n=48, k=96)
ARGUMENTS = tuple(Argument(name, "pointer") for name in ("a", "b", "c"))
LAUNCH = Launch((1, 1, 1), (64, 1, 1), 0, ARGUMENTS)
Floats = npt.NDArray[np.float32]


class HostDevice:
    """Runs a Python function in place of a kernel, on host memory that stands for device memory."""

    def __init__(self, kernel: Callable[[Floats, Floats, npt.NDArray[np.uint16]], None]) -> None:
        self._kernel = kernel

    def allocate(self, size_bytes: int) -> Any:
        return SimpleNamespace(data=np.zeros(size_bytes // 2, np.uint16))

    def write(self, buffer: Any, data: npt.NDArray[Any]) -> None:
        buffer.data[:] = data.ravel()

    def read(self, buffer: Any, out: npt.NDArray[Any]) -> None:
        out[:] = buffer.data

    def launch(self, kernel: Any, launch: Launch, binding: Any, stream: int | None = None) -> None:
        a = BF16.values(binding["a"].data).reshape(PROBLEM.m, PROBLEM.k)
        bt = BF16.values(binding["b"].data).reshape(PROBLEM.n, PROBLEM.k)
        self._kernel(a, bt, binding["c"].data)


def judge(kernel: Callable[[Floats, Floats, npt.NDArray[np.uint16]], None]) -> Proof | Failure:
    device: Any = HostDevice(kernel)
    return verify(device, SimpleNamespace(symbol="k"), LAUNCH, PROBLEM, seed=7)


def right(a: Floats, bt: Floats, c: npt.NDArray[np.uint16]) -> None:
    c[: PROBLEM.m * PROBLEM.n] = BF16.bits(a @ bt.T).ravel()


def test_right_kernel_is_proved() -> None:
    proof = judge(right)
    assert isinstance(proof, Proof)
    assert 1e-3 < proof.relative_error < 2.0**-8


def test_truncation_instead_of_rounding_is_wrong() -> None:
    def truncating(a: Floats, bt: Floats, c: npt.NDArray[np.uint16]) -> None:
        c[: PROBLEM.m * PROBLEM.n] = ((a @ bt.T).view(np.uint32) >> 16).astype(np.uint16).ravel()

    failure = judge(truncating)
    assert isinstance(failure, Failure)
    assert failure.status is Status.WRONG


def test_one_element_off_by_one_bf16_step_is_wrong_and_named() -> None:
    def off_by_one(a: Floats, bt: Floats, c: npt.NDArray[np.uint16]) -> None:
        right(a, bt, c)
        c[5 * PROBLEM.n + 9] += 2

    failure = judge(off_by_one)
    assert isinstance(failure, Failure)
    assert failure.detail.startswith(f"1 of {PROBLEM.m * PROBLEM.n} elements wrong; first at [5,9]")


def test_unwritten_elements_are_counted() -> None:
    def upper_half(a: Floats, bt: Floats, c: npt.NDArray[np.uint16]) -> None:
        c[: PROBLEM.m * PROBLEM.n // 2] = BF16.bits(a @ bt.T).ravel()[: PROBLEM.m * PROBLEM.n // 2]

    failure = judge(upper_half)
    assert isinstance(failure, Failure)
    half = PROBLEM.m * PROBLEM.n // 2
    assert f"{half} of {2 * half} elements wrong; {half} of them never written" in failure.detail


def test_a_store_past_the_end_is_wrong_even_when_c_is_right() -> None:
    def overrun(a: Floats, bt: Floats, c: npt.NDArray[np.uint16]) -> None:
        right(a, bt, c)
        c[PROBLEM.m * PROBLEM.n] = 0

    failure = judge(overrun)
    assert isinstance(failure, Failure)
    assert failure.detail == "1 elements written outside C"


@pytest.mark.parametrize("lost", ["first", "last"])
def test_a_lost_k_step_is_wrong(lost: str) -> None:
    window = slice(32, None) if lost == "first" else slice(None, -32)

    def short(a: Floats, bt: Floats, c: npt.NDArray[np.uint16]) -> None:
        right(a[:, window], bt[:, window], c)

    failure = judge(short)
    assert isinstance(failure, Failure)
    assert failure.status is Status.WRONG


def test_a_fault_is_a_value() -> None:
    def faulting(a: Floats, bt: Floats, c: npt.NDArray[np.uint16]) -> None:
        raise KernelFault("hazard", "load outside every allocation")

    assert judge(faulting) == Failure(Status.HAZARD, "load outside every allocation")


def test_operands_follow_their_seed_and_differ_between_seeds() -> None:
    first, again, other = (random_operands(PROBLEM, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.stored["a"], again.stored["a"])
    assert not np.array_equal(first.stored["a"], other.stored["a"])


def test_bias_is_part_of_what_c_must_be() -> None:
    plain = random_operands(PROBLEM, 3)
    biased = random_operands(Problem(PROBLEM.m, PROBLEM.n, PROBLEM.k, BF16_NT_BIAS), 3)
    assert np.array_equal(biased.stored["a"], plain.stored["a"])
    added = biased.answer.exact - plain.answer.exact
    assert np.allclose(added, BF16.values(biased.stored["bias"])[None, :])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.0, 0x3F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (-2.5, 0xC020), (3.0e38, 0x7F62)],
)
def test_bf16_rounds_to_nearest_even(value: float, expected: int) -> None:
    assert BF16.bits(np.array([value], np.float32))[0] == expected
