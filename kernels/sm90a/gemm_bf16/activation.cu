// What is done to a number of C in float32, after the bias and before the one rounding.
//
// ex2.approx and rcp.approx are right to 2^-22 and 1 ulp (PTX ISA); with .ftz what is below the smallest normal number
// is 0. tanh.approx is right to 2^-11 only, a quarter of a bf16's last bit, so nothing here uses it.
#pragma once
#include "constants.cu"
#include "element.cu"

DEVICE float exp2_of(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

// x / (1 + 2^t). At both ends of t this is x and 0; of infinite x times 0, as in torch, NaN.
DEVICE float over_one_plus_exp2(float x, float t) {
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + exp2_of(t)));
    return x * inverse;
}

constexpr float LOG2_E = 1.44269504f;

// x / (1 + e^-x)
DEVICE float silu_of(float x) { return over_one_plus_exp2(x, x * -LOG2_E); }

// x / 2 (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + e^(-2 u))
DEVICE float gelu_tanh_of(float x) {
    constexpr float OF_X = -2 * 0.797884561f * LOG2_E;
    return over_one_plus_exp2(x, x * fmaf(x * x, OF_X * 0.044715f, OF_X));
}

// max(x, 0), and NaN of NaN
DEVICE float relu_of(float x) {
    float larger;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(larger) : "f"(x));
    return larger;
}

// x P(X < x) of a standard normal X: max(x, 0) - t P(X < -t), t = |x|. P(X < -t) is 2^q(t), of a polynomial whose
// relative error is 3.3e-6 up to t = 6; from there on t P(X < -t) is below 1e-8, and q keeps falling.
DEVICE float gelu_of(float x) {
    constexpr float Q[] = {-0.99999529f,   -1.15125108f,     -0.458464384f,   -0.05396007f,
                           0.00850789156f, -0.000930524955f, 6.15983008e-05f, -1.83481188e-06f};
    const float t = fminf(fabsf(x), 16.0f);  // where 2^q is 0
    float sum = Q[7];
#pragma unroll
    for (int i = 6; i >= 0; --i) sum = fmaf(sum, t, Q[i]);
    return fmaf(-t, exp2_of(sum), relu_of(x));
}

DEVICE float activated(float x) {
    if constexpr (ACTIVATION == Activation::relu) return relu_of(x);
    else if constexpr (ACTIVATION == Activation::gelu) return gelu_of(x);
    else if constexpr (ACTIVATION == Activation::gelu_tanh) return gelu_tanh_of(x);
    else if constexpr (ACTIVATION == Activation::silu) return silu_of(x);
    else return x;
}
