"""C = A B^T (+ bias) in Triton, as its users write it for AMD GPUs: one workgroup a tile, masked only where it must be.

For rows of A and B beyond the last, the last is read again, so that loads need no mask along m and n; what they come to
is not stored. The loop has a mask along k only where k is no multiple of block_k.
"""

import triton
import triton.language as tl


@triton.jit
def place_of(tile, tiles_m, tiles_n, xcds: tl.constexpr, xcd_chunk: tl.constexpr, group_rows: tl.constexpr):
    """Row and column of the tile of C that a workgroup computes.

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
def corner(matrix, part, stride, rows: tl.constexpr):
    """The first row of a part of `rows` rows, wherever that is. Offsets in the part have 31 bits."""
    return matrix + (part * rows).to(tl.int64) * stride


@triton.jit
def inside_rows(part, count, rows: tl.constexpr):
    """The rows of a part, from its first. Those beyond the last of `count` are the last again."""
    return tl.minimum(tl.arange(0, rows), count - 1 - part * rows)


@triton.jit
def store_c(sums, c, bias, m, n, ldc, bias_given, row, column, block_m: tl.constexpr, block_n: tl.constexpr):
    """Add the bias, which is there if `bias_given` is not 0, in float32, round, and store what is inside of C."""
    rows = tl.arange(0, block_m)
    columns = column * block_n + tl.arange(0, block_n)
    addend = tl.load(bias + columns, mask=(columns < n) & (bias_given != 0), other=0.0)
    total = sums + addend.to(tl.float32)[None, :]
    inside = (rows < m - row * block_m)[:, None] & (columns < n)[None, :]
    place = corner(c, row, ldc, block_m) + rows[:, None] * ldc + columns[None, :]
    tl.store(place, total.to(c.dtype.element_ty), mask=inside)


@triton.jit
def hktune_triton_gemm(
    a,
    b,
    c,
    bias,
    workspace,
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
    split_k: tl.constexpr,
    counters: tl.constexpr,
    waves: tl.constexpr,
    wave_size: tl.constexpr,
    xcds: tl.constexpr,
    xcd_chunk: tl.constexpr,
    group_rows: tl.constexpr,
):
    """One tile of C, or one of the `split_k` shares of its K-tiles. Row strides are in elements."""
    # What the compiler may take for granted: offsets that are not negative can be those of buffer loads.
    tl.assume(m > 0)
    tl.assume(n > 0)
    tl.assume(k > 0)
    tl.assume(lda > 0)
    tl.assume(ldb > 0)
    tl.assume(ldc > 0)
    tiles_m, tiles_n = tl.cdiv(m, block_m), tl.cdiv(n, block_n)
    tile = tl.program_id(0) % (tiles_m * tiles_n)
    share = tl.program_id(0) // (tiles_m * tiles_n)
    row, column = place_of(tile, tiles_m, tiles_n, xcds, xcd_chunk, group_rows)
    tl.assume(row >= 0)
    tl.assume(column >= 0)
    tl.assume(share >= 0)

    k_tiles = tl.cdiv(k, block_k)
    first, end = share * k_tiles // split_k, (share + 1) * k_tiles // split_k
    depth = first * block_k + tl.arange(0, block_k)
    a_tile = corner(a, row, lda, block_m) + inside_rows(row, m, block_m)[:, None] * lda + depth[None, :]
    b_tile = corner(b, column, ldb, block_n) + inside_rows(column, n, block_n)[None, :] * ldb + depth[:, None]
    sums = tl.zeros((block_m, block_n), tl.float32)
    for step in range(first, end):
        if whole_k:
            left, right = tl.load(a_tile), tl.load(b_tile)
        else:
            inside = tl.arange(0, block_k) < k - step * block_k
            left = tl.load(a_tile, mask=inside[None, :], other=0.0)
            right = tl.load(b_tile, mask=inside[:, None], other=0.0)
        sums = tl.dot(left, right, sums)
        a_tile += block_k
        b_tile += block_k

    if split_k == 1:
        store_c(sums, c, bias, m, n, ldc, bias_given, row, column, block_m, block_n)
    else:
        # A counter and split_k slabs of float32 for each tile. The workgroup that comes last adds them up, in the order
        # of their K-tiles whichever it is, and leaves the counter 0. A wave's atomic publishes that wave's stores and
        # no other's, so every wave counts; and every wave of the last workgroup asks again before it loads.
        slab: tl.constexpr = block_m * block_n
        places = tl.arange(0, block_m)[:, None] * block_n + tl.arange(0, block_n)[None, :]
        slabs = workspace + counters + tile * split_k * slab
        tl.store(slabs + share * slab + places, sums)
        lanes = tl.arange(0, waves * wave_size)
        counter = workspace.to(tl.pointer_type(tl.int32)) + tile
        of_waves, first_lane = counter + lanes * 0, lanes % wave_size == 0
        earlier = tl.atomic_add(of_waves, 1, mask=first_lane, sem="release")
        if tl.max(tl.where(first_lane, earlier, 0)) == split_k * waves - 1:
            tl.atomic_add(of_waves, 0, mask=first_lane, sem="acquire")
            total = tl.zeros((block_m, block_n), tl.float32)
            for _ in range(split_k):
                total += tl.load(slabs + places)
                slabs += slab
            store_c(total, c, bias, m, n, ldc, bias_given, row, column, block_m, block_n)
            tl.store(counter, 0)
