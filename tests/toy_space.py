"""A small search space with coupled parameters, and its template; and spaces of a test's own as files."""

from __future__ import annotations

from pathlib import Path

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


def space_in(root: Path, name: str, template: str, source: str, space: str) -> Path:
    """The YAML of the space `name` below `root`, its template beside it in ../kernels, as hktune has its own. `name` is
    ARCH/NAME.SUFFIX of the source."""
    arch, _, file = name.partition("/")
    stem = file.partition(".")[0]
    folder = root / "kernels" / arch / stem
    folder.mkdir(parents=True)
    (folder / "template.yaml").write_text(template)
    (folder / file).write_text(source)
    path = root / "search_spaces" / f"{stem}.yaml"
    path.parent.mkdir()
    path.write_text(space)
    return path
