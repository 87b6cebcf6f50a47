"""Command lines of hipblaslt-bench and rocblas-bench, as ROCm's libraries log the calls that a program makes
(HIPBLASLT_LOG_MASK=32, ROCBLAS_LAYER=2), or as a person typed them.

    hipblaslt-bench --api_method c -m 4096 -n 16 -k 4096 --transA T --transB N --a_type bf16_r ...
    12 ./rocblas-bench -f gemm_ex --transposeA T --transposeB N -m 4096 -n 16 -k 4096 --a_type bf16_r ...

A number before the program is how often the line was there (`sort | uniq -c`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hktune.exchange.blas import is_product, with_function

_PROGRAM = re.compile(r"(?:.*/)?(?P<library>hipblaslt|rocblas)-bench(?:\.exe)?\Z")
_OPTION = re.compile(r"--?(?P<name>[A-Za-z][A-Za-z0-9_]*)(?:=(?P<value>.*))?\Z")
_NAMES = {"f": "function", "r": "precision", "transposea": "transa", "transposeb": "transb"} | {
    f"size{size}": size for size in "mnk"
}
"""Options that have two names."""
_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "hipblaslt": {"function": "matmul", "precision": "f16_r"},
    "rocblas": {"function": "", "precision": "f32_r"},
}
"""What the programs take where they are not asked for anything else."""
_COUNT = re.compile(r"[0-9]{1,18}\Z")


def call_of(line: str) -> tuple[Mapping[str, object], object] | None:
    """The arguments of the call that `line` says, by their names in small letters, and how often it was made; None for
    a line that is no command, or one of another function."""
    before: str | None = None
    words = iter(line.split())
    for word in words:
        if found := _PROGRAM.match(word):
            return _call(found["library"], _options(list(words)), before)
        before = word
    return None


def _call(
    library: str, options: Mapping[str, object], before: str | None
) -> tuple[Mapping[str, object], object] | None:
    words = {**_DEFAULTS[library], **options}
    function = str(words["function"])
    if not is_product(function):
        return None
    return with_function(words, function), before if before and _COUNT.match(before) else 1


def _options(words: list[str]) -> dict[str, object]:
    """The options, each with its value: true for one that has none, a list for one that is there several times with
    unlike ones, as the sizes of grouped products are."""
    options: dict[str, object] = {}
    name = ""
    for word in words:
        option = _OPTION.match(word)
        if option is None:
            if name:
                _put(options, name, word)
            name = ""
            continue
        if name:
            options.setdefault(name, True)
        name = option["name"].lower()
        name = _NAMES.get(name, name)
        if option["value"] is not None:
            _put(options, name, option["value"])
            name = ""
    if name:
        options.setdefault(name, True)
    return options


def _put(options: dict[str, object], name: str, value: str) -> None:
    earlier = options.get(name)
    options[name] = value if earlier in (None, value) else [earlier, value]
