"""The operations that torch's calls ask a table for; a row of any other is reached by no call.

A call has two operands of one format, each stored either way. What it does with their product is its ending, in the
words of an operation: nothing, or it adds a bias or what C holds, and C may be float32. An activation may be its last
step, behind a bias or alone. Behind it, or without one, a matrix is added, or gates are applied. There may be a factor
of the product, or of that matrix, and C may be float8. Then the weight is stored as [N, K]. Of numbers of 8 bits or
fewer there are scales too, and then a bias at most; of e4m3 in a compiled graph, and of groups, also what is behind
that.
"""

from __future__ import annotations

from hktune.core.dtype import BF16, E4M3, E5M2, F16, F32, I8, I32, MXBF8, MXFP4, MXFP8, Dtype
from hktune.core.operation import ACCUMULATIONS, ACTIVATIONS, GATES, LAYOUTS, SCALES, Operation, operation_of

CALL_DTYPES = (BF16, F16)
"""The formats of operands that kernels are tuned for."""

_ACTIVATED = tuple(f"{bias}+{each}" for each in ACTIVATIONS for bias in ("", "+bias"))
ENDINGS = ("", "+bias", "+accumulate", "->f32", "->f32+bias", "->f32+accumulate", *_ACTIVATED)
FACTORED_ENDINGS = ("+alpha", "+beta_residual", "+alpha+beta_residual")
"""Of torch.addmm of a matrix, with an alpha or a beta other than 1."""
FACTORED_LAYOUTS = ("nt", "nn")
LINEAR_ENDINGS = tuple(
    ending
    for c in ("", "->e4m3")
    for alpha in ("", "+alpha")
    for last in ("", "+residual", "+beta_residual", "+gated", "+gated_interleaved")
    for bias in ("", "+bias")
    for activation in ("", *(f"+{each}" for each in ACTIVATIONS))
    if (ending := f"{c}{alpha}{bias}{activation}{last}") not in (*ENDINGS, *FACTORED_ENDINGS)
    if not (alpha and "gated" in last)
)
"""Of calls whose operands are stored as those of torch's linear."""


def call_operation(dtype: Dtype, ending: str = "", layout: str = "nt") -> Operation:
    """What a call computes whose operands are of `dtype`, stored as `layout` says."""
    return operation_of(f"{dtype.name}.{layout}{ending}")


SCALED_FORMATS = ((E4M3, E4M3), (E4M3, E5M2), (E5M2, E4M3))
"""Of A and B: torch multiplies no two e5m2 on GPUs."""
SCALED_OUTPUTS = (BF16, F16, F32, E4M3)


def scaled_operation(
    a: Dtype, b: Dtype, scales: str, c: Dtype, has_bias: bool, accumulation: str = "", steps: tuple[str, ...] = ()
) -> Operation:
    """What torch's scaled products compute, whose B is stored as a weight is; and `steps` behind that."""
    epilogue = (*(("bias",) if has_bias else ()), *steps)
    return Operation(a.name, "nt", b.name, c.name, epilogue, scales, accumulation=accumulation)


CALLS_SAID = (
    f"{' or '.join(map(str, CALL_DTYPES))}, in any of the layouts {', '.join(LAYOUTS)}, ->f32 or not, "
    "+bias, +accumulate or neither; or +bias or not, and an activation; or these as nt, "
    "+alpha or not, ->e4m3 or not, and +residual, +beta_residual, +gated, +gated_interleaved or none of these; "
    "or e4m3, e5m2, i8 or an MX format in nt, with scales, and of e4m3 an activation, +residual or +gated or not; "
    "or batched, and +residual or not; or grouped in nt, nn or tn, and as nt or nn with +bias or not, and an "
    "activation, +gated or both, and as tn ->f32 or not with +accumulate; "
    "or batched or grouped e4m3 or i8 in nt, with scales of rows, and grouped +bias or not; "
    "or grouped e4m3 in nt ->bf16, with scales of rows, and an activation, or silu, gelu or gelu_tanh and +gated or "
    "+gated_interleaved"
)
"""`CALL_OPERATIONS`, as a person reads them."""

SCALED_OPERATIONS = tuple(
    scaled_operation(a, b, scales, c, has_bias, accumulation)
    for a, b in SCALED_FORMATS
    for scales in SCALES
    for c in SCALED_OUTPUTS
    for has_bias in (False, True)
    for accumulation in ("", *ACCUMULATIONS)
)
_ACTIVATED_STEPS = tuple((each,) for each in ACTIVATIONS)
_GATING = ("silu", "gelu", "gelu_tanh")
"""The activations of gates of e4m3."""
FINISHED_STEPS = (*_ACTIVATED_STEPS, ("residual",), *((each, "gated") for each in _GATING))
"""Behind a scaled product of e4m3, as compiled graphs have them: what is one call there."""
FINISHED_OUTPUTS = (BF16, F16)
FINISHED_OPERATIONS = tuple(
    scaled_operation(E4M3, E4M3, scales, c, has_bias, accumulation, steps)
    for scales in SCALES
    for c in FINISHED_OUTPUTS
    for has_bias in (False, True)
    for accumulation in ("", *ACCUMULATIONS)
    for steps in FINISHED_STEPS
)
INTEGER_SUMS = Operation(I8.name, "nt", c=I32.name)
"""torch._int_mm."""
INTEGER_OPERATIONS = (
    INTEGER_SUMS,
    *(
        scaled_operation(I8, I8, scales, c, has_bias)
        for scales in ("tensor", "rows")
        for c in SCALED_OUTPUTS
        for has_bias in (False, True)
    ),
)
MX_OPERATIONS = tuple(
    scaled_operation(each, each, "", c, has_bias)
    for each in (MXFP8, MXBF8, MXFP4)
    for c in SCALED_OUTPUTS
    for has_bias in (False, True)
)
"""Of the formats that torch has a dtype for."""
_GATED_GROUPS = tuple((*activation, "gated") for activation in ((), *_ACTIVATED_STEPS))
_ENDS_OF_GROUPS = tuple(
    (*bias, *steps) for bias in ((), ("bias",)) for steps in ((), *_ACTIVATED_STEPS, *_GATED_GROUPS)
)
_SCALED_ENDS_OF_GROUPS = (*_ACTIVATED_STEPS, *((each, gates) for each in _GATING for gates in GATES))
"""Of e4m3 alone, in bf16, without a bias."""
_STEPS_OF_SEVERAL: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]], ...] = (
    ("grouped", ("nt", "nn"), _ENDS_OF_GROUPS),
    ("grouped", ("tn",), ((), ("accumulate",))),
    ("grouped", ("nt",), (("silu", "gated_interleaved"), ("bias", "silu", "gated_interleaved"))),
    ("batched", LAYOUTS, ((), ("residual",))),
)
_SCALED_OUTPUTS_OF_SEVERAL = {"grouped": (BF16, F16, F32), "batched": (BF16, F16)}
SEVERAL_OPERATIONS = (
    *(
        Operation(dtype.name, layout, kind=kind, epilogue=steps)
        for dtype in CALL_DTYPES
        for kind, layouts, all_steps in _STEPS_OF_SEVERAL
        for layout in layouts
        for steps in all_steps
    ),
    *(Operation(dtype.name, "tn", c=F32.name, kind="grouped", epilogue=("accumulate",)) for dtype in CALL_DTYPES),
    *(
        Operation(dtype.name, "nt", c=c.name, scales="rows", kind=kind, epilogue=steps)
        for dtype in (E4M3, I8)
        for kind, outputs in _SCALED_OUTPUTS_OF_SEVERAL.items()
        for c in outputs
        for steps in (((), ("bias",)) if kind == "grouped" else ((),))
    ),
    *(
        Operation(E4M3.name, "nt", c=c.name, scales="rows", kind="grouped", accumulation=each, epilogue=steps)
        for c in _SCALED_OUTPUTS_OF_SEVERAL["grouped"]
        for each in ACCUMULATIONS
        for steps in ((), ("bias",))
    ),
    *(
        Operation(E4M3.name, "nt", c=BF16.name, scales="rows", kind="grouped", accumulation=each, epilogue=steps)
        for each in ("", *ACCUMULATIONS)
        for steps in _SCALED_ENDS_OF_GROUPS
    ),
)
"""Of any count, as `CALL_OPERATIONS` has them: what a template has for some device. A gate or an activation that none
has is torch's, behind a product that is asked for by itself."""
CALL_OPERATIONS = (
    *(call_operation(dtype, ending, layout) for layout in LAYOUTS for dtype in CALL_DTYPES for ending in ENDINGS),
    *(call_operation(dtype, ending) for dtype in CALL_DTYPES for ending in LINEAR_ENDINGS),
    *(
        call_operation(dtype, ending, layout)
        for layout in FACTORED_LAYOUTS
        for dtype in CALL_DTYPES
        for ending in FACTORED_ENDINGS
    ),
    *SCALED_OPERATIONS,
    *FINISHED_OPERATIONS,
    *INTEGER_OPERATIONS,
    *MX_OPERATIONS,
    *SEVERAL_OPERATIONS,
)
