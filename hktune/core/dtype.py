"""The number formats of operands and outputs: one record each, the only place where they are written.

A format is added here, and then named by an `Operation` (`f16.nt`); everything else reads the record. Numpy is imported
where numbers are converted: the command line and production read records alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Bits: TypeAlias = "npt.NDArray[np.unsignedinteger]"
"""Numbers of one format as unsigned integers of its width: numpy has not all of the formats."""


@dataclass(frozen=True)
class Dtype:
    """A binary floating-point format. `torch_name` is torch's attribute, `significand_bits` counts the implicit one.

    `poison_bits` is a NaN that no arithmetic here produces, so memory that still holds it was never written.
    """

    name: str
    torch_name: str
    bytes: int
    significand_bits: int
    poison_bits: int

    @property
    def unit_roundoff(self) -> float:
        """The largest relative error of one rounding to nearest in the normal range (Higham, Accuracy and Stability,
        theorem 2.2)."""
        return 2.0**-self.significand_bits

    @property
    def exponent_max(self) -> int:
        """Of the largest power of two (IEEE 754-2019, 3.3: emax)."""
        return int(2 ** (8 * self.bytes - self.significand_bits - 1)) - 1

    @property
    def exponent_min(self) -> int:
        """Of the smallest normal number."""
        return 1 - self.exponent_max

    @property
    def bits_type(self) -> np.dtype[np.unsignedinteger]:
        """The unsigned integer of this format's width."""
        import numpy as np

        return np.dtype(f"u{self.bytes}")

    def bits(self, values: npt.NDArray[np.float32]) -> Bits:
        """float32 -> this format, rounded to nearest even; finite values only, those that are too large become inf."""
        import numpy as np

        exact = np.ascontiguousarray(values, dtype=np.float32)
        if self.name == "bf16":
            wide = exact.view(np.uint32)
            return ((wide + np.uint32(0x7FFF) + ((wide >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("u2")
        with np.errstate(over="ignore"):
            return exact.astype(f"f{self.bytes}").view(self.bits_type)

    def values(self, bits: Bits) -> npt.NDArray[np.float32]:
        """This format -> float32, exactly."""
        import numpy as np

        if self.name == "bf16":
            return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return bits.astype(self.bits_type, copy=False).view(f"f{self.bytes}").astype(np.float32)

    def __str__(self) -> str:
        return self.name


# Widths: IEEE 754-2019, table 3.5, for binary16 and binary32; bf16 is binary32 cut to its upper half.
BF16 = Dtype("bf16", "bfloat16", 2, 8, 0x7FD5)
F16 = Dtype("f16", "float16", 2, 11, 0x7ED5)
F32 = Dtype("f32", "float32", 4, 24, 0x7FD5_7FD5)

DTYPES = {dtype.name: dtype for dtype in (BF16, F16, F32)}
