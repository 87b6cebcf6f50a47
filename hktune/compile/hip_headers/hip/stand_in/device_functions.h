// What a work-item calls: barriers, shuffles across its wave, bit casts.
#pragma once

#include "vector_types.h"

HKTUNE_DEVICE_ void __syncthreads() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
HKTUNE_DEVICE_ void __threadfence_block() { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "workgroup"); }
HKTUNE_DEVICE_ void __threadfence() { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "agent"); }

// ---- shuffles: lanes of one wave trade registers through ds_bpermute_b32, four bytes at a time ----

HKTUNE_DEVICE_ unsigned __lane_id() { return __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0u)); }

namespace hip_stand_in {

template <typename T>
HKTUNE_DEVICE_ T from_lane(T value, int lane) {
    struct Words {
        int word[(sizeof(T) + 3) / 4];
    } words{};
    __builtin_memcpy(&words, &value, sizeof(T));
    for (int& word : words.word) word = __builtin_amdgcn_ds_bpermute(lane << 2, word);
    __builtin_memcpy(&value, &words, sizeof(T));
    return value;
}

}  // namespace hip_stand_in

template <typename T>
HKTUNE_DEVICE_ T __shfl(T value, int source, int width = warpSize) {
    const int self = __lane_id();
    return hip_stand_in::from_lane(value, (source & (width - 1)) + (self & ~(width - 1)));
}
template <typename T>
HKTUNE_DEVICE_ T __shfl_up(T value, unsigned delta, int width = warpSize) {
    const int self = __lane_id(), source = self - static_cast<int>(delta);
    return hip_stand_in::from_lane(value, source < (self & ~(width - 1)) ? self : source);
}
template <typename T>
HKTUNE_DEVICE_ T __shfl_down(T value, unsigned delta, int width = warpSize) {
    const int self = __lane_id(), source = self + static_cast<int>(delta);
    return hip_stand_in::from_lane(value, source > (self | (width - 1)) ? self : source);
}
template <typename T>
HKTUNE_DEVICE_ T __shfl_xor(T value, int mask, int width = warpSize) {
    const int self = __lane_id(), source = self ^ mask;
    return hip_stand_in::from_lane(value, source > (self | (width - 1)) ? self : source);
}
template <typename Mask, typename T>
HKTUNE_DEVICE_ T __shfl_sync(Mask, T value, int source, int width = warpSize) {
    return __shfl(value, source, width);
}
template <typename Mask, typename T>
HKTUNE_DEVICE_ T __shfl_up_sync(Mask, T value, unsigned delta, int width = warpSize) {
    return __shfl_up(value, delta, width);
}
template <typename Mask, typename T>
HKTUNE_DEVICE_ T __shfl_down_sync(Mask, T value, unsigned delta, int width = warpSize) {
    return __shfl_down(value, delta, width);
}
template <typename Mask, typename T>
HKTUNE_DEVICE_ T __shfl_xor_sync(Mask, T value, int mask, int width = warpSize) {
    return __shfl_xor(value, mask, width);
}

// ---- bit casts ----

HKTUNE_DEVICE_ double __longlong_as_double(long long x) { return __builtin_bit_cast(double, x); }
HKTUNE_DEVICE_ long long __double_as_longlong(double x) { return __builtin_bit_cast(long long, x); }
HKTUNE_DEVICE_ float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
HKTUNE_DEVICE_ float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
HKTUNE_DEVICE_ int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
HKTUNE_DEVICE_ unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }

#define HKTUNE_MIN_MAX_(T)                                          \
    HKTUNE_DEVICE_ T min(T a, T b) { return b < a ? b : a; }        \
    HKTUNE_DEVICE_ T max(T a, T b) { return a < b ? b : a; }
HKTUNE_MIN_MAX_(int)
HKTUNE_MIN_MAX_(unsigned)
HKTUNE_MIN_MAX_(long)
HKTUNE_MIN_MAX_(unsigned long)
HKTUNE_MIN_MAX_(long long)
HKTUNE_MIN_MAX_(unsigned long long)
#undef HKTUNE_MIN_MAX_
HKTUNE_DEVICE_ double min(double a, double b) { return __builtin_fmin(a, b); }
HKTUNE_DEVICE_ double max(double a, double b) { return __builtin_fmax(a, b); }
HKTUNE_DEVICE_ float min(float a, float b) { return __builtin_fminf(a, b); }
HKTUNE_DEVICE_ float max(float a, float b) { return __builtin_fmaxf(a, b); }
