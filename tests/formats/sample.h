// SPDX-License-Identifier: Apache-2.0
// Small valid model files for the tests of this folder, and the means to write files.
#ifndef QN_TESTS_FORMATS_SAMPLE_H
#define QN_TESTS_FORMATS_SAMPLE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/gguf.h"

// A path in a folder of this process in the build tree; the folder is made on first use.
static inline const char *temp_path(char *out, size_t size, const char *name) {
    char dir[512];
    snprintf(dir, sizeof dir, "%s/formats-test-%d", QN_BINARY_DIR, (int)getpid());
    mkdir(dir, 0777);
    snprintf(out, size, "%s/%s", dir, name);
    return out;
}

static inline void temp_clean(void) {
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s/formats-test-%d'", QN_BINARY_DIR, (int)getpid());
    assert_int_equal(system(command), 0);
}

static inline void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

// Every value type, a nested array, every tensor type. Written through the writer.
static inline void write_sample_gguf(const char *path) {
    qn_error err = {0};
    qn_gguf_writer *w;
    assert_int_equal(qn_gguf_writer_open(path, &w, &err), QN_OK);
    qn_gguf_put_str(w, "general.architecture", QN_STR("llama"));
    qn_gguf_put_u32(w, "llama.block_count", 2);
    qn_gguf_put_u64(w, "general.parameters", UINT64_C(1) << 40);
    qn_gguf_put_f32(w, "llama.rope.freq_base", 10000.0f);
    qn_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", true);
    const int32_t ints[] = {1, -2, 3};
    qn_gguf_put_i32_array(w, "tokenizer.ggml.token_type", ints, 3);
    const float floats[] = {0.5f, -1.25f};
    qn_gguf_put_f32_array(w, "tokenizer.ggml.scores", floats, 2);
    const qn_str strings[] = {QN_STR("a"), QN_STR(""), QN_STR("\xc4\xa0hello")};
    qn_gguf_put_str_array(w, "tokenizer.ggml.tokens", strings, 3);
    const int64_t wide = -5;
    const double real = 2.5;
    const uint8_t small[2] = {0xff, 0xff};
    qn_gguf_put_kv(w, &(qn_gguf_kv){QN_STR("x.i64"), QN_GGUF_I64, QN_GGUF_I64, 1,
                                    (const uint8_t *)&wide});
    qn_gguf_put_kv(w, &(qn_gguf_kv){QN_STR("x.f64"), QN_GGUF_F64, QN_GGUF_F64, 1,
                                    (const uint8_t *)&real});
    qn_gguf_put_kv(w, &(qn_gguf_kv){QN_STR("x.u8"), QN_GGUF_U8, QN_GGUF_U8, 1, small});
    qn_gguf_put_kv(w, &(qn_gguf_kv){QN_STR("x.i8"), QN_GGUF_I8, QN_GGUF_I8, 1, small});
    qn_gguf_put_kv(w, &(qn_gguf_kv){QN_STR("x.u16"), QN_GGUF_U16, QN_GGUF_U16, 1, small});
    qn_gguf_put_kv(w, &(qn_gguf_kv){QN_STR("x.i16"), QN_GGUF_I16, QN_GGUF_I16, 1, small});
    // An array of two arrays: of one u8, and of one string "z".
    static const uint8_t nested[] = {0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7,
                                     8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
                                     1, 0, 0, 0, 0, 0, 0, 0, 'z'};
    qn_gguf_put_kv(w, &(qn_gguf_kv){QN_STR("x.nested"), QN_GGUF_ARRAY, QN_GGUF_ARRAY, 2, nested});
    static const qn_dtype types[] = {QN_F32, QN_F16, QN_BF16, QN_Q8_0, QN_Q4_0};
    static const char *const names[] = {"token_embd.weight", "blk.0.attn_q.weight",
                                        "blk.0.attn_k.weight", "blk.0.attn_v.weight",
                                        "output.weight"};
    for (int i = 0; i < 5; i++) {
        qn_gguf_add_tensor(w, names[i], types[i], 2, (const uint64_t[]){32, (uint64_t)i + 1});
    }
    assert_int_equal(qn_gguf_writer_begin_data(w, &err), QN_OK);
    for (int i = 0; i < 5; i++) {
        uint64_t row;
        uint8_t bytes[1024];
        assert_true(qn_dtype_row_bytes(qn_dtype_get((uint32_t)types[i]), 32, &row));
        for (size_t k = 0; k < sizeof bytes; k++) bytes[k] = (uint8_t)(k * 7 + (size_t)i);
        assert_int_equal(qn_gguf_write_data(w, bytes, (size_t)row * (size_t)(i + 1), &err), QN_OK);
    }
    assert_int_equal(qn_gguf_writer_finish(w, &err), QN_OK);
}

#endif
