// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels.h"

#include <string.h>

#ifdef QN_CPU_X86
#include <cpuid.h>

// Not every compiler's __builtin_cpu_supports knows this name.
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static bool has_avx512vnni(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

const cpu_kernels *qn_cpu_kernels_find(const char *isa) {
#ifdef QN_CPU_X86
    if ((!isa || strcmp(isa, "avx512vnni") == 0) && has_avx512vnni()) {
        return &qn_cpu_kernels_avx512vnni;
    }
    if ((!isa || strcmp(isa, "avx2") == 0) && has_avx2()) return &qn_cpu_kernels_avx2;
#endif
    if (!isa || strcmp(isa, "scalar") == 0) return &qn_cpu_kernels_scalar;
    return NULL;
}
