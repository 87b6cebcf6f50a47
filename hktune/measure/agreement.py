"""Whether an output is the product: what is checked on the very operands that are timed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hktune.core.dtype import Dtype
from hktune.core.operand import inputs_of, rows_of
from hktune.core.problem import Problem
from hktune.core.sums import FLOAT32_SUMS, Sums
from hktune.measure.arena import OperandSet
from hktune.verify.on_device import TorchArrays, bits_of
from hktune.verify.reference import Mismatch, Operands, answer_of, compare
from hktune.verify.several_products import single_products

if TYPE_CHECKING:
    import torch

CHUNK_ELEMENTS = 1 << 26  # compared as float32, some of them at a time
EXACT_ELEMENTS = 1 << 24  # of C, in float64


def disagreement(output: torch.Tensor, reference: torch.Tensor, k: int, dtype: Dtype) -> str | None:
    """How `output` [m,n], or several of them, of format `dtype`, differs from the vendor's `reference` more than
    rounding lets two right kernels differ; None when it does not.

    Two roundings of sums that nearly agree differ by at most one unit roundoff of the value; twice that is allowed.
    Sums of k products of standard normals have a size of about sqrt(k), and may differ by 2^-9 of that in float32. A
    K-step left out moves an element by sqrt(k_step), hundreds of times as much.
    """
    import torch

    output, reference = output.flatten(0, -2), reference.flatten(0, -2)
    rows = max(1, CHUNK_ELEMENTS // output.shape[1])
    wrong, example = 0, ""
    for first in range(0, output.shape[0], rows):
        got, expected = output[first : first + rows].float(), reference[first : first + rows].float()
        right = torch.isclose(got, expected, rtol=2 * dtype.unit_roundoff, atol=2.0**-9 * k**0.5)
        if bool(right.all()):
            continue
        wrong += right.numel() - int(right.sum())
        row, column = divmod(int(right.int().argmin()), right.shape[1])
        example = example or (
            f"first at [{first + row},{column}]: got {float(got[row, column]):.6g}, "
            f"the vendor {float(expected[row, column]):.6g}"
        )
    return f"{wrong} of {output.numel()} elements differ from the vendor's, {example}" if wrong else None


def mistake(problem: Problem, operands: OperandSet, before: torch.Tensor, sums: Sums = FLOAT32_SUMS) -> Mismatch | None:
    """How c of `operands` differs from the product of the others, by the rules of a proof; None when it does not.
    `before` is what it held, which matters where the operation accumulates. `sums` says how exact a kernel's are.

    This decides where the vendor's product differs: its library may add parts of a sum in the format of C, as cuBLAS
    does unless torch forbids it (torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction).
    """
    tensors = {**operands, "before": before}
    for behind, product, own in single_products(problem, tensors):
        bits = {name: bits_of(tensor) for name, tensor in own.items()}
        held = bits.pop("before")
        rows_of_c = max(1, EXACT_ELEMENTS // product.n)
        for first in range(0, product.m, rows_of_c):
            found = _mistake_in(product, sums, bits, held, first, min(first + rows_of_c, product.m))
            if found is not None:
                return _further_down(found, behind)
    return None


def _mistake_in(
    problem: Problem, sums: Sums, bits: dict[str, torch.Tensor], held: torch.Tensor, first: int, end: int
) -> Mismatch | None:
    """`mistake` in rows `first` to `end` of C."""
    part, arrays = replace(problem, m=end - first), TorchArrays(str(held.device))
    inputs = rows_of(problem.operation, {**bits, "c": held}, first, end)
    stored = {operand.name: inputs[operand.name] for operand in inputs_of(problem.operation)}
    answer = answer_of(part, stored, arrays, sums=sums)
    found = compare(bits["c"][first:end], Operands(part, stored, answer), arrays=arrays)
    return _further_down(found, first) if found else None


def _further_down(found: Mismatch, rows: int) -> Mismatch:
    return replace(found, first=(found.first[0] + rows, found.first[1])) if found.first else found
