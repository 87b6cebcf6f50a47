"""Which operation a call is: by the dtype that its operands share, its ending, and how they are stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch

from hktune.core.operation import LAYOUTS, Operation
from hktune.dispatch.calls import (
    CALL_DTYPES,
    ENDINGS,
    FACTORED_ENDINGS,
    FACTORED_LAYOUTS,
    LINEAR_ENDINGS,
    call_operation,
)

CALLS: Mapping[tuple[torch.dtype, str, str], Operation] = {
    (getattr(torch, dtype.torch_name), ending, layout): call_operation(dtype, ending, layout)
    for dtype in CALL_DTYPES
    for endings, layouts in ((ENDINGS, LAYOUTS), (LINEAR_ENDINGS, ("nt",)), (FACTORED_ENDINGS, FACTORED_LAYOUTS))
    for ending in endings
    for layout in layouts
}
"""The operation of operands of that dtype, with that ending, in that layout."""

KERNEL_DTYPES: tuple[torch.dtype, ...] = tuple(dict.fromkeys(dtype for dtype, *_ in CALLS))
"""What kernels take; a tuple, since torch's compiler traces the question whether a dtype is one of them."""


def dtypes_of(operations: Collection[Operation]) -> tuple[torch.dtype, ...]:
    """Of calls that are one of `operations`."""
    return tuple(dict.fromkeys(dtype for (dtype, *_), operation in CALLS.items() if operation in operations))


def named(dtypes: Iterable[torch.dtype]) -> str:
    """As a person reads them: `bfloat16 or float16`."""
    return " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
