// The HIP arithmetic that bfloat16 and float16 share, for HKTUNE_ELEMENT_ and HKTUNE_PAIR_ (a struct of x and y), which
// the includer defines. Each function widens to float32 and rounds once. Included once per type, so no include guard.

#define HKTUNE_UNARY_(name, pair_name, expression)                                             \
    HKTUNE_DEVICE_ HKTUNE_ELEMENT_ name(HKTUNE_ELEMENT_ value) {                               \
        const float a = static_cast<float>(value);                                             \
        return HKTUNE_ELEMENT_(expression);                                                    \
    }                                                                                          \
    HKTUNE_DEVICE_ HKTUNE_PAIR_ pair_name(HKTUNE_PAIR_ value) { return {name(value.x), name(value.y)}; }

#define HKTUNE_BINARY_(name, pair_name, expression)                                            \
    HKTUNE_DEVICE_ HKTUNE_ELEMENT_ name(HKTUNE_ELEMENT_ left, HKTUNE_ELEMENT_ right) {         \
        const float a = static_cast<float>(left), b = static_cast<float>(right);               \
        return HKTUNE_ELEMENT_(expression);                                                    \
    }                                                                                          \
    HKTUNE_DEVICE_ HKTUNE_PAIR_ pair_name(HKTUNE_PAIR_ left, HKTUNE_PAIR_ right) {             \
        return {name(left.x, right.x), name(left.y, right.y)};                                 \
    }

HKTUNE_UNARY_(hexp, h2exp, __expf(a))
HKTUNE_UNARY_(hexp2, h2exp2, exp2f(a))
HKTUNE_UNARY_(hlog, h2log, __logf(a))
HKTUNE_UNARY_(hlog2, h2log2, __log2f(a))
HKTUNE_UNARY_(hrcp, h2rcp, 1.0f / a)
HKTUNE_UNARY_(hsqrt, h2sqrt, __fsqrt_rn(a))
HKTUNE_UNARY_(hrsqrt, h2rsqrt, rsqrtf(a))
HKTUNE_UNARY_(__habs, __habs2, fabsf(a))
HKTUNE_UNARY_(__hneg, __hneg2, -a)

HKTUNE_BINARY_(__hadd, __hadd2, a + b)
HKTUNE_BINARY_(__hsub, __hsub2, a - b)
HKTUNE_BINARY_(__hmul, __hmul2, a * b)
HKTUNE_BINARY_(__hdiv, __h2div, a / b)
HKTUNE_BINARY_(__hmax, __hmax2, fmaxf(a, b))
HKTUNE_BINARY_(__hmin, __hmin2, fminf(a, b))

HKTUNE_DEVICE_ HKTUNE_PAIR_ operator+(HKTUNE_PAIR_ a, HKTUNE_PAIR_ b) { return __hadd2(a, b); }
HKTUNE_DEVICE_ HKTUNE_PAIR_ operator-(HKTUNE_PAIR_ a, HKTUNE_PAIR_ b) { return __hsub2(a, b); }
HKTUNE_DEVICE_ HKTUNE_PAIR_ operator*(HKTUNE_PAIR_ a, HKTUNE_PAIR_ b) { return __hmul2(a, b); }
HKTUNE_DEVICE_ HKTUNE_PAIR_ operator/(HKTUNE_PAIR_ a, HKTUNE_PAIR_ b) { return __h2div(a, b); }

HKTUNE_UNARY_(hsin, h2sin, sinf(a))
HKTUNE_UNARY_(hcos, h2cos, cosf(a))
HKTUNE_UNARY_(htanh, h2tanh, tanhf(a))
HKTUNE_UNARY_(hfloor, h2floor, floorf(a))
HKTUNE_UNARY_(hceil, h2ceil, ceilf(a))
HKTUNE_UNARY_(hrint, h2rint, rintf(a))

HKTUNE_DEVICE_ HKTUNE_ELEMENT_ __hfma(HKTUNE_ELEMENT_ a, HKTUNE_ELEMENT_ b, HKTUNE_ELEMENT_ c) {
    const double x = static_cast<float>(a), y = static_cast<float>(b), z = static_cast<float>(c);
    return HKTUNE_ELEMENT_(__builtin_fma(x, y, z));
}
HKTUNE_DEVICE_ HKTUNE_PAIR_ __hfma2(HKTUNE_PAIR_ a, HKTUNE_PAIR_ b, HKTUNE_PAIR_ c) {
    return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}

#define HKTUNE_COMPARE_(name, op)                                                              \
    HKTUNE_DEVICE_ bool name(HKTUNE_ELEMENT_ left, HKTUNE_ELEMENT_ right) {                    \
        return static_cast<float>(left) op static_cast<float>(right);                          \
    }
HKTUNE_COMPARE_(__heq, ==)
HKTUNE_COMPARE_(__hne, !=)
HKTUNE_COMPARE_(__hlt, <)
HKTUNE_COMPARE_(__hle, <=)
HKTUNE_COMPARE_(__hgt, >)
HKTUNE_COMPARE_(__hge, >=)
HKTUNE_DEVICE_ bool __hisnan(HKTUNE_ELEMENT_ a) { return isnan(static_cast<float>(a)); }

#define HKTUNE_ASSIGN_(op)                                                                     \
    HKTUNE_DEVICE_ HKTUNE_ELEMENT_& operator op##=(HKTUNE_ELEMENT_& a, HKTUNE_ELEMENT_ b) {    \
        return a = HKTUNE_ELEMENT_(static_cast<float>(a) op static_cast<float>(b));            \
    }                                                                                          \
    HKTUNE_DEVICE_ HKTUNE_PAIR_& operator op##=(HKTUNE_PAIR_& a, HKTUNE_PAIR_ b) { return a = a op b; }
HKTUNE_ASSIGN_(+)
HKTUNE_ASSIGN_(-)
HKTUNE_ASSIGN_(*)
HKTUNE_ASSIGN_(/)

#undef HKTUNE_COMPARE_
#undef HKTUNE_ASSIGN_
#undef HKTUNE_UNARY_
#undef HKTUNE_BINARY_
#undef HKTUNE_ELEMENT_
#undef HKTUNE_PAIR_
