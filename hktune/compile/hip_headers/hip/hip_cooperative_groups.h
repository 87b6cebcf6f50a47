// Cooperative groups of a workgroup, of tiles of a wave, and of the lanes that are active. No group of the whole grid:
// its barrier needs all workgroups to run at once, which a launch here does not promise.
#pragma once

#include "hip_runtime.h"

namespace cooperative_groups {

class thread_block {
public:
    __device__ void sync() const { __syncthreads(); }
    __device__ static unsigned size() { return blockDim.x * blockDim.y * blockDim.z; }
    __device__ static unsigned num_threads() { return size(); }
    __device__ static unsigned thread_rank() {
        return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    }
    __device__ static dim3 group_index() { return dim3(blockIdx.x, blockIdx.y, blockIdx.z); }
    __device__ static dim3 thread_index() { return dim3(threadIdx.x, threadIdx.y, threadIdx.z); }
};
HKTUNE_DEVICE_ thread_block this_thread_block() { return {}; }

// `width` neighbours of a wave, a power of two.
template <unsigned width>
class thread_block_tile {
    static_assert(width <= 64 && (width & (width - 1)) == 0, "a tile is a power of two of lanes of one wave");

public:
    __device__ void sync() const { __syncwarp(); }
    __device__ static unsigned size() { return width; }
    __device__ static unsigned num_threads() { return width; }
    __device__ static unsigned thread_rank() { return thread_block::thread_rank() & (width - 1); }
    __device__ static unsigned meta_group_rank() { return thread_block::thread_rank() / width; }
    __device__ static unsigned meta_group_size() { return (thread_block::size() + width - 1) / width; }
    template <typename T>
    __device__ T shfl(T value, int source) const {
        return __shfl(value, source, width);
    }
    template <typename T>
    __device__ T shfl_xor(T value, int mask) const {
        return __shfl_xor(value, mask, width);
    }
    template <typename T>
    __device__ T shfl_down(T value, unsigned delta) const {
        return __shfl_down(value, delta, width);
    }
    template <typename T>
    __device__ T shfl_up(T value, unsigned delta) const {
        return __shfl_up(value, delta, width);
    }
    __device__ unsigned long long ballot(int predicate) const {
        const unsigned first = __lane_id() & ~(width - 1);
        const unsigned long long mine = width == 64 ? ~0ull : (1ull << (width & 63)) - 1;
        return (__ballot(predicate) >> first) & mine;
    }
    __device__ int any(int predicate) const { return ballot(predicate) != 0; }
    __device__ int all(int predicate) const { return ballot(!predicate) == 0; }
};
template <unsigned width, typename Parent>
HKTUNE_DEVICE_ thread_block_tile<width> tiled_partition(const Parent&) {
    return {};
}

// The lanes that execute together.
class coalesced_group {
    unsigned long long lanes_ = __activemask();

public:
    __device__ void sync() const { __syncwarp(); }
    __device__ unsigned size() const { return __popcll(lanes_); }
    __device__ unsigned num_threads() const { return size(); }
    __device__ unsigned thread_rank() const { return __popcll(lanes_ & ((1ull << __lane_id()) - 1)); }
};
HKTUNE_DEVICE_ coalesced_group coalesced_threads() { return {}; }

template <typename Group>
HKTUNE_DEVICE_ void sync(const Group& group) {
    group.sync();
}

// ---- of all values of a tile ----

template <typename T>
struct plus {
    __device__ T operator()(T a, T b) const { return a + b; }
};
template <typename T>
struct greater {
    __device__ T operator()(T a, T b) const { return a < b ? b : a; }
};
template <typename T>
struct less {
    __device__ T operator()(T a, T b) const { return b < a ? b : a; }
};
template <unsigned width, typename T, typename Operation>
HKTUNE_DEVICE_ T reduce(const thread_block_tile<width>& tile, T value, Operation operation) {
#pragma unroll
    for (unsigned step = width / 2; step > 0; step /= 2) value = operation(value, tile.shfl_xor(value, step));
    return value;
}

}  // namespace cooperative_groups
