"""The YAML of hipblaslt-bench and rocblas-bench, as their libraries log the calls of a program (HIPBLASLT_LOG_MASK=64,
ROCBLAS_LAYER=4), or as a person wrote it for `--yaml`.

    - {function: matmul, M: 4096, N: 16, K: 4096, transA: T, transB: N, a_type: bf16_r, ..., call_count: 12}
    - { rocblas_function: "rocblas_gemm_ex", a_type: "bf16_r", ..., transA: 'T', transB: 'N', M: 4096, ... }

A log has each call on a line of its own, among lines of others. A file that has none such is read as one document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hktune.core.yaml_file import Malformed, parsed
from hktune.exchange.blas import is_product, with_function

_KEY = re.compile(r"^[\s-]*(?:rocblas_)?function:", re.MULTILINE)
_FUNCTIONS = ("rocblas_function", "function")


def knows(text: str) -> bool:
    """Whether `text` is a document that lists calls, in several lines each."""
    return _KEY.search(text) is not None


def call_of(line: str) -> tuple[Mapping[str, object], object] | None:
    """The arguments of the call that `line` says, by their names in small letters, and how often it was made; None for
    a line that is no call, or one of another function."""
    text = line[line.find("{") : line.rfind("}") + 1]
    if not text.startswith("{") or "function:" not in text:
        return None
    try:
        call = parsed(text)
    except Malformed:
        return None
    return _call(call)


def calls_in(text: str) -> list[tuple[Mapping[str, object], object]]:
    """The calls of a document. Raises Malformed where it is not YAML."""
    document = parsed(text)
    listed = document if isinstance(document, list) else [document]
    return [call for each in listed if (call := _call(each)) is not None]


def _call(call: object) -> tuple[Mapping[str, object], object] | None:
    if not isinstance(call, dict):
        return None
    function = next((str(call[name]) for name in _FUNCTIONS if name in call), "")
    if not is_product(function):
        return None
    words = {str(name).lower(): value for name, value in call.items()}
    return with_function(words, function), call.get("call_count", 1)
