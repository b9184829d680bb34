// SPDX-License-Identifier: Apache-2.0
#include "tests/formats/sample.h"

#include "formats/safetensors.h"

// Header and `data` bytes of content as one file.
static qn_buf file_of(const char *header, size_t data) {
    qn_buf b = {0};
    uint64_t n = strlen(header);
    qn_buf_append(&b, &n, sizeof n);
    qn_buf_puts(&b, header);
    for (size_t i = 0; i < data; i++) qn_buf_putc(&b, (char)(i * 3));
    return b;
}

static void refused_bytes(const void *data, size_t size, qn_status status, const char *part) {
    qn_safetensors *s;
    qn_error err = {0};
    uint8_t *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    if (size) memcpy(copy, data, size);
    qn_status st = qn_safetensors_open_memory(copy, size, "m.safetensors", &s, &err);
    if (st != status || !strstr(err.message, part) ||
        strncmp(err.message, "m.safetensors: ", 15) != 0 || strchr(err.message, '\n')) {
        fail_msg("expected %s '%s', got %s: %s", qn_status_name(status), part, qn_status_name(st),
                 err.message);
    }
    assert_null(s);
    free(copy);
}

static void refused(const char *header, size_t data, const char *part) {
    qn_buf b = file_of(header, data);
    refused_bytes(b.data, b.len, QN_ERR_FORMAT, part);
    qn_buf_free(&b);
}

#define T(dtype, shape, from, to)                                                                  \
    "{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #from "," #to "]}"

static void one_file(void **state) {
    (void)state;
    qn_buf b = file_of("{\"__metadata__\":{\"a\":\"b\"},\"w\":" T("BF16", "2,3", 8, 20)
                       ",\"e\":" T("F32", "", 0, 4) ",\"odd\":" T("Q99", "7,7", 4, 8)
                       ",\"none\":" T("I32", "0,5", 20, 20) ",\"u\\u00e9\":" T("F16", "1", 20, 22)
                       "}   ", 22);
    qn_safetensors *s;
    qn_error err = {0};
    if (qn_safetensors_open_memory(b.data, b.len, "m", &s, &err) != QN_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(qn_safetensors_count(s), 5);
    const qn_st_tensor *t = qn_safetensors_find(s, "w");
    assert_non_null(t);
    assert_true(t->known);
    assert_int_equal(t->type, QN_BF16);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 2);
    assert_int_equal(t->dims[1], 3);
    assert_int_equal(t->size, 12);
    uint8_t bytes[12];
    assert_int_equal(qn_safetensors_read(s, t, 2, bytes, 10, &err), QN_OK);
    for (size_t i = 0; i < 10; i++) assert_int_equal(bytes[i], (uint8_t)((8 + 2 + i) * 3));
    assert_int_equal(qn_safetensors_read(s, t, 2, bytes, 11, &err), QN_ERR_INVALID);
    t = qn_safetensors_find(s, "odd");
    assert_false(t->known);
    assert_string_equal(t->dtype, "Q99");
    t = qn_safetensors_find(s, "e");
    assert_int_equal(t->n_dims, 0);
    assert_int_equal(t->dims[0], 1);
    assert_non_null(qn_safetensors_find(s, "u\xc3\xa9"));
    assert_null(qn_safetensors_find(s, "__metadata__"));
    assert_null(qn_safetensors_at(s, 5));
    assert_string_equal(qn_safetensors_file(s, 0), "m");
    assert_null(qn_safetensors_file(s, 1));
    qn_safetensors_close(s);
    qn_buf_free(&b);
}

static void bad_headers(void **state) {
    (void)state;
    uint8_t raw[16] = {0};
    refused_bytes(raw, 0, QN_ERR_FORMAT, "too few");
    refused_bytes(raw, 7, QN_ERR_FORMAT, "too few");
    refused_bytes(raw, 8, QN_ERR_FORMAT, "unexpected end");
    raw[0] = 9;
    refused_bytes(raw, 16, QN_ERR_FORMAT, "header of 9 bytes, but the file has 16");
    memset(raw, 0xff, 8);
    refused_bytes(raw, 16, QN_ERR_LIMIT, "header of 18446744073709551615 bytes");
    refused("[]", 0, "an object expected");
    refused("{} x", 0, "text after the document");
    refused("{\"w\":3}", 0, "tensor 'w': an object expected");
    refused("{\"w\":{}}", 0, "tensor 'w': dtype, shape or data_offsets is missing");
    refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "is missing");
    refused("{\"w\":{\"x\":1}}", 4, "a member other than");
    refused("{\"w\":" T("F32", "4", 0, 12) "}", 16, "its shape needs 16 bytes of F32, it has 12");
    refused("{\"w\":" T("F32", "4", 0, 16) "}", 15, "tensor 'w': data ends at");
    refused("{\"w\":" T("F32", "4", 16, 0) "}", 16, "data ends before it begins");
    refused("{\"w\":" T("F32", "4", 0, 18446744073709551615) "}", 16, "data ends at");
    refused("{\"w\":" T("F32", "4", 0, 18446744073709551616) "}", 16, "two whole numbers");
    refused("{\"w\":" T("F32", "4", -1, 15) "}", 16, "two whole numbers");
    refused("{\"w\":" T("F32", "4.0", 0, 16) "}", 16, "a dimension is not a whole number");
    refused("{\"w\":" T("F32", "1,1,1,1,4", 0, 16) "}", 16, "more than 4 dimensions");
    refused("{\"w\":" T("F32", "4294967296,4294967296", 0, 16) "}", 16, "overflows");
    refused("{\"w\":" T("F32", "4611686018427387904", 0, 0) "}", 16, "overflows");
    refused("{\"w\":" T("F4", "3", 0, 1) "}", 16, "its shape needs 1 bytes of F4");
    refused("{\"w\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,4,8]}}", 16, "two whole");
    refused("{\"w\":{\"data_offsets\":{}}}", 16, "data_offsets is not a list");
    refused("{\"w\":{\"shape\":7}}", 16, "shape is not a list");
    refused("{\"w\":{\"shape\":[],\"shape\":[]}}", 16, "shape appears twice");
    refused("{\"w\":{\"data_offsets\":[0,0],\"data_offsets\":[]}}", 16, "appears twice");
    refused("{\"w\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 16, "dtype appears twice");
    refused("{\"w\":{\"dtype\":5}}", 16, "dtype is not a short string");
    refused("{\"w\":" T("F32", "1", 0, 4) ",\"w\":" T("F32", "1", 4, 8) "}", 8, "appears twice");
    refused("{\"a\":" T("F32", "2", 0, 8) ",\"b\":" T("F32", "1", 4, 8) "}", 8, "overlaps that of");
    refused("{\"a\\u0000\":" T("F32", "1", 0, 4) "}", 8, "without NUL");
    refused("{\"a\\u001b[0m\":3}", 8, "tensor 'a\\x1b[0m'");
    qn_buf deep = {0};
    qn_buf_puts(&deep, "{\"__metadata__\":");
    for (int i = 0; i < 100000; i++) qn_buf_putc(&deep, '[');
    qn_buf b = file_of(deep.data, 0);
    refused_bytes(b.data, b.len, QN_ERR_LIMIT, "nested deeper");
    qn_buf_free(&deep);
    qn_buf_free(&b);
}

static void write_text(const char *dir, const char *name, const char *text) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    write_file(path, text, strlen(text));
}

static void write_shard(const char *dir, const char *name, const char *header, size_t data) {
    char path[700];
    qn_buf b = file_of(header, data);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    write_file(path, b.data, b.len);
    qn_buf_free(&b);
}

static void dir_fails(const char *dir, const char *index, const char *part) {
    qn_safetensors *s;
    qn_error err = {0};
    write_text(dir, "model.safetensors.index.json", index);
    assert_int_not_equal(qn_safetensors_open(dir, &s, &err), QN_OK);
    if (!strstr(err.message, part)) fail_msg("expected '%s' in: %s", part, err.message);
    assert_null(s);
}

static void shards(void **state) {
    (void)state;
    char dir[600], file[700];
    qn_safetensors *s;
    qn_error err = {0};
    temp_path(dir, sizeof dir, "sharded");
    assert_int_equal(qn_safetensors_open(dir, &s, &err), QN_ERR_NOT_FOUND);
    assert_int_equal(mkdir(dir, 0777), 0);
    assert_int_equal(qn_safetensors_open(dir, &s, &err), QN_ERR_NOT_FOUND);
    write_shard(dir, "a.safetensors", "{\"x\":" T("F32", "1", 0, 4) "}", 4);
    write_shard(dir, "b.safetensors", "{\"y\":" T("F16", "2", 0, 4) "}", 4);
    write_text(dir, "model.safetensors.index.json",
               "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"x\":\"a.safetensors\","
               "\"y\":\"b.safetensors\"}}");
    qn_error_clear(&err);
    if (qn_safetensors_open(dir, &s, &err) != QN_OK) fail_msg("%s", err.message);
    assert_int_equal(qn_safetensors_count(s), 2);
    const qn_st_tensor *y = qn_safetensors_find(s, "y");
    assert_int_equal(y->file, 1);
    snprintf(file, sizeof file, "%s/b.safetensors", dir);
    assert_string_equal(qn_safetensors_file(s, 1), file);
    uint8_t bytes[4];
    assert_int_equal(qn_safetensors_read(s, y, 0, bytes, 4, &err), QN_OK);
    assert_int_equal(bytes[3], 9);
    // Cut off after opening.
    assert_int_equal(truncate(file, 20), 0);
    assert_int_equal(qn_safetensors_read(s, y, 0, bytes, 4, &err), QN_ERR_IO);
    assert_non_null(strstr(err.message, "tensor 'y': file was truncated"));
    qn_safetensors_close(s);
    write_shard(dir, "b.safetensors", "{\"y\":" T("F16", "2", 0, 4) "}", 4);

    static const char *const outside[] = {"../a.safetensors", "/etc/passwd", "..", "",
                                          "a/b.safetensors",
                                          ".safetensors", "a.txt", "a\\\\b.safetensors"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        char index[200];
        snprintf(index, sizeof index, "{\"weight_map\":{\"x\":\"%s\"}}", outside[i]);
        dir_fails(dir, index, "not a plain file name");
    }
    dir_fails(dir, "{\"weight_map\":{\"x\":\"c.safetensors\"}}", "c.safetensors: cannot open");
    dir_fails(dir, "{\"weight_map\":{\"x\":\"b.safetensors\"}}", "tensor 'x' is not in the shard");
    dir_fails(dir, "{\"weight_map\":{\"z\":\"b.safetensors\"}}", "tensor 'z' is not in the shard");
    dir_fails(dir, "{\"weight_map\":{\"x\":7}}", "its shard is not a string");
    dir_fails(dir, "{\"weight_map\":{}}", "missing or empty");
    dir_fails(dir, "{\"weight_map\":[]}", "weight_map is not an object");
    dir_fails(dir, "{\"weight_map\":{\"\":\"a.safetensors\"}}", "bad name");
    dir_fails(dir, "{\"weight_map\":{\"x\":\"a.safetensors\"},\"weight_map\":{}}", "appears twice");
    dir_fails(dir, "{\"metadata\":[}", "JSON: ");
    dir_fails(dir, "{}", "missing or empty");
    dir_fails(dir, "[]", "an object expected");
    dir_fails(dir, "{\"weight_map\":{\"x\":\"a.safetensors\",\"x\":\"a.safetensors\"}}", "twice");
    write_shard(dir, "b.safetensors", "{\"x\":" T("F16", "2", 0, 4) "}", 4);
    dir_fails(dir, "{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}}",
              "tensor 'x': appears twice");
    // A single file, named directly or by its directory.
    snprintf(file, sizeof file, "%s/a.safetensors", dir);
    qn_error_clear(&err);
    assert_int_equal(qn_safetensors_open(file, &s, &err), QN_OK);
    qn_safetensors_close(s);
    write_shard(dir, "model.safetensors", "{\"one\":" T("F32", "1", 0, 4) "}", 4);
    assert_int_equal(qn_safetensors_open(dir, &s, &err), QN_OK);
    assert_non_null(qn_safetensors_find(s, "one"));
    qn_safetensors_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_file), cmocka_unit_test(bad_headers),
                                       cmocka_unit_test(shards)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_clean();
    return failed;
}
