// HIP_vector_type and its names: float4, uint2, ... Plain aggregates with HIP's alignment and elementwise arithmetic.
#pragma once

#include "language.h"

template <typename T, unsigned N>
struct HIP_vector_type;

template <typename T>
struct alignas(sizeof(T)) HIP_vector_type<T, 1> {
    T x;
};

template <typename T>
struct alignas(2 * sizeof(T)) HIP_vector_type<T, 2> {
    T x, y;
};

template <typename T>
struct HIP_vector_type<T, 3> {
    T x, y, z;
};

template <typename T>
struct alignas(4 * sizeof(T)) HIP_vector_type<T, 4> {
    T x, y, z, w;
};

namespace hip_stand_in {

// T, where nothing is deduced from it.
template <typename T>
struct Same {
    using type = T;
};
template <typename T, unsigned N>
__host__ __device__ constexpr HIP_vector_type<T, N> everywhere(T value) {
    if constexpr (N == 1) return {value};
    else if constexpr (N == 2) return {value, value};
    else if constexpr (N == 3) return {value, value, value};
    else return {value, value, value, value};
}

}  // namespace hip_stand_in

#define HKTUNE_ELEMENTWISE_(op)                                                                                       \
    template <typename T, unsigned N>                                                                                 \
    __host__ __device__ constexpr HIP_vector_type<T, N> operator op(                                                  \
        const HIP_vector_type<T, N>& a, const HIP_vector_type<T, N>& b) {                                             \
        if constexpr (N == 1) return {a.x op b.x};                                                                    \
        else if constexpr (N == 2) return {a.x op b.x, a.y op b.y};                                                   \
        else if constexpr (N == 3) return {a.x op b.x, a.y op b.y, a.z op b.z};                                       \
        else return {a.x op b.x, a.y op b.y, a.z op b.z, a.w op b.w};                                                 \
    }                                                                                                                 \
    template <typename T, unsigned N>                                                                                 \
    __host__ __device__ constexpr HIP_vector_type<T, N>& operator op##=(                                              \
        HIP_vector_type<T, N>& a, const HIP_vector_type<T, N>& b) {                                                   \
        return a = a op b;                                                                                            \
    }
#define HKTUNE_WITH_NUMBER_(op)                                                                                       \
    template <typename T, unsigned N>                                                                                 \
    __host__ __device__ constexpr HIP_vector_type<T, N> operator op(                                                  \
        const HIP_vector_type<T, N>& a, typename hip_stand_in::Same<T>::type b) {                                     \
        return a op hip_stand_in::everywhere<T, N>(b);                                                                \
    }                                                                                                                 \
    template <typename T, unsigned N>                                                                                 \
    __host__ __device__ constexpr HIP_vector_type<T, N> operator op(                                                  \
        typename hip_stand_in::Same<T>::type a, const HIP_vector_type<T, N>& b) {                                     \
        return hip_stand_in::everywhere<T, N>(a) op b;                                                                \
    }                                                                                                                 \
    template <typename T, unsigned N>                                                                                 \
    __host__ __device__ constexpr HIP_vector_type<T, N>& operator op##=(                                              \
        HIP_vector_type<T, N>& a, typename hip_stand_in::Same<T>::type b) {                                           \
        return a = a op b;                                                                                            \
    }
HKTUNE_ELEMENTWISE_(+)
HKTUNE_ELEMENTWISE_(-)
HKTUNE_ELEMENTWISE_(*)
HKTUNE_ELEMENTWISE_(/)
HKTUNE_WITH_NUMBER_(+)
HKTUNE_WITH_NUMBER_(-)
HKTUNE_WITH_NUMBER_(*)
HKTUNE_WITH_NUMBER_(/)
#undef HKTUNE_ELEMENTWISE_
#undef HKTUNE_WITH_NUMBER_
template <typename T, unsigned N>
__host__ __device__ constexpr HIP_vector_type<T, N> operator-(const HIP_vector_type<T, N>& a) {
    return hip_stand_in::everywhere<T, N>(T(0)) - a;
}

#define HKTUNE_VECTORS_(name, T)                                                                                     \
    using name##1 = HIP_vector_type<T, 1>;                                                                           \
    using name##2 = HIP_vector_type<T, 2>;                                                                           \
    using name##3 = HIP_vector_type<T, 3>;                                                                           \
    using name##4 = HIP_vector_type<T, 4>;                                                                           \
    __host__ __device__ constexpr name##1 make_##name##1(T x) { return {x}; }                                        \
    __host__ __device__ constexpr name##2 make_##name##2(T x, T y) { return {x, y}; }                                \
    __host__ __device__ constexpr name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                        \
    __host__ __device__ constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
HKTUNE_VECTORS_(char, signed char)
HKTUNE_VECTORS_(uchar, unsigned char)
HKTUNE_VECTORS_(short, short)
HKTUNE_VECTORS_(ushort, unsigned short)
HKTUNE_VECTORS_(int, int)
HKTUNE_VECTORS_(uint, unsigned)
HKTUNE_VECTORS_(long, long)
HKTUNE_VECTORS_(ulong, unsigned long)
HKTUNE_VECTORS_(longlong, long long)
HKTUNE_VECTORS_(ulonglong, unsigned long long)
HKTUNE_VECTORS_(float, float)
HKTUNE_VECTORS_(double, double)
#undef HKTUNE_VECTORS_

struct dim3 {
    unsigned x, y, z;
    __host__ __device__ constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
