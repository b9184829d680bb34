// SPDX-License-Identifier: Apache-2.0
// The CPU attention kernels against attention/reference.c, and rule 3 of attention/kv.h: the same
// bits for every way of taking the rows together, every placement of pages, every block size and
// every instruction set, whatever lies in hidden places of the cache.
#include "base/checked.h"
#include "tests/cpu/isas.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_LEN = 600, MAX_DIM = 128, MAX_GROUP = 8 };

typedef struct shape {
    int32_t dim, group, block, window;
    float softcap;
    bool f16;
} shape;

static const shape shapes[] = {
    {64, 1, 16, 0, 0, false},   {64, 2, 16, 0, 0, true},     {128, 8, 32, 0, 0, true},
    {128, 4, 64, 0, 0, false},  {16, 3, 128, 0, 0, false},   {32, 5, 256, 0, 0, true},
    {80, 2, 16, 0, 0, true},    {96, 6, 32, 0, 0, false},    {24, 7, 16, 0, 0, true},
    {64, 4, 16, 100, 0, true},  {64, 1, 16, 1, 0, false},    {128, 2, 32, 300, 0, false},
    {80, 8, 256, 17, 0, true},  {64, 2, 64, 0, 30, false},   {128, 4, 16, 257, 50, true},
};

typedef struct cache {
    shape s;
    uint8_t *pages;
    size_t page_bytes, slab_bytes;
    int32_t blocks[MAX_LEN / 16 + 1];
} cache;

typedef struct data {
    float q[MAX_LEN * MAX_GROUP * MAX_DIM];
    float k[MAX_LEN * MAX_DIM], v[MAX_LEN * MAX_DIM];
} data;

// Pages in an order given by seed; every byte outside the written tokens is a NaN.
static void make_cache(cache *c, const shape *s, const data *d, int32_t len, uint64_t seed) {
    c->s = *s;
    const size_t elem = s->f16 ? 2 : 4;
    c->slab_bytes = (size_t)s->block * (size_t)round_up16(s->dim) * elem;
    c->page_bytes = 2 * c->slab_bytes;
    const int32_t n = QN_CEIL_DIV(len, s->block);
    c->pages = aligned_alloc(64, c->page_bytes * (size_t)n);
    assert_non_null(c->pages);
    memset(c->pages, 0xff, c->page_bytes * (size_t)n);
    for (int32_t i = 0; i < n; i++) c->blocks[i] = i;
    qn_rng rng = {.key = seed};
    for (int32_t i = n - 1; i > 0; i--) {
        const int32_t j = (int32_t)qn_rng_below(&rng, (uint64_t)i + 1), t = c->blocks[i];
        c->blocks[i] = c->blocks[j];
        c->blocks[j] = t;
    }
    for (int32_t i = 0; i < len; i++) {
        uint8_t *page = c->pages + (size_t)c->blocks[i / s->block] * c->page_bytes;
        qn_cpu_kernels_scalar.kv_write(d->k + (size_t)i * (size_t)s->dim,
                                       d->v + (size_t)i * (size_t)s->dim, s->dim, i % s->block,
                                       s->f16, page, page + c->slab_bytes);
    }
}

static void attend(const cpu_kernels *kernels, cache *c, const data *d, int32_t pos, int32_t n_rows,
                   float *out) {
    const shape *s = &c->s;
    const size_t width = (size_t)(s->dim * s->group);
    const size_t scratch = attention_scratch_floats(QN_MAX(n_rows * s->group, 32), s->dim);
    attention_args a = {.q = d->q + (size_t)pos * width, .q_stride = width,
                        .out = out, .out_stride = width, .n_rows = n_rows, .n_group = s->group,
                        .head_dim = s->dim, .pos = pos, .window = s->window,
                        .scale = 1.0f / sqrtf((float)s->dim), .softcap = s->softcap,
                        .blocks = c->blocks, .block_size = s->block, .pages = c->pages,
                        .page_bytes = c->page_bytes, .v_offset = c->slab_bytes, .f16 = s->f16};
    a.scratch = aligned_alloc(64, (scratch * sizeof(float) + 63) & ~(size_t)63);
    assert_non_null(a.scratch);
    memset(a.scratch, 0xff, scratch * sizeof(float));
    kernels->attention(&a);
    free(a.scratch);
}

static float rounded(float x, bool f16) { return f16 ? qn_f16_to_f32(qn_f32_to_f16(x)) : x; }

static void fill(data *d, uint64_t seed, bool f16) {
    qn_rng rng = {.key = seed};
    for (size_t i = 0; i < QN_COUNT(d->q); i++) d->q[i] = random_value(&rng) * 2;
    for (size_t i = 0; i < QN_COUNT(d->k); i++) {
        d->k[i] = rounded(random_value(&rng) * 2, f16);
        d->v[i] = rounded(random_value(&rng), f16);
    }
}

static int32_t first_visible(const shape *s, int32_t pos) {
    const qn_kv_group g = {.kind = s->window ? QN_KV_WINDOW : QN_KV_FULL, .window = s->window};
    return qn_kv_first_visible(&g, pos);
}

// Errors are bounded by those of the scores (a chain of head_dim products, then exp's) and of the
// weighted sum; random data keeps them far below this.
static void check_reference(const cache *c, const data *d, int32_t pos, const float *out) {
    const shape *s = &c->s;
    for (int32_t h = 0; h < s->group; h++) {
        double want[MAX_DIM];
        qn_attention_reference(d->q + ((size_t)pos * (size_t)s->group + (size_t)h) * (size_t)s->dim,
                               d->k, d->v, (size_t)s->dim, s->dim, first_visible(s, pos), pos,
                               1.0f / sqrtf((float)s->dim), s->softcap, want);
        for (int32_t i = 0; i < s->dim; i++) {
            const double got = (double)out[h * s->dim + i];
            assert_true(fabs(got - want[i]) <= 2e-5 * fmax(1, fabs(want[i])));
        }
    }
}

static void test_attention(void **state) {
    (void)state;
    data *d = malloc(sizeof *d);
    float *want = malloc(sizeof d->q), *got = malloc(sizeof d->q);
    assert_true(d && want && got);
    static const int32_t lens[] = {1, 16, 33, 256, 257, MAX_LEN};
    for (size_t si = 0; si < QN_COUNT(shapes); si++) {
        const shape *s = &shapes[si];
        const size_t width = (size_t)(s->dim * s->group);
        fill(d, 100 + si, s->f16);
        for (size_t li = 0; li < QN_COUNT(lens); li++) {
            const int32_t len = lens[li];
            cache c, moved;
            make_cache(&c, s, d, len, 1);
            make_cache(&moved, s, d, len, 2);
            // Token by token with the reference kernels; the first 3 and every 37th row.
            for (int32_t pos = 0; pos < len; pos += pos < 3 ? 1 : 37) {
                attend(&qn_cpu_kernels_scalar, &c, d, pos, 1, want);
                check_reference(&c, d, pos, want);
            }
            for (size_t isa = 1; isa < N_ISAS; isa++) {
                const cpu_kernels *kernels = qn_cpu_kernels_find(isa_names[isa]);
                if (!kernels) continue;
                // A fast set: token by token over all rows, then in chunks of several sizes.
                for (int32_t pos = 0; pos < len; pos++) {
                    attend(kernels, &c, d, pos, 1, want + (size_t)pos * width);
                }
                for (int32_t chunk = 2; chunk <= 37; chunk = chunk * 3 + 3) {
                    for (int32_t pos = 0; pos < len; pos += chunk) {
                        attend(kernels, &moved, d, pos, QN_MIN(chunk, len - pos),
                               got + (size_t)pos * width);
                    }
                    assert_memory_equal(got, want, (size_t)len * width * sizeof(float));
                }
                for (int32_t pos = 0; pos < len; pos += 61) { // against the reference kernels
                    const int32_t n = QN_MIN(2, len - pos);
                    attend(&qn_cpu_kernels_scalar, &moved, d, pos, n, got);
                    assert_memory_equal(got, want + (size_t)pos * width,
                                        (size_t)n * width * sizeof(float));
                }
            }
            free(c.pages);
            free(moved.pages);
        }
    }
    free(d);
    free(want);
    free(got);
}

// A page that the window has passed is -1 in the table, and is not touched; block sizes agree.
static void test_window_pages(void **state) {
    (void)state;
    data *d = malloc(sizeof *d);
    assert_non_null(d);
    fill(d, 7, false);
    for (size_t isa = 0; isa < N_ISAS; isa++) {
        const cpu_kernels *kernels = qn_cpu_kernels_find(isa_names[isa]);
        if (!kernels) continue;
        float want[2 * 64 * 3], got[2 * 64 * 3];
        for (int32_t block = 16; block <= 256; block *= 2) {
            const shape s = {64, 2, block, 90, 0, false};
            cache c;
            make_cache(&c, &s, d, 500, 3);
            const int32_t first = first_visible(&s, 497);
            for (int32_t i = 0; i < first / block; i++) c.blocks[i] = -1;
            attend(kernels, &c, d, 497, 3, block == 16 ? want : got);
            if (block > 16) assert_memory_equal(got, want, sizeof want);
            free(c.pages);
        }
    }
    free(d);
}

// Every set writes the same bytes, and rounds to the cache's type.
static void test_kv_write(void **state) {
    (void)state;
    qn_rng rng = {.key = 9};
    float k[80], v[80];
    for (int i = 0; i < 80; i++) {
        k[i] = random_value(&rng);
        v[i] = random_value(&rng);
    }
    for (int f16 = 0; f16 < 2; f16++) {
        const size_t slab = 32 * 80 * (f16 ? 2 : 4);
        uint8_t *want = calloc(2, slab), *got = calloc(2, slab);
        assert_true(want && got);
        for (int32_t t = 0; t < 32; t += 5) {
            qn_cpu_kernels_scalar.kv_write(k, v, 80, t, f16, want, want + slab);
        }
        if (f16) {
            uint16_t h;
            memcpy(&h, want + slab + (size_t)(5 * 80 + 3) * 2, 2);
            assert_int_equal(h, qn_f32_to_f16(v[3]));
        }
        for (size_t isa = 1; isa < N_ISAS; isa++) {
            const cpu_kernels *kernels = qn_cpu_kernels_find(isa_names[isa]);
            if (!kernels) continue;
            memset(got, 0, 2 * slab);
            for (int32_t t = 0; t < 32; t += 5) {
                kernels->kv_write(k, v, 80, t, f16, got, got + slab);
            }
            assert_memory_equal(got, want, 2 * slab);
        }
        free(want);
        free(got);
    }
}

// A NaN in a value that one row sees and the row before it does not.
static void test_nan_stays_in_its_row(void **state) {
    (void)state;
    data *d = malloc(sizeof *d);
    assert_non_null(d);
    fill(d, 11, false);
    const shape s = {64, 1, 16, 0, 0, false};
    d->v[40 * 64 + 3] = NAN;
    d->k[41 * 64 + 3] = NAN;
    for (size_t isa = 0; isa < N_ISAS; isa++) {
        const cpu_kernels *kernels = qn_cpu_kernels_find(isa_names[isa]);
        if (!kernels) continue;
        cache c;
        make_cache(&c, &s, d, 44, 3);
        float out[8 * 64];
        attend(kernels, &c, d, 36, 8, out);
        for (int i = 0; i < 8 * 64; i++) {
            const int32_t pos = 36 + i / 64;
            const bool bad = pos >= 41 || (pos == 40 && i % 64 == 3);
            assert_int_equal(isnan(out[i]) != 0, bad);
        }
        free(c.pages);
    }
    free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_window_pages),
        cmocka_unit_test(test_kv_write),
        cmocka_unit_test(test_nan_stays_in_its_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
