// SPDX-License-Identifier: Apache-2.0
// The instruction sets that this machine can run, and random numbers, for the tests of cpu/.
#ifndef QN_TESTS_CPU_ISAS_H
#define QN_TESTS_CPU_ISAS_H

#include "base/philox.h"
#include "cpu/kernels.h"

static const char *const isa_names[] = {"scalar", "avx2", "avx512vnni"};
enum { N_ISAS = 3 };

// Normal-like values (a sum of uniforms) with now and then a large one, as activations have.
static inline float random_value(qn_rng *rng) {
    double v = qn_rng_uniform(rng) + qn_rng_uniform(rng) + qn_rng_uniform(rng) - 1.5;
    return (float)(qn_rng_below(rng, 97) == 0 ? v * 20 : v);
}

#endif
