// What is done to a number of C in float32, after the bias and before the one rounding.

#pragma once

#include "geometry.hip"

// Two at once: `v_pk_fma_f32` and the like take no longer than for one.
using f32x2 = float __attribute__((ext_vector_type(2)));

// v_exp_f32 and v_rcp_f32 are right to 1 ulp, and a result below the smallest normal number is 0.
__device__ __forceinline__ f32x2 exp2_of(f32x2 x) {
    return {__builtin_amdgcn_exp2f(x.x), __builtin_amdgcn_exp2f(x.y)};
}

// x / (1 + 2^t). At both ends of t this is x and 0; of infinite x times 0, as in torch, NaN.
__device__ __forceinline__ f32x2 over_one_plus_exp2(f32x2 x, f32x2 t) {
    const f32x2 sum = exp2_of(t) + 1.f;
    return x * f32x2{__builtin_amdgcn_rcpf(sum.x), __builtin_amdgcn_rcpf(sum.y)};
}

constexpr float LOG2_E = 1.44269504f;

// x / (1 + e^-x)
__device__ __forceinline__ f32x2 silu_of(f32x2 x) { return over_one_plus_exp2(x, x * -LOG2_E); }

// x / 2 (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + e^(-2 u))
__device__ __forceinline__ f32x2 gelu_tanh_of(f32x2 x) {
    constexpr float of_x = -2 * 0.797884561f * LOG2_E;
    return over_one_plus_exp2(x, x * __builtin_elementwise_fma(x * x, f32x2(of_x * 0.044715f), f32x2(of_x)));
}

// max(x, 0), and NaN of NaN
__device__ __forceinline__ f32x2 relu_of(f32x2 x) { return __builtin_elementwise_maximum(x, f32x2(0.f)); }

// x P(X < x) of a standard normal X: max(x, 0) - t P(X < -t), t = |x|. P(X < -t) is 2^q(t), of a polynomial whose
// relative error is 3.3e-6 up to t = 6; from there on t P(X < -t) is below 1e-8, and q keeps falling.
__device__ __forceinline__ f32x2 gelu_of(f32x2 x) {
    constexpr float q[] = {-0.99999529f,   -1.15125108f,    -0.458464384f,   -0.05396007f,
                           0.00850789156f, -0.000930524955f, 6.15983008e-05f, -1.83481188e-06f};
    constexpr float t_max = 16;  // where 2^q is 0
    const f32x2 t{__builtin_fminf(__builtin_fabsf(x.x), t_max), __builtin_fminf(__builtin_fabsf(x.y), t_max)};
    f32x2 sum(q[7]);
    #pragma unroll
    for (int i = 6; i >= 0; i--) sum = __builtin_elementwise_fma(sum, t, f32x2(q[i]));
    return __builtin_elementwise_fma(-t, exp2_of(sum), relu_of(x));
}

__device__ __forceinline__ f32x2 activated(f32x2 x) {
    if constexpr (ACTIVATION == Activation::relu) return relu_of(x);
    else if constexpr (ACTIVATION == Activation::gelu) return gelu_of(x);
    else if constexpr (ACTIVATION == Activation::gelu_tanh) return gelu_tanh_of(x);
    else if constexpr (ACTIVATION == Activation::silu) return silu_of(x);
    else return x;
}
