"""What is computed: an operation, and the one short text that names it everywhere.

    bf16.nt            C[M,N] = A @ B, bf16 in and out; A is stored as [M,K] and B as [N,K]
    bf16.nt+bias       the same, and bias[N] is added before the one rounding
    bf16.nt+bias+gelu  the same, and then C = gelu(C), in float32, before the one rounding
    f16.nn->f32        float16 in, B is stored as [K,N], float32 out
    bf16.tn->f32+accumulate  C += A @ B in float32; A is stored as [K,M] and B as [K,N]
    e4m3.nt.rows->bf16 float8 in, each row of A and each column of B has a factor, bf16 out
    e4m3.nt.rows.fast->bf16  the same, and sums may be as inexact as the matrix unit makes them
    mxfp4.nt->bf16     4-bit floats in, every 32 of them along K have a factor, bf16 out
    bf16.nt+silu+gated    SwiGLU: B has 2N columns, gate and then up, and C[M,N] = silu(gate) * up
    bf16.nt+silu+gated_interleaved  the same, where gates and up are columns of B in turn: gate 0, up 0, gate 1, up 1
    bf16.nt+bias+residual  bias[N] and residual[M,N] are added before the one rounding
    bf16.nt+alpha+bias+gelu+beta_residual  C = gelu(alpha (A @ B) + bias) + beta residual; alpha and beta are float32
    bf16.nt->e4m3+bias+gelu  the same as without ->e4m3, times scale_c in float32, before the one rounding to float8
    batched16.bf16.nt  16 products of one size: each matrix has one more axis, the first
    grouped8.bf16.nt   the rows of A [M,K] in 8 groups, one after another, each times a B of its own: B is [8,N,K].
                       `offsets`, int32 [8], has where each group ends
    grouped8.bf16.nt+bias  the same, where each group has a bias of its own: bias is [8,N]
    grouped8.bf16.tn   the rows of A [K,M] and of B [K,N] in 8 groups, each a product of its own: C is [8,M,N]. These
                       are the gradients of the weights of the one above
    grouped8.bf16.tn->f32+accumulate  the same in float32, added to what C holds

The text is `[KIND[COUNT].]A[*B].LAYOUT[.SCALES][.ACCUMULATION][->C][+STEP...]`. What has its usual value is left
out, so equal operations have equal texts. Shapes files, trials.csv, tables and the command line hold this text. Which
operations can be had is each template's to say.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from hktune.core.dtype import BF16, DTYPES, F16, F32, FLOAT8, I32, Dtype
from hktune.core.errors import InputError
from hktune.core.escaped import shown

COUNTED = ("batched", "grouped")
"""Kinds of several products in one launch: of matrices of one size, or of groups of rows, such as a model's experts."""
KINDS = ("gemm", *COUNTED)
COUNT_MAX = 65536
LAYOUTS = ("nt", "nn", "tn", "tt")
"""For A and B, as BLAS has it: `n` is stored as the product reads it ([M,K], [K,N]), `t` transposed ([K,M], [N,K])."""
SCALES = ("tensor", "rows", "blocks")
"""Float32 factors of A and of B: one each; one for each row of A and each column of B; or one for each 1x128 block of A
([M,K]) and each 128x128 block of B ([N,K])."""
SCALE_BLOCK = 128
ACCUMULATIONS = ("fast",)
"""How products of float8 are summed. Without a word: in float32, or by a matrix unit that keeps less for PROMOTED_K
elements of K at most, whose sums float32 then takes over. `fast`: by the matrix unit, whatever it keeps. (torch's
use_fast_accum)."""
PROMOTED_K = 128
"""DeepSeek-V3 Technical Report (arXiv 2412.19437), section 3.3.2."""
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu")
"""Steps of an epilogue that read nothing but C. They are torch's functions: `gelu` is by the error function,
`gelu_tanh` torch's gelu(approximate="tanh")."""
SWITCHED = ("bias", "accumulate")
"""Steps that a launch switches on or off. `accumulate` adds what C holds when the launch begins."""
GATES = {"gated": "halves", "gated_interleaved": "interleaved"}
"""Steps that make one number of two, and how the 2N columns of B hold these: first all gates, and then what they gate
(up), or gate and up in turn. C is gate times up. The activation before, if there is one, is of the gates alone; a bias
before has 2N elements, in the order of the columns."""
RESIDUALS = ("residual", "beta_residual")
"""Steps that add a matrix of C's shape; `beta_residual` adds it times beta."""
COMPILED = (*ACTIVATIONS, *GATES, *RESIDUALS, "alpha")
"""Steps that a kernel has compiled in. `alpha` multiplies A @ B by a number; it comes before all others."""
STEPS = (*SWITCHED, *COMPILED)
"""What an epilogue may do with C, in float32, before C is rounded."""

STEPS_PATTERN = r"(?P<steps>(?:\+[a-z_]+)*)"
"""A regular expression of the steps of a text."""
_TEXT = re.compile(
    r"(?:(?P<kind>[a-z]+)(?P<count>[0-9]{1,9})?\.)??(?P<a>[a-z0-9]+)(?:\*(?P<b>[a-z0-9]+))?\.(?P<layout>[nt]{2})"
    r"(?:\.(?P<scales>(?!fast\b)[a-z]+))?(?:\.(?P<accumulation>[a-z]+))?(?:->(?P<c>[a-z0-9]+))?" + STEPS_PATTERN + r"\Z"
)
OPERATION_TEXT_MAX = 128
"""Characters of a text: as many as an operation with every step may have."""


@dataclass(frozen=True, order=True)
class Operation:
    """What is computed, without its sizes. `a`, `b` and `c` name formats of `hktune.core.dtype`; `layout` says which
    axes of A and B are contiguous; `scales` what they are multiplied by ("" is nothing); `epilogue` holds steps, in the
    order in which they are done; `accumulation` is fast or "". `count` is the number of products of a batched
    operation, of groups of a grouped one; 0 leaves it open, as templates do. Raises InputError for a word that is not
    known.
    """

    a: str = "bf16"
    layout: str = "nt"
    b: str = ""
    c: str = ""
    epilogue: tuple[str, ...] = ()
    scales: str = ""
    kind: str = "gemm"
    accumulation: str = ""
    count: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "b", self.b or self.a)
        object.__setattr__(self, "c", self.c or self.a)
        for what, word, known in (
            ("kind", self.kind, KINDS),
            ("dtype", self.a, tuple(DTYPES)),
            ("dtype", self.b, tuple(DTYPES)),
            ("dtype", self.c, tuple(DTYPES)),
            ("layout", self.layout, LAYOUTS),
            ("scales", self.scales, ("", *SCALES)),
            ("accumulation", self.accumulation, ("", *ACCUMULATIONS)),
            *(("step", step, STEPS) for step in self.epilogue),
        ):
            if word not in known:
                names = ", ".join(filter(None, known))
                raise InputError(f"operation {shown(self._text)}: {what} {shown(word)} is not known: known are {names}")
        if len(set(self.epilogue)) != len(self.epilogue):
            raise InputError(f"operation {shown(self._text)}: has a step twice: name each once")
        if not 0 <= self.count <= (COUNT_MAX if self.kind in COUNTED else 0):
            rule = f"{' and '.join(COUNTED)} products are counted, from 1 to {COUNT_MAX}"
            raise InputError(f"operation {shown(self._text)}: {rule}, got {self.count}")
        self._check_order()

    def _check_order(self) -> None:
        """Equal operations have equal texts: alpha is the first step, and of those that add a residual is the last.
        Only alpha, a bias and one activation may come before gates are applied."""
        for kinds in (tuple(GATES), RESIDUALS):
            if len({*self.epilogue} & {*kinds}) > 1:
                raise InputError(f"operation {shown(self._text)}: has +{' and +'.join(kinds)}: keep one of them")
        for step, following in itertools.pairwise(self.epilogue):
            if following == "alpha" or (step in RESIDUALS and following in SWITCHED):
                raise InputError(f"operation {shown(self._text)}: must be written +{following}+{step}")
        gates = self.epilogue.index(self.gates_step) if self.gates_step else 0
        before = list(self.epilogue[:gates])
        for step in ("alpha", "bias"):
            if before[:1] == [step]:
                before.pop(0)
        if len(before) > 1 or not {*before} <= {*ACTIVATIONS}:
            rule = f"+{self.gates_step} comes after +alpha or not, +bias or not, and then one activation or none"
            raise InputError(f"operation {shown(self._text)}: {rule}")

    @property
    def a_dtype(self) -> Dtype:
        return DTYPES[self.a]

    @property
    def b_dtype(self) -> Dtype:
        return DTYPES[self.b]

    @property
    def c_dtype(self) -> Dtype:
        return DTYPES[self.c]

    @property
    def accumulator(self) -> Dtype:
        """What products are summed in: float32, or 32-bit integers where all factors are integers."""
        return I32 if self.a_dtype.is_integer and self.b_dtype.is_integer else F32

    @property
    def has_bias(self) -> bool:
        return "bias" in self.epilogue

    @property
    def accumulates(self) -> bool:
        """Whether C is read as well: what it held is added."""
        return "accumulate" in self.epilogue

    @property
    def has_alpha(self) -> bool:
        return "alpha" in self.epilogue

    @property
    def has_beta(self) -> bool:
        return "beta_residual" in self.epilogue

    @property
    def has_residual(self) -> bool:
        return any(step in RESIDUALS for step in self.epilogue)

    @property
    def gates_step(self) -> str:
        """The step that applies gates; "" without one."""
        return next((step for step in self.epilogue if step in GATES), "")

    @property
    def is_gated(self) -> bool:
        return bool(self.gates_step)

    @property
    def scales_c(self) -> bool:
        """Whether C is of float8, which is rounded after all steps and a factor. Beyond the largest number is that one,
        and a NaN stays one."""
        return self.c_dtype in FLOAT8

    @property
    def added_dtype(self) -> Dtype:
        """The format of a bias and of a residual: that of C, or where this is float8, of A if it has 16 bits."""
        if not self.scales_c:
            return self.c_dtype
        return self.a_dtype if self.a_dtype in (BF16, F16) else BF16

    @property
    def b_columns(self) -> int:
        """Columns of B for each column of C."""
        return 2 if self.is_gated else 1

    @property
    def activations(self) -> tuple[str, ...]:
        """The activations of its epilogue."""
        return tuple(step for step in self.epilogue if step in ACTIVATIONS)

    @property
    def compiled(self) -> tuple[str, ...]:
        """The steps of its epilogue that a kernel has compiled in."""
        return tuple(step for step in self.epilogue if step in COMPILED)

    @property
    def in_full(self) -> Operation:
        """The same product, summed as exactly as any device does."""
        return replace(self, accumulation="")

    @property
    def bare(self) -> Operation:
        """The same product without an epilogue."""
        return replace(self, epilogue=())

    @property
    def code(self) -> Operation:
        """The operation without the steps that a launch can switch off, of any count. Operations with equal ones may
        share code."""
        return self.of_any_count.with_steps(*self.compiled)

    @property
    def of_any_count(self) -> Operation:
        """The operation as a template names it: how many products it has is a launch's to say."""
        return replace(self, count=0) if self.count else self

    @property
    def is_grouped(self) -> bool:
        return self.kind == "grouped"

    @property
    def divides_k(self) -> bool:
        """Whether groups are of elements of K: they are rows of A as it is stored, which may be along K."""
        return self.is_grouped and self.layout[0] == "t"

    @property
    def divides_rows(self) -> bool:
        """Whether groups are of rows of A and C, each with a B of its own."""
        return self.is_grouped and self.layout[0] == "n"

    def with_steps(self, *steps: str) -> Operation:
        """The same product with this epilogue."""
        return replace(self, epilogue=steps)

    def switched_on(self, *steps: str) -> Operation:
        """The same product and what a kernel has compiled in, with these of SWITCHED, which come first."""
        first = ("alpha",) if self.has_alpha else ()
        return self.with_steps(*first, *steps, *(step for step in self.compiled if step != "alpha"))

    @cached_property
    def _text(self) -> str:
        kind = "" if self.kind == "gemm" else f"{self.kind}{self.count or ''}."
        b = "" if self.b == self.a else f"*{self.b}"
        scales = "".join(f".{word}" for word in (self.scales, self.accumulation) if word)
        c = "" if self.c == self.a else f"->{self.c}"
        steps = "".join(f"+{step}" for step in self.epilogue)
        return f"{kind}{self.a}{b}.{self.layout}{scales}{c}{steps}"

    def __str__(self) -> str:
        return self._text

    def __hash__(self) -> int:
        return hash(self._text)  # problems are keys of large dictionaries, and a string keeps its hash


@lru_cache(maxsize=4096)
def operation_of(text: str) -> Operation:
    """The operation that `text` names. Raises InputError, one line, for anything else."""
    match = _TEXT.match(text) if len(text) <= OPERATION_TEXT_MAX else None
    if match is None:
        raise InputError(f"operation {shown(text)} must read like bf16.nt, bf16.nt+bias or f16.nt")
    words = match.groupdict(default="")
    steps = tuple(words.pop("steps").split("+")[1:])
    words |= {"kind": words["kind"] or "gemm"}
    count = int(words.pop("count") or 0)
    operation = Operation(**words, epilogue=steps, count=count)
    if words["kind"] in COUNTED and match["count"] and not count:
        raise InputError(
            f"operation {shown(text)} is of no product: say how many, such as {replace(operation, count=8)}"
        )
    if str(operation) != text:
        raise InputError(f"operation {shown(text)} must be written {operation}")
    return operation


@lru_cache(maxsize=4096)
def problem_operation(text: str) -> Operation:
    """The operation of a problem that `text` names: one of several products says how many. Raises InputError, one line,
    for anything else."""
    operation = operation_of(text)
    if operation.kind in COUNTED and not operation.count:
        counted = replace(operation, count=8)
        raise InputError(f"operation {operation}: is of any number of products: say how many, such as {counted}")
    return operation


@dataclass(frozen=True)
class OperationFacts:
    """What expressions of templates and spaces may ask of an operation: `operation.a_bytes` and so on."""

    a_dtype: str
    b_dtype: str
    c_dtype: str
    a_bytes: int
    b_bytes: int
    c_bytes: int
    a_bits: int
    b_bits: int
    layout: str
    kind: str
    activation: str
    gated: bool
    gates: str
    residual: bool
    alpha: bool
    beta: bool
    added_dtype: str
    added_bytes: int
    scales_c: bool
    b_columns: int
    scales: str
    accumulation: str


@lru_cache(maxsize=4096)
def facts_of(operation: Operation) -> OperationFacts:
    """The names of its formats, the bytes of what each stores as one, the bits of one element of A and B, and its
    words. `activation`, `gates` and `scales` are none without one; `accumulation` is full without a word. `gated`,
    `residual`, `alpha`, `beta` and `scales_c` say whether it has these; `added_dtype` and `added_bytes` are of a bias
    and of a residual. B has `b_columns` for each column of C."""
    a, b, c = operation.a_dtype, operation.b_dtype, operation.c_dtype
    return OperationFacts(
        a_dtype=a.name,
        b_dtype=b.name,
        c_dtype=c.name,
        a_bytes=a.bytes,
        b_bytes=b.bytes,
        c_bytes=c.bytes,
        a_bits=a.width_bits,
        b_bits=b.width_bits,
        layout=operation.layout,
        kind=operation.kind,
        activation="_".join(operation.activations) or "none",
        gated=operation.is_gated,
        gates=GATES.get(operation.gates_step, "none"),
        residual=operation.has_residual,
        alpha=operation.has_alpha,
        beta=operation.has_beta,
        added_dtype=operation.added_dtype.name,
        added_bytes=operation.added_dtype.bytes,
        scales_c=operation.scales_c,
        b_columns=operation.b_columns,
        scales=operation.scales or "none",
        accumulation=operation.accumulation or "full",
    )


BF16_NT = Operation()
"""The product of torch.nn.Linear in bf16: what a row or an entry that names no operation means."""
BF16_NT_BIAS = BF16_NT.with_steps("bias")


LEGACY_WORDS = {"dtype": ("bf16",), "epilogue": ("none", "bias")}
"""What named an operation in the formats before operations, and all the words that they had."""


def legacy_words(operation: Operation) -> tuple[str, str]:
    """`operation` as the `dtype` and `epilogue` of those formats. Raises InputError where they have no words for it."""
    dtype, epilogue = operation.a, operation.epilogue[0] if operation.epilogue else "none"
    if legacy_operation(dtype, epilogue) != operation:
        raise InputError(f"operation {operation} has no dtype and epilogue of its own")
    return dtype, epilogue


def legacy_operation(dtype: str, epilogue: str) -> Operation:
    """The operation of a row, an entry or a shape of the formats before operations: `dtype` and an `epilogue` of none
    or bias. Raises InputError for any other word."""
    for what, word in (("dtype", dtype), ("epilogue", epilogue)):
        if word not in LEGACY_WORDS[what]:
            raise InputError(f"{what} {shown(word)} is not known: known are {', '.join(LEGACY_WORDS[what])}")
    return Operation(dtype, epilogue=() if epilogue == "none" else (epilogue,))
