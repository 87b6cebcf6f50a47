"""How exactly the matrix unit of an architecture adds products of float8."""

from __future__ import annotations

from dataclasses import dataclass

from hktune.core.arch import Arch
from hktune.core.dtype import E4M3, E5M2, F32
from hktune.core.operation import PROMOTED_K, Operation


@dataclass(frozen=True)
class Sums:
    """A matrix unit adds `terms` products and what it holds at once. Each of them loses what is below
    `significand_bits` of the largest, and so does the sum. After `run_k` elements of K float32 takes over and the unit
    begins at 0 again; 0 is never. Without `terms` it adds in float32.
    """

    significand_bits: int = F32.significand_bits
    terms: int = 0
    run_k: int = 0

    def cut_of(self, k: int) -> float:
        """What a sum over k may lose, as a part of the sum of the magnitudes of all its products: no term is larger
        than that, and each addition cuts its products, what is held, and the sum."""
        if not self.terms:
            return 0.0
        additions = -(-min(k, self.run_k or k) // self.terms)
        return additions * (self.terms + 2) * self.unit

    @property
    def unit(self) -> float:
        """The last place of what is kept, as a part of the largest term."""
        return 2.0 ** (1 - self.significand_bits)


FLOAT32_SUMS = Sums()


def sums_of(operation: Operation, arch: Arch) -> Sums:
    """Those of a kernel for `operation`, which says whether they may be as the unit makes them."""
    if not arch.float8_terms or not {operation.a_dtype, operation.b_dtype} <= {E4M3, E5M2}:
        return FLOAT32_SUMS
    return Sums(arch.float8_sum_bits, arch.float8_terms, 0 if operation.accumulation else PROMOTED_K)
