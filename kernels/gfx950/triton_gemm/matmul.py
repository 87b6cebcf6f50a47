"""C = A B^T (+ bias) in Triton, as its users write it for AMD GPUs: one workgroup a tile, masked only where it must be.

The rows of A and B beyond the last are read as earlier rows again, so that loads need no mask along m and n; what they
come to is not stored. The loop has a mask along k only where k is no multiple of block_k.
"""

import triton
import triton.language as tl


@triton.jit
def place_of(tile, tiles_m, tiles_n, xcds: tl.constexpr, xcd_chunk: tl.constexpr, group_rows: tl.constexpr):
    """Row and column of the tile of C that workgroup `tile` computes.

    Neighbouring tiles go to one accelerator die, `xcd_chunk` in a row, and tiles are numbered down the columns of
    `group_rows` rows at a time.
    """
    if xcd_chunk > 1:
        run: tl.constexpr = xcds * xcd_chunk
        if tile < tiles_m * tiles_n // run * run:
            tile = tile // run * run + tile % xcds * xcd_chunk + tile % run // xcds
    group = group_rows * tiles_n
    first = tile // group * group_rows
    within = tile % group
    rows = min(group_rows, tiles_m - first)
    return first + within % rows, within // rows


@triton.jit
def hktune_triton_gemm(
    a,
    b,
    c,
    bias,
    m,
    n,
    k,
    lda,
    ldb,
    ldc,
    bias_given,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    whole_k: tl.constexpr,
    xcds: tl.constexpr,
    xcd_chunk: tl.constexpr,
    group_rows: tl.constexpr,
):
    """One tile of C. Row strides are in elements; `bias` is read where `bias_given` is not 0."""
    # What the compiler may take for granted: offsets that are not negative can be those of buffer loads.
    tl.assume(m > 0)
    tl.assume(n > 0)
    tl.assume(k > 0)
    tl.assume(lda > 0)
    tl.assume(ldb > 0)
    tl.assume(ldc > 0)
    row, column = place_of(tl.program_id(0), tl.cdiv(m, block_m), tl.cdiv(n, block_n), xcds, xcd_chunk, group_rows)
    tl.assume(row >= 0)
    tl.assume(column >= 0)

    depth = tl.arange(0, block_k)
    rows = (row * block_m + tl.arange(0, block_m)) % m
    columns = (column * block_n + tl.arange(0, block_n)) % n
    a_tile = a + rows[:, None] * lda + depth[None, :]
    b_tile = b + columns[None, :] * ldb + depth[:, None]
    sums = tl.zeros((block_m, block_n), tl.float32)
    for step in range(tl.cdiv(k, block_k)):
        if whole_k:
            left, right = tl.load(a_tile), tl.load(b_tile)
        else:
            inside = depth < k - step * block_k
            left = tl.load(a_tile, mask=inside[None, :], other=0.0)
            right = tl.load(b_tile, mask=inside[:, None], other=0.0)
        sums = tl.dot(left, right, sums)
        a_tile += block_k
        b_tile += block_k

    rows = row * block_m + tl.arange(0, block_m)
    columns = column * block_n + tl.arange(0, block_n)
    addend = tl.load(bias + columns, mask=(columns < n) & (bias_given != 0), other=0.0)
    total = sums + addend.to(tl.float32)[None, :]
    inside = (rows < m)[:, None] & (columns < n)[None, :]
    tl.store(c + rows[:, None] * ldc + columns[None, :], total.to(c.dtype.element_ty), mask=inside)
