"""A product in the words of BLAS, whose matrices are stored by columns, as one of hktune's, stored by rows.

The column-major C[m,n] = op(A)[m,k] op(B)[k,n] is, read by rows, C^T[n,m] = op(B)^T[n,k] op(A)^T[k,m]. So sizes m and n
change places, and so do the operands. A that BLAS transposes (T) is stored as rows [m,k]: hktune's B of layout t, the
weight of a linear layer. B that it does not transpose (N) is rows [n,k]: hktune's A of layout n. TN is therefore nt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hktune.core.problem import Problem
from hktune.exchange.product import (
    BATCHED,
    NO_FORMATS,
    NotServed,
    number_of,
    operation_named,
    served_problem,
    text_of,
    truth_of,
)

_FORMATS = {
    "bf16": "bf16",
    "b": "bf16",
    "f16": "f16",
    "h": "f16",
    "f32": "f32",
    "s": "f32",
    "xf32": "f32",
    "f8": "e4m3",
    "bf8": "e5m2",
    "i8": "i8",
    "i32": "i32",
}
_LAYOUT = {"N": "n", "T": "t", "C": "t"}
"""Of real numbers, C transposes as T does."""
_STORED_OTHERWISE = ("swizzlea", "swizzleb")
_FUNCTION = re.compile(r"(?:rocblas_)?(?:matmul|(?P<precision>[a-z]?)gemm(?P<kind>[a-z0-9_]*))")
_OTHER_STEPS = ("gradient", "use_e", "scalealpha_vector")
_SCALES = ("scalea", "scaleb", "scalec", "scaled")


def blas_problem(words: Mapping[str, object]) -> Problem:
    """The problem of a call whose arguments are `words`, by the names that hipblaslt-bench and rocblas-bench have for
    them, in small letters: m, n, k, transa, a_type and so on. Raises NotServed."""
    _check_plain(words)
    a, b, c = (_format(words, name) for name in ("b_type", "a_type", "d_type"))  # the operands change places
    layout = _layout(words, "transb") + _layout(words, "transa")
    operation = operation_named(a, b, c, layout=layout, has_bias=_has_bias(words))
    return served_problem(words.get("n"), words.get("m"), words.get("k"), operation)


def is_product(function: str) -> bool:
    """Whether a function of hipBLASLt or rocBLAS of this name, or a benchmark's `-f`, is a matrix product."""
    return _FUNCTION.fullmatch(function) is not None


def with_function(words: Mapping[str, object], function: str) -> Mapping[str, object]:
    """`words`, and what the name of a product says besides: rocblas_hgemm_strided_batched its formats, and that there
    are several."""
    found = _FUNCTION.fullmatch(function)
    precision = (found["precision"] if found else "") or text_of(words, "precision")
    said: dict[str, object] = {"a_type": precision} if precision else {}
    if found and "batched" in (found["kind"] or ""):
        said["batch_count"] = "several"
    return {**said, **words}


def _check_plain(words: Mapping[str, object]) -> None:
    """Raises NotServed for what is more than one product of two matrices."""
    if truth_of(words.get("grouped_gemm")) or isinstance(words.get("m"), list):
        raise NotServed("grouped")
    batch = words.get("batch_count", words.get("batch", 1))
    if number_of(batch) != 1:
        raise NotServed(BATCHED)
    if number_of(words.get("alpha", 1)) != 1:
        raise NotServed("alpha is not 1")
    if number_of(words.get("beta", 0)) != 0:
        raise NotServed("beta is not 0: it adds to C")
    if text_of(words, "activation_type").lower() not in ("", "none"):
        raise NotServed("an activation in its epilogue")
    if any(truth_of(words.get(name)) for name in _OTHER_STEPS):
        raise NotServed("another step than a bias in its epilogue")
    if any(truth_of(words.get(name)) for name in _STORED_OTHERWISE):
        raise NotServed("an operand that is stored in blocks")
    if any(text_of(words, name).lower() not in ("", "0", "false", "none") for name in _SCALES):
        raise NotServed("scaled operands")


def _format(words: Mapping[str, object], name: str) -> str:
    """hktune's name of an operand's format. The output's is that of C where nothing else is said, and then of A."""
    fallbacks = {"d_type": ("c_type", "a_type"), "b_type": ("a_type",)}.get(name, ())
    said = next((text for key in (name, *fallbacks) if (text := text_of(words, key))), "")
    if not said:
        raise NotServed(NO_FORMATS)
    word = said.lower().removesuffix("_r")
    return _FORMATS.get(word, said)


def _layout(words: Mapping[str, object], name: str) -> str:
    said = text_of(words, name) or "N"
    if said.upper() not in _LAYOUT:
        raise NotServed("a transposition that is none of N, T, C")
    return _LAYOUT[said.upper()]


def _has_bias(words: Mapping[str, object]) -> bool:
    if not truth_of(words.get("bias_vector")):
        return False
    said = text_of(words, "bias_type")
    if said and said != text_of(words, "d_type"):
        raise NotServed("a bias of another format than C")
    return True
