"""The operations that torch's calls ask a table for; a row of any other is reached by no call.

A call has two operands of one format, each stored either way, perhaps a bias, and an output of the same format.
"""

from __future__ import annotations

from hktune.core.dtype import BF16, F16, Dtype
from hktune.core.operation import LAYOUTS, Operation

CALL_DTYPES = (BF16, F16)
"""The formats of operands that kernels are tuned for."""


def call_operation(dtype: Dtype, has_bias: bool, layout: str = "nt") -> Operation:
    """What a call computes whose operands are all of `dtype`, stored as `layout` says."""
    operation = Operation(dtype.name, layout)
    return operation.with_steps("bias") if has_bias else operation


CALLS_SAID = f"{' or '.join(map(str, CALL_DTYPES))}, in any of the layouts {', '.join(LAYOUTS)}, +bias or not"
"""`CALL_OPERATIONS`, as a person reads them."""

CALL_OPERATIONS = tuple(
    call_operation(dtype, has_bias, layout) for layout in LAYOUTS for dtype in CALL_DTYPES for has_bias in (False, True)
)
