// LDS to registers: fragments of either kind of part. The registers are the same for both.

#pragma once

#include "geometry.hip"

// Scale (y, x) of a fragment, for this lane's line: a word, or that byte of one which is for the lane's 32 of the MFMA's
// K. Of 6 bits a lane has two 32 in a row, one for each of two MFMAs.
template<int y, int x, int slice, ducks::rt::all RT, ducks::st::all ST>
__device__ __forceinline__ void read_scale(RT &fragment, ST &part, int warp) {
    constexpr int line_bytes = WORDS * sizeof(uint32_t);
    constexpr int group = (slice * RT::row_scales + x) / GROUP_SCALES, in_group = x % GROUP_SCALES;
    constexpr int group_bytes = SCALES == Scales::mx ? LANES_PER_ROW * GROUP_SCALES : sizeof(uint32_t);
    constexpr int offset = y * MFMA * line_bytes + group * group_bytes + in_group;
    const int lane = kittens::laneid(), line = warp * RT::rows + lane % MFMA;
    const uint32_t address = reinterpret_cast<uintptr_t>(&part.words[0]) + line * line_bytes;
    uint32_t &to = fragment.scales[y][x];
    if constexpr (SCALES == Scales::mx) {
        const uint32_t of_lane = address + lane / MFMA * GROUP_SCALES;
        asm volatile("ds_read_u8 %0, %1 offset:%2" : "=v"(to) : "v"(of_lane), "i"(offset) : "memory");
    } else {
        asm volatile("ds_read_b32 %0, %1 offset:%2" : "=v"(to) : "v"(address), "i"(offset) : "memory");
    }
}

// A warp's lines of a part, number `warp` of as many, in the slice `slice` of its K.
template<int slice, ducks::rt::all RT, ducks::st::all ST>
__device__ __forceinline__ void read_fragment(RT &fragment, ST &part, int warp) {
    load(fragment, subtile_inplace<RT::rows, RT::cols>(part, {warp, slice}));
    if constexpr (HAS_WORDS) {
        static_for<RT::height * RT::row_scales>([&]<int i>() __attribute__((always_inline)) {
            read_scale<i % RT::height, i / RT::height, slice>(fragment, part, warp);
        });
    }
}

// Base tile (y, x) of the same, alone.
template<int y, int x, int slice, ducks::rt::all RT, ducks::st::all ST>
__device__ __forceinline__ void read_base_tile(RT &fragment, ST &part, int warp) {
    using one = rt<element, RT::base_tile_rows, RT::base_tile_cols, row_l, shape::operand>;
    const int2 at{warp * RT::height, slice * RT::width};
    load(reinterpret_cast<one &>(fragment.tiles[y][x]),
         subtile_inplace<RT::base_tile_rows, RT::base_tile_cols>(part, {at.x + y, at.y + x}));
    if constexpr (HAS_WORDS && x % GROUP_TILES == 0) {
        static_for<GROUP_SCALES>([&]<int i>() __attribute__((always_inline)) {
            read_scale<y, x / GROUP_TILES * GROUP_SCALES + i, slice>(fragment, part, warp);
        });
    }
}

// Contiguous along lines: 16 lanes read 4 k of 16 lines, 4 lines a lane, and each gets the 4 k of one line. Two such
// reads fill the 8 k of a lane.
template<ducks::rt::all RT, int LINES> struct transposed {
    using part = lines_part<LINES>;
    static constexpr int lanes = 16, k_at_once = 4;
    // Base tiles that lie alike in their columns of the part have one address and differ in the instruction's offset.
    static constexpr int addresses = RT::rows % part::wide == 0 ? part::wide / MFMA : RT::height;

    // Where this lane reads base tile (y, 0).
    __device__ __forceinline__ static uint32_t address(part &from, int warp, int y) {
        const int lane = kittens::laneid();
        const int k = lane / MFMA * VECTOR + lane % lanes / k_at_once;
        const int first = warp * RT::rows + y * MFMA;
        const int line = first % part::wide + lane % MFMA / lanes * lanes + lane % k_at_once * k_at_once;
        const uint32_t in_row = (line * sizeof(element)) ^ part::turn(k);
        return reinterpret_cast<uintptr_t>(&from.data[0]) + first / part::wide * part::column_bytes +
               part::row_of(k) * part::row_bytes + in_row;
    }

    // Base tile (y, x), at the address of base tile (y % addresses, 0).
    template<int y, int x, int slice> __device__ __forceinline__ static void read(RT &fragment, uint32_t address) {
        constexpr int k = (slice * RT::width + x) * RT::base_tile_cols;
        constexpr int offset = y / addresses * part::column_bytes + k * part::row_bytes;
        auto &data = fragment.tiles[y][x].data;
        read_quad<offset>(*reinterpret_cast<float2 *>(&data[0]), address);
        read_quad<offset + part::row_of(k_at_once) * part::row_bytes>(*reinterpret_cast<float2 *>(&data[2]), address);
    }

    template<int offset> __device__ __forceinline__ static void read_quad(float2 &to, uint32_t address) {
        asm volatile("ds_read_b64_tr_b16 %0, %1 offset:%2" : "=v"(to) : "v"(address), "i"(offset) : "memory");
    }
};

template<int slice, ducks::rt::all RT, int LINES>
__device__ __forceinline__ void read_fragment(RT &fragment, lines_part<LINES> &part, int warp) {
    using reads = transposed<RT, LINES>;
    static_for<reads::addresses>([&]<int first>() __attribute__((always_inline)) {
        const uint32_t address = reads::address(part, warp, first);
        static_for<RT::height / reads::addresses * RT::width>([&]<int i>() __attribute__((always_inline)) {
            constexpr int y = first + i / RT::width * reads::addresses, x = i % RT::width;
            reads::template read<y, x, slice>(fragment, address);
        });
    });
}

template<int y, int x, int slice, ducks::rt::all RT, int LINES>
__device__ __forceinline__ void read_base_tile(RT &fragment, lines_part<LINES> &part, int warp) {
    using reads = transposed<RT, LINES>;
    reads::template read<y, x, slice>(fragment, reads::address(part, warp, y % reads::addresses));
}
