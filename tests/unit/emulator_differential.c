/* Functions of three words, for gfx950 and for the host: FUNCTION(name) defines name and run_name, which applies it to
   COUNT triples of inputs. */
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifdef __AMDGCN__
#define GLOBAL __attribute__((address_space(1)))
#define RUN __attribute__((amdgpu_kernel)) void
#define EACH(i) u32 i = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();
#else
#define GLOBAL
#define RUN void
#define EACH(i) for (u32 i = 0; i < COUNT; ++i)
#endif
#define FUNCTION(name)                                                  \
    static u32 name(u32 a, u32 b, u32 c);                               \
    RUN run_##name(GLOBAL const u32* in, GLOBAL u32* out) {             \
        EACH(i) out[i] = name(in[i], in[COUNT + i], in[2 * COUNT + i]); \
    }                                                                   \
    static u32 name(u32 a, u32 b, u32 c)

static inline float as_float(u32 x) { float y; __builtin_memcpy(&y, &x, 4); return y; }
static inline u32 u(float x) { u32 y; __builtin_memcpy(&y, &x, 4); return y; }
/* a finite float between 2^-16 and 2^15 of either sign */
static inline float f(u32 x) { return as_float((x & 0x807fffff) | ((111 + (x >> 23) % 31) << 23)); }

FUNCTION(divide_unsigned) {
    return b ? a / b + a % b : a;
}

FUNCTION(divide_signed) {
    int x = a, y = b | 1;
    return y == -1 ? x : x / y + x % y;
}

FUNCTION(divide_wide) {
    u64 x = (u64)a << 32 | b, y = (u64)c | 1;
    return (u32)(x / y) ^ (u32)(x % y);
}

FUNCTION(multiply_wide) {
    u64 x = (u64)a * b + c;
    return (u32)(x >> 29) ^ (u32)((i64)(int)a * (int)b >> 35);
}

FUNCTION(shifts) {
    u64 x = (u64)a << 32 | b;
    return (u32)(x >> (c & 63)) + (u32)(x << (c & 31)) + ((int)a >> (b & 31));
}

FUNCTION(counts) {
    return __builtin_popcount(a) + (b ? __builtin_clz(b) : 32) * 64 + (c ? __builtin_ctz(c) : 32) * 4096;
}

FUNCTION(turns) {
    return __builtin_bitreverse32(a) ^ __builtin_bswap32(b) ^ (c << 7 | c >> 25);
}

FUNCTION(bytes) {
    u32 s = 0;
    for (int i = 0; i < 4; ++i) s = s * 31 + (signed char)(a >> 8 * i) * (b >> 8 * i & 255);
    return s;
}

FUNCTION(shorts) {
    short x = a, y = b;
    unsigned short z = c;
    return (u32)(x * y) + (u32)(short)(x + z) + (u32)(z >> (y & 7));
}

FUNCTION(smallest) {
    int x = a, y = b;
    u32 s = x < y ? x : y;
    return (a > c ? a : c) - s + (b < c ? b : c);
}

FUNCTION(gcd) {
    u32 x = a & 0xffff, y = b & 0xffff;
    while (y) { u32 t = x % y; x = y; y = t; }
    return x;
}

FUNCTION(collatz) {
    u32 n = (a & 0xff) + 1, s = 0;
    while (n != 1 && s < 200) { n = n & 1 ? 3 * n + 1 : n / 2; ++s; }
    return s;
}

FUNCTION(switches) {
    switch (a % 9) {
        case 0: return b;
        case 1: return b + c;
        case 2: return b * c;
        case 3: return b ^ c;
        case 4: return b - c;
        case 5: return ~b;
        case 6: return b >> 3;
        case 7: return b | c;
        default: return 7;
    }
}

FUNCTION(nested) {
    u32 s = 0;
    for (u32 i = 0; i < (a & 15); ++i) for (u32 j = i; j < (b & 7); ++j) if ((i * j + c) & 1) s += i ^ j;
    else s -= j;
    return s;
}

FUNCTION(float_arithmetic) {
    float x = f(a), y = f(b), z = f(c);
    return u(x * y + z) ^ u(x - z) ^ u(y + z);
}

FUNCTION(float_fused) {
    return u(__builtin_fmaf(f(a), f(b), f(c))) ^ u(__builtin_fmaf(-f(b), f(c), f(a)));
}

FUNCTION(float_divide) {
    return u(f(a) / f(b)) ^ u(1.0f / f(c));
}

FUNCTION(float_any_divide) {
    float x = as_float(a), y = as_float(b);
    float q = x / y;
    return q == q ? u(q) : 1;
}

FUNCTION(float_root) {
    return u(__builtin_sqrtf(__builtin_fabsf(f(a)))) ^ u(__builtin_sqrtf((float)b));
}

FUNCTION(float_compare) {
    float x = f(a), y = as_float(b);
    return (x < y) | (x >= y) << 1 | (x != y) << 2 | (y != y) << 3;
}

FUNCTION(float_rounding) {
    float x = f(a) * 1000;
    return u(__builtin_floorf(x)) ^ u(__builtin_ceilf(x)) ^ u(__builtin_truncf(x)) ^ u(__builtin_rintf(x));
}

FUNCTION(float_to_integer) {
    float x = f(a) * 1e4f;
    return (u32)(int)x + (u32)(i64)(x * 1e6f) + (u32)__builtin_fabsf(x);
}

FUNCTION(integer_to_float) {
    return u((float)a) ^ u((float)(int)b) ^ u((float)((u64)a << 20 ^ b)) ^ u((float)(i64)(int)c);
}

/* one rounding of float32 and float16 together, by halves of words */
static inline _Float16 h(u32 x) { _Float16 y; unsigned short z = x; __builtin_memcpy(&y, &z, 2); return y; }

FUNCTION(mixed_halves) {
    u32 x = a & 0xbfffbfff, y = b & 0xbfffbfff;
    float low = __builtin_fmaf(h(x), h(y), f(c)), high = __builtin_fmaf(-(float)h(x >> 16), h(y >> 16), f(c));
    return u(low) ^ u(high) * 3;
}

FUNCTION(mixed_widths) {
    u32 x = a & 0xbfffbfff;
    float sum = __builtin_fmaf(__builtin_fabsf((float)h(x >> 16)), f(b), f(c)), other = __builtin_fmaf(f(b), f(c), h(x));
    return u(sum) ^ u(other) * 3;
}

FUNCTION(mixed_to_low_halves) {
    u32 x = a & 0x3fff3fff, y = b & 0xbfffbfff;
    _Float16 pair[2] = {__builtin_fmaf(h(x), h(y), 1.0f), __builtin_fmaf(h(x >> 16), h(y >> 16), h(x))};
    u32 packed;
    __builtin_memcpy(&packed, pair, 4);
    return packed;
}

/* the compiler packs two low halves; what goes to a high half leaves the low one alone */
FUNCTION(mixed_to_a_high_half) {
    u32 x = a & 0xbfffbfff, y = b & 0xbfffbfff, packed = c;
#ifdef __AMDGCN__
    __asm__("v_fma_mixhi_f16 %0, %1, -%2, %3 op_sel:[1,0,0] op_sel_hi:[1,1,0]" : "+v"(packed) : "v"(x), "v"(y), "v"(f(c)));
#else
    _Float16 high = (_Float16)__builtin_fmaf(h(x >> 16), -(float)h(y), f(c));
    __builtin_memcpy((char*)&packed + 2, &high, 2);
#endif
    return packed;
}

FUNCTION(half_precision) {
    _Float16 x = f(a), y = f(b);
    _Float16 z = x * y;
    return u((float)z) ^ u((float)(_Float16)(x + y));
}

static inline double as_double(u64 x) { double y; __builtin_memcpy(&y, &x, 8); return y; }
static inline u32 folded(double x) { u64 y; __builtin_memcpy(&y, &x, 8); return (u32)y ^ (u32)(y >> 32); }

FUNCTION(double_divide) {
    return folded(f(a) / (double)f(b)) ^ 3 * folded(1.0 / (f(c) + 0.1));
}

FUNCTION(double_any_divide) {
    double q = as_double((u64)a << 32 | c) / as_double((u64)b << 32 | a);
    return q == q ? folded(q) : 1;
}

FUNCTION(double_root) {
    return folded(__builtin_sqrt(__builtin_fabs(as_double((u64)(a & 0x7fefffff) << 32 | b))));
}

FUNCTION(half_divide) {
    _Float16 x = f(a) / 64, y = f(b), q = x / y;
    unsigned short bits;
    __builtin_memcpy(&bits, &q, 2);
    return bits;
}

FUNCTION(double_arithmetic) {
    double x = f(a), y = f(b), z = (double)c;
    double r = x * y + z - y * 3.25;
    return u((float)r) ^ (u32)(int)(r / 65536.0) ^ (r < z);
}

FUNCTION(absolute_and_sign) {
    float x = f(a);
    u32 extremes = u(__builtin_fminf(x, f(c))) ^ u(__builtin_fmaxf(-x, f(b)));
    return u(__builtin_copysignf(x, f(b))) ^ extremes ^ (u32)__builtin_abs((int)(a | 1));
}
