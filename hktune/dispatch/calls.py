"""The operations that torch's calls ask a table for; a row of any other is reached by no call.

A linear or a matmul has two operands of one format, the right one stored as [N,K], perhaps a bias, and an output of the
same format.
"""

from __future__ import annotations

from hktune.core.dtype import BF16, F16, Dtype
from hktune.core.operation import Operation

CALL_DTYPES = (BF16, F16)
"""The formats of operands that kernels are tuned for."""


def call_operation(dtype: Dtype, has_bias: bool) -> Operation:
    """What a call computes whose operands are all of `dtype`."""
    operation = Operation(dtype.name)
    return operation.with_steps("bias") if has_bias else operation


CALL_OPERATIONS = tuple(call_operation(dtype, has_bias) for dtype in CALL_DTYPES for has_bias in (False, True))
