"""One planted bug of each kind is found, and the right kernels pass: a part of benchmarks/planted_bugs.py."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
from planted_bugs import cases, judged, planted, said
from planted_kernels import ALL, HISTOGRAM, LAST_BLOCK, MATMUL, PRODUCER, REVERSE, PlantedKernel

pytest.importorskip("ziglang")

FOUND = {
    "barrier": (REVERSE, "lds-race"),
    "offset": (REVERSE, "wrong"),
    "size": (REVERSE, "lds-bounds"),
    "uninitialised": (HISTOGRAM, "uninitialised-lds"),
    "race": (HISTOGRAM, "lds-race"),
    "constant": (MATMUL, "wrong"),
    "wait": (LAST_BLOCK, "memory-race"),
}


@pytest.mark.parametrize("kind", FOUND)
def test_a_planted_bug_is_found(kind: str) -> None:
    kernel, what = FOUND[kind]
    bugs = [bug for bug in kernel.bugs if bug.kind == kind]
    assert any(what in said(judged(kernel, planted(kernel, bug))) for bug in bugs)


@pytest.mark.parametrize("kernel", [HISTOGRAM, PRODUCER, LAST_BLOCK], ids=lambda kernel: kernel.name)
def test_the_right_kernel_has_no_findings(kernel: PlantedKernel) -> None:
    result = judged(kernel, kernel.source)
    assert result.right, result


def test_a_wait_left_out_of_the_code_is_found() -> None:
    waits = [code for kind, _, code in cases(REVERSE, random.Random(0)) if kind == "wait"]
    assert waits
    for code in waits:
        assert not judged(REVERSE, code).right


def test_a_hundred_bugs_of_seven_kinds_are_planted() -> None:
    bugs = [bug for kernel in ALL for bug in kernel.bugs]
    assert len(bugs) >= 100
    assert {bug.kind for bug in bugs} == set(FOUND)
    for kernel in ALL:
        for bug in kernel.bugs:
            assert planted(kernel, bug) != kernel.source
