// SPDX-License-Identifier: Apache-2.0
#include "attention/kv.h"

#include <math.h>

// softmax(q k^T * scale) v over keys [first, pos], in two passes: the maximum, then the sums.
void qn_attention_reference(const float *q, const float *k, const float *v, size_t stride,
                            int32_t head_dim, int32_t first, int32_t pos, float scale,
                            float softcap, double *out) {
    double max = -INFINITY, sum = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            for (int32_t d = 0; d < head_dim; d++) out[d] = 0;
        }
        for (int32_t j = first; j <= pos; j++) {
            double s = 0;
            for (int32_t d = 0; d < head_dim; d++) {
                s += (double)q[d] * (double)k[(size_t)j * stride + (size_t)d];
            }
            s *= (double)scale;
            if (softcap > 0) s = (double)softcap * tanh(s / (double)softcap);
            if (pass == 0) {
                if (s > max) max = s;
                continue;
            }
            double p = exp(s - max);
            sum += p;
            for (int32_t d = 0; d < head_dim; d++) {
                out[d] += p * (double)v[(size_t)j * stride + (size_t)d];
            }
        }
    }
    for (int32_t d = 0; d < head_dim; d++) out[d] /= sum;
}
