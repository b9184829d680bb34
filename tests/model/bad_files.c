// SPDX-License-Identifier: Apache-2.0
// Model files that lie: each must give one line that names the file and what is wrong with it.
#include "cpu/cpu_backend.h"
#include "formats/gguf.h"
#include "model/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define GOOD QN_SOURCE_DIR "/tests/golden/data/qwen3/model-f32.gguf"

// What to change while copying a GGUF.
typedef struct edit {
    const char *drop_key, *drop_tensor; // left out
    const char *set_u32_key;            // this key becomes `value`
    uint32_t value;
    const char *set_str_key, *text;
    const char *reshape; // this tensor gets one row less
} edit;

static char *copy_path(char *path, size_t size) {
    snprintf(path, size, "%s/bad-model-%d.gguf", QN_BINARY_DIR, (int)getpid());
    return path;
}

static void write_copy(const char *path, const edit *ed) {
    qn_error err = {0};
    qn_gguf *g;
    qn_gguf_writer *w;
    assert_int_equal(qn_gguf_open(GOOD, &g, &err), QN_OK);
    assert_int_equal(qn_gguf_writer_open(path, &w, &err), QN_OK);
    for (size_t i = 0; i < qn_gguf_kv_count(g); i++) {
        const qn_gguf_kv *kv = qn_gguf_kv_at(g, i);
        if (ed->drop_key && qn_str_is(kv->key, ed->drop_key)) continue;
        if (ed->set_u32_key && qn_str_is(kv->key, ed->set_u32_key)) {
            qn_gguf_put_u32(w, ed->set_u32_key, ed->value);
        } else if (ed->set_str_key && qn_str_is(kv->key, ed->set_str_key)) {
            qn_gguf_put_str(w, ed->set_str_key, qn_str_from(ed->text));
        } else {
            qn_gguf_put_kv(w, kv);
        }
    }
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < qn_gguf_tensor_count(g); i++) {
            const qn_gguf_tensor *t = qn_gguf_tensor_at(g, i);
            uint64_t dims[QN_TENSOR_MAX_DIMS];
            memcpy(dims, t->dims, sizeof dims);
            uint64_t size = t->size;
            if (ed->drop_tensor && strcmp(t->name, ed->drop_tensor) == 0) continue;
            if (ed->reshape && strcmp(t->name, ed->reshape) == 0) {
                size -= size / dims[t->n_dims - 1];
                dims[t->n_dims - 1]--;
            }
            if (pass == 0) {
                qn_gguf_add_tensor(w, t->name, (qn_dtype)t->type, t->n_dims, dims);
                continue;
            }
            void *data = malloc(size);
            assert_int_equal(qn_gguf_read_tensor(g, t, 0, data, size, &err), QN_OK);
            assert_int_equal(qn_gguf_write_data(w, data, size, &err), QN_OK);
            free(data);
        }
        if (pass == 0) assert_int_equal(qn_gguf_writer_begin_data(w, &err), QN_OK);
    }
    assert_int_equal(qn_gguf_writer_finish(w, &err), QN_OK);
    qn_gguf_close(g);
}

static void expect_refused(const edit *ed, const char *what) {
    char path[512];
    qn_model *m = NULL;
    qn_error err = {0};
    write_copy(copy_path(path, sizeof path), ed);
    qn_status st = qn_model_open(path, NULL, &m, &err);
    unlink(path);
    assert_int_not_equal(st, QN_OK);
    assert_null(m);
    print_message("%s\n", err.message);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, what));
    assert_null(strchr(err.message, '\n'));
}

static void test_metadata(void **state) {
    (void)state;
    expect_refused(&(edit){.drop_key = "general.architecture"}, "general.architecture");
    expect_refused(&(edit){.drop_key = "qwen3.block_count"}, "qwen3.block_count");
    expect_refused(&(edit){.drop_key = "qwen3.attention.layer_norm_rms_epsilon"}, "epsilon");
    expect_refused(&(edit){.set_str_key = "general.architecture", .text = "mamba\x1b[31m"},
                   "'mamba\\x1b[31m' is not supported (supported: llama");
    expect_refused(&(edit){.set_u32_key = "qwen3.block_count", .value = 0}, "layers is 0");
    expect_refused(&(edit){.set_u32_key = "qwen3.block_count", .value = 4000000000u}, "block_count");
    expect_refused(&(edit){.set_u32_key = "qwen3.block_count", .value = 3}, "blk.2.");
    expect_refused(&(edit){.set_u32_key = "qwen3.attention.head_count", .value = 0}, "heads is 0");
    expect_refused(&(edit){.set_u32_key = "qwen3.attention.head_count_kv", .value = 3}, "KV heads");
    expect_refused(&(edit){.set_u32_key = "qwen3.attention.key_length", .value = 31}, "differs");
    expect_refused(&(edit){.set_u32_key = "qwen3.embedding_length", .value = 128},
                   "shape is [288, 64] (2 dimensions), expected [288, 128]");
    expect_refused(&(edit){.set_str_key = "qwen3.embedding_length", .text = "64"},
                   "embedding_length");
}

static void test_tensors(void **state) {
    (void)state;
    expect_refused(&(edit){.drop_tensor = "blk.1.ffn_up.weight"}, "'blk.1.ffn_up.weight' is missing");
    expect_refused(&(edit){.drop_tensor = "token_embd.weight"}, "vocabulary");
    expect_refused(&(edit){.reshape = "blk.0.attn_k.weight"},
                   "'blk.0.attn_k.weight': shape is [63, 64]");
    expect_refused(&(edit){.reshape = "blk.0.attn_norm.weight"},
                   "'blk.0.attn_norm.weight': shape is [1, 63]");
}

static void test_missing_and_directories(void **state) {
    (void)state;
    qn_model *m = NULL;
    qn_error err = {0};
    assert_int_equal(qn_model_open("/nonexistent/model.gguf", NULL, &m, &err), QN_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent/model.gguf"));
    err = (qn_error){0};
    assert_int_not_equal(qn_model_open(QN_SOURCE_DIR "/tests", NULL, &m, &err), QN_OK);
    assert_non_null(strstr(err.message, "config.json"));
}

// A file that is cut off after it was mapped: an error that names it, never a signal.
static void test_truncated_after_open(void **state) {
    (void)state;
    char path[512];
    qn_error err = {0};
    qn_model *m;
    write_copy(copy_path(path, sizeof path), &(edit){0});
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(qn_model_open(path, NULL, &m, &err), QN_OK);
    assert_int_equal(truncate(path, st.st_size / 2), 0);
    const qn_backend_options options = {.threads = 2};
    qn_backend *b;
    qn_executable *x = NULL;
    assert_int_equal(qn_cpu_backend.open(&options, &b, &err), QN_OK);
    const qn_exec_limits limits = {.max_rows = 16, .max_seqs = 4, .max_logits = 4, .max_len = 64,
                                   .block_size = 16, .n_blocks = {8}};
    qn_weight_source weights = qn_model_weights(m);
    assert_int_equal(qn_cpu_backend.compile(b, qn_model_program(m), &weights, &limits, &x, &err),
                     QN_ERR_IO);
    print_message("%s\n", err.message);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, "truncated"));
    qn_cpu_backend.close(b);
    qn_model_close(m);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_missing_and_directories),
        cmocka_unit_test(test_truncated_after_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
