// SPDX-License-Identifier: Apache-2.0
// The CPU backend. Instruction sets, chosen at run time: "scalar", "avx2" (with FMA and F16C),
// "avx512vnni" (F, BW, DQ, VL, VNNI). All give the same bits for any batch and any thread count.
//
// submit runs the step on the calling thread and the pool's workers; collect gives its results.
// Executables of one backend share its pool: steps of several run one after another.
#ifndef QN_CPU_CPU_BACKEND_H
#define QN_CPU_CPU_BACKEND_H

#include "backend/backend.h"

extern const qn_backend_api qn_cpu_backend;

#endif
