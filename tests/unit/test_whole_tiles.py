"""Where the tiles of one product are: the kernel's own source, compiled for this machine."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import host_library
import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "kernels" / "sm90a" / "gemm_bf16"
BEFORE = """
struct { unsigned x; } blockIdx, gridDim;
using u32 = unsigned;
#define DEVICE inline
inline int min(int a, int b) { return a < b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline int max(int a, int b) { return a < b ? b : a; }
inline u32 __shfl_sync(u32, u32 value, int) { return value; }
constexpr int K_STEP = 64, GROUP = 8, ELEMENT_BYTES = 2, BYTES_OF_C = 2, LONG_K = 2048;
constexpr bool SCALED = false, RESIDUAL = false, GATED = false, SHARED = false;
constexpr int CLUSTER = CLUSTER_ROWS * CLUSTER_COLUMNS * SPLIT_K;
"""
BEHIND = """
extern "C" int listed(int rows, int columns, int k, int added, int blocks, int* out) {
    int* next = out;
    gridDim.x = blocks;
    for (blockIdx.x = 0; int(blockIdx.x) < blocks; ++blockIdx.x) {
        const Schedule schedule(rows, columns, k, WHOLE_TILES && !added && k >= LONG_K);
        for (Work work = schedule.first(); schedule.has(work); schedule.next(work)) {
            *next++ = schedule.locate(work).row;
            *next++ = schedule.locate(work).column;
        }
    }
    return int(next - out);
}
"""
CONSTANTS = [
    {"OUT_ROWS": 64, "OUT_COLUMNS": 176, "CLUSTER_ROWS": 1, "CLUSTER_COLUMNS": 1, "SPLIT_K": 1, "PERSISTENT": False},
    {"OUT_ROWS": 256, "OUT_COLUMNS": 152, "CLUSTER_ROWS": 2, "CLUSTER_COLUMNS": 1, "SPLIT_K": 1, "PERSISTENT": True},
    {"OUT_ROWS": 128, "OUT_COLUMNS": 72, "CLUSTER_ROWS": 2, "CLUSTER_COLUMNS": 4, "SPLIT_K": 1, "PERSISTENT": True},
    {"OUT_ROWS": 128, "OUT_COLUMNS": 96, "CLUSTER_ROWS": 1, "CLUSTER_COLUMNS": 1, "SPLIT_K": 2, "PERSISTENT": False},
    {"OUT_ROWS": 128, "OUT_COLUMNS": 96, "CLUSTER_ROWS": 1, "CLUSTER_COLUMNS": 1, "SPLIT_K": 3, "PERSISTENT": False},
]
SIZES = [(1000, 1000), (896, 1280), (5000, 768), (1153, 1281), (40, 3000), (64, 176)]


def schedule_source() -> str:
    """What decides for one product, without what only a GPU has."""
    text = (FOLDER / "schedule.cu").read_text()
    whole = text[text.index("// A cluster's tile, and where") : text.index("// ---- producer")]
    whole = re.sub(r"    DEVICE void settle\(\) const \{.*?\n    \}\n", "", whole, flags=re.DOTALL)
    lines = [*(FOLDER / "spot.cu").read_text().splitlines(), *whole.splitlines()]
    return "\n".join(line for line in lines if not line.startswith("#"))


def tiles(
    folder: Path, constants: Mapping[str, object], threads_store: bool = False
) -> Iterator[tuple[int, int, int, bool, set[tuple[int, int]]]]:
    """Of each size, k, and whether C is added to: where its tiles begin."""
    named = "".join(f"constexpr auto {name} = {str(value).lower()};\n" for name, value in constants.items())
    named += f"constexpr bool THREADS_STORE = {str(threads_store).lower()};\n"
    source, library = folder / "listed.cpp", folder / "listed.so"
    source.write_text(named + BEFORE + schedule_source() + BEHIND)
    function = ctypes.CDLL(str(host_library.built(source, library, "-O1"))).listed
    down, across = int(str(constants["OUT_ROWS"])), int(str(constants["OUT_COLUMNS"]))
    of_cluster = [int(str(constants[name])) for name in ("CLUSTER_ROWS", "CLUSTER_COLUMNS", "SPLIT_K")]
    for rows, columns in SIZES:
        clusters = -(-rows // (down * of_cluster[0])) * -(-columns // (across * of_cluster[1]))
        for k, added in ((64, False), (4096, False), (4096, True)):
            out = np.zeros(1 << 16, np.int32)
            blocks = clusters * of_cluster[0] * of_cluster[1] * of_cluster[2]
            size = function(rows, columns, k, added, blocks, out.ctypes.data_as(ctypes.c_void_p))
            found = out[:size].reshape(-1, 2)
            yield rows, columns, k, added, {(int(row), int(column)) for row, column in found.tolist()}


@pytest.mark.parametrize("constants", CONSTANTS)
def test_tiles_cover_c_and_are_whole_where_k_is_long(tmp_path: Path, constants: dict[str, object]) -> None:
    down, across = int(str(constants["OUT_ROWS"])), int(str(constants["OUT_COLUMNS"]))
    for rows, columns, k, added, begins in tiles(tmp_path, constants):
        covered = np.zeros((rows, columns), np.int32)
        for row, column in begins:
            covered[row : row + down, column : column + across] += 1
        assert covered.min() == 1, (rows, columns, k)
        if k >= 2048 and not added and int(str(constants["SPLIT_K"])) <= 2:
            beyond = [each for each in begins if rows >= down and each[0] + down > rows]
            assert not beyond
            assert not [each for each in begins if columns >= across and each[1] + across > columns]
        else:
            assert covered.max() == 1, (rows, columns, k)
            assert all(row % down == column % across == 0 or row >= rows or column >= columns for row, column in begins)


def test_where_threads_copy_pairs_tiles_begin_at_even_lines(tmp_path: Path) -> None:
    for rows, columns, k, _, begins in tiles(tmp_path, CONSTANTS[0], threads_store=True):
        covered = np.zeros((rows, columns), np.int32)
        for row, column in begins:
            covered[row : row + 64, column : column + 176] += 1
        assert covered.min() == 1, (rows, columns, k)
        assert not [each for each in begins if each[0] % 2 or each[1] % 2]
