// SPDX-License-Identifier: Apache-2.0
// The vectors that the IQ types choose from (quant/grids.c, generated).
#ifndef QN_QUANT_GRIDS_H
#define QN_QUANT_GRIDS_H

#include <stdint.h>

// 8 elements of 2 bits, the first in the lowest bits. IQ2: 0, 1, 2 stand for the magnitudes 8, 25,
// 43; IQ1: for -1, 0, 1.
extern const uint16_t qn_grid_iq2_xxs[256], qn_grid_iq2_xs[512], qn_grid_iq2_s[1024];
extern const uint16_t qn_grid_iq1[2048];
// 4 elements of 4 bits, indices into the type's 8 magnitudes.
extern const uint16_t qn_grid_iq3_xxs[256], qn_grid_iq3_s[512];

#endif
