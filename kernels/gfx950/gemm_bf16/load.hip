// Global memory to LDS.

#pragma once

#include "geometry.hip"

struct staged_tile {
    PART_A (&a)[SPLIT];
    PART_B (&b)[SPLIT];
};

// What of a line of 6-bit numbers is where fragments are read at `column` (bytes): a lane has 48 bytes in a row, 16 of them
// in each of three base tiles.
__device__ __forceinline__ uint32_t six_bit_column(uint32_t column) {
    constexpr int vectors = GROUP_TILES * LANES_PER_ROW;  // of a line in a group of base tiles
    const uint32_t vector = column / VECTOR_BYTES, at = vector % vectors;
    return (vector - at + at % LANES_PER_ROW * GROUP_TILES + at / LANES_PER_ROW) * VECTOR_BYTES;
}

// Which element of a part each load of this thread begins with, as an offset in bytes from the part's first one.
template<int LOADS, ducks::st::all ST>
__device__ __forceinline__ void load_offsets(ST &part, int row_stride, uint32_t (&offsets)[LOADS]) {
    G::prefill_swizzled_offsets(part, row_layout{nullptr, row_stride}, offsets);
    if constexpr (SIX_BITS) {
        uint32_t columns[LOADS];
        G::prefill_swizzled_offsets(part, row_layout{nullptr, 0}, columns);
        #pragma unroll
        for (int i = 0; i < LOADS; i++) offsets[i] += six_bit_column(columns[i]) - columns[i];
    }
}

template<int LOADS, int LINES>
__device__ __forceinline__ void load_offsets(lines_part<LINES> &, int row_stride, uint32_t (&offsets)[LOADS]) {
    using part = lines_part<LINES>;
    #pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const uint32_t at = i * BYTES_PER_LOAD + threadIdx.x * VECTOR_BYTES;
        const int k = part::row_of(at % part::column_bytes / part::row_bytes);
        const uint32_t in_row = (at % part::row_bytes) ^ part::turn(k);
        offsets[i] = k * row_stride * sizeof(element) + at / part::column_bytes * part::row_bytes + in_row;
    }
}

// Where a line of A or B begins.
template<Along ALONG>
__device__ __forceinline__ const element *first_line(const element *matrix, int line, int row_stride) {
    return matrix + (ALONG == Along::k ? int64_t(line) * row_stride : line);
}

// The words of the lines that a workgroup multiplies, `lines` of them: `first` is the row of the first line, of which it
// is number `line`. A row is of SHARED lines, and rows are `row_stride` words apart.
template<int LINES, int SHARED> struct line_words {
    static constexpr int loads = word_loads(LINES);

    const uint32_t *first;
    int row_stride, line, lines;
    uint32_t offsets[SPLIT][loads];

    // Of `lines` lines from number `line` on, of a matrix of scales whose rows are `row_stride` of its elements apart.
    __device__ __forceinline__ static line_words of(const void *scales, int row_stride, int line, int lines) {
        const int stride = SCALES == Scales::mx ? row_stride / int(sizeof(uint32_t)) : row_stride;
        return {static_cast<const uint32_t *>(scales) + int64_t(line / SHARED) * stride, stride, line % SHARED, lines};
    }

    // Of line `first_line` on, `words_left` of each: beyond the last line and word, the last is loaded once more.
    __device__ __forceinline__ void prepare(int first_line, int words_left, uint32_t (&to)[loads]) const {
        #pragma unroll
        for (int i = 0; i < loads; i++) {
            const int at = i * NUM_THREADS + threadIdx.x;
            const int row = (line + min(first_line + at / WORDS, lines - 1)) / SHARED;
            to[i] = (row * row_stride + min(at % WORDS, words_left - 1)) * sizeof(uint32_t);
        }
    }

    __device__ __forceinline__ void prepare() {
        #pragma unroll
        for (int h = 0; h < SPLIT; h++) prepare(h * LINES, WORDS, offsets[h]);
    }

    // The words of part h from k on, of which `k_left` are there, if it is `masked`.
    template<bool masked, typename PART> __device__ __forceinline__ void fetch(PART &part, int h, int k, int k_left) const {
        uint32_t partly[loads];
        if constexpr (masked) prepare(h * LINES, numbers_in(k_left) / WORD_K, partly);
        const i32x4 srsrc = make_srsrc(first + numbers_in(k) / WORD_K, OUTSIDE);
        constexpr int wave_bytes = kittens::WARP_THREADS * sizeof(uint32_t);
        const uint32_t to = reinterpret_cast<uintptr_t>(&part.words[0]) + kittens::warpid() * wave_bytes;
        #pragma unroll
        for (int i = 0; i < loads; i++) {
            llvm_amdgcn_raw_buffer_load_lds(srsrc, (as3_uint32_ptr)uintptr_t(to + i * NUM_WARPS * wave_bytes),
                                            sizeof(uint32_t), masked ? partly[i] : offsets[h][i], 0, 0,
                                            static_cast<int>(coherency::cache_all));
        }
    }
};

struct no_words {
    __device__ __forceinline__ static no_words of(const void *, int, int, int) { return {}; }
};

// The lines of A (its rows), or of B (its columns), that a workgroup multiplies: `first` is where they begin, `lines`
// counts from there to the last of the matrix. `row_stride` is from line to line or, contiguous along lines, from k to
// k. `offsets` say where each load of this thread begins in a part. Where there are gates, `lines` counts these, and
// what they gate is `up` lines further on. Where both take turns, `up` is 1, and a gate is `step` lines behind another.
template<Along ALONG, typename PART, int LINES, int LOADS, typename WORDS_OF, Gates GATES = Gates::none> struct operand {
    static constexpr int step = GATES == Gates::none ? 1 : GATE_STRIDE;

    const element *first;
    int row_stride, lines, up;
    WORDS_OF words;
    uint32_t offsets[LOADS];

    __device__ __forceinline__ void prepare(PART &part) {
        load_offsets(part, step * row_stride, offsets);
        if constexpr (GATES == Gates::half_of_warp) move_to_halves(part);
        if constexpr (HAS_WORDS) words.prepare();
    }

    // Has a load begin where the line is that a lane of the product wants: the first half of a warp's lines are gates.
    __device__ __forceinline__ void move_to_halves(PART &part) {
        uint32_t contiguous[LOADS];
        load_offsets(part, 0, contiguous);
        load_offsets(part, 1, offsets);
        #pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const uint32_t along = contiguous[i] / sizeof(element), across = offsets[i] / sizeof(element) - along;
            const uint32_t line = ALONG == Along::k ? across : along, in_warp = line % REG_N;
            const uint32_t gate = line / REG_N * REG_COLS + in_warp % REG_COLS;
            const uint32_t from = gate * step + (in_warp < REG_COLS ? 0 : up);
            offsets[i] = (ALONG == Along::k ? from * row_stride + along : across * row_stride + from) * sizeof(element);
        }
    }

    // Where part h begins, in lines from the first one, and how many lines from there to its last that is there.
    __device__ __forceinline__ int begin(int h) const { return GATES == Gates::part ? h * up : h * LINES; }

    __device__ __forceinline__ int present(int h) const {
        if constexpr (GATES == Gates::part) return (min(lines, LINES) - 1) * step + 1;
        if constexpr (GATES == Gates::half_of_warp) return (min(lines, LINES / 2) - 1) * step + up + 1;
        return min(lines - h * LINES, LINES);
    }

    // Of part h, from k on. Lines past the matrix's last are outside the range, and read as 0. Contiguous along lines,
    // so are the k past `k_left`; what is beyond the lines in a row is of no line that C has. Nor is what is read for a
    // gate past the last one.
    __device__ __forceinline__ i32x4 descriptor(int h, int k, int k_left) const {
        const int present = this->present(h);
        if constexpr (ALONG == Along::k) {
            const uint32_t elements = present > 0 ? (present - 1) * row_stride + min(K_STEP, row_stride) : 0;
            return make_srsrc(first + int64_t(begin(h)) * row_stride + k, elements * sizeof(element));
        } else {
            const bool any = present > 0 && (!GROUPS_OF_K || k_left > 0);
            const uint32_t elements = any ? (min(k_left, K_STEP) - 1) * row_stride + present : 0;
            return make_srsrc(first + int64_t(k) * row_stride + begin(h), elements * sizeof(element));
        }
    }

    // Part h of a K-tile of which only the first `k_left` are there, if it is `masked`. Contiguous along lines, the
    // descriptor masks. Along K, a load is of one line, and K is a multiple of its VECTOR elements.
    template<bool masked> __device__ __forceinline__ void fetch(PART &part, int h, int k, int k_left) const {
        constexpr bool masks = masked && ALONG == Along::k;
        uint32_t columns[LOADS];
        if constexpr (masks) load_offsets(part, 0, columns);
        const i32x4 srsrc = descriptor(h, k, masked ? k_left : K_STEP);
        const uint32_t share = kittens::warpid() * BYTES_PER_LOAD / NUM_WARPS;
        const uint32_t to = reinterpret_cast<uintptr_t>(&part.data[0]) + share;
        #pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const uint32_t at = !masks || columns[i] < uint32_t(k_left) * sizeof(element) ? offsets[i] : OUTSIDE;
            llvm_amdgcn_raw_buffer_load_lds(srsrc, (as3_uint32_ptr)uintptr_t(to + i * BYTES_PER_LOAD), VECTOR_BYTES,
                                            at, 0, 0, static_cast<int>(coherency::cache_all));
            if constexpr (masked) __builtin_amdgcn_sched_barrier(0);  // not all masked offsets are to be alive at once
        }
        if constexpr (HAS_WORDS) words.template fetch<masked>(part, h, k, k_left);
    }
};

using words_of_a = std::conditional_t<HAS_WORDS, line_words<PART_M, 1>, no_words>;
using words_of_b = std::conditional_t<HAS_WORDS, line_words<PART_N, SCALES == Scales::blocks ? WORD_K : 1>, no_words>;

// The K-tiles of a workgroup. It begins with its last one, which may be only partly there: the steady state then
// fetches whole tiles alone, and masks nothing.
struct block_source {
    operand<ALONG_A, PART_A, PART_M, NUMBER_LOADS_A, words_of_a> a;
    operand<ALONG_B, PART_B, PART_N, NUMBER_LOADS_B, words_of_b, GATES> b;
    int k, first_tile, last_tile;

    __device__ __forceinline__ void prepare(staged_tile tile) {
        a.prepare(tile.a[0]);
        b.prepare(tile.b[0]);
    }

    // Tile `number` of the order in which they are multiplied: 0 is the last one.
    template<int part, bool masked> __device__ __forceinline__ void fetch_part(staged_tile tile, int number) const {
        constexpr int h = part / 2;
        const int at = (masked ? last_tile : first_tile + number - 1) * K_STEP;
        if constexpr (part % 2 == 0) b.template fetch<masked>(tile.b[h], h, at, k - at);
        else a.template fetch<masked>(tile.a[h], h, at, k - at);
    }

    template<int first, int last, bool masked = false>
    __device__ __forceinline__ void fetch(staged_tile tile, int number) const {
        static_for<last - first>([&]<int i>() __attribute__((always_inline)) {
            fetch_part<first + i, masked>(tile, number);
        });
    }
};

