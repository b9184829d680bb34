// SPDX-License-Identifier: Apache-2.0
#include "tests/formats/sample.h"

#include "base/buf.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>

// A GGUF made by hand, for what the writer refuses to write.
static void put_u32(qn_buf *b, uint32_t v) { qn_buf_append(b, &v, sizeof v); }
static void put_u64(qn_buf *b, uint64_t v) { qn_buf_append(b, &v, sizeof v); }
static void put_string(qn_buf *b, const char *s) {
    put_u64(b, strlen(s));
    qn_buf_puts(b, s);
}
static void put_head(qn_buf *b, uint32_t version, uint64_t tensors, uint64_t kvs) {
    qn_buf_clear(b);
    qn_buf_puts(b, "GGUF");
    put_u32(b, version);
    put_u64(b, tensors);
    put_u64(b, kvs);
}
static void put_tensor(qn_buf *b, const char *name, uint32_t type, uint32_t n_dims, uint64_t d0,
                       uint64_t d1, uint64_t offset) {
    put_string(b, name);
    put_u32(b, n_dims);
    if (n_dims > 0) put_u64(b, d0);
    for (uint32_t i = 1; i < n_dims; i++) put_u64(b, d1);
    put_u32(b, type);
    put_u64(b, offset);
}
static void put_data(qn_buf *b, size_t n) {
    while (b->len % 32) qn_buf_putc(b, '\0');
    for (size_t i = 0; i < n; i++) qn_buf_putc(b, (char)i);
}

// Opening fails with this status, in one line that has all of `parts`.
static void refused(const qn_buf *b, qn_status status, const char *part, const char *reason) {
    qn_gguf *g;
    qn_error err = {0};
    // An exact copy, so that the sanitizer sees a read past the end.
    uint8_t *copy = malloc(b->len ? b->len : 1);
    assert_non_null(copy);
    memcpy(copy, b->data, b->len);
    qn_status st = qn_gguf_open_memory(copy, b->len, "m.gguf", &g, &err);
    if (st != status || !strstr(err.message, part) || !strstr(err.message, reason)) {
        fail_msg("expected %s '%s' '%s', got %s: %s", qn_status_name(status), part, reason,
                 qn_status_name(st), err.message);
    }
    assert_null(g);
    assert_true(strncmp(err.message, "m.gguf: ", 8) == 0);
    assert_null(strchr(err.message, '\n'));
    free(copy);
}

static void written_is_read(void **state) {
    (void)state;
    char path[600];
    qn_error err = {0};
    qn_gguf *g;
    write_sample_gguf(temp_path(path, sizeof path, "sample.gguf"));
    if (qn_gguf_open(path, &g, &err) != QN_OK) fail_msg("%s", err.message);
    assert_int_equal(qn_gguf_version(g), 3);
    assert_int_equal(qn_gguf_kv_count(g), 15);
    assert_int_equal(qn_gguf_tensor_count(g), 5);
    uint64_t u = 0;
    int64_t s = 0;
    double d = 0;
    bool b = false;
    qn_str text;
    assert_int_equal(qn_gguf_get_u64(g, "llama.block_count", &u, &err), QN_OK);
    assert_int_equal(u, 2);
    assert_int_equal(qn_gguf_get_u64(g, "general.parameters", &u, &err), QN_OK);
    assert_true(u == UINT64_C(1) << 40);
    assert_int_equal(qn_gguf_get_f64(g, "llama.rope.freq_base", &d, &err), QN_OK);
    assert_true(d == 10000.0);
    assert_int_equal(qn_gguf_get_f64(g, "llama.block_count", &d, &err), QN_OK);
    assert_true(d == 2.0);
    assert_int_equal(qn_gguf_get_f64(g, "x.f64", &d, &err), QN_OK);
    assert_true(d == 2.5);
    assert_int_equal(qn_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &b, &err), QN_OK);
    assert_true(b);
    assert_int_equal(qn_gguf_get_str(g, "general.architecture", &text, &err), QN_OK);
    assert_true(qn_str_is(text, "llama"));
    assert_int_equal(qn_gguf_get_i64(g, "x.i64", &s, &err), QN_OK);
    assert_int_equal(s, -5);
    assert_int_equal(qn_gguf_get_i64(g, "x.i8", &s, &err), QN_OK);
    assert_int_equal(s, -1);
    assert_int_equal(qn_gguf_get_i64(g, "x.u8", &s, &err), QN_OK);
    assert_int_equal(s, 255);
    assert_int_equal(qn_gguf_get_i64(g, "x.i16", &s, &err), QN_OK);
    assert_int_equal(s, -1);
    assert_int_equal(qn_gguf_get_u64(g, "x.u16", &u, &err), QN_OK);
    assert_int_equal(u, 65535);

    const qn_gguf_kv *kv = qn_gguf_find(g, "tokenizer.ggml.token_type");
    assert_non_null(kv);
    assert_int_equal(kv->count, 3);
    assert_int_equal(qn_gguf_item_i64(kv, 1), -2);
    assert_true(qn_gguf_item_f64(kv, 2) == 3.0);
    assert_int_equal(qn_gguf_item_i64(kv, 3), 0);
    kv = qn_gguf_find(g, "tokenizer.ggml.scores");
    assert_true(qn_gguf_item_f64(kv, 1) == -1.25);
    kv = qn_gguf_find(g, "tokenizer.ggml.tokens");
    const uint8_t *cursor = kv->data;
    assert_true(qn_str_is(qn_gguf_next_string(&cursor), "a"));
    assert_true(qn_str_is(qn_gguf_next_string(&cursor), ""));
    assert_true(qn_str_is(qn_gguf_next_string(&cursor), "\xc4\xa0hello"));
    assert_ptr_equal(cursor, qn_gguf_kv_end(kv));
    kv = qn_gguf_find(g, "x.nested");
    assert_int_equal(qn_gguf_kv_end(kv) - kv->data, 34);

    const qn_gguf_tensor *t = qn_gguf_find_tensor(g, "blk.0.attn_v.weight");
    assert_non_null(t);
    assert_int_equal(t->type, QN_Q8_0);
    assert_int_equal(t->dims[0], 32);
    assert_int_equal(t->dims[1], 4);
    assert_int_equal(t->dims[2], 1);
    assert_int_equal(t->size, 4 * 34);
    assert_int_equal(t->offset % 32, 0);
    uint8_t bytes[4];
    assert_int_equal(qn_gguf_read_tensor(g, t, 132, bytes, 4, &err), QN_OK);
    for (size_t i = 0; i < 4; i++) assert_int_equal(bytes[i], (uint8_t)((132 + i) * 7 + 3));
    assert_int_equal(qn_gguf_read_tensor(g, t, 133, bytes, 4, &err), QN_ERR_INVALID);
    assert_null(qn_gguf_find_tensor(g, "blk.0"));
    assert_null(qn_gguf_find(g, "x"));
    assert_null(qn_gguf_kv_at(g, 15));
    assert_null(qn_gguf_tensor_at(g, 5));
    qn_gguf_close(g);
}

static void getters_name_key_and_type(void **state) {
    (void)state;
    char path[600];
    qn_error err = {0};
    qn_gguf *g;
    write_sample_gguf(temp_path(path, sizeof path, "sample.gguf"));
    assert_int_equal(qn_gguf_open(path, &g, &err), QN_OK);
    uint64_t u = 77;
    qn_str text;
    bool b;
    double d;
    assert_int_equal(qn_gguf_get_u64(g, "nothing.here", &u, &err), QN_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "sample.gguf: key 'nothing.here' is missing"));
    qn_error_clear(&err);
    assert_int_equal(qn_gguf_get_u64(g, "x.i64", &u, &err), QN_ERR_FORMAT);
    assert_non_null(strstr(err.message, "key 'x.i64': -5 is negative"));
    qn_error_clear(&err);
    assert_int_equal(qn_gguf_get_u64(g, "x.f64", &u, &err), QN_ERR_FORMAT);
    assert_non_null(strstr(err.message, "an integer expected, not f64"));
    qn_error_clear(&err);
    assert_int_equal(qn_gguf_get_str(g, "llama.block_count", &text, &err), QN_ERR_FORMAT);
    assert_non_null(strstr(err.message, "a string expected, not u32"));
    qn_error_clear(&err);
    assert_int_equal(qn_gguf_get_bool(g, "llama.block_count", &b, &err), QN_ERR_FORMAT);
    assert_int_equal(qn_gguf_get_f64(g, "tokenizer.ggml.scores", &d, &err), QN_ERR_FORMAT);
    assert_int_equal(u, 77);
    qn_gguf_close(g);
}

static void bad_heads(void **state) {
    (void)state;
    qn_buf b = {0};
    qn_buf_puts(&b, "");
    refused(&b, QN_ERR_FORMAT, "too few", "GGUF");
    qn_buf_puts(&b, "GGUF\3\0\0");
    refused(&b, QN_ERR_FORMAT, "too few", "GGUF");
    put_head(&b, 1, 0, 0);
    refused(&b, QN_ERR_UNSUPPORTED, "version 1", "not supported");
    put_head(&b, 0x03000000u, 0, 0);
    refused(&b, QN_ERR_UNSUPPORTED, "big-endian", "not supported");
    put_head(&b, 4, 0, 0);
    refused(&b, QN_ERR_UNSUPPORTED, "version 4", "not supported");
    put_head(&b, 0, 0, 0);
    refused(&b, QN_ERR_UNSUPPORTED, "version 0", "not supported");
    put_head(&b, 3, UINT64_MAX, 0);
    refused(&b, QN_ERR_FORMAT, "tensors", "more than the file can hold");
    put_head(&b, 3, 0, UINT64_C(1) << 62);
    refused(&b, QN_ERR_FORMAT, "keys", "more than the file can hold");
    put_head(&b, 3, 0, 0);
    b.data[0] = 'X';
    refused(&b, QN_ERR_FORMAT, "not a GGUF file", "");
    put_head(&b, 2, 0, 0);
    qn_gguf *g;
    qn_error err = {0};
    assert_int_equal(qn_gguf_open_memory(b.data, b.len, "v2", &g, &err), QN_OK);
    assert_int_equal(qn_gguf_version(g), 2);
    qn_gguf_close(g);
    qn_buf_free(&b);
}

static void bad_keys(void **state) {
    (void)state;
    qn_buf b = {0};
    put_head(&b, 3, 0, 1);
    put_u64(&b, UINT64_MAX); // the length of the name
    qn_buf_append(&b, "aaaaaaaaaaaaaaaa", 16);
    refused(&b, QN_ERR_FORMAT, "key 0", "name of 18446744073709551615 bytes");
    put_head(&b, 3, 0, 1);
    put_u64(&b, 0);
    qn_buf_append(&b, "aaaaaaaaaaaaaaaa", 16);
    refused(&b, QN_ERR_FORMAT, "key 0", "name of 0 bytes");
    put_head(&b, 3, 0, 1);
    put_u64(&b, 3);
    qn_buf_append(&b, "a\0b", 3);
    put_u32(&b, QN_GGUF_U64);
    put_u64(&b, 1);
    refused(&b, QN_ERR_FORMAT, "key 'a\\x00b'", "NUL");
    put_head(&b, 3, 0, 1);
    put_string(&b, "k\x1b[31m");
    put_u32(&b, 13);
    put_u64(&b, 1);
    refused(&b, QN_ERR_FORMAT, "key 'k\\x1b[31m'", "unknown value type 13");
    put_head(&b, 3, 0, 1);
    put_string(&b, "text");
    put_u32(&b, QN_GGUF_STRING);
    put_u64(&b, 100);
    qn_buf_puts(&b, "short");
    refused(&b, QN_ERR_FORMAT, "key 'text'", "string of 100 bytes, but the file has 5 left");
    put_head(&b, 3, 0, 1);
    put_string(&b, "list");
    put_u32(&b, QN_GGUF_ARRAY);
    put_u32(&b, QN_GGUF_F64);
    put_u64(&b, UINT64_C(1) << 61); // times 8 wraps to 0
    put_u64(&b, 0);
    refused(&b, QN_ERR_FORMAT, "key 'list'", "cannot fit in the 8 bytes");
    put_head(&b, 3, 0, 1);
    put_string(&b, "list");
    put_u32(&b, QN_GGUF_ARRAY);
    put_u32(&b, QN_GGUF_STRING);
    put_u64(&b, 2);
    put_u64(&b, 0);
    refused(&b, QN_ERR_FORMAT, "key 'list'", "cannot fit in the 8 bytes");
    put_head(&b, 3, 0, 1);
    put_string(&b, "list");
    put_u32(&b, QN_GGUF_ARRAY);
    put_u32(&b, 99);
    put_u64(&b, 1);
    refused(&b, QN_ERR_FORMAT, "key 'list'", "unknown array item type 99");
    put_head(&b, 3, 0, 1);
    put_string(&b, "deep");
    put_u32(&b, QN_GGUF_ARRAY);
    for (int i = 0; i < 10000; i++) {
        put_u32(&b, QN_GGUF_ARRAY);
        put_u64(&b, 1);
    }
    refused(&b, QN_ERR_FORMAT, "key 'deep'", "nested deeper than 3");
    put_head(&b, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        put_string(&b, "same");
        put_u32(&b, QN_GGUF_U32);
        put_u32(&b, 1);
    }
    refused(&b, QN_ERR_FORMAT, "key 'same'", "appears twice");
    put_head(&b, 3, 0, 2);
    put_string(&b, "one.key");
    put_u32(&b, QN_GGUF_U32);
    put_u32(&b, 1);
    put_u64(&b, 9); // the second name's length, and the file ends
    refused(&b, QN_ERR_FORMAT, "file ends at byte", "inside the metadata");
    static const uint64_t bad_alignments[] = {0, 3, 48, UINT64_C(1) << 21, UINT64_C(1) << 63};
    for (size_t i = 0; i < 5; i++) {
        put_head(&b, 3, 0, 1);
        put_string(&b, "general.alignment");
        put_u32(&b, QN_GGUF_U64);
        put_u64(&b, bad_alignments[i]);
        refused(&b, QN_ERR_FORMAT, "key 'general.alignment'", "power of two");
    }
    put_head(&b, 3, 0, 1);
    put_string(&b, "general.alignment");
    put_u32(&b, QN_GGUF_STRING);
    put_string(&b, "32");
    refused(&b, QN_ERR_FORMAT, "key 'general.alignment'", "an integer expected, not string");
    qn_buf_free(&b);
}

static void bad_tensors(void **state) {
    (void)state;
    qn_buf b = {0};
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "x", QN_F32, 0, 0, 0, 0);
    put_data(&b, 64);
    refused(&b, QN_ERR_FORMAT, "tensor 'x'", "0 dimensions");
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "x", QN_F32, 5, 1, 1, 0);
    put_data(&b, 64);
    refused(&b, QN_ERR_FORMAT, "tensor 'x'", "5 dimensions");
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "x", QN_F32, 2, 4, 0, 0);
    put_data(&b, 64);
    refused(&b, QN_ERR_FORMAT, "tensor 'x'", "dimension 1 is zero");
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "x", QN_F32, 2, UINT64_C(1) << 33, UINT64_C(1) << 33, 0);
    put_data(&b, 64);
    refused(&b, QN_ERR_FORMAT, "tensor 'x'", "product of its dimensions overflows");
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "x", QN_F32, 1, UINT64_C(1) << 62, 0, 0);
    put_data(&b, 64);
    refused(&b, QN_ERR_FORMAT, "tensor 'x'", "size overflows");
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "x", QN_Q8_0, 1, 48, 0, 0);
    put_data(&b, 64);
    refused(&b, QN_ERR_FORMAT, "tensor 'x'",
            "rows of 48 elements do not divide into q8_0 blocks of 32");
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "x", QN_F32, 1, 17, 0, 0);
    put_data(&b, 64);
    refused(&b, QN_ERR_FORMAT, "tensor 'x'", "data ends at 132, file has 128 bytes");
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "x", QN_F32, 1, 4, 0, 0 - (uint64_t)32);
    put_data(&b, 64);
    refused(&b, QN_ERR_FORMAT, "tensor 'x'", "offset overflows");
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "x", QN_F32, 1, 4, 0, 8);
    put_data(&b, 64);
    refused(&b, QN_ERR_FORMAT, "tensor 'x'", "offset 8 is not aligned to 32");
    // A type that is not known has size 0, but its offset still has to be in the file.
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "x", 40, 1, 256, 0, 4096);
    put_data(&b, 64);
    refused(&b, QN_ERR_FORMAT, "tensor 'x'", "file has 128 bytes");
    put_head(&b, 3, 2, 0);
    put_tensor(&b, "x", QN_F32, 1, 4, 0, 0);
    put_tensor(&b, "x", QN_F32, 1, 4, 0, 32);
    put_data(&b, 64);
    refused(&b, QN_ERR_FORMAT, "tensor 'x'", "appears twice");
    put_head(&b, 3, 2, 0);
    put_tensor(&b, "x", QN_F32, 1, 4, 0, 32);
    put_tensor(&b, "y", QN_F32, 1, 9, 0, 0);
    put_data(&b, 64);
    refused(&b, QN_ERR_FORMAT, "tensor 'x'", "overlaps that of 'y'");
    put_head(&b, 3, 2, 0);
    put_tensor(&b, "x", QN_F32, 1, 4, 0, 32);
    refused(&b, QN_ERR_FORMAT, "tensors", "more than the file can hold");
    put_head(&b, 3, 1, 0);
    put_u64(&b, 256);
    for (int i = 0; i < 300; i++) qn_buf_putc(&b, 'n');
    refused(&b, QN_ERR_FORMAT, "tensor 0", "name of 256 bytes");
    qn_gguf *g;
    qn_error err = {0};
    put_head(&b, 3, 2, 1);
    put_string(&b, "general.alignment");
    put_u32(&b, QN_GGUF_U32);
    put_u32(&b, 8);
    put_tensor(&b, "k", 40, 1, 256, 0, 8);
    put_tensor(&b, "x", QN_F32, 1, 2, 0, 8); // aligned to 8; a size of 0 overlaps nothing
    put_data(&b, 64);
    if (qn_gguf_open_memory(b.data, b.len, "k.gguf", &g, &err) != QN_OK) {
        fail_msg("%s", err.message);
    }
    const qn_gguf_tensor *t = qn_gguf_find_tensor(g, "k");
    assert_int_equal(t->size, 0);
    assert_string_equal(qn_dtype_gguf_name(t->type), "nvfp4");
    qn_gguf_close(g);
    qn_buf_free(&b);
}

static void cut_off_after_opening(void **state) {
    (void)state;
    char path[600];
    qn_error err = {0};
    qn_gguf *g;
    write_sample_gguf(temp_path(path, sizeof path, "cut.gguf"));
    assert_int_equal(qn_gguf_open(path, &g, &err), QN_OK);
    assert_int_equal(truncate(path, 100), 0);
    const qn_gguf_tensor *t = qn_gguf_find_tensor(g, "output.weight");
    uint8_t bytes[18];
    assert_int_equal(qn_gguf_read_tensor(g, t, 0, bytes, sizeof bytes, &err), QN_ERR_IO);
    assert_non_null(strstr(err.message, "cut.gguf: tensor 'output.weight': file was truncated"));
    // Metadata is ours, whatever happens to the file.
    for (size_t i = 0; i < qn_gguf_kv_count(g); i++) {
        const qn_gguf_kv *kv = qn_gguf_kv_at(g, i);
        assert_true(qn_gguf_kv_end(kv) > kv->data);
    }
    qn_str arch;
    assert_int_equal(qn_gguf_get_str(g, "general.architecture", &arch, &err), QN_OK);
    assert_true(qn_str_is(arch, "llama"));
    qn_gguf_release_tensor(g, t);
    qn_gguf_close(g);
}

// Metadata larger than one fetch: the reader's buffer moves while it parses.
static void large_metadata(void **state) {
    (void)state;
    char path[600];
    qn_error err = {0};
    qn_gguf_writer *w;
    enum { TOKENS = 200000 };
    assert_int_equal(qn_gguf_writer_open(temp_path(path, sizeof path, "large.gguf"), &w, &err),
                     QN_OK);
    qn_str *tokens = calloc(TOKENS, sizeof *tokens);
    char(*text)[24] = calloc(TOKENS, sizeof *text);
    assert_non_null(tokens);
    assert_non_null(text);
    for (int i = 0; i < TOKENS; i++) {
        snprintf(text[i], sizeof text[i], "token number %d", i);
        tokens[i] = qn_str_from(text[i]);
    }
    qn_gguf_put_str(w, "first", QN_STR("kept"));
    qn_gguf_put_str_array(w, "tokens", tokens, TOKENS);
    qn_gguf_put_str(w, "last", QN_STR("also kept"));
    qn_gguf_add_tensor(w, "t", QN_F32, 1, (const uint64_t[]){1});
    assert_int_equal(qn_gguf_writer_begin_data(w, &err), QN_OK);
    assert_int_equal(qn_gguf_write_data(w, "\0\0\0", 4, &err), QN_OK);
    assert_int_equal(qn_gguf_writer_finish(w, &err), QN_OK);
    qn_gguf *g;
    assert_int_equal(qn_gguf_open(path, &g, &err), QN_OK);
    qn_str s;
    assert_int_equal(qn_gguf_get_str(g, "first", &s, &err), QN_OK);
    assert_true(qn_str_is(s, "kept"));
    assert_int_equal(qn_gguf_get_str(g, "last", &s, &err), QN_OK);
    assert_true(qn_str_is(s, "also kept"));
    const qn_gguf_kv *kv = qn_gguf_find(g, "tokens");
    const uint8_t *cursor = kv->data;
    for (int i = 0; i < TOKENS; i++) {
        assert_true(qn_str_eq(qn_gguf_next_string(&cursor), tokens[i]));
    }
    qn_gguf_close(g);
    free(tokens);
    free(text);
}

// Metadata that claims more than any real file has, in a file that is that large (all hole).
static void metadata_limit(void **state) {
    (void)state;
    char path[600];
    qn_error err = {0};
    qn_gguf *g;
    qn_buf b = {0};
    put_head(&b, 3, 0, 1);
    put_string(&b, "huge");
    put_u32(&b, QN_GGUF_STRING);
    put_u64(&b, UINT64_C(2) << 30);
    write_file(temp_path(path, sizeof path, "huge.gguf"), b.data, b.len);
    qn_buf_free(&b);
    assert_int_equal(truncate(path, (off_t)3 << 30), 0);
    assert_int_equal(qn_gguf_open(path, &g, &err), QN_ERR_LIMIT);
    assert_non_null(strstr(err.message, "huge.gguf: metadata larger than 1073741824 bytes"));
    assert_null(g);
}

static void writer_errors(void **state) {
    (void)state;
    char path[600], part[620];
    qn_error err = {0};
    qn_gguf_writer *w;
    temp_path(path, sizeof path, "w.gguf");
    snprintf(part, sizeof part, "%s.part0", path);
    // Data missing: no file appears, and the temporary one is gone.
    assert_int_equal(qn_gguf_writer_open(path, &w, &err), QN_OK);
    assert_int_equal(access(part, F_OK), 0);
    qn_gguf_add_tensor(w, "t", QN_F32, 1, (const uint64_t[]){2});
    assert_int_equal(qn_gguf_writer_begin_data(w, &err), QN_OK);
    assert_int_equal(qn_gguf_write_data(w, "abcd", 4, &err), QN_OK);
    assert_int_equal(qn_gguf_writer_finish(w, &err), QN_ERR_INTERNAL);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(part, F_OK), 0);
    // Too much data.
    qn_error_clear(&err);
    assert_int_equal(qn_gguf_writer_open(path, &w, &err), QN_OK);
    qn_gguf_add_tensor(w, "t", QN_F32, 1, (const uint64_t[]){1});
    assert_int_equal(qn_gguf_writer_begin_data(w, &err), QN_OK);
    assert_int_equal(qn_gguf_write_data(w, "abcdefgh", 8, &err), QN_ERR_INTERNAL);
    qn_gguf_writer_abort(w);
    assert_int_not_equal(access(part, F_OK), 0);
    // A shape that does not divide is reported when the data begins.
    qn_error_clear(&err);
    assert_int_equal(qn_gguf_writer_open(path, &w, &err), QN_OK);
    qn_gguf_add_tensor(w, "odd", QN_Q8_0, 1, (const uint64_t[]){33});
    assert_int_equal(qn_gguf_writer_begin_data(w, &err), QN_ERR_INVALID);
    assert_non_null(strstr(err.message, "tensor 'odd'"));
    qn_gguf_writer_abort(w);
    qn_error_clear(&err);
    assert_int_equal(qn_gguf_writer_open("/nonexistent/dir/x.gguf", &w, &err), QN_ERR_IO);
    assert_null(w);
    // A directory stands where the file should go.
    qn_error_clear(&err);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(qn_gguf_writer_open(path, &w, &err), QN_OK);
    assert_int_equal(qn_gguf_writer_finish(w, &err), QN_ERR_IO);
    assert_non_null(strstr(err.message, "cannot rename"));
    assert_int_not_equal(access(part, F_OK), 0);
    assert_int_equal(rmdir(path), 0);
    // A disk that is full: a limit on the file's size stands for it.
    struct rlimit old, small = {.rlim_cur = 1 << 16, .rlim_max = RLIM_INFINITY};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    qn_error_clear(&err);
    assert_int_equal(qn_gguf_writer_open(path, &w, &err), QN_OK);
    qn_gguf_add_tensor(w, "t", QN_F32, 1, (const uint64_t[]){1 << 16});
    assert_int_equal(qn_gguf_writer_begin_data(w, &err), QN_OK);
    static const uint8_t zeros[1 << 18];
    assert_int_equal(qn_gguf_write_data(w, zeros, sizeof zeros, &err), QN_ERR_IO);
    assert_non_null(strstr(err.message, "write failed"));
    qn_gguf_writer_abort(w);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    qn_gguf *g;
    qn_error_clear(&err);
    assert_int_equal(qn_gguf_open("/nonexistent.gguf", &g, &err), QN_ERR_NOT_FOUND);
    qn_error_clear(&err);
    assert_int_not_equal(qn_gguf_open("/", &g, &err), QN_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_is_read),   cmocka_unit_test(getters_name_key_and_type),
        cmocka_unit_test(bad_heads),         cmocka_unit_test(bad_keys),
        cmocka_unit_test(bad_tensors),       cmocka_unit_test(cut_off_after_opening),
        cmocka_unit_test(large_metadata),    cmocka_unit_test(metadata_limit),
        cmocka_unit_test(writer_errors),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_clean();
    return failed;
}
