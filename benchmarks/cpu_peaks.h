// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured in the run that uses it.
#ifndef QN_BENCHMARKS_CPU_PEAKS_H
#define QN_BENCHMARKS_CPU_PEAKS_H

#include "cpu/pool.h"

typedef struct cpu_peaks {
    double read_gb;  // GB/s of streaming reads, the best of several methods
    double int8_top; // 10^12 operations/s of VPDPBUSD (a multiplication and an addition are two);
                     // 0 where the machine has none
    double fma_top;  // of f32 FMA
} cpu_peaks;

cpu_peaks measure_peaks(pool *p);

// Seconds of the fastest run out of half a second of them. Runs of about a millisecond find the
// moments that nobody else used the machine.
double best_seconds(void (*fn)(void *), void *arg);

#endif
