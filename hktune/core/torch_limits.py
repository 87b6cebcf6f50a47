"""What torch's products want of their operands beyond what they compute."""

from __future__ import annotations

INT_MM_ROWS_FEW = 16
"""On GPUs torch._int_mm wants more rows of A than these (its check, in aten/src/ATen/native/cuda/Blas.cpp)."""
