// SPDX-License-Identifier: Apache-2.0
// Teacher-forced logits of every family against transformers (tests/golden), through the whole path:
// file, program, backend, paged KV. Every instruction set, chunk size and thread count must then give
// the very same bits.
#include "cpu/cpu_backend.h"
#include "engine/engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DATA QN_SOURCE_DIR "/tests/golden/data/"

typedef struct golden {
    char model[128], weights[16];
    int32_t n_tokens, n_vocab;
    int32_t *tokens;
    float *logits;
} golden;

static void *read_all(const char *path, size_t size) {
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot open %s", path);
    void *data = malloc(size);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, size, f), size);
    fclose(f);
    return data;
}

static size_t load_manifest(golden **out) {
    FILE *f = fopen(DATA "manifest.txt", "r");
    assert_non_null(f);
    golden *list = NULL;
    size_t n = 0, cap = 0;
    char model[128], tokens[128], logits[128], weights[16], path[512];
    int n_tokens, n_vocab;
    while (fscanf(f, "%127s %127s %127s %d %d %15s", model, tokens, logits, &n_tokens, &n_vocab,
                  weights) == 6) {
        assert_true(qn_grow(&list, &cap, n + 1, sizeof *list));
        golden *g = &list[n++];
        memset(g, 0, sizeof *g);
        snprintf(g->model, sizeof g->model, "%s", model);
        snprintf(g->weights, sizeof g->weights, "%s", weights);
        g->n_tokens = n_tokens;
        g->n_vocab = n_vocab;
        g->tokens = calloc((size_t)n_tokens, sizeof *g->tokens);
        snprintf(path, sizeof path, DATA "%s", tokens);
        FILE *t = fopen(path, "r");
        assert_non_null(t);
        for (int i = 0; i < n_tokens; i++) assert_int_equal(fscanf(t, "%d", &g->tokens[i]), 1);
        fclose(t);
        snprintf(path, sizeof path, DATA "%s", logits);
        g->logits = read_all(path, (size_t)n_tokens * (size_t)n_vocab * sizeof(float));
    }
    fclose(f);
    *out = list;
    return n;
}

static void keep_row(void *user, int32_t index, const float *logits) {
    struct {
        float *out;
        int32_t n_vocab;
    } *k = user;
    memcpy(k->out + (size_t)index * (size_t)k->n_vocab, logits,
           (size_t)k->n_vocab * sizeof *logits);
}

static qn_engine *open_engine(const char *model, const char *isa, int32_t threads) {
    const qn_engine_options options = {
        .backend = &qn_cpu_backend,
        .backend_options = {.threads = threads, .isa = isa},
        .max_num_seqs = 96,
        .max_num_batched_tokens = 96,
        .kv_dtype = QN_KV_F32,
        .kv_cache_memory_bytes = 16 << 20,
    };
    qn_engine *e = NULL;
    qn_error err = {0};
    qn_status st = qn_engine_open(model, &options, &e, &err);
    if (st == QN_ERR_UNSUPPORTED && isa) return NULL; // this CPU does not have it
    if (st != QN_OK) fail_msg("%s", err.message);
    return e;
}

static void run(qn_engine *e, const golden *g, int32_t chunk, float *out) {
    struct {
        float *out;
        int32_t n_vocab;
    } keep = {out, g->n_vocab};
    qn_error err = {0};
    assert_int_equal(qn_engine_get_info(e)->vocab_size, g->n_vocab);
    if (qn_engine_logits(e, g->tokens, g->n_tokens, chunk, keep_row, &keep, &err) != QN_OK) {
        fail_msg("%s: %s", g->model, err.message);
    }
}

// The best and the second best of a row.
static void best_two(const float *row, int32_t n, int32_t *top, float *margin) {
    int32_t a = 0, b = -1;
    for (int32_t i = 1; i < n; i++) {
        if (row[i] > row[a]) {
            b = a;
            a = i;
        } else if (b < 0 || row[i] > row[b]) {
            b = i;
        }
    }
    *top = a;
    *margin = row[a] - row[b];
}

static void compare(const golden *g, const float *got) {
    size_t n = (size_t)g->n_tokens * (size_t)g->n_vocab;
    double lo = INFINITY, hi = -INFINITY, worst = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(got[i]));
        lo = fmin(lo, (double)g->logits[i]);
        hi = fmax(hi, (double)g->logits[i]);
        worst = fmax(worst, fabs((double)got[i] - (double)g->logits[i]));
    }
    double relative = worst / (hi - lo), bound = strcmp(g->weights, "f32") == 0 ? 1e-4 : 1e-2;
    int compared = 0;
    for (int32_t t = 0; t < g->n_tokens; t++) {
        int32_t want, have;
        float margin, ignored;
        best_two(g->logits + (size_t)t * (size_t)g->n_vocab, g->n_vocab, &want, &margin);
        best_two(got + (size_t)t * (size_t)g->n_vocab, g->n_vocab, &have, &ignored);
        if ((double)margin <= 2 * bound * (hi - lo)) continue;
        compared++;
        if (want != have) fail_msg("%s: token %d: top-1 is %d, not %d", g->model, t, have, want);
    }
    print_message("%-28s %-5s max abs difference %.2e of the range, top-1 equal on %d of %d\n",
                  g->model, g->weights, relative, compared, g->n_tokens);
    assert_true(relative <= bound);
    assert_true(compared > 0);
}

static void test_families(void **state) {
    (void)state;
    static const char *const isas[] = {NULL, "scalar", "avx2", "avx512vnni"};
    golden *list;
    size_t n = load_manifest(&list);
    assert_true(n >= 10);
    for (size_t i = 0; i < n; i++) {
        golden *g = &list[i];
        size_t bytes = (size_t)g->n_tokens * (size_t)g->n_vocab * sizeof(float);
        float *first = malloc(bytes), *again = malloc(bytes);
        char path[512];
        snprintf(path, sizeof path, DATA "%s", g->model);
        qn_engine *e = open_engine(path, NULL, 2);
        run(e, g, 0, first);
        compare(g, first);
        static const int32_t chunks[] = {1, 7, 16, 33};
        for (size_t c = 0; c < 4; c++) {
            run(e, g, chunks[c], again);
            if (memcmp(first, again, bytes) != 0) {
                fail_msg("%s: chunks of %d give other bits", g->model, chunks[c]);
            }
        }
        qn_engine_close(e);
        for (size_t k = 0; k < 4; k++) {
            e = open_engine(path, isas[k], 1);
            if (!e) {
                print_message("skipped: this CPU has no %s\n", isas[k]);
                continue;
            }
            run(e, g, 5, again);
            if (memcmp(first, again, bytes) != 0) {
                fail_msg("%s: %s with one thread gives other bits", g->model,
                         isas[k] ? isas[k] : "the default");
            }
            qn_engine_close(e);
        }
        free(first);
        free(again);
        free(g->tokens);
        free(g->logits);
    }
    free(list);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_families)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
