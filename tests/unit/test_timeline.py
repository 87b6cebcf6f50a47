"""`--timeline`: what each wave does over modelled cycles, and the cycles of each source line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from gfx950_code import assemble, launch
from hazard_kernels import ENTRY

from hktune.cli import main
from hktune.core.board import DEFAULT_BOARD
from hktune.device.emulated import EmulatedDevice
from hktune.emulator.clock.wave_timeline import MEMORY_CLK, Timeline, timeline_of

pytest.importorskip("ziglang")

KERNEL = """
global_load_dword v10, v1, s[6:7]
v_mov_b32 v4, 0
s_waitcnt vmcnt(0)
ds_write_b32 v1, v10
s_waitcnt lgkmcnt(0)
s_barrier
v_mfma_f32_16x16x32_bf16 v[20:23], v[4:7], v[4:7], 0
s_nop 7
global_store_dword v1, v20, s[8:9]
"""


def timeline(waves: int) -> Timeline:
    device = EmulatedDevice(deadline_s=60.0, record_trace=True)
    code = assemble(f"{ENTRY}{KERNEL}s_endpgm", lds_bytes=4096)
    launch(code, np.zeros(4096, np.uint32), np.zeros(4096, np.uint32), block=(64 * waves, 1, 1), device=device)
    assert device.trace is not None
    return timeline_of(device.trace, DEFAULT_BOARD.arch)


def test_a_wave_waits_as_long_as_memory_takes() -> None:
    [wave] = timeline(1).waves
    kinds = [span.activity for span in wave]
    assert kinds == [
        "load", "load", "other", "other", "wait", "load", "other", "wait", "LDS", "wait", "barrier", "MFMA", "other",
        "store", "other",
    ]  # fmt: skip
    load, wait = wave[5], wave[7]
    assert MEMORY_CLK <= wait.end_clk - load.start_clk < MEMORY_CLK + 100
    assert all(span.start_clk <= span.end_clk for span in wave)


def test_the_cycles_of_all_instructions_are_those_of_a_wave() -> None:
    """Each is charged with the cycles since the issue before it, so they add up to the last issue's."""
    for waves in (1, 4):
        made = timeline(waves)
        last = np.mean([spans[-1].start_clk for spans in made.waves])
        assert sum(made.clk_by_address.values()) == pytest.approx(last)
        assert made.end_clk >= last


def test_waves_leave_a_barrier_together() -> None:
    made = timeline(4)
    left = {span.end_clk for spans in made.waves for span in spans if span.activity == "barrier"}
    assert len(left) == 1


SOURCE = """#include <hip/hip_runtime.h>
extern "C" __global__ void k(const float* x, float* y) {
  __shared__ float t[128];
  t[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = t[127 - threadIdx.x];
}
"""


def test_the_page_stands_alone_and_names_lines(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    source, page = tmp_path / "k.hip", tmp_path / "out.html"
    source.write_text(SOURCE)
    words = ["verify", "--kernel", str(source), "--args", "x:f32[128] y:out:f32[128]", "--block", "128"]
    assert main([*words, "--try-seconds", "0", "--timeline", str(page)]) == 0
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    [figure] = json.loads(found[1]).values()
    bars = {trace["name"]: trace for trace in figure["data"]}
    assert {"LDS", "load", "store", "wait", "barrier"} <= set(bars)
    assert set(bars["LDS"]["y"]) == {"wave 0", "wave 1"}
    assert any(word.startswith("k.hip:4 ds_write_b32") for word in bars["LDS"]["text"])
    assert all(each >= 0 for trace in figure["data"] for each in trace["x"])
    assert "k.hip:6" in text
    assert "default-src 'none'" in text  # so nothing is fetched


def test_a_kernel_that_does_not_end_has_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = tmp_path / "kernel.co", tmp_path / "out.html"
    file.write_bytes(assemble("s_sethalt 1\ns_endpgm", pointers=0))
    assert main(["verify", "--kernel", str(file), "--timeline", str(page)]) == 1
    assert not page.exists()
    assert "not written, as the kernel did not come to its end" in capsys.readouterr().err
