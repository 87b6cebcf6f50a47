"""Which tiles the blocks of a launch of several products take: the kernel's own source, compiled for this machine."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import host_library
import numpy as np
import numpy.typing as npt
import pytest

from hktune.core.group_sizes import row_ranges

FOLDER = Path(__file__).resolve().parents[2] / "kernels" / "sm90a" / "gemm_bf16"
FIELDS = {
    "several.cu": ("block", "tile", "product", "row", "column", "end", "a_line", "b_line"),
    "stack.cu": ("block", "tile", "product", "row", "column", "k", "end", "steps", "last_depth", "in_a", "in_b"),
}

BEFORE = """
struct { unsigned x; } blockIdx, gridDim;
using u32 = unsigned;
#define DEVICE inline
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a < b ? b : a; }
inline int __ldg(const int* at) { return *at; }
enum class Along { k, lines };
constexpr Along WGMMA_A_ALONG = Along::k, WGMMA_B_ALONG = Along::k;
constexpr int SPLIT_K = 1, K_STEP = 64, CLUSTER = CLUSTER_ROWS * CLUSTER_COLUMNS;
"""
BEHIND = """
extern "C" int listed(int m, int n, int k, int count, const int* ends, int blocks, bool one_a, int* out) {
    int* next = out;
    gridDim.x = blocks;
    for (blockIdx.x = 0; int(blockIdx.x) < blocks; ++blockIdx.x) {
        const Schedule schedule(PRODUCTS);
        for (Work work = schedule.first(); schedule.has(work); schedule.next(work)) {
            const Spot spot = schedule.locate(work);
            const int tile[] = {int(blockIdx.x), work.tile, work.product, SWAPPED ? spot.column : spot.row,
                                SWAPPED ? spot.row : spot.column, OTHERS};
            for (int field : tile) *next++ = field;
        }
    }
    return int(next - out);
}
"""
OF_ROWS = """
#define PRODUCTS Products{m, n, k, count, ends}
#define OTHERS work.end, SWAPPED ? spot.b_line : spot.a_line, SWAPPED ? spot.a_line : spot.b_line
"""
OF_MATRICES = """
#define PRODUCTS Products{m, n, k, count, ends, one_a, false}
#define OTHERS spot.k, work.k_end, schedule.steps(work), schedule.last_depth(work), \\
    SWAPPED ? spot.b_matrix : spot.a_matrix, SWAPPED ? spot.a_matrix : spot.b_matrix
"""


def schedule_source(file: str) -> str:
    """The parts of the kernel that decide, without what only a GPU has."""
    files = ((FOLDER / name).read_text().splitlines() for name in ("spot.cu", file))
    return "\n".join(line for lines in files for line in lines if not line.startswith("#"))


Listed = Callable[..., npt.NDArray[np.int32]]


def compiled(folder: Path, file: str, **constants: object) -> Listed:
    """What lists the tiles of all blocks of a launch: m, n, k, where groups end (or how many products there are), the
    number of blocks, and whether all products have one A."""
    plain = {name: value for name, value in constants.items() if name != "GATES"}
    named = "".join(f"constexpr auto {name} = {str(value).lower()};\n" for name, value in plain.items())
    source, library = folder / f"listed_{file}.cpp", folder / f"listed_{file}.so"
    words = OF_ROWS if file == "several.cu" else OF_MATRICES
    if file == "several.cu":
        named += "".join(f"constexpr auto {name} = {value};\n" for name, value in of_gates(constants).items())
    source.write_text(named + BEFORE + schedule_source(file) + words + BEHIND)
    function = ctypes.CDLL(str(host_library.built(source, library, "-O1"))).listed

    def listed(
        m: int, n: int, k: int, ends: Sequence[int] | int, blocks: int, one_a: bool = False
    ) -> npt.NDArray[np.int32]:
        count, given = (ends, []) if isinstance(ends, int) else (len(ends), list(ends))
        out = np.zeros(1 << 20, np.int32)
        own_ends = (ctypes.c_int * len(given))(*given)
        size = function(m, n, k, count, own_ends, blocks, one_a, out.ctypes.data_as(ctypes.c_void_p))
        return out[:size].reshape(-1, len(FIELDS[file]))

    return listed


CONSTANTS = [
    {"SWAPPED": False, "TILE_ROWS": 64, "TILE_COLUMNS": 128, "CLUSTER_ROWS": 2, "CLUSTER_COLUMNS": 1, "GROUP": 4},
    {"SWAPPED": True, "TILE_ROWS": 64, "TILE_COLUMNS": 24, "CLUSTER_ROWS": 1, "CLUSTER_COLUMNS": 2, "GROUP": 1},
]


def of_gates(constants: Mapping[str, object]) -> dict[str, str]:
    """What a tile makes of C, gates being half of its lines of B; and whether it has gates, which are not if unsaid."""
    down, across = int(str(constants["TILE_ROWS"])), int(str(constants["TILE_COLUMNS"]))
    gates = constants.get("GATES", "none")
    of_rows, of_columns = (2, 1) if constants["SWAPPED"] else (1, 2)
    if gates != "none":
        down, across = down // of_rows, across // of_columns
    made = {"OUT_ROWS": down, "OUT_COLUMNS": across, "GATED": gates != "none", "INTERLEAVED": gates == "interleaved"}
    return {name: str(value).lower() for name, value in made.items()}


def tile_of_c(constants: Mapping[str, object]) -> tuple[int, int]:
    made = of_gates(constants)
    down, across = int(made["OUT_ROWS"]), int(made["OUT_COLUMNS"])
    return (across, down) if constants["SWAPPED"] else (down, across)


@pytest.mark.parametrize("gates", ["none", "halves", "interleaved"])
@pytest.mark.parametrize("constants", CONSTANTS)
def test_every_row_of_every_group_is_in_one_tile(tmp_path: Path, constants: dict[str, object], gates: str) -> None:
    constants = {**constants, "GATES": gates}
    listed, tile = compiled(tmp_path, "several.cu", GROUPED=True, **constants), tile_of_c(constants)
    lines_of_n = 2 if gates == "halves" else 1
    random = np.random.default_rng(3)
    for _ in range(40):
        groups, n = int(random.integers(1, 60)), int(random.integers(1, 700))
        ends = np.cumsum(random.integers(1, 300, groups) * random.integers(0, 3, groups).clip(max=1))
        tiles = listed(int(ends[-1]), n, 128, ends.tolist(), 2 * int(random.integers(1, 40)))
        found = np.zeros((int(ends[-1]), n), np.int32)
        ranges = row_ranges(ends.tolist())
        for _, _, product, row, column, end, a_line, b_line in tiles.tolist():
            assert end == ranges[product][1]
            assert ranges[product][0] <= row
            assert (a_line, b_line) == (row, product * n * lines_of_n + column)
            found[row : min(row + tile[0], end), column : column + tile[1]] += 1
        assert (found == 1).all()


@pytest.mark.parametrize("constants", CONSTANTS)
@pytest.mark.parametrize("ragged_k", [False, True])
def test_every_element_of_every_matrix_is_in_one_tile(
    tmp_path: Path, constants: dict[str, object], ragged_k: bool
) -> None:
    listed = compiled(tmp_path, "stack.cu", RAGGED_K=ragged_k, **constants)
    down, across = tile_of_c(constants)
    random = np.random.default_rng(4)
    for _ in range(40):
        count, m, n = (int(random.integers(1, most)) for most in (20, 300, 700))
        ends = np.cumsum(random.integers(0, 3, count) * random.integers(1, 200, count))
        k, one_a = int(ends[-1]) if ragged_k else 100, bool(random.integers(2))
        given = ends.tolist() if ragged_k else count
        tiles = listed(m, n, k, given, 2 * int(random.integers(1, 40)), one_a)
        found = np.zeros((count, m, n), np.int32)
        ranges = row_ranges(ends.tolist()) if ragged_k else [(0, k)] * count
        for _, _, product, row, column, begin, end, steps, last_depth, in_a, in_b in tiles.tolist():
            assert (begin, end) == ranges[product]
            assert (steps, last_depth) == (-(-(end - begin) // 64), (end - begin - 1) % 64 + 1 if end > begin else 64)
            assert (in_a, in_b) == (0 if one_a else product, product)
            found[product, row : row + down, column : column + across] += 1
        assert (found == 1).all()


def test_ends_that_are_wrong_make_no_tile_beyond_c(tmp_path: Path) -> None:
    constants = {
        "SWAPPED": False,
        "TILE_ROWS": 64,
        "TILE_COLUMNS": 64,
        "CLUSTER_ROWS": 1,
        "CLUSTER_COLUMNS": 1,
        "GROUP": 8,
    }
    listed = compiled(tmp_path, "several.cu", GROUPED=True, **constants)
    of_k = compiled(tmp_path, "stack.cu", RAGGED_K=True, **constants)
    for ends in ([50, 20, 999], [-5, 2**31 - 1, 7], [0, 0, 0], [100, 100, 100]):
        for _, _, _, row, _, end, _, _ in listed(100, 64, 64, ends, 3).tolist():
            assert 0 <= row < end <= 100
        for _, _, product, _, _, begin, end, *_ in of_k(64, 64, 100, ends, 3).tolist():
            assert 0 <= begin <= end <= 100
            assert product < 3
