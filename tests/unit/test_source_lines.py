"""The user's own line of an instruction, and the calls that were inlined on the way to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hktune.cli import main

pytest.importorskip("ziglang")

HEADER = """__device__ inline float lib_square(float x) {
  return x * x;
}
__device__ inline float lib_read(float* t, int i) {
  return t[i];
}
"""
SOURCE = """#include <hip/hip_runtime.h>
#include "lib.h"
template <int N> __device__ float twice(float x) { return lib_square(x) * N; }
extern "C" __global__ void k(const float* x, float* y) {
  __shared__ float t[256];
  t[threadIdx.x] = twice<3>(x[threadIdx.x]);
  y[threadIdx.x] = lib_read(t, 255 - threadIdx.x);
}
"""


def test_a_headers_line_gives_way_to_its_callers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lib.h").write_text(HEADER)
    file = tmp_path / "k.hip"
    file.write_text(SOURCE)
    words = ["verify", "--kernel", str(file), "--args", "x:f32[256] y:out:f32[256]", "--block", "256"]
    assert main([*words, "--try-seconds", "0", "--json"]) == 1
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert finding["here"]["line"] == "k.hip:7"
    assert finding["here"]["calls"] == [
        {"function": "lib_read", "file": "lib.h", "line": 5},
        {"function": "k", "file": "k.hip", "line": 7},
    ]
    assert finding["other"]["line"] == "k.hip:6"
    assert main([*words, "--try-seconds", "0", "--allow", "lds-race@lib.h:5"]) == 0
    sarif = tmp_path / "found.sarif"
    assert main([*words, "--try-seconds", "0", "--sarif", str(sarif)]) == 1
    place = json.loads(sarif.read_text())["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": str(file)}, "region": {"startLine": 7}}
