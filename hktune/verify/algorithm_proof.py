"""The proof of algorithms of a vendor's library: each on its very problem, every element against float64.

All algorithms of a problem are judged on the same operands. So what is right is worked out once, in parts that fit into
a GPU's memory, and only the two ends of it are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hktune.core.errors import DeviceError, KernelFault
from hktune.core.operand import inputs_of, operands_of, rows_of
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem
from hktune.core.sums import FLOAT32_SUMS, Sums
from hktune.verify.exact_sums import exact_inputs
from hktune.verify.on_device import TorchArrays, bits_of
from hktune.verify.proof import GUARD_ELEMENTS, Proof
from hktune.verify.reference import Answer, answer_of

if TYPE_CHECKING:
    import torch

PART_ELEMENTS = 1 << 24  # of C, in float64
RUNS = 2
"""So often each runs on the same operands: the second time, its workspace is as the first left it."""

Launch = Callable[[Mapping[str, "torch.Tensor"]], None]
"""Computes C of these tensors, by name. Its work may still be under way when it returns."""


class AlgorithmProof:
    """What every right algorithm computes on `problem`: of standard normal operands, and of operands whose sums are
    exact, as for kernels, whose sums are as exact as `sums`. Raises InputError for an operation without a reference."""

    def __init__(self, problem: Problem, seed: int, torch_device: str = "cuda", sums: Sums = FLOAT32_SUMS) -> None:
        self._problem = problem
        self._judges = [_Judge(problem, seed, torch_device, exact, sums) for exact in (False, True)]

    def proved(self, launch: Launch) -> Proof | Failure:
        """Whether `launch` is right; Failure(WRONG) with counts and the first bad element, or what the device said. A
        KernelFault passes through."""
        errors = []
        try:
            for judge in self._judges:
                for _ in range(RUNS):
                    wrong = judge.wrong(launch)
                    if wrong:
                        return Failure(Status.WRONG, f"{self._problem}{judge.kind}: {wrong}")
                errors.append(judge.relative_error)
        except KernelFault:
            raise
        except DeviceError as refused:
            return Failure(Status.CRASHED, str(refused))
        return Proof(self._problem, errors[0])


@dataclass(frozen=True)
class _Ends:
    """Of C: what a right algorithm gives is from `lowest` to `highest`, in C's format; `exact` is in float32."""

    lowest: torch.Tensor
    highest: torch.Tensor
    exact: torch.Tensor


class _Judge:
    """Operands of one kind, with C and a guard behind it."""

    def __init__(self, problem: Problem, seed: int, torch_device: str, exact_sums: bool, sums: Sums) -> None:
        import torch

        self.kind = ", exact sums" if exact_sums else ""
        self._arrays = TorchArrays(torch_device)
        random = torch.Generator(torch_device).manual_seed(seed)

        def normal(shape: tuple[int, ...]) -> torch.Tensor:
            return torch.randn(shape, device=torch_device, generator=random)

        inputs = inputs_of(problem.operation)
        exact = exact_inputs(problem, normal, sums) if exact_sums else None
        drawn = exact.values if exact else {each.name: normal(each.extents(problem.sizes)) for each in inputs}
        # Inputs with exact sums may be transposed views, and a library reads them as they are stored.
        stored = {each.name: self._arrays.encoded(drawn[each.name], each.dtype).contiguous() for each in inputs}
        self._ends = _ends(problem, stored, self._arrays, exact.units if exact else None, sums)
        c_dtype = self._ends.lowest.dtype
        self._held = stored.pop("c", None)
        whole = torch.empty(problem.m * problem.n + GUARD_ELEMENTS, dtype=c_dtype, device=torch_device)
        self._whole, self._c = whole, whole[: problem.m * problem.n].view(problem.m, problem.n)
        self._poison = problem.operation.c_dtype
        typed = {name: bits.view(_torch_dtype(problem, name)) for name, bits in stored.items()}
        self._given = {**typed, "c": self._c}

    def wrong(self, launch: Launch) -> str:
        """What is wrong with C after `launch`; "" where nothing is."""
        import torch

        bits, poison = bits_of(self._whole), self._arrays.filled(1, self._poison.poison_bits, self._poison)
        bits[:] = poison
        if self._held is not None:
            bits_of(self._c)[:] = self._held
        _settle(self._c)
        launch(self._given)
        _settle(self._c)
        outside = int((bits[self._c.numel() :] != poison).sum())
        right = (self._ends.lowest <= self._c) & (self._c <= self._ends.highest)  # False for NaN
        if bool(right.all()) and not outside:
            return ""
        wrong = right.numel() - int(right.sum())
        said = [f"{outside} elements written outside C"] if outside else []
        if wrong:
            row, column = divmod(int(torch.argmin(right.int())), right.shape[1])
            got, expected = float(self._c[row, column]), float(self._ends.exact[row, column])
            counted = f"{wrong} of {right.numel()} elements wrong"
            said.insert(0, f"{counted}; first at [{row},{column}]: got {got:.6g}, expected {expected:.6g}")
        return "; ".join(said)

    @property
    def relative_error(self) -> float:
        """Of the last launch, in the Frobenius norm, where C is finite."""
        error = self._c.float() - self._ends.exact
        finite = error.isfinite()
        size = float(self._ends.exact[finite].norm())
        return float(error[finite].norm()) / size if size else 0.0


def _ends(
    problem: Problem, stored: Mapping[str, torch.Tensor], arrays: TorchArrays, units: torch.Tensor | None, sums: Sums
) -> _Ends:
    """Both ends of what is right, part by part."""
    import torch

    rows, c_dtype = max(1, PART_ELEMENTS // problem.n), _torch_dtype(problem, "c")
    shape, where = (problem.m, problem.n), stored["a"].device
    lowest, highest = (torch.empty(shape, dtype=c_dtype, device=where) for _ in range(2))
    exact = torch.empty(shape, dtype=torch.float32, device=where)
    for first in range(0, problem.m, rows):
        end = min(first + rows, problem.m)
        answer = _answer_of_rows(problem, stored, first, end, arrays, units, sums)
        exact[first:end] = answer.exact
        for into, value in ((lowest, answer.exact - answer.error), (highest, answer.exact + answer.error)):
            bits_of(into)[first:end] = arrays.encoded(value, problem.operation.c_dtype)
    return _Ends(lowest, highest, exact)


def _answer_of_rows(
    problem: Problem,
    stored: Mapping[str, torch.Tensor],
    first: int,
    end: int,
    arrays: TorchArrays,
    units: torch.Tensor | None,
    sums: Sums,
) -> Answer:
    """What rows `first` to `end` of C must be."""
    part = rows_of(problem.operation, stored, first, end)
    return answer_of(replace(problem, m=end - first), part, arrays, units, sums)


def _torch_dtype(problem: Problem, name: str) -> torch.dtype:
    import torch

    found: torch.dtype = getattr(torch, operands_of(problem.operation)[name].dtype.torch_name)
    return found


def _settle(tensor: torch.Tensor) -> None:
    """Wait for what is under way: torch's own stream and that of the launch wait for no other."""
    import torch

    if tensor.is_cuda:
        torch.cuda.synchronize()
