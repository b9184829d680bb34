// SPDX-License-Identifier: Apache-2.0
// Every allocation of the readers and the writer fails once: the answer is QN_ERR_NOMEM, nothing
// leaks and nothing crashes. The linker sends this program's malloc, calloc and realloc here.
#include "tests/formats/sample.h"

#include "formats/hf_dir.h"
#include "formats/safetensors.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
char *__wrap_strdup(const char *s);

static long countdown = -1; // the allocation that fails; -1: none

static bool fails(void) { return countdown >= 0 && countdown-- == 0; }

void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t n, size_t size) { return fails() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t size) { return fails() ? NULL : __real_realloc(p, size); }
char *__wrap_strdup(const char *s) { return fails() ? NULL : __real_strdup(s); }

static char sample[600], shards[600], written[600];

static qn_status open_gguf(qn_error *err) {
    qn_gguf *g;
    qn_status st = qn_gguf_open(sample, &g, err);
    qn_gguf_close(g);
    return st;
}

static qn_status open_safetensors(qn_error *err) {
    qn_safetensors *s;
    qn_status st = qn_safetensors_open(shards, &s, err);
    qn_safetensors_close(s);
    return st;
}

static qn_status open_hf(qn_error *err) {
    qn_hf_dir *d;
    qn_status st = qn_hf_dir_open(shards, &d, err);
    qn_hf_dir_close(d);
    return st;
}

static qn_status write_gguf(qn_error *err) {
    qn_gguf_writer *w;
    qn_status st = qn_gguf_writer_open(written, &w, err);
    if (st != QN_OK) return st;
    qn_gguf_put_str(w, "general.architecture", QN_STR("llama"));
    qn_gguf_add_tensor(w, "t", QN_F32, 1, (const uint64_t[]){2});
    st = qn_gguf_writer_begin_data(w, err);
    if (st == QN_OK) st = qn_gguf_write_data(w, "abcdefgh", 8, err);
    if (st == QN_OK) return qn_gguf_writer_finish(w, err);
    qn_gguf_writer_abort(w);
    return st;
}

static void each_allocation(const char *name, qn_status (*run)(qn_error *)) {
    long n = 0;
    for (;; n++) {
        qn_error err = {0};
        countdown = n;
        qn_status st = run(&err);
        bool reached = countdown < 0;
        countdown = -1;
        if (!reached) {
            if (st != QN_OK) fail_msg("%s: %s", name, err.message);
            break;
        }
        if (st != QN_ERR_NOMEM || err.status != QN_ERR_NOMEM) {
            // A message that could not be made readable is no reason to fail; anything else is.
            if (st != QN_OK) fail_msg("%s, allocation %ld: %s", name, n, err.message);
        }
        assert_true(n < 10000);
    }
    printf("%s: %ld allocations\n", name, n);
    assert_true(n >= 3);
}

static void all(void **state) {
    (void)state;
    each_allocation("gguf", open_gguf);
    each_allocation("safetensors", open_safetensors);
    each_allocation("hf_dir", open_hf);
    each_allocation("writer", write_gguf);
}

static void put(const char *name, const void *data, size_t size) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", shards, name);
    write_file(path, data, size);
}

static void put_shard(const char *name, const char *header) {
    qn_buf b = {0};
    uint64_t n = strlen(header);
    qn_buf_append(&b, &n, sizeof n);
    qn_buf_puts(&b, header);
    qn_buf_append(&b, "\0\0\0", 4);
    put(name, b.data, b.len);
    qn_buf_free(&b);
}

static int make_files(void **state) {
    (void)state;
    static const char index[] =
        "{\"weight_map\":{\"x\":\"a.safetensors\",\"\\u0079\":\"b.safetensors\"}}";
    static const char config[] = "{\"model_type\":\"llama\",\"list\":[1,2,{\"a\":\"b\"}]}";
    static const char tokenizer[] = "{\"chat_template\":\"x\"}";
    write_sample_gguf(temp_path(sample, sizeof sample, "sample.gguf"));
    temp_path(written, sizeof written, "written.gguf");
    temp_path(shards, sizeof shards, "shards");
    if (mkdir(shards, 0777) != 0) return -1;
    put("model.safetensors.index.json", index, sizeof index - 1);
    put("config.json", config, sizeof config - 1);
    put("generation_config.json", config, sizeof config - 1);
    put("tokenizer_config.json", tokenizer, sizeof tokenizer - 1);
    put_shard("a.safetensors", "{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}");
    put_shard("b.safetensors", "{\"y\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(all, make_files)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_clean();
    return failed;
}
