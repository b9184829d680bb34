// SPDX-License-Identifier: Apache-2.0
// A small model in every weight type, through the whole path from the file: its logits against
// those of the same weights dequantized to F32, and the same bits for every way of batching, number
// of threads and instruction set.
//
// The bound: a LINEAR rounds its input to 8 bits in blocks of 32, up to half of amax / 127 in each
// element: noise of about half a percent, whatever the type of the weights. Sixteen LINEARs add up
// to 2% of the logits' rms, at most 1.6% of their range; 3% and 2% are allowed. (That the product
// itself is right to the last bits is tests/cpu/linear_test.c.) Types without blocks are exact.
#include "base/checked.h"
#include "cpu/cpu_backend.h"
#include "engine/engine.h"
#include "formats/gguf.h"
#include "tests/cpu/isas.h"
#include "tools/synth.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { TOKENS = 48, VOCAB = 400 };

static const char config[] =
    "{\"model_type\":\"qwen3\",\"hidden_size\":256,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":8,\"num_key_value_heads\":2,\"head_dim\":32,"
    "\"intermediate_size\":512,\"vocab_size\":400,\"max_position_embeddings\":256,"
    "\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,\"tie_word_embeddings\":true}";

static char dir[512];

static const char *in_dir(char *out, size_t size, const char *name) {
    snprintf(dir, sizeof dir, "%s/types-test-%d", QN_BINARY_DIR, (int)getpid());
    mkdir(dir, 0777);
    snprintf(out, size, "%s/%s", dir, name);
    return out;
}

// The same file with every tensor as F32.
static void dequantize_file(const char *from, const char *to) {
    qn_error err = {0};
    qn_gguf *g;
    qn_gguf_writer *w;
    if (qn_gguf_open(from, &g, &err) != QN_OK || qn_gguf_writer_open(to, &w, &err) != QN_OK) {
        fail_msg("%s", err.message);
    }
    for (size_t i = 0; i < qn_gguf_kv_count(g); i++) qn_gguf_put_kv(w, qn_gguf_kv_at(g, i));
    for (size_t i = 0; i < qn_gguf_tensor_count(g); i++) {
        const qn_gguf_tensor *t = qn_gguf_tensor_at(g, i);
        qn_gguf_add_tensor(w, t->name, QN_F32, t->n_dims, t->dims);
    }
    assert_int_equal(qn_gguf_writer_begin_data(w, &err), QN_OK);
    for (size_t i = 0; i < qn_gguf_tensor_count(g); i++) {
        const qn_gguf_tensor *t = qn_gguf_tensor_at(g, i);
        const size_t n = (size_t)(t->dims[0] * t->dims[1]);
        uint8_t *raw = malloc((size_t)t->size);
        float *x = malloc(n * sizeof *x);
        assert_true(raw && x);
        assert_int_equal(qn_gguf_read_tensor(g, t, 0, raw, (size_t)t->size, &err), QN_OK);
        qn_dequantize_row((qn_dtype)t->type, raw, x, n);
        assert_int_equal(qn_gguf_write_data(w, x, n * sizeof *x, &err), QN_OK);
        free(raw);
        free(x);
    }
    if (qn_gguf_writer_finish(w, &err) != QN_OK) fail_msg("%s", err.message);
    qn_gguf_close(g);
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
    if (qn_engine_open(model, &options, &e, &err) != QN_OK) fail_msg("%s", err.message);
    return e;
}

static void keep_row(void *user, int32_t index, const float *logits) {
    memcpy((float *)user + (size_t)index * VOCAB, logits, VOCAB * sizeof *logits);
}

static void run(const char *model, const char *isa, int32_t threads, int32_t chunk, float *out) {
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = (i * 7919 + 13) % VOCAB;
    qn_engine *e = open_engine(model, isa, threads);
    qn_error err = {0};
    assert_int_equal(qn_engine_get_info(e)->vocab_size, VOCAB);
    for (size_t i = 0; i < (size_t)TOKENS * VOCAB; i++) out[i] = NAN;
    if (qn_engine_logits(e, tokens, TOKENS, chunk, keep_row, out, &err) != QN_OK) {
        fail_msg("%s", err.message);
    }
    qn_engine_close(e);
}

static void write_config(char *shape, size_t size) {
    FILE *f = fopen(in_dir(shape, size, "config.json"), "wb");
    assert_non_null(f);
    fputs(config, f);
    fclose(f);
}

static void every_type(void **state) {
    (void)state;
    const size_t bytes = (size_t)TOKENS * VOCAB * sizeof(float);
    float *want = malloc(bytes), *got = malloc(bytes), *again = malloc(bytes);
    char shape[600], model[600], plain[600];
    assert_true(want && got && again);
    write_config(shape, sizeof shape);
    in_dir(model, sizeof model, "model.gguf");
    in_dir(plain, sizeof plain, "plain.gguf");
    const qn_dtype_info *info;
    for (size_t i = 0; (info = qn_dtype_at(i)) != NULL; i++) {
        const qn_mix mix = {info->name, info->type, 0};
        const qn_synth_options options = {.shape = shape, .dst = model, .mix = &mix, .pure = true,
                                          .seed = 3};
        qn_error err = {0};
        if (qn_synth(&options, NULL, &err) != QN_OK) fail_msg("%s", err.message);
        dequantize_file(model, plain);
        run(plain, NULL, 2, 0, want);
        run(model, NULL, 2, 0, got);
        double lo = INFINITY, hi = -INFINITY, worst = 0, squares = 0, off = 0;
        for (size_t k = 0; k < (size_t)TOKENS * VOCAB; k++) {
            assert_true(isfinite(got[k]));
            lo = fmin(lo, (double)want[k]);
            hi = fmax(hi, (double)want[k]);
            const double difference = (double)got[k] - (double)want[k];
            worst = fmax(worst, fabs(difference));
            squares += (double)want[k] * (double)want[k];
            off += difference * difference;
        }
        const bool rounded = info->block_size > 1;
        const double rms = sqrt(off / squares);
        print_message("%-8s differences: rms %.2e of the logits' rms, max %.2e of the range\n",
                      info->name, rms, worst / (hi - lo));
        assert_true(rms <= (rounded ? 3e-2 : 1e-5) && worst <= (rounded ? 2e-2 : 1e-5) * (hi - lo));
        static const struct {
            const char *isa;
            int32_t threads, chunk;
        } ways[] = {{NULL, 1, 1}, {NULL, 3, 7}, {"avx512vnni", 1, 16}, {"avx2", 2, 5},
                    {"scalar", 2, 33}};
        for (size_t k = 0; k < QN_COUNT(ways); k++) {
            if (!qn_cpu_kernels_find(ways[k].isa)) continue;
            run(model, ways[k].isa, ways[k].threads, ways[k].chunk, again);
            if (memcmp(got, again, bytes) != 0) {
                fail_msg("%s: %s, %d threads, chunks of %d give other bits", info->name,
                         ways[k].isa ? ways[k].isa : "the default", ways[k].threads, ways[k].chunk);
            }
        }
    }
    unlink(shape);
    unlink(model);
    unlink(plain);
    rmdir(dir);
    free(want);
    free(got);
    free(again);
}

// The mixes of types that real files have, as quern synth writes them.
static void every_mix(void **state) {
    (void)state;
    const size_t bytes = (size_t)TOKENS * VOCAB * sizeof(float);
    float *got = malloc(bytes), *again = malloc(bytes);
    char shape[600], model[600];
    assert_true(got && again);
    write_config(shape, sizeof shape);
    in_dir(model, sizeof model, "model.gguf");
    const qn_mix *mix;
    for (size_t i = 0; (mix = qn_mix_at(i)) != NULL; i++) {
        const qn_synth_options options = {.shape = shape, .dst = model, .mix = mix, .seed = 3};
        qn_error err = {0};
        if (qn_synth(&options, NULL, &err) != QN_OK) fail_msg("%s", err.message);
        run(model, NULL, 2, 0, got);
        run(model, NULL, 1, 9, again);
        for (size_t k = 0; k < (size_t)TOKENS * VOCAB; k++) assert_true(isfinite(got[k]));
        if (memcmp(got, again, bytes) != 0) fail_msg("%s: chunks give other bits", mix->name);
    }
    unlink(shape);
    unlink(model);
    rmdir(dir);
    free(got);
    free(again);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_type), cmocka_unit_test(every_mix)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
