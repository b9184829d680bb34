// SPDX-License-Identifier: Apache-2.0
#include "model/arch.h"

#include "base/checked.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

// The (fractional) dimension pair whose wave turns `turns` times in the original context.
static double yarn_correction(const qn_rope_desc *r, double turns) {
    return r->dims * log(r->original_context / (turns * 2 * pi)) / (2 * log(r->base));
}

static double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

static double yarn_attention_factor(const qn_rope_desc *r) {
    if (r->attention_factor > 0) return r->attention_factor;
    if (r->mscale > 0 && r->mscale_all_dim > 0) {
        return yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all_dim);
    }
    return yarn_mscale(r->factor, 1);
}

static double llama3_frequency(const qn_rope_desc *r, double f) {
    double wavelength = 2 * pi / f;
    if (wavelength < r->original_context / r->high_freq_factor) return f;
    if (wavelength > r->original_context / r->low_freq_factor) return f / r->factor;
    double smooth = (r->original_context / wavelength - r->low_freq_factor) /
                    (r->high_freq_factor - r->low_freq_factor);
    return (1 - smooth) * f / r->factor + smooth * f;
}

void qn_rope_frequencies(const qn_rope_desc *r, float *inv_freq, float *mscale) {
    int32_t n = r->dims / 2;
    double low = 0, high = 0;
    *mscale = 1;
    if (r->scaling == QN_ROPE_YARN) {
        low = yarn_correction(r, r->beta_fast);
        high = yarn_correction(r, r->beta_slow);
        if (r->truncate) {
            low = floor(low);
            high = ceil(high);
        }
        low = QN_MAX(low, 0.0);
        high = QN_MIN(high, (double)r->dims - 1);
        if (low == high) high += 0.001;
        *mscale = (float)yarn_attention_factor(r);
    }
    for (int32_t i = 0; i < n; i++) {
        double f = pow(r->base, -2.0 * i / r->dims);
        switch (r->scaling) {
        case QN_ROPE_PLAIN: break;
        case QN_ROPE_LINEAR: f /= r->factor; break;
        case QN_ROPE_LLAMA3: f = llama3_frequency(r, f); break;
        case QN_ROPE_YARN: {
            double ramp = QN_MIN(QN_MAX((i - low) / (high - low), 0.0), 1.0);
            f = f / r->factor * ramp + f * (1 - ramp);
            break;
        }
        }
        if (r->divisors) f /= (double)r->divisors[i];
        inv_freq[i] = (float)f;
    }
}
