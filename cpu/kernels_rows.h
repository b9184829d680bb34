// SPDX-License-Identifier: Apache-2.0
// Kernels over one row, written on 16 lanes. Included after a lanes_*.h and kernels_math.h; every
// function is static, and the including file puts it into its table.
#ifndef QN_CPU_KERNELS_ROWS_H
#define QN_CPU_KERNELS_ROWS_H

// Applies expr to each 16 elements; x, z are the inputs, the tail is masked.
#define EACH_16(n, load_x, load_z, expr)                     \
    do {                                                     \
        int32_t i = 0;                                       \
        for (; i + 16 <= (n); i += 16) {                     \
            v16 x = v16_load((load_x) + i);                  \
            v16 z = v16_load((load_z) + i);                  \
            (void)z;                                         \
            v16_store(y + i, (expr));                        \
        }                                                    \
        if (i < (n)) {                                       \
            v16 x = v16_load_n((load_x) + i, (n) - i);       \
            v16 z = v16_load_n((load_z) + i, (n) - i);       \
            (void)z;                                         \
            v16_store_n(y + i, (expr), (n) - i);             \
        }                                                    \
    } while (0)

static void row_add(const float *a, const float *b, float *y, int32_t n) {
    EACH_16(n, a, b, v16_add(x, z));
}

static void row_gated(qn_activation act, const float *a, const float *b, float *y, int32_t n) {
    switch (act) {
    case QN_ACT_SILU: EACH_16(n, a, b, v16_mul(v16_silu(x), z)); break;
    case QN_ACT_GELU_TANH: EACH_16(n, a, b, v16_mul(v16_gelu_tanh(x), z)); break;
    case QN_ACT_RELU2: EACH_16(n, a, b, v16_mul(v16_relu2(x), z)); break;
    }
}

static void row_scale(const float *a, float value, float *y, int32_t n) {
    const v16 v = v16_set1(value);
    EACH_16(n, a, a, v16_mul(x, v));
}

static void row_softcap(const float *a, float value, float *y, int32_t n) {
    const v16 v = v16_set1(value);
    EACH_16(n, a, a, v16_mul(v, v16_tanh(v16_div(x, v))));
}

// (x * (1 / sqrt(mean + eps))) * weight.
static void row_rms_norm(const float *x, const float *w, float *y, int32_t width, int32_t group,
                         float eps) {
    const int32_t whole = group & ~15, rest = group - whole;
    for (int32_t g = 0; g < width; g += group, x += group, y += group) {
        v16 sum = v16_set1(0.0f);
        for (int32_t i = 0; i < whole; i += 16) {
            v16 v = v16_load(x + i);
            sum = v16_fma(v, v, sum);
        }
        if (rest) {
            v16 v = v16_load_n(x + whole, rest);
            sum = v16_fma(v, v, sum);
        }
        const v16 inv = v16_set1(1.0f / sqrtf(v16_hsum(sum) / (float)group + eps));
        for (int32_t i = 0; i < whole; i += 16) {
            v16_store(y + i, v16_mul(v16_mul(v16_load(x + i), inv), v16_load(w + i)));
        }
        if (rest) {
            v16 v = v16_mul(v16_load_n(x + whole, rest), inv);
            v16_store_n(y + whole, v16_mul(v, v16_load_n(w + whole, rest)), rest);
        }
    }
}

// (a, b) -> (fma(a, c, -(b s)), fma(a, s, b c)).
static void row_rope(float *y, int32_t n_heads, int32_t head_dim, qn_rope_kind kind,
                     int32_t rot_dims, const float *cos, const float *sin) {
    const int32_t half = rot_dims / 2;
    for (int32_t h = 0; h < n_heads; h++, y += head_dim) {
        if (kind == QN_ROPE_ADJACENT) {
            for (int32_t i = 0; i < half; i++) {
                float a = y[2 * i], b = y[2 * i + 1], bs = b * sin[i], bc = b * cos[i];
                y[2 * i] = fmaf(a, cos[i], -bs);
                y[2 * i + 1] = fmaf(a, sin[i], bc);
            }
            continue;
        }
        for (int32_t i = 0; i < half; i += 16) {
            const int n = half - i < 16 ? half - i : 16;
            v16 a = v16_load_n(y + i, n), b = v16_load_n(y + half + i, n);
            v16 c = v16_load_n(cos + i, n), s = v16_load_n(sin + i, n);
            v16 zero = v16_set1(0.0f);
            v16_store_n(y + i, v16_fma(a, c, v16_sub(zero, v16_mul(b, s))), n);
            v16_store_n(y + half + i, v16_fma(a, s, v16_mul(b, c)), n);
        }
    }
}

static void row_quantize(const float *x, int32_t k, uint8_t *q) {
    const int32_t n = k / QBLOCK;
    float *scales = (float *)(void *)act_at(q, k, ACT_ELEM_BYTES, ACT_SCALES);
    int32_t *sums128 = (int32_t *)(void *)act_at(q, k, ACT_ELEM_BYTES, ACT_SUMS128);
    int32_t *sums8 = sums128 + n, *halves128 = sums8 + n;
    float *xsums = (float *)(void *)act_at(q, k, ACT_ELEM_BYTES, ACT_XSUMS);
    float *half_xsums = xsums + n;
    for (int32_t b = 0; b < n; b++, x += QBLOCK) {
        v16 lo = v16_load(x), hi = v16_load(x + 16);
        float amax = v16_hmax(v16_max(v16_abs(lo), v16_abs(hi)));
        const bool finite = v16_all_finite(lo) && v16_all_finite(hi);
        const bool zero = !finite || amax < 0x1p-100f;
        const v16 inv = v16_set1(zero ? 0.0f : 127.0f / amax);
        int8_t t[QBLOCK] = {0};
        if (!zero) {
            v16_store_i8(t, v16_mul(lo, inv));
            v16_store_i8(t + 16, v16_mul(hi, inv));
        }
        int32_t first = 0, second = 0;
        for (int i = 0; i < 16; i++) first += t[i];
        for (int i = 16; i < QBLOCK; i++) second += t[i];
        const float scale = !finite ? __builtin_nanf("") : zero ? 0.0f : amax / 127.0f;
        scales[b] = scale;
        sums128[b] = -128 * (first + second);
        sums8[b] = -8 * (first + second);
        halves128[2 * b] = -128 * first;
        halves128[2 * b + 1] = -128 * second;
        xsums[b] = scale * (float)(first + second);
        half_xsums[2 * b] = scale * (float)first;
        half_xsums[2 * b + 1] = scale * (float)second;
        if (ACT_ELEM_BYTES == 1) {
            memcpy(q + (size_t)b * QBLOCK, t, QBLOCK);
            continue;
        }
        int16_t *dst = (int16_t *)(void *)q + (size_t)b * QBLOCK;
        for (int i = 0; i < QBLOCK; i += 4) {
            dst[i] = t[i];
            dst[i + 1] = t[i + 2];
            dst[i + 2] = t[i + 1];
            dst[i + 3] = t[i + 3];
        }
    }
}

static void row_kv_write(const float *k, const float *v, int32_t head_dim, int32_t t, bool f16,
                         uint8_t *k_slab, uint8_t *v_slab) {
    const int32_t padded = round_up16(head_dim);
    const size_t k_at = (size_t)(t / 16) * (size_t)head_dim * 16 + (size_t)(t % 16);
    const size_t v_at = (size_t)t * (size_t)padded;
    for (int32_t d = 0; d < padded; d += 16) {
        const int n = head_dim - d < 16 ? head_dim - d : 16;
        v16 kv = v16_load_n(k + d, n), vv = v16_load_n(v + d, n);
        if (f16) {
            uint16_t *ks = (uint16_t *)(void *)k_slab + k_at, kt[16];
            v16_store_f16(kt, kv);
            for (int i = 0; i < n; i++) ks[(d + i) * 16] = kt[i];
            v16_store_f16((uint16_t *)(void *)v_slab + v_at + d, vv);
        } else {
            float *ks = (float *)(void *)k_slab + k_at;
            for (int i = 0; i < n; i++) ks[(d + i) * 16] = k[d + i];
            v16_store((float *)(void *)v_slab + v_at + d, vv);
        }
    }
}

#endif
