// Votes of a wave, counts of bits, products' upper halves, clocks, and what ends a kernel early.
#pragma once

#include "vector_types.h"

// ---- votes: one bit a lane of the wave ----

HKTUNE_DEVICE_ unsigned long long __ballot(int predicate) { return __builtin_amdgcn_ballot_w64(predicate != 0); }
HKTUNE_DEVICE_ unsigned long long __activemask() { return __builtin_amdgcn_ballot_w64(true); }
HKTUNE_DEVICE_ int __any(int predicate) { return __ballot(predicate) != 0; }
HKTUNE_DEVICE_ int __all(int predicate) { return __ballot(predicate) == __activemask(); }
template <typename Mask>
HKTUNE_DEVICE_ unsigned long long __ballot_sync(Mask mask, int predicate) {
    return __ballot(predicate) & static_cast<unsigned long long>(mask);
}
template <typename Mask>
HKTUNE_DEVICE_ int __any_sync(Mask mask, int predicate) {
    return __ballot_sync(mask, predicate) != 0;
}
template <typename Mask>
HKTUNE_DEVICE_ int __all_sync(Mask mask, int predicate) {
    return (__ballot(!predicate) & static_cast<unsigned long long>(mask)) == 0;
}

// ---- a vote of the whole workgroup at a barrier ----

namespace hip_stand_in {

// How many work-items said yes: waves add theirs to one word of LDS.
HKTUNE_DEVICE_ int workgroup_count(int predicate) {
    __shared__ int total;
    const unsigned long long votes = __ballot(predicate);
    __syncthreads();
    total = 0;
    __syncthreads();
    if (__lane_id() == static_cast<unsigned>(__builtin_ctzll(__activemask())))
        __hip_atomic_fetch_add(&total, __builtin_popcountll(votes), __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
    __syncthreads();
    return total;
}

}  // namespace hip_stand_in

HKTUNE_DEVICE_ int __syncthreads_count(int predicate) { return hip_stand_in::workgroup_count(predicate); }
HKTUNE_DEVICE_ int __syncthreads_or(int predicate) { return hip_stand_in::workgroup_count(predicate) != 0; }
HKTUNE_DEVICE_ int __syncthreads_and(int predicate) { return hip_stand_in::workgroup_count(!predicate) == 0; }
HKTUNE_DEVICE_ void __syncwarp() { __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "wavefront"); }
template <typename Mask>
HKTUNE_DEVICE_ void __syncwarp(Mask) {
    __syncwarp();
}
HKTUNE_DEVICE_ void __threadfence_system() { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, ""); }

// ---- bits ----

HKTUNE_DEVICE_ int __popc(unsigned x) { return __builtin_popcount(x); }
HKTUNE_DEVICE_ int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
HKTUNE_DEVICE_ int __clz(int x) { return x ? __builtin_clz(x) : 32; }
HKTUNE_DEVICE_ int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
HKTUNE_DEVICE_ int __ffs(int x) { return __builtin_ffs(x); }
HKTUNE_DEVICE_ int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
HKTUNE_DEVICE_ int __ffsll(long long x) { return __builtin_ffsll(x); }
HKTUNE_DEVICE_ int __ffsll(unsigned long long x) { return __builtin_ffsll(static_cast<long long>(x)); }
HKTUNE_DEVICE_ int __ffsll(unsigned long x) { return __builtin_ffsll(static_cast<long long>(x)); }
HKTUNE_DEVICE_ unsigned __brev(unsigned x) { return __builtin_bitreverse32(x); }
HKTUNE_DEVICE_ unsigned long long __brevll(unsigned long long x) { return __builtin_bitreverse64(x); }
HKTUNE_DEVICE_ unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const unsigned s = selector;  // a nibble for each byte; v_perm_b32 takes a byte
    return __builtin_amdgcn_perm(
        high, low, (s & 7) | (s & 0x70) << 4 | (s & 0x700) << 8 | (s & 0x7000) << 12);
}
HKTUNE_DEVICE_ unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>(((static_cast<unsigned long long>(high) << 32 | low) << (shift & 31)) >> 32);
}
HKTUNE_DEVICE_ unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return __builtin_amdgcn_alignbit(high, low, shift);
}

// ---- products ----

HKTUNE_DEVICE_ int __mul24(int a, int b) { return ((a << 8) >> 8) * ((b << 8) >> 8); }
HKTUNE_DEVICE_ unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffffu) * (b & 0xffffffu); }
HKTUNE_DEVICE_ int __mulhi(int a, int b) { return static_cast<int>((static_cast<long long>(a) * b) >> 32); }
HKTUNE_DEVICE_ unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32);
}
HKTUNE_DEVICE_ unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
HKTUNE_DEVICE_ long long __mul64hi(long long a, long long b) {
    return static_cast<long long>((static_cast<__int128>(a) * b) >> 64);
}
HKTUNE_DEVICE_ unsigned __sad(int a, int b, unsigned sum) { return sum + static_cast<unsigned>(a < b ? b - a : a - b); }

// ---- clocks: cycles of the compute unit, and a counter that no clock speed changes ----

HKTUNE_DEVICE_ long long clock64() { return static_cast<long long>(__builtin_amdgcn_s_memtime()); }
HKTUNE_DEVICE_ long long __clock64() { return clock64(); }
HKTUNE_DEVICE_ long long wall_clock64() { return static_cast<long long>(__builtin_amdgcn_s_memrealtime()); }
HKTUNE_DEVICE_ int __clock() { return static_cast<int>(clock64()); }

// ---- printf prints nothing, and returns 0: its arguments are computed. What fails ends the kernel with a trap. ----

HKTUNE_DEVICE_ void __trap() { __builtin_trap(); }
HKTUNE_DEVICE_ void abort() { __builtin_trap(); }
extern "C" __device__ inline __attribute__((weak, noreturn)) void __assert_fail(
    const char*, const char*, int, const char*) {
    __builtin_trap();
}
template <typename... Values>
__device__ inline __attribute__((always_inline)) int printf(const char*, Values...) {
    return 0;
}
