// Chunks of a tile are stored by the blocks of a split K in turn.
DEVICE bool owned(int column, const Schedule& schedule) {
    return SPLIT_K == 1 || column / CHUNK % SPLIT_K == schedule.rank;
}

// Adds the other blocks' parts of K to the chunks that this block owns, in fixed order: the next rank first, and so on
// round. The stages, now idle, carry them, four values of a thread side by side.
DEVICE void reduce_split(Accumulators& accumulators, const Schedule& schedule, const Layout& layout) {
    constexpr int FIRST_THREAD = 128, QUADS = FRAGMENTS * REGISTERS / 4, STRIDE = 16 * 128 * CONSUMERS;
    const u32 mine = layout.stages + (threadIdx.x - FIRST_THREAD) * 16;
    warpgroup_sync(1, 128 * CONSUMERS);
#pragma unroll
    for (int quad = 0; quad < QUADS; ++quad) {
        float* v = &accumulators[quad * 4 / REGISTERS][quad * 4 % REGISTERS];
        if (schedule.k_steps == 0) v[0] = v[1] = v[2] = v[3] = 0;
        if (!owned(quad * 8 % COLUMNS, schedule))
            asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(mine + quad * STRIDE), "f"(v[0]), "f"(v[1]),
                         "f"(v[2]), "f"(v[3]) : "memory");
    }
    cluster_sync();
    for (int other = 1; other < SPLIT_K; ++other) {
        const u32 theirs = address_in(mine, (schedule.rank + other) % SPLIT_K);
#pragma unroll
        for (int quad = 0; quad < QUADS; ++quad) {
            if (!owned(quad * 8 % COLUMNS, schedule)) continue;
            float* v = &accumulators[quad * 4 / REGISTERS][quad * 4 % REGISTERS];
            float part[4];
            asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                         : "=f"(part[0]), "=f"(part[1]), "=f"(part[2]), "=f"(part[3]) : "r"(theirs + quad * STRIDE)
                         : "memory");
#pragma unroll
            for (int i = 0; i < 4; ++i) v[i] += part[i];
        }
    }
}

DEVICE float bias_at(const u16* bias, int index, int size) {
    return index < size ? __uint_as_float(u32(bias[index]) << 16) : 0.0f;
}

// Adds the bias to `count` values from `first` on of a fragment at (row, column). A thread holds rows r and r + 8 of each
// octet j of columns: values 4j and 4j + 1 in row r, 4j + 2 and 4j + 3 in row r + 8, at columns 8j + 2 * (lane % 4) and
// the next.
DEVICE void add_bias(
    float (&values)[REGISTERS], int first, int count, const u16* bias, int row, int column, int rows, int columns) {
    if (bias == nullptr) return;
    const int lane = threadIdx.x % 32, first_row = row + threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll
    for (int i = first; i < first + count; ++i) {
        const int across = column + i / 4 * 8 + lane % 4 * 2 + i % 2;
        values[i] += SWAPPED ? bias_at(bias, first_row + i / 2 % 2 * 8, rows) : bias_at(bias, across, columns);
    }
}

// Two floats as bf16, rounded to nearest even; `low` in the low half.
DEVICE u32 packed(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// Writes one column octet pair (or a last single one) of a fragment into a chunk as the tensor map wants it, transposed
// where the output's rows are the fragment's columns.
DEVICE void stage_octets(u32 chunk, int octet, const float* v) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32, matrix = lane / 8;
    const int row_octet = warp * 2 + matrix % 2, column_octet = octet + (CHUNK == 8 ? 0 : matrix / 2);
    const int row = (SWAPPED ? column_octet : row_octet) * 8 + lane % 8;
    const u32 offset = row * STORE_ROW_BYTES + (SWAPPED ? row_octet : column_octet) * 16;
    const u32 address = chunk + (offset ^ ((offset >> 3) & (STORE_ROW_BYTES - 16)));
    // A chunk of one octet is written twice.
    const float* w = v + (CHUNK == 8 ? 0 : 4);
    const u32 x0 = packed(v[0], v[1]), x1 = packed(v[2], v[3]), x2 = packed(w[0], w[1]), x3 = packed(w[2], w[3]);
#if ${swapped}
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};"
#else
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
#endif
                 ::"r"(address), "r"(x0), "r"(x1), "r"(x2), "r"(x3) : "memory");
}

// What the storing functions need beside a fragment: where the tile's own rows and columns end, and what is added.
struct Epilogue {
    const u16* bias;
    int rows, columns;
};

// Stores a fragment by TMA, chunk by chunk through the warpgroup's own buffers; TMA drops what lies outside C.
DEVICE void store_fragment(
    const TensorMap& c, float (&values)[REGISTERS], const Epilogue& epilogue, const Schedule& schedule, u32 staging,
    u32& chunks, int row, int column) {
    const int warpgroup = threadIdx.x / 128;
#pragma unroll
    for (int first = 0; first < COLUMNS; first += CHUNK) {
        if (!owned(first, schedule)) continue;
        const u32 chunk = staging + chunks % STORE_BUFFERS * CHUNK_BYTES;
        if (PERSISTENT) {
            if (threadIdx.x % 128 == 0)
                asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(STORE_BUFFERS - 1) : "memory");
            warpgroup_sync(1 + warpgroup, 128);
        }
        add_bias(values, first / 2, CHUNK / 2, epilogue.bias, row, column, epilogue.rows, epilogue.columns);
#pragma unroll
        for (int octet = 0; octet < CHUNK / 8; octet += 2) stage_octets(chunk, octet, values + first / 2 + octet * 4);
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        warpgroup_sync(1 + warpgroup, 128);
        if (threadIdx.x % 128 == 0) store(c, chunk, SWAPPED ? row : column + first, SWAPPED ? column + first : row);
        ++chunks;
    }
}

// The same for a C whose rows TMA cannot address (n not a multiple of 8): element by element from registers. The row
// length is made anew for every fragment, or the compiler would keep all its multiples in registers from tile to tile.
DEVICE void store_fragment(
    u16* c, float (&values)[REGISTERS], const Epilogue& epilogue, const Schedule& schedule, int row, int column) {
    const int lane = threadIdx.x % 32, first_row = row + threadIdx.x % 128 / 32 * 16 + lane / 4;
    u64 length;
    asm volatile("cvt.u64.u32 %0, %1;" : "=l"(length) : "r"(SWAPPED ? epilogue.rows : epilogue.columns));
#pragma unroll
    for (int i = 0; i < REGISTERS; ++i) {
        const int down = first_row + i / 2 % 2 * 8, across = column + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (down >= epilogue.rows || across >= epilogue.columns || !owned(i * 2, schedule)) continue;
        add_bias(values, i, 1, epilogue.bias, row, column, epilogue.rows, epilogue.columns);
        c[SWAPPED ? across * length + down : down * length + across] = u16(packed(values[i], 0.0f));
    }
}
