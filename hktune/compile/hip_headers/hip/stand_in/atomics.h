// Atomic operations, relaxed and seen by the whole device, as HIP's are; `_block` ones by the workgroup, `_system` ones
// by all of the machine. What the hardware lacks becomes a loop of compare and swap.
#pragma once

#include "vector_types.h"

#define HKTUNE_ATOMIC_OF_SCOPE_(T, name, expression, suffix, scope)                        \
    HKTUNE_DEVICE_ T name##suffix(T* address, T value) {                                   \
        constexpr int memory_scope = scope;                                                \
        return expression;                                                                 \
    }
#define HKTUNE_ATOMIC_(T, name, expression)                                                \
    HKTUNE_ATOMIC_OF_SCOPE_(T, name, expression, , __HIP_MEMORY_SCOPE_AGENT)               \
    HKTUNE_ATOMIC_OF_SCOPE_(T, name, expression, _block, __HIP_MEMORY_SCOPE_WORKGROUP)     \
    HKTUNE_ATOMIC_OF_SCOPE_(T, name, expression, _system, __HIP_MEMORY_SCOPE_SYSTEM)
#define HKTUNE_FETCH_(T, name, operation) \
    HKTUNE_ATOMIC_(T, name, __hip_atomic_fetch_##operation(address, value, __ATOMIC_RELAXED, memory_scope))

// ---- numbers ----

#define HKTUNE_ARITHMETIC_(T)                                                                                  \
    HKTUNE_FETCH_(T, atomicAdd, add)                                                                           \
    HKTUNE_FETCH_(T, atomicMin, min)                                                                           \
    HKTUNE_FETCH_(T, atomicMax, max)                                                                           \
    HKTUNE_ATOMIC_(T, atomicSub, __hip_atomic_fetch_add(address, static_cast<T>(-value), __ATOMIC_RELAXED, memory_scope))   \
    HKTUNE_ATOMIC_(T, atomicExch, __hip_atomic_exchange(address, value, __ATOMIC_RELAXED, memory_scope))
HKTUNE_ARITHMETIC_(int)
HKTUNE_ARITHMETIC_(unsigned)
HKTUNE_ARITHMETIC_(long)
HKTUNE_ARITHMETIC_(unsigned long)
HKTUNE_ARITHMETIC_(long long)
HKTUNE_ARITHMETIC_(unsigned long long)
HKTUNE_ARITHMETIC_(float)
HKTUNE_ARITHMETIC_(double)

// ---- bits ----

#define HKTUNE_BITWISE_(T)            \
    HKTUNE_FETCH_(T, atomicAnd, and)  \
    HKTUNE_FETCH_(T, atomicOr, or)    \
    HKTUNE_FETCH_(T, atomicXor, xor)
HKTUNE_BITWISE_(int)
HKTUNE_BITWISE_(unsigned)
HKTUNE_BITWISE_(long)
HKTUNE_BITWISE_(unsigned long)
HKTUNE_BITWISE_(long long)
HKTUNE_BITWISE_(unsigned long long)

#define HKTUNE_SWAP_OF_SCOPE_(T, suffix, scope)                                                                        \
    HKTUNE_DEVICE_ T atomicCAS##suffix(T* address, T expected, T value) {                                              \
        __hip_atomic_compare_exchange_strong(address, &expected, value, __ATOMIC_RELAXED, __ATOMIC_RELAXED, scope);    \
        return expected;                                                                                               \
    }
#define HKTUNE_SWAP_(T)                                              \
    HKTUNE_SWAP_OF_SCOPE_(T, , __HIP_MEMORY_SCOPE_AGENT)             \
    HKTUNE_SWAP_OF_SCOPE_(T, _block, __HIP_MEMORY_SCOPE_WORKGROUP)   \
    HKTUNE_SWAP_OF_SCOPE_(T, _system, __HIP_MEMORY_SCOPE_SYSTEM)
HKTUNE_SWAP_(unsigned short)
HKTUNE_SWAP_(int)
HKTUNE_SWAP_(unsigned)
HKTUNE_SWAP_(long)
HKTUNE_SWAP_(unsigned long)
HKTUNE_SWAP_(long long)
HKTUNE_SWAP_(unsigned long long)
HKTUNE_SWAP_(float)
HKTUNE_SWAP_(double)

// ---- counters that begin again: up to `value`, and down to 0 ----

HKTUNE_DEVICE_ unsigned atomicInc(unsigned* address, unsigned value) {
    return __builtin_amdgcn_atomic_inc32(address, value, __ATOMIC_RELAXED, "agent");
}
HKTUNE_DEVICE_ unsigned atomicDec(unsigned* address, unsigned value) {
    return __builtin_amdgcn_atomic_dec32(address, value, __ATOMIC_RELAXED, "agent");
}

// ---- float additions that may use the hardware's own, whatever memory they meet ----

HKTUNE_DEVICE_ float unsafeAtomicAdd(float* address, float value) {
    return __builtin_amdgcn_global_atomic_fadd_f32((__attribute__((address_space(1))) float*)address, value);
}
HKTUNE_DEVICE_ double unsafeAtomicAdd(double* address, double value) {
    return __builtin_amdgcn_global_atomic_fadd_f64((__attribute__((address_space(1))) double*)address, value);
}
HKTUNE_DEVICE_ float safeAtomicAdd(float* address, float value) { return atomicAdd(address, value); }
HKTUNE_DEVICE_ double safeAtomicAdd(double* address, double value) { return atomicAdd(address, value); }
HKTUNE_DEVICE_ void atomicAddNoRet(float* address, float value) { atomicAdd(address, value); }

#undef HKTUNE_ATOMIC_OF_SCOPE_
#undef HKTUNE_ATOMIC_
#undef HKTUNE_FETCH_
#undef HKTUNE_ARITHMETIC_
#undef HKTUNE_BITWISE_
#undef HKTUNE_SWAP_OF_SCOPE_
#undef HKTUNE_SWAP_
