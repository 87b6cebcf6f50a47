"""AITER's CSV files of untuned and tuned products, of all the columns that they have had.

    M,N,K,bias,dtype,outdtype,scaleAB,bpreshuffle
    gfx,cu_num,M,N,K,bias,dtype,outdtype,scaleAB,bpreshuffle,libtype,solidx,splitK,us,kernelName,err_ratio,tflops,bw

All are y[m,n] = x[m,k] w[n,k]^T, so of layout nt. Files of quantised products name other formats, or none at all: then
the file alone does not say what is computed. The time is `us`; `soltimes`, which was before it, had
several units and is not read. Public files have comments, lines of unfinished merges, missing cells and tabs; such a
line is left out like any other that says no product.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace

from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.exchange.product import (
    BATCHED,
    NO_FORMATS,
    NotServed,
    Product,
    operation_named,
    served_problem,
    text_of,
    time_of,
    truth_of,
)

NAME = "AITER's CSV"
_SIZES = {"m", "n", "k"}
_FORMATS = {"bfloat16": "bf16", "float16": "f16", "half": "f16", "fp16": "f16", "float32": "f32", "float": "f32"}
"""hktune's names of torch's formats, whose names are written with `torch.` before them."""
_QUANTISED = ("q_dtype_w", "a_dtype", "b_dtype", "q_dtype")
_HEADER_COLUMNS_MAX = 64


def knows(text: str) -> bool:
    """Whether the first line of `text` that says anything is a header that names sizes as AITER does: in capitals, or
    with the architecture before them."""
    first = next((line for line in text.split("\n") if line.strip() and not line.startswith("#")), "")
    columns = [name.strip() for name in first.split(",")]
    if len(columns) > _HEADER_COLUMNS_MAX:
        return False
    return set(columns) >= {"M", "N", "K"} or (columns[0] == "gfx" and set(columns) >= _SIZES)


def products(lines: Iterator[tuple[int, str]], operation: Operation | None) -> Iterator[Product]:
    """What numbered lines name, the first of them the header; empty lines and comments name nothing. `operation` is
    what a file computes that does not say."""
    columns: list[str] = []
    for number, line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        if not columns:
            columns = _columns(line)
            continue
        yield _product(number, line, columns, operation)


def _columns(line: str) -> list[str]:
    return [name.strip().lower() for name in line.split(",")]


def _product(number: int, line: str, columns: list[str], operation: Operation | None) -> Product:
    try:
        cells = next(csv.reader([line]), [])
    except csv.Error:
        cells = []
    if len(cells) != len(columns):
        return Product(line, number, why_not=f"a line without the {len(columns)} cells of the header")
    row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
    product = Product(",".join(row[name] for name in ("m", "n", "k")), number)
    try:
        problem = _problem(row, operation)
    except NotServed as why:
        return replace(product, why_not=str(why))
    way = " ".join(filter(None, (text_of(row, "libtype"), text_of(row, "kernelname"))))
    arch, units = text_of(row, "gfx"), _compute_units(row)
    return replace(product, problem=problem, way=way, time_us=time_of(row.get("us")), arch=arch, compute_units=units)


def _problem(row: Mapping[str, object], operation: Operation | None) -> Problem:
    if text_of(row, "b"):
        raise NotServed(BATCHED)
    quantised = next((text for name in _QUANTISED if (text := text_of(row, name))), "")
    if quantised:
        raise NotServed(f"operands of {quantised}")
    if truth_of(row.get("scaleab")):
        raise NotServed("scaled operands")
    if truth_of(row.get("bpreshuffle")):
        raise NotServed("an operand that is stored in blocks")
    computed = _operation(row) or operation
    if computed is None:
        raise NotServed(NO_FORMATS)
    return served_problem(row.get("m"), row.get("n"), row.get("k"), computed)


def _operation(row: Mapping[str, object]) -> Operation | None:
    """What a line says that it computes; None where it names no format."""
    said = text_of(row, "dtype")
    if not said:
        return None
    of_c = text_of(row, "outdtype") or said
    a, c = (_FORMATS.get(name.removeprefix("torch."), name) for name in (said, of_c))
    return operation_named(a, a, c, has_bias=truth_of(row.get("bias")))


def _compute_units(row: Mapping[str, object]) -> int:
    said = text_of(row, "cu_num")
    return int(said) if said.isdecimal() and said.isascii() and len(said) < 6 else 0
