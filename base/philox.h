// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10, a counter-based generator: Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011. No state: the same key and counter always give the same four words.
#ifndef QN_BASE_PHILOX_H
#define QN_BASE_PHILOX_H

#include <stdint.h>

static inline void qn_philox4x32(uint64_t key, const uint32_t counter[4], uint32_t out[4]) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

// A small sequential generator for tests, synthetic data and simulators: seed it, then call next.
typedef struct qn_rng {
    uint64_t key;
    uint64_t n;
} qn_rng;

static inline uint64_t qn_rng_next(qn_rng *rng) {
    const uint32_t counter[4] = {(uint32_t)rng->n, (uint32_t)(rng->n >> 32), 0, 0};
    uint32_t out[4];
    rng->n++;
    qn_philox4x32(rng->key, counter, out);
    return (uint64_t)out[1] << 32 | out[0];
}
// Uniform in [0, n); n > 0. The bias is below n / 2^64.
static inline uint64_t qn_rng_below(qn_rng *rng, uint64_t n) {
    return (uint64_t)(((unsigned __int128)qn_rng_next(rng) * n) >> 64);
}
// Uniform in [0, 1).
static inline double qn_rng_uniform(qn_rng *rng) {
    return (double)(qn_rng_next(rng) >> 11) * 0x1p-53;
}

#endif
