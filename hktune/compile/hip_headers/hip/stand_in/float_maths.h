// Functions of one and two floating-point numbers. ROCm has these in a device library that needs ROCm; the ones here
// are our own. float32 results come of float64 formulas and are within 1 ulp of the exact ones. float64 results are
// within some 4 ulp, powers and large arguments of sin and cos somewhat less exact. Last bits differ from ROCm's.
#pragma once

#include "language.h"

namespace hip_stand_in {

// c[0] + c[1] x + ...: the last coefficient is of the highest power.
template <int count>
HKTUNE_DEVICE_ double polynomial(double x, const double (&c)[count]) {
    double sum = c[count - 1];
#pragma unroll
    for (int i = count - 2; i >= 0; i--) sum = __builtin_fma(sum, x, c[i]);
    return sum;
}

// exp(x) - 1 of |x| <= ln(2) / 2, and thus small: Taylor's series, whose next term is below 2^-56.
HKTUNE_DEVICE_ double exp_less_one_of_small(double x) {
    constexpr double inverse_factorials[] = {
        1.0,          1.0 / 2,        1.0 / 6,          1.0 / 24,          1.0 / 120,          1.0 / 720,
        1.0 / 5040,   1.0 / 40320,    1.0 / 362880,     1.0 / 3628800,     1.0 / 39916800,     1.0 / 479001600,
        1.0 / 6227020800.0};
    return x * polynomial(x, inverse_factorials);
}

// exp(x + low), where low is what x lacks of the exact argument.
HKTUNE_DEVICE_ double exponential(double x, double low = 0.0) {
    if (x != x) return x;
    if (x > 709.79) return __builtin_inf();
    if (x < -745.2) return 0.0;
    const double power = __builtin_rint(x * 1.4426950408889634074);
    const double rest = __builtin_fma(-power, 1.9082149292705877e-10, __builtin_fma(-power, 6.93147180369123816490e-01, x));
    const double value = 1.0 + exp_less_one_of_small(rest + low);
    const int half = static_cast<int>(power) / 2;
    return __builtin_ldexp(__builtin_ldexp(value, half), static_cast<int>(power) - half);
}

// ln(x) as a sum of two doubles: high has the larger part.
struct TwoParts {
    double high, low;
};
HKTUNE_DEVICE_ TwoParts logarithm(double x) {
    if (!(x > 0.0)) return {x == 0.0 ? -__builtin_inf() : __builtin_nan(""), 0.0};
    if (x == __builtin_inf()) return {x, 0.0};
    int exponent = __builtin_amdgcn_frexp_exp(x);
    double part = __builtin_amdgcn_frexp_mant(x);
    if (part < 0.70710678118654752440) part += part, exponent--;
    // ln(part) = 2 atanh(s), s = (part - 1) / (part + 1): a series in s^2 <= 0.0295
    const double above = part - 1.0, s = above / (part + 1.0), square = s * s;
    constexpr double odd[] = {1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
    const double error = __builtin_fma(-s, part + 1.0, above) / (part + 1.0);
    const double small = 2.0 * __builtin_fma(s * square, polynomial(square, odd), error);
    const double whole = exponent * 6.93147180369123816490e-01, sum = whole + 2.0 * s;
    const double left = (whole - sum) + 2.0 * s;
    const double tail = __builtin_fma(exponent, 1.9082149292705877e-10, small + left), high = sum + tail;
    return {high, (sum - high) + tail};
}

// x less its nearest multiple of pi/2, and that multiple modulo 4. Beyond 2^30 the hardware's table of 2/pi takes over.
struct Quarter {
    double angle;
    int quadrant;
};
HKTUNE_DEVICE_ Quarter quarter_of(double x) {
    if (__builtin_fabs(x) < 1073741824.0) {
        const double count = __builtin_rint(x * 0.63661977236758134308);
        double angle = __builtin_fma(-count, 1.57079632679489655800e+00, x);
        angle = __builtin_fma(-count, 6.12323399573676603587e-17, angle);
        return {__builtin_fma(-count, -1.49738490485916983e-33, angle), static_cast<int>(static_cast<long long>(count)) & 3};
    }
    const double p2 = __builtin_amdgcn_trig_preop(x, 2), p1 = __builtin_amdgcn_trig_preop(x, 1);
    const double p0 = __builtin_amdgcn_trig_preop(x, 0);
    const double scaled = x >= 0x1.0p+945 || x <= -0x1.0p+945 ? x * 0x1.0p-128 : x;
    const double high = p0 * scaled, high_low = __builtin_fma(p0, scaled, -high);
    const double middle = p1 * scaled, middle_low = __builtin_fma(p1, scaled, -middle);
    const double turns = high - 4.0 * __builtin_floor(high * 0.25);  // of pi/2, modulo 4, exact
    double sum = turns + (high_low + middle);
    const double rest = (turns - sum) + (high_low + middle) + __builtin_fma(p2, scaled, middle_low);
    const double count = __builtin_rint(sum);
    return {((sum - count) + rest) * 1.57079632679489661923, static_cast<int>(count) & 3};
}
HKTUNE_DEVICE_ double sine_of_small(double x) {
    constexpr double c[] = {-1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800.0,
                            -1.0 / 1307674368000.0, 1.0 / 355687428096000.0};
    return __builtin_fma(x * x * x, polynomial(x * x, c), x);
}
HKTUNE_DEVICE_ double cosine_of_small(double x) {
    constexpr double c[] = {-1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600,
                            -1.0 / 87178291200.0, 1.0 / 20922789888000.0};
    return __builtin_fma(x * x, polynomial(x * x, c), 1.0);
}
// sin(x + quarters * pi/2)
HKTUNE_DEVICE_ double sine(double x, int quarters) {
    if (!(__builtin_fabs(x) < __builtin_inf())) return __builtin_nan("");
    const Quarter at = quarter_of(x);
    const int quadrant = at.quadrant + quarters;
    const double value = quadrant & 1 ? cosine_of_small(at.angle) : sine_of_small(at.angle);
    return quadrant & 2 ? -value : value;
}

HKTUNE_DEVICE_ double hyperbolic_tangent(double x) {
    const double size = __builtin_fabs(x);
    if (size > 20.0) return __builtin_copysign(1.0, x);
    // tanh(x) = e / (e + 2), e = exp(2 |x|) - 1
    const double e = size < 0.17 ? exp_less_one_of_small(2.0 * size) : exponential(2.0 * size) - 1.0;
    return __builtin_copysign(e / (e + 2.0), x);
}

// erf below 2 by its series x (1 + (2x^2)/3 + (2x^2)^2/15 + ...) exp(-x^2) 2/sqrt(pi), whose terms are all positive;
// erfc above by its continued fraction.
HKTUNE_DEVICE_ double error_series(double x) {
    double term = x, sum = x;
#pragma unroll 1
    for (int n = 1; n < 40; n++) {
        term *= 2.0 * x * x / (2 * n + 1);
        sum += term;
    }
    return sum * exponential(-x * x) * 1.12837916709551257390;
}
HKTUNE_DEVICE_ double complementary_fraction(double x) {
    double below = x;
#pragma unroll 1
    for (int n = 60; n > 0; n--) below = x + 0.5 * n / below;
    return exponential(-x * x, -__builtin_fma(x, x, -(x * x))) * 0.56418958354775628695 / below;
}
HKTUNE_DEVICE_ double error_function(double x) {
    const double size = __builtin_fabs(x);
    if (x != x) return x;
    const double value = size < 2.0 ? error_series(size) : size > 6.0 ? 1.0 : 1.0 - complementary_fraction(size);
    return __builtin_copysign(value, x);
}
HKTUNE_DEVICE_ double complementary_error_function(double x) {
    if (x != x) return x;
    if (x < 1.0) return 1.0 - error_function(x);
    return x < 2.0 ? complementary_fraction(x) : x > 28.0 ? 0.0 : complementary_fraction(x);
}

HKTUNE_DEVICE_ double power(double x, double y) {
    if (y == 0.0 || x == 1.0) return 1.0;
    if (x != x || y != y) return x + y;
    const bool whole = __builtin_floor(y) == y, odd = whole && __builtin_floor(y * 0.5) != y * 0.5;
    const double size = __builtin_fabs(x);
    if (__builtin_fabs(y) == __builtin_inf())
        return size == 1.0 ? 1.0 : (size > 1.0) == (y > 0.0) ? __builtin_inf() : 0.0;
    double value;
    if (size == 0.0 || size == __builtin_inf()) {
        value = (size == 0.0) == (y > 0.0) ? 0.0 : __builtin_inf();
    } else {
        if (x < 0.0 && !whole) return __builtin_nan("");
        const TwoParts log = logarithm(size);
        const double product = y * log.high;
        const double low = __builtin_fma(y, log.high, -product) + y * log.low;
        value = exponential(product, __builtin_fabs(product) < 800.0 ? low : 0.0);
    }
    return odd && __builtin_copysign(1.0, x) < 0.0 ? -value : value;
}

}  // namespace hip_stand_in

// Each function of float64, and the one of float32 with f at its end; both also by overload.
#define HKTUNE_MATHS_(name, expression)                                                                    \
    HKTUNE_DEVICE_ double name(double x) { return expression; }                                            \
    HKTUNE_DEVICE_ float name##f(float value) {                                                            \
        const double x = value;                                                                            \
        return static_cast<float>(expression);                                                             \
    }                                                                                                      \
    HKTUNE_DEVICE_ float name(float x) { return name##f(x); }
HKTUNE_MATHS_(exp, hip_stand_in::exponential(x))
HKTUNE_MATHS_(exp10, hip_stand_in::exponential(x * 2.302585092994045684))
HKTUNE_MATHS_(expm1, __builtin_fabs(x) < 0.34 ? hip_stand_in::exp_less_one_of_small(x) : hip_stand_in::exponential(x) - 1.0)
HKTUNE_MATHS_(log, hip_stand_in::logarithm(x).high)
HKTUNE_MATHS_(log10, hip_stand_in::logarithm(x).high * 0.43429448190325182765)
HKTUNE_MATHS_(log1p, __builtin_fabs(x) < 1e-8 ? x : hip_stand_in::logarithm(1.0 + x).high + (x - ((1.0 + x) - 1.0)) / (1.0 + x))
HKTUNE_MATHS_(sin, hip_stand_in::sine(x, 0))
HKTUNE_MATHS_(cos, hip_stand_in::sine(x, 1))
HKTUNE_MATHS_(tan, hip_stand_in::sine(x, 0) / hip_stand_in::sine(x, 1))
HKTUNE_MATHS_(tanh, hip_stand_in::hyperbolic_tangent(x))
HKTUNE_MATHS_(sinh, 0.5 * (hip_stand_in::exponential(x) - hip_stand_in::exponential(-x)))
HKTUNE_MATHS_(cosh, 0.5 * (hip_stand_in::exponential(x) + hip_stand_in::exponential(-x)))
HKTUNE_MATHS_(erf, hip_stand_in::error_function(x))
HKTUNE_MATHS_(erfc, hip_stand_in::complementary_error_function(x))
HKTUNE_MATHS_(cbrt, __builtin_copysign(hip_stand_in::power(__builtin_fabs(x), 1.0 / 3), x))
#undef HKTUNE_MATHS_

// Functions that clang has as instructions of its own.
#define HKTUNE_BUILTIN_(name)                                                             \
    HKTUNE_DEVICE_ double name(double x) { return __builtin_elementwise_##name(x); }      \
    HKTUNE_DEVICE_ float name##f(float x) { return __builtin_elementwise_##name(x); }     \
    HKTUNE_DEVICE_ float name(float x) { return __builtin_elementwise_##name(x); }
HKTUNE_BUILTIN_(floor)
HKTUNE_BUILTIN_(ceil)
HKTUNE_BUILTIN_(trunc)
HKTUNE_BUILTIN_(rint)
HKTUNE_BUILTIN_(nearbyint)
HKTUNE_BUILTIN_(round)
#undef HKTUNE_BUILTIN_

HKTUNE_DEVICE_ float sqrtf(float x) { return __builtin_elementwise_sqrt(x); }
HKTUNE_DEVICE_ float sqrt(float x) { return __builtin_elementwise_sqrt(x); }
HKTUNE_DEVICE_ double sqrt(double x) { return __builtin_elementwise_sqrt(x); }
HKTUNE_DEVICE_ float rsqrtf(float x) { return __builtin_amdgcn_rsqf(x); }
HKTUNE_DEVICE_ float rsqrt(float x) { return rsqrtf(x); }
HKTUNE_DEVICE_ double rsqrt(double x) { return 1.0 / sqrt(x); }
HKTUNE_DEVICE_ float exp2f(float x) { return __builtin_elementwise_exp2(x); }
HKTUNE_DEVICE_ float exp2(float x) { return exp2f(x); }
HKTUNE_DEVICE_ double exp2(double x) { return hip_stand_in::power(2.0, x); }
HKTUNE_DEVICE_ float log2f(float x) { return __builtin_elementwise_log2(x); }
HKTUNE_DEVICE_ float log2(float x) { return log2f(x); }
HKTUNE_DEVICE_ double log2(double x) { return hip_stand_in::logarithm(x).high * 1.4426950408889634074; }
HKTUNE_DEVICE_ float fabsf(float x) { return __builtin_fabsf(x); }
HKTUNE_DEVICE_ float fabs(float x) { return __builtin_fabsf(x); }
HKTUNE_DEVICE_ double fabs(double x) { return __builtin_fabs(x); }
#define HKTUNE_CLASS_(T)                                                                   \
    HKTUNE_DEVICE_ bool isnan(T x) { return x != x; }                                      \
    HKTUNE_DEVICE_ bool isinf(T x) { return __builtin_fabs(x) == __builtin_inf(); }        \
    HKTUNE_DEVICE_ bool isfinite(T x) { return __builtin_fabs(x) < __builtin_inf(); }      \
    HKTUNE_DEVICE_ bool signbit(T x) { return __builtin_copysign(1.0, x) < 0.0; }
HKTUNE_CLASS_(float)
HKTUNE_CLASS_(double)
#undef HKTUNE_CLASS_
HKTUNE_DEVICE_ float abs(float x) { return __builtin_fabsf(x); }
HKTUNE_DEVICE_ double abs(double x) { return __builtin_fabs(x); }
HKTUNE_DEVICE_ int abs(int x) { return x < 0 ? -x : x; }
HKTUNE_DEVICE_ long abs(long x) { return x < 0 ? -x : x; }
HKTUNE_DEVICE_ long long abs(long long x) { return x < 0 ? -x : x; }

#define HKTUNE_OF_TWO_(name, of_double, of_float)                                   \
    HKTUNE_DEVICE_ double name(double a, double b) { return of_double; }            \
    HKTUNE_DEVICE_ float name##f(float a, float b) { return of_float; }             \
    HKTUNE_DEVICE_ float name(float a, float b) { return of_float; }
HKTUNE_OF_TWO_(pow, hip_stand_in::power(a, b), static_cast<float>(hip_stand_in::power(a, b)))
HKTUNE_OF_TWO_(fmax, __builtin_fmax(a, b), __builtin_fmaxf(a, b))
HKTUNE_OF_TWO_(fmin, __builtin_fmin(a, b), __builtin_fminf(a, b))
HKTUNE_OF_TWO_(copysign, __builtin_copysign(a, b), __builtin_copysignf(a, b))
HKTUNE_OF_TWO_(hypot, sqrt(a * a + b * b), static_cast<float>(sqrt(static_cast<double>(a) * a + static_cast<double>(b) * b)))
#undef HKTUNE_OF_TWO_
HKTUNE_DEVICE_ float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
HKTUNE_DEVICE_ float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
HKTUNE_DEVICE_ double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
HKTUNE_DEVICE_ double fmod(double a, double b) {
    double rest = __builtin_fabs(a);
    const double size = __builtin_fabs(b);
    if (!(size > 0.0) || !(rest < __builtin_inf())) return __builtin_nan("");
    if (size == __builtin_inf()) return a;
    while (rest >= size) {  // subtract the largest 2^i size that fits, which is exact
        double part = __builtin_ldexp(size, __builtin_amdgcn_frexp_exp(rest) - __builtin_amdgcn_frexp_exp(size));
        rest -= part > rest ? part * 0.5 : part;
    }
    return __builtin_copysign(rest, a);
}
HKTUNE_DEVICE_ float fmodf(float a, float b) { return static_cast<float>(fmod(static_cast<double>(a), static_cast<double>(b))); }
HKTUNE_DEVICE_ float fmod(float a, float b) { return fmodf(a, b); }
HKTUNE_DEVICE_ float ldexpf(float x, int exponent) { return __builtin_ldexpf(x, exponent); }
HKTUNE_DEVICE_ double ldexp(double x, int exponent) { return __builtin_ldexp(x, exponent); }
HKTUNE_DEVICE_ void sincosf(float x, float* sine, float* cosine) { *sine = sinf(x), *cosine = cosf(x); }
HKTUNE_DEVICE_ void sincos(double x, double* sine, double* cosine) { *sine = sin(x), *cosine = cos(x); }

// Fast forms: v_exp_f32, v_log_f32 and v_sin_f32 as they are. They work in base 2 and in turns.
HKTUNE_DEVICE_ float __log2f(float x) { return __builtin_amdgcn_logf(x); }
HKTUNE_DEVICE_ float __expf(float x) { return __builtin_amdgcn_exp2f(x * 1.44269504088896340736f); }
HKTUNE_DEVICE_ float __exp10f(float x) { return __builtin_amdgcn_exp2f(x * 3.32192809488736234787f); }
HKTUNE_DEVICE_ float __logf(float x) { return __builtin_amdgcn_logf(x) * 0.693147180559945309417f; }
HKTUNE_DEVICE_ float __log10f(float x) { return __builtin_amdgcn_logf(x) * 0.301029995663981195214f; }
HKTUNE_DEVICE_ float __powf(float x, float y) { return __builtin_amdgcn_exp2f(y * __builtin_amdgcn_logf(x)); }
HKTUNE_DEVICE_ float __sinf(float x) { return __builtin_amdgcn_sinf(x * 0.15915494309189533577f); }
HKTUNE_DEVICE_ float __cosf(float x) { return __builtin_amdgcn_cosf(x * 0.15915494309189533577f); }
HKTUNE_DEVICE_ void __sincosf(float x, float* sine, float* cosine) { *sine = __sinf(x), *cosine = __cosf(x); }
HKTUNE_DEVICE_ float __tanf(float x) { return __sinf(x) / __cosf(x); }
HKTUNE_DEVICE_ float __saturatef(float x) { return __builtin_fminf(__builtin_fmaxf(x, 0.0f), 1.0f); }
HKTUNE_DEVICE_ float __frcp_rn(float x) { return 1.0f / x; }
HKTUNE_DEVICE_ float __fsqrt_rn(float x) { return __builtin_elementwise_sqrt(x); }
HKTUNE_DEVICE_ float __frsqrt_rn(float x) { return __builtin_amdgcn_rsqf(x); }
HKTUNE_DEVICE_ float __fadd_rn(float a, float b) { return a + b; }
HKTUNE_DEVICE_ float __fsub_rn(float a, float b) { return a - b; }
HKTUNE_DEVICE_ float __fmul_rn(float a, float b) { return a * b; }
HKTUNE_DEVICE_ float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
HKTUNE_DEVICE_ float __fdiv_rn(float a, float b) { return a / b; }
HKTUNE_DEVICE_ float __fdividef(float a, float b) { return a / b; }

// Conversions, named by how they round.
HKTUNE_DEVICE_ int __float2int_rn(float x) { return static_cast<int>(__builtin_rintf(x)); }
HKTUNE_DEVICE_ int __float2int_rz(float x) { return static_cast<int>(x); }
HKTUNE_DEVICE_ int __float2int_rd(float x) { return static_cast<int>(__builtin_floorf(x)); }
HKTUNE_DEVICE_ int __float2int_ru(float x) { return static_cast<int>(__builtin_ceilf(x)); }
HKTUNE_DEVICE_ unsigned __float2uint_rn(float x) { return static_cast<unsigned>(__builtin_rintf(x)); }
HKTUNE_DEVICE_ unsigned __float2uint_rz(float x) { return static_cast<unsigned>(x); }
HKTUNE_DEVICE_ float __int2float_rn(int x) { return static_cast<float>(x); }
HKTUNE_DEVICE_ float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
HKTUNE_DEVICE_ int lrintf(float x) { return static_cast<int>(__builtin_rintf(x)); }
