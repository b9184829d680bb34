// SPDX-License-Identifier: Apache-2.0
// LINEAR of each weight type for 1, 4, 32 and 256 tokens, against the peaks measured in the same
// run: the bandwidth of reads for few tokens, VPDPBUSD (or FMA for f32 arithmetic) for many.
// Arguments: threads (default: all; 0 too), instruction set (default: the best; - too), types
// (all).
#include "base/checked.h"
#include "base/os.h"
#include "base/philox.h"
#include "benchmarks/cpu_peaks.h"
#include "cpu/executable.h"
#include "tools/synth_blocks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    K = 2048, WEIGHT_BYTES = 384 << 20, FEW_BYTES = 24 << 20, MANY_ROWS = 1024, MAX_TOKENS = 256,
    ITEM_PANELS = 4
};

typedef struct bench {
    const cpu_kernels *kernels;
    pool *pool;
    linear_args args;
    int32_t n_panels, begin, total; // of a run; where it begins; in all
} bench;

static void item(void *user, int32_t i, int32_t worker) {
    (void)worker;
    const bench *b = user;
    linear_args a = b->args;
    a.panel_begin = b->begin + i * ITEM_PANELS;
    a.panel_end = QN_MIN(b->begin + b->n_panels, a.panel_begin + ITEM_PANELS);
    b->kernels->linear(&a);
}

static void run(void *user) {
    bench *b = user;
    // Few tokens: other panels in each run, that no cache holds any more.
    b->begin = b->args.m > 4 || b->begin + 2 * b->n_panels > b->total ? 0 : b->begin + b->n_panels;
    pool_run(b->pool, item, b, QN_CEIL_DIV(b->n_panels, ITEM_PANELS));
}

typedef struct fill {
    uint8_t *panels, *rows;
    size_t stride, row_bytes;
    qn_dtype type;
} fill;

// Panels of 16 random rows, the same rows in another order in each panel.
static void fill_panel(void *user, int32_t i, int32_t worker) {
    (void)worker;
    const fill *f = user;
    qn_cpu_pack_panel(f->type, K, f->rows + (size_t)(i % 16) * f->row_bytes, f->row_bytes,
                      PANEL_ROWS, f->panels + (size_t)i * f->stride);
}

static float uniform(qn_rng *rng) { return (float)qn_rng_uniform(rng) * 2 - 1; }

int main(int argc, char **argv) {
    const int32_t asked = argc > 1 ? atoi(argv[1]) : 0;
    const int32_t threads = asked ? asked : qn_os_cpu_count();
    const char *isa = argc > 2 && strcmp(argv[2], "-") != 0 ? argv[2] : NULL;
    bench b = {.kernels = qn_cpu_kernels_find(isa)};
    if (!b.kernels || pool_create(threads, &b.pool, NULL) != QN_OK) {
        fprintf(stderr, "no such instruction set, or no threads\n");
        return 1;
    }
    const cpu_peaks peaks = measure_peaks(b.pool);
    printf("%s, %d threads; peaks: read %.1f GB/s, int8 %.2f TOPS, f32 %.3f TFLOP/s\n",
           b.kernels->name, pool_threads(b.pool), peaks.read_gb, peaks.int8_top, peaks.fma_top);
    const size_t q_stride = act_row_bytes(K, b.kernels->act_elem_bytes);
    float *x = malloc(sizeof(float) * MAX_TOKENS * K);
    uint8_t *q = aligned_alloc(64, q_stride * MAX_TOKENS);
    float *row = malloc(sizeof(float) * K);
    uint8_t *panels = qn_os_pages_alloc(WEIGHT_BYTES), *rows = malloc(32 * 4 * K);
    const size_t y_rows = WEIGHT_BYTES / (K / 4) + PANEL_ROWS;
    const size_t y_bytes = sizeof(float) * QN_MAX(y_rows * 4, (size_t)MANY_ROWS * MAX_TOKENS);
    float *y = qn_os_pages_alloc(y_bytes);
    if (!x || !q || !row || !panels || !rows || !y) return 1;
    qn_rng rng = {.key = 1};
    for (int i = 0; i < MAX_TOKENS * K; i++) x[i] = uniform(&rng);
    for (size_t t = 0; t < MAX_TOKENS; t++) b.kernels->quantize(x + t * K, K, q + t * q_stride);
    static const int32_t tokens[] = {1, 4, 32, 256};
    printf("%-8s %6s %6s %10s %10s %8s %10s %8s\n", "type", "bits", "tokens", "us", "GB/s",
           "of peak", "TOPS", "of peak");
    const qn_dtype_info *info;
    for (size_t ti = 0; (info = qn_dtype_at(ti)) != NULL; ti++) {
        bool wanted = argc <= 3;
        for (int i = 3; i < argc; i++) wanted = wanted || qn_dtype_by_name(argv[i]) == info;
        if (!wanted) continue;
        const qn_dtype type = info->type;
        uint64_t row_bytes = 0;
        if (!qn_dtype_row_bytes(info, K, &row_bytes)) return 1;
        const size_t blocks = K / info->block_size;
        qn_synth_blocks synth;
        if (is_int_type(type)) qn_synth_blocks_init(&synth, type, 1, 0.03);
        for (size_t r = 0; r < 32; r++) {
            uint8_t *to = rows + r * row_bytes;
            for (int i = 0; i < K; i++) row[i] = uniform(&rng) * 0.05f;
            if (is_int_type(type)) qn_synth_blocks_make(&synth, r * blocks, blocks, to);
            else qn_quantize_row(type, row, to, K);
        }
        fill f = {panels, rows, qn_cpu_panel_bytes(type, K), (size_t)row_bytes, type};
        const int32_t n_panels = (int32_t)(WEIGHT_BYTES / f.stride);
        const uint64_t start = qn_os_now_ns();
        pool_run(b.pool, fill_panel, &f, n_panels);
        const double weights = (double)n_panels * PANEL_ROWS * K;
        printf("%s: packed at %.2f G weights/s\n", info->name,
               weights / (double)(qn_os_now_ns() - start));
        for (size_t mi = 0; mi < QN_COUNT(tokens); mi++) {
            const int32_t m = tokens[mi];
            b.n_panels = m <= 4 ? (int32_t)(FEW_BYTES / f.stride) : MANY_ROWS / PANEL_ROWS;
            b.total = n_panels;
            b.begin = 0;
            b.args = (linear_args){.type = type, .k = K, .panels = panels,
                                   .panel_stride = f.stride, .m = m, .x = x, .x_stride = K, .q = q,
                                   .q_stride = q_stride, .y = y};
            b.args.y_stride = (size_t)(m <= 4 ? n_panels : b.n_panels) * PANEL_ROWS;
            const double s = best_seconds(run, &b);
            const double gb = (double)b.n_panels * (double)f.stride / s * 1e-9;
            const double tops = 2.0 * m * K * b.n_panels * PANEL_ROWS / s * 1e-12;
            const double peak = is_int_type(type) && peaks.int8_top > 0 ? peaks.int8_top
                                                                             : peaks.fma_top;
            const double bits = (double)f.stride * 8 / (K * PANEL_ROWS);
            printf("%-8s %6.4g %6d %10.1f %10.2f %7.0f%% %10.3f %7.0f%%\n", info->name, bits, m,
                   s * 1e6, gb, 100 * gb / peaks.read_gb, tops, 100 * tops / peak);
        }
    }
    qn_os_pages_free(panels, WEIGHT_BYTES);
    qn_os_pages_free(y, y_bytes);
    free(rows);
    free(row);
    free(q);
    free(x);
    pool_destroy(b.pool);
    return 0;
}
