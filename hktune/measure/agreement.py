"""Whether two outputs are the same product: what is checked on the very operands that are timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hktune.core.dtype import Dtype

if TYPE_CHECKING:
    import torch

CHUNK_ELEMENTS = 1 << 26  # compared as float32, some of them at a time


def disagreement(output: torch.Tensor, reference: torch.Tensor, k: int, dtype: Dtype) -> str | None:
    """How `output` [m,n], of format `dtype`, differs from the vendor's `reference` more than rounding lets two right
    kernels differ; None when it does not.

    Two roundings of sums that nearly agree differ by at most one unit roundoff of the value; twice that is allowed.
    Sums of k products of standard normals have a size of about sqrt(k), and may differ by 2^-9 of that in float32. A
    K-step left out moves an element by sqrt(k_step), hundreds of times as much.
    """
    import torch

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
