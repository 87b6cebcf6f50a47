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

#undef HKTUNE_UNARY_
#undef HKTUNE_BINARY_
#undef HKTUNE_ELEMENT_
#undef HKTUNE_PAIR_
