"""PyTorch's TunableOp: files of results (PYTORCH_TUNABLEOP_FILENAME) and of untuned products.

    Validator,GCN_ARCH_NAME,gfx942:sramecc+:xnack-
    GemmTunableOp_BFloat16_TN,tn_8192_2_3584_ld_3584_3584_8192,Gemm_Hipblaslt_572,0.0240676

A line says what was called, its sizes in BLAS order, and of results which way was the fastest and its time in ms.
Releases before 2.5 wrote no row strides, and an untuned file has no more than the first two words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hktune.core.problem import Problem
from hktune.exchange.blas import blas_problem
from hktune.exchange.product import BATCHED, NotServed, Product, time_of

NAME = "TunableOp's results"
_MS_US = 1e3
_OPERATOR = re.compile(r"(?P<kind>(?:Gemm|ScaledGemm)[A-Za-z]*TunableOp)_(?P<formats>.+)_(?P<trans>[NTnt]{2})\Z")
_SIZES = re.compile(r"[ntNT]{2}_(?P<m>[^_]+)_(?P<n>[^_]+)_(?P<k>[^_]+)(?:_.*)?\Z")
_LINE = re.compile(r"^(?:Validator,|(?:Gemm|ScaledGemm)[A-Za-z]*TunableOp_)", re.MULTILINE)
_FORMATS = {"BFloat16": "bf16_r", "Half": "f16_r", "float": "f32_r", "tf32": "f32_r", "double": "float64"}
_KINDS = {"GemmTunableOp": False, "GemmAndBiasTunableOp": True}
"""What is one product of two matrices, and whether a bias is added."""
_OTHERS = {"GemmStridedBatchedTunableOp": BATCHED, "ScaledGemmTunableOp": "scaled operands"}


def knows(text: str) -> bool:
    """Whether `text` is of such a file."""
    return _LINE.search(text) is not None


def products(lines: Iterator[tuple[int, str]], arch: str) -> Iterator[Product]:
    """What numbered lines name; validators, empty lines and comments name nothing. `arch` is what they were timed on,
    as a validator of the file says."""
    for number, line in lines:
        words = [word.strip() for word in line.split(",", 4)]
        if words[0] == "Validator" or not line.strip() or line.startswith("#"):
            continue
        yield _product(number, words, arch)


def validators(text: str) -> Mapping[str, str]:
    """What the results hold for: versions of PyTorch and ROCm's libraries, and the architecture."""
    found = (line.strip().split(",", 2) for line in text.splitlines() if line.startswith("Validator,"))
    return {words[1]: words[2] for words in found if len(words) == 3}


def _product(number: int, words: list[str], arch: str) -> Product:
    said = f"{words[0]},{words[1]}" if len(words) > 1 else words[0]
    try:
        problem = _problem(*words[:2]) if len(words) > 1 else _problem(words[0], "")
    except NotServed as why:
        return Product(said, number, why_not=str(why))
    way = words[2] if len(words) > 2 else ""
    time_us = time_of(words[3], _MS_US) if len(words) > 3 else None
    return Product(said, number, problem, way=way, time_us=time_us, arch=arch)


def _problem(operator: str, sizes: str) -> Problem:
    named, found = _OPERATOR.match(operator), _SIZES.match(sizes)
    if named is None or (named["kind"] not in _KINDS and named["kind"] not in _OTHERS):
        raise NotServed("no product that TunableOp is known to tune")
    if named["kind"] in _OTHERS:
        raise NotServed(_OTHERS[named["kind"]])
    if found is None:
        raise NotServed("no sizes")
    form = _FORMATS.get(named["formats"], named["formats"])
    words: dict[str, object] = {"a_type": form, "bias_vector": _KINDS[named["kind"]], **found.groupdict()}
    return blas_problem({**words, "transa": named["trans"][0], "transb": named["trans"][1]})
