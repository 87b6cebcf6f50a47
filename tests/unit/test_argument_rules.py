"""What a table from a stranger may say of a kernel's arguments: what no launch can pass is refused when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from naive_gemm import published, reseal, trial

from hktune.core.argument_rules import check_argument
from hktune.core.errors import TableError
from hktune.core.launch import Argument
from hktune.core.problem import Problem
from hktune.dispatch import read_table

Arguments = list[dict[str, Any]]
POINTERS: Arguments = [{"name": name, "kind": "pointer"} for name in ("a", "b", "c")]
PLACED: Arguments = [{**each, "offset_bytes": 8 * at} for at, each in enumerate(POINTERS)]
FLOAT32_MAX = float(np.finfo(np.float32).max)


def one(kind: str, constant: float, **others: Any) -> Arguments:
    return [*POINTERS, {"name": "one", "kind": kind, "constant": constant, **others}]


def read_with(directory: Path, arguments: Arguments, operation: str = "bf16.nt", **launch: Any) -> None:
    """The table in `directory` with one row whose kernel takes `arguments`, read."""
    published(directory, trial(Problem(8, 64, 64)))
    path = directory / "table.json"
    document = json.loads(path.read_text())
    document["entries"][0]["operation"] = operation
    document["entries"][0]["kernel"]["launch"].update({"arguments": arguments, **launch})
    try:
        reseal(directory, lambda _: json.dumps(document))
    except ValueError:  # it has no sha256 that fits: what is wrong is found when it is read
        path.write_text(json.dumps(document))
    read_table(directory)


@pytest.mark.parametrize(
    "arguments",
    [
        one("u32", 0),
        one("u32", 2**32 - 1),
        one("i32", -(2**31)),
        one("i32", 2**31 - 1),
        one("u64", 2**64 - 1),
        one("f32", FLOAT32_MAX),
        one("f32", -FLOAT32_MAX),
        one("pointer", 0),
        [*POINTERS, {"name": "lda", "kind": "u32", "scale": 64}],
        [*POINTERS, {"name": "workspace", "kind": "pointer"}, {"name": "bias_given", "kind": "i32"}],
        [*PLACED[::-1], {"name": "m", "kind": "u32", "offset_bytes": 28}],
    ],
)
def test_what_can_be_passed_is_read(tmp_path: Path, arguments: Arguments) -> None:
    read_with(tmp_path, arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (one("u32", 2**32), "argument one is a u32: its value must be 0 to 4294967295"),
        (one("u32", -1), "argument one is a u32"),
        (one("i32", 2**31), "argument one is a i32: its value must be -2147483648 to 2147483647"),
        (one("i32", -(2**31) - 1), "argument one is a i32"),
        (one("u64", 2**64), "argument one is a u64"),
        (one("u64", -1), "argument one is a u64"),
        (one("u64", 10**400), "argument one is a u64"),
        (one("u32", 1.5), "an f32 has a value with a point"),
        (one("f32", 1), "an f32 has a value with a point"),
        (one("f32", FLOAT32_MAX * 1.001), "argument one is an f32: .* is no finite float32"),
        (one("f32", -1e300), "argument one is an f32"),
        (one("pointer", 8), "argument one is a pointer: the only value of one is 0"),
        (one("u32", 2, scale=2), "argument one has scale 2"),
        ([{**POINTERS[0], "scale": 2}, *POINTERS[1:]], "argument a has scale 2"),
        ([*POINTERS, {"name": "lda", "kind": "u32", "scale": 65}], "scale"),
        ([{**POINTERS[0], "constant": 0}, *POINTERS[1:]], "argument a has a constant value"),
        ([*POINTERS[:2], {**POINTERS[2], "constant": 0}], "argument c has a constant value"),
        ([*POINTERS, {"name": "m", "kind": "u32", "constant": 8}], "argument m has a constant value"),
        ([*POINTERS, {"name": "bias_given", "kind": "u32", "constant": 1}], "argument bias_given has a constant value"),
        ([*POINTERS, {"name": "bt", "kind": "pointer", "constant": 0}], "argument b has a constant value"),
        ([*POINTERS, {"name": "gamma", "kind": "u32"}], "argument 'gamma' is not known"),
        ([*POINTERS, {"name": "alpha", "kind": "f32"}], "argument alpha is a f32: it must be a pointer"),
        ([*POINTERS, {"name": "m", "kind": "f32"}], "argument m is a f32: it must be a u32, i32 or u64"),
        ([*one("u32", 1), {"name": "one", "kind": "u32", "constant": 2}], "argument one is there twice"),
        (POINTERS[:2], "must be a, b, c and others"),
        ([*PLACED, {"name": "m", "kind": "u32"}], "give each its place, or none"),
        ([*PLACED, {"name": "m", "kind": "u32", "offset_bytes": 16}], "argument m at offset_bytes 16 overlaps c"),
        ([*PLACED, {"name": "m", "kind": "u32", "offset_bytes": 20}], "argument m at offset_bytes 20 overlaps c"),
        ([*PLACED, {"name": "m", "kind": "u32", "offset_bytes": 30}], "argument m has offset_bytes 30: .* of 4"),
        ([*PLACED, {"name": "m", "kind": "u64", "offset_bytes": 28}], "argument m has offset_bytes 28: .* of 8"),
    ],
)
def test_what_cannot_be_passed_is_refused_when_a_table_is_read(tmp_path: Path, arguments: Arguments, says: str) -> None:
    with pytest.raises(TableError, match=says) as caught:
        read_with(tmp_path, arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["bias", "scale_a", "scale_b", "workspace"])
def test_what_an_operation_needs_cannot_be_a_constant(tmp_path: Path, name: str) -> None:
    arguments = [*POINTERS, {"name": name, "kind": "pointer", "constant": 0}]
    operation = {"bias": "bf16.nt+bias", "workspace": "bf16.nt"}.get(name, "e4m3.nt.rows->bf16")
    with pytest.raises(TableError, match=f"argument {name} has a constant value"):
        read_with(tmp_path, arguments, operation, workspace_bytes=65536)


def test_the_ends_of_float32_are_those_of_numpy() -> None:
    """Between the largest float32 and what would be the next, values round to one of them."""
    beyond = 2.0**128
    for value in (FLOAT32_MAX, np.nextafter((FLOAT32_MAX + beyond) / 2, 0), (FLOAT32_MAX + beyond) / 2, beyond):
        with np.errstate(over="ignore"):
            fits = bool(np.isfinite(np.float64(value).astype(np.float32)))
        for signed in (float(value), -float(value)):
            if fits:
                check_argument(Argument("x", "f32", constant=signed))
            else:
                with pytest.raises(ValueError, match="no finite float32"):
                    check_argument(Argument("x", "f32", constant=signed))
    for value in (float("inf"), float("-inf"), float("nan")):
        with pytest.raises(ValueError, match="no finite float32"):
            check_argument(Argument("x", "f32", constant=value))
