"""What hipblaslt-bench and rocblas-bench print of the products that they have timed: a line of names and one of values.

    [0]:transA,transB,grouped_gemm,batch_count,m,n,k,alpha,...,a_type,b_type,c_type,d_type,...,hipblaslt-Gflops,us
        T,N,0,1,4096,16,4096,1,...,bf16_r,bf16_r,bf16_r,bf16_r,...,31234,17.2

rocblas-bench prints no formats: then the table alone does not say what is computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_HEADER = re.compile(r"(?:\[\d+\]:)?\s*transA,transB,\S*", re.IGNORECASE)
_WAYS = {"hipblaslt-gflops": "hipBLASLt", "rocblas-gflops": "rocBLAS"}


@dataclass(frozen=True)
class Timed:
    """One line of values by their names in small letters, and whose library it is of."""

    line: int
    words: Mapping[str, object]
    way: str


def timed(lines: Iterator[tuple[int, str]]) -> Iterator[Timed]:
    """The lines of values among numbered lines: of as many cells as the last line of names."""
    names: list[str] = []
    for number, line in lines:
        text = line.strip()
        if _HEADER.fullmatch(text):
            names = [name.strip().lower() for name in text.partition(":")[2 if text.startswith("[") else 0].split(",")]
            continue
        cells = [cell.strip() for cell in text.split(",")]
        if names and len(cells) == len(names):
            words = dict(zip(names, cells, strict=True))
            way = next((library for name, library in _WAYS.items() if name in words), "")
            yield Timed(number, words, way)
