"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hip_stand_in import StandIn

TOY_TEMPLATE = """
name: toy
arch: gfx950
language: hip
source: toy.hip
symbol: hktune_toy
arguments:
  - {name: a, kind: pointer}
  - {name: m, kind: i32}
derived:
  warps: warps_m * warps_n
  lds_bytes: stages * (block_m + block_n) * 64 * 2
fields: {block_m: block_m, block_n: block_n, warps_m: warps_m, warps_n: warps_n, stages: stages, order: order,
         eager: eager, lds_bytes: lds_bytes}
tile: {m: block_m, n: block_n, k: 64}
launch:
  grid: ["(m // block_m) * (n // block_n)", 1, 1]
  block: [warps * arch.wave_size, 1, 1]
  dynamic_lds_bytes: lds_bytes
proof: [{m: 2 * block_m, n: 2 * block_n, k: 64 * (stages + 4)}]
"""

TOY_SOURCE = """
constexpr int block_m = ${block_m}, block_n = ${block_n}, warps_m = ${warps_m}, warps_n = ${warps_n};
constexpr int stages = ${stages}, lds_bytes = ${lds_bytes};
constexpr auto order = "${order}";
constexpr bool eager = ${eager};
"""

TOY_SPACE = """
name: toy
template: gfx950/toy
parameters:
  block_m: {values: [64, 128, 256], default: 128, help: rows}
  block_n: {values: [64, 128, 256, 512], default: 128, help: columns}
  warps_m: {values: [1, 2, 4, 8], default: 2, help: warps along the rows}
  warps_n: {values: [1, 2, 4, 8], default: 4, help: warps along the columns}
  stages: {values: [1, 2, 3], default: 2, help: buffers}
  order: {values: [rows, columns, swizzled], default: rows, help: order of the blocks}
  eager: {values: [false, true], default: false, help: load early}
derived:
  tiles: ceil_div(m, block_m) * ceil_div(n, block_n)
constraints:
  - name: lds_fits
    require: lds_bytes <= arch.lds_bytes
    reason: "needs lds_bytes={lds_bytes}, but {arch.name} has {arch.lds_bytes}"
  - name: eight_warps
    require: warps == 8
    reason: "{warps_m} x {warps_n} warps are {warps}, not 8"
  - name: eager_needs_stages
    require: stages > 1 or not eager
    reason: "eager needs two stages, not {stages}"
  - name: m_divides
    require: m % block_m == 0
    reason: "m={m} is not a multiple of block_m={block_m}"
  - name: enough_tiles
    require: tiles >= 4
    reason: "{tiles} tiles are fewer than 4"
seeds:
  - {block_m: 256, block_n: 256, stages: 2}
  - {block_m: 64, eager: true}
"""


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """What presses Ctrl-C, from any thread. A shell starts its background jobs deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def toy_space_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a small search space with coupled parameters, its template beside it in ../kernels/gfx950/toy."""
    root = tmp_path_factory.mktemp("toy")
    template = root / "kernels" / "gfx950" / "toy"
    template.mkdir(parents=True)
    (template / "template.yaml").write_text(TOY_TEMPLATE)
    (template / "toy.hip").write_text(TOY_SOURCE)
    space = root / "search_spaces" / "toy.yaml"
    space.parent.mkdir()
    space.write_text(TOY_SPACE)
    return space


@pytest.fixture(scope="session")
def stand_in_rocm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like ROCm's with a HIP runtime in it that has no device."""
    pytest.importorskip("ziglang")
    from hip_stand_in import build

    return build(tmp_path_factory.mktemp("rocm")).parent.parent


@pytest.fixture
def stand_in(stand_in_rocm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Two emulated MI350X behind that runtime, and the kernel driver's files about them."""
    import torch
    from hip_stand_in import StandIn

    from hktune.device import hip_identity, hip_library, hip_sensors

    # On a machine with ROCm the runtime that torch has loaded would come first.
    monkeypatch.setattr(hip_library, "_loaded", list)
    monkeypatch.setattr(hip_library, "_package_folder", lambda name: None)
    hip_library.hip_library.cache_clear()
    for module in (hip_identity, hip_sensors):
        monkeypatch.setattr(module, "PCI_DEVICES", tmp_path / "pci")
    monkeypatch.setattr(torch.version, "hip", "7.0.51831", raising=False)
    for address in ("0000:e5:00.0", "0000:e6:00.0"):
        folder = tmp_path / "pci" / address
        folder.mkdir(parents=True)
        files = {"vendor": "0x1002", "device": "0x75a0", "subsystem_device": "0x0ee9"}
        files |= {"current_compute_partition": "SPX", "current_memory_partition": "NPS1"}
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")
    runtime = StandIn(stand_in_rocm)
    yield runtime
    runtime.close()
    hip_library.hip_library.cache_clear()
    assert not runtime.broken
