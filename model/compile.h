// SPDX-License-Identifier: Apache-2.0
// Architecture + tensors -> op program.
#ifndef QN_MODEL_COMPILE_H
#define QN_MODEL_COMPILE_H

#include "model/arch.h"
#include "model/checkpoint.h"

// tensors: for each weight of the program, where it is (an array of p->n_weights, malloc'ed).
qn_status qn_arch_compile(const qn_arch *arch, const qn_checkpoint *files, qn_program *p,
                          qn_checkpoint_tensor **tensors, qn_error *err);

#endif
