// Random numbers of Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), under
// rocRAND's names: a seed is the key, a subsequence the counter's upper half, an offset counts single numbers.
#pragma once

#include <hip/hip_runtime.h>

struct rocrand_state_philox4x32_10 {
    unsigned key[2], counter[4], result[4], used;
};
typedef rocrand_state_philox4x32_10 hiprandStatePhilox4_32_10_t;

namespace hip_stand_in {

// Ten rounds: two products, whose halves change places, and a key that grows by two constants.
HKTUNE_DEVICE_ void philox(rocrand_state_philox4x32_10& s) {
    unsigned k0 = s.key[0], k1 = s.key[1], a = s.counter[0], b = s.counter[1], c = s.counter[2], d = s.counter[3];
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const unsigned long long left = 0xD2511F53ull * a, right = 0xCD9E8D57ull * c;
        a = static_cast<unsigned>(right >> 32) ^ b ^ k0, b = static_cast<unsigned>(right);
        c = static_cast<unsigned>(left >> 32) ^ d ^ k1, d = static_cast<unsigned>(left);
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    s.result[0] = a, s.result[1] = b, s.result[2] = c, s.result[3] = d;
}
HKTUNE_DEVICE_ void count_up(rocrand_state_philox4x32_10& s, unsigned long long steps) {
    unsigned long long low = s.counter[1] * 0x100000000ull + s.counter[0];
    const bool carries = low + steps < low;
    low += steps;
    s.counter[0] = static_cast<unsigned>(low), s.counter[1] = static_cast<unsigned>(low >> 32);
    if (carries && ++s.counter[2] == 0) s.counter[3]++;
}

}  // namespace hip_stand_in

HKTUNE_DEVICE_ void rocrand_init(
    unsigned long long seed, unsigned long long subsequence, unsigned long long offset, rocrand_state_philox4x32_10* state) {
    state->key[0] = static_cast<unsigned>(seed), state->key[1] = static_cast<unsigned>(seed >> 32);
    state->counter[0] = 0, state->counter[1] = 0;
    state->counter[2] = static_cast<unsigned>(subsequence), state->counter[3] = static_cast<unsigned>(subsequence >> 32);
    hip_stand_in::count_up(*state, offset / 4);
    state->used = static_cast<unsigned>(offset % 4);
    hip_stand_in::philox(*state);
}
HKTUNE_DEVICE_ unsigned rocrand(rocrand_state_philox4x32_10* state) {
    const unsigned at = state->used, found = at == 0   ? state->result[0]
                                             : at == 1 ? state->result[1]
                                             : at == 2 ? state->result[2]
                                                       : state->result[3];
    state->used = (at + 1) & 3;
    if (at == 3) {
        hip_stand_in::count_up(*state, 1);
        hip_stand_in::philox(*state);
    }
    return found;
}
// In (0, 1]: 2^-32 times the number, and one step more.
HKTUNE_DEVICE_ float rocrand_uniform(rocrand_state_philox4x32_10* state) {
    return 2.3283064365386963e-10f + rocrand(state) * 2.3283064365386963e-10f;
}
HKTUNE_DEVICE_ float4 rocrand_uniform4(rocrand_state_philox4x32_10* state) {
    const float x = rocrand_uniform(state), y = rocrand_uniform(state), z = rocrand_uniform(state);
    return {x, y, z, rocrand_uniform(state)};
}
// Box and Muller's transform of two uniform numbers; the second result is dropped.
HKTUNE_DEVICE_ float rocrand_normal(rocrand_state_philox4x32_10* state) {
    const float u = rocrand_uniform(state), turn = rocrand_uniform(state);
    return sqrtf(-2.0f * logf(u)) * cosf(6.28318530717958647692f * turn);
}

#define HKTUNE_HIPRAND_(name) \
    HKTUNE_DEVICE_ auto hiprand##name(rocrand_state_philox4x32_10* state) { return rocrand##name(state); }
HKTUNE_HIPRAND_()
HKTUNE_HIPRAND_(_uniform)
HKTUNE_HIPRAND_(_uniform4)
HKTUNE_HIPRAND_(_normal)
#undef HKTUNE_HIPRAND_
HKTUNE_DEVICE_ void hiprand_init(
    unsigned long long seed, unsigned long long subsequence, unsigned long long offset, rocrand_state_philox4x32_10* state) {
    rocrand_init(seed, subsequence, offset, state);
}
