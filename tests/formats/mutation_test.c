// SPDX-License-Identifier: Apache-2.0
// 1,000 mutated GGUF files and as many safetensors files: opened and walked, nothing may crash, and
// every refusal is one line with the file's name. Run with the address sanitizer this is the test
// that no byte outside the file is read. The seed is printed; QN_SEED sets another.
#include "tests/formats/sample.h"
#include "tests/formats/walk.h"

#include "base/checked.h"
#include "base/philox.h"

enum { FILES = 1000 };

typedef struct bytes {
    uint8_t *data;
    size_t size;
} bytes;

static uint64_t seed_of_run(void) {
    const char *text = getenv("QN_SEED");
    return text ? strtoull(text, NULL, 0) : 20240229;
}

static void put_extreme(uint8_t *p, size_t width, qn_rng *rng) {
    static const uint64_t extremes[] = {
        0,          1,          0x7f,       0x80,       0xff,
        0x7fff,     0xffff,     0x7fffffff, 0x80000000, 0xffffffff,
        0x100000000, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX - 31,
        UINT64_C(1) << 61, UINT64_C(0x2000000000000001), 1000, 65536};
    uint64_t v = extremes[qn_rng_below(rng, QN_COUNT(extremes))];
    memcpy(p, &v, width);
}

// A mutated copy in an allocation of exactly its size.
static bytes mutate(const uint8_t *data, size_t size, size_t head, qn_rng *rng) {
    size_t room = size + 4096, n = size;
    uint8_t *p = malloc(room);
    assert_non_null(p);
    memcpy(p, data, size);
    int rounds = qn_rng_below(rng, 4) ? 1 : 3;
    for (int r = 0; r < rounds && n > 8; r++) {
        // Mostly in the head: behind it there is only tensor data.
        size_t span = qn_rng_below(rng, 8) ? QN_MIN(head, n) : n;
        size_t at = (size_t)qn_rng_below(rng, span);
        switch (qn_rng_below(rng, 6)) {
        case 0:
            for (uint64_t i = 1 + qn_rng_below(rng, 2); i > 0; i--) {
                p[qn_rng_below(rng, span)] ^= (uint8_t)(1u << qn_rng_below(rng, 8));
            }
            break;
        case 1: n = (size_t)qn_rng_below(rng, n); break;
        case 2: // splice: a run copied over another place
        {
            size_t from = (size_t)qn_rng_below(rng, n);
            size_t len = (size_t)qn_rng_below(rng, QN_MIN(n - from, n - at) + 1);
            memmove(p + at, p + from, len);
            break;
        }
        case 3: // a length, count, type or offset set to an extreme
            at = QN_MIN(at, n - 8);
            put_extreme(p + at, qn_rng_below(rng, 2) ? 8 : 4, rng);
            break;
        case 4: // bytes taken out
        {
            size_t len = 1 + (size_t)qn_rng_below(rng, QN_MIN(n - at, (size_t)32));
            memmove(p + at, p + at + len, n - at - len);
            n -= len;
            break;
        }
        default: // bytes put in
        {
            size_t len = 1 + (size_t)qn_rng_below(rng, 32);
            if (n + len > room) break;
            memmove(p + at + len, p + at, n - at);
            for (size_t i = 0; i < len; i++) p[at + i] = (uint8_t)qn_rng_next(rng);
            n += len;
            break;
        }
        }
    }
    uint8_t *exact = malloc(n ? n : 1);
    assert_non_null(exact);
    memcpy(exact, p, n);
    free(p);
    return (bytes){exact, n};
}

static void one_line(const qn_error *err, qn_status st, const char *name) {
    assert_int_equal(err->status, st);
    if (strncmp(err->message, name, strlen(name)) != 0 || strchr(err->message, '\n')) {
        fail_msg("not one line with the file's name: %s", err->message);
    }
}

// Where the metadata ends: offset of the first tensor's data.
static size_t gguf_head(const char *path) {
    qn_gguf *g;
    qn_error err = {0};
    assert_int_equal(qn_gguf_open(path, &g, &err), QN_OK);
    size_t head = (size_t)qn_gguf_tensor_at(g, 0)->offset;
    qn_gguf_close(g);
    return head;
}

static void gguf(void **state) {
    (void)state;
    char path[600], mutated[600];
    char *data;
    size_t size;
    qn_error err = {0};
    qn_rng rng = {.key = seed_of_run()};
    write_sample_gguf(temp_path(path, sizeof path, "sample.gguf"));
    temp_path(mutated, sizeof mutated, "mutated.gguf");
    assert_int_equal(qn_os_read_file(path, 1 << 20, &data, &size, &err), QN_OK);
    size_t head = gguf_head(path), opened = 0;
    for (int i = 0; i < FILES; i++) {
        bytes m = mutate((const uint8_t *)data, size, head, &rng);
        err = (qn_error){0};
        qn_status st = walk_gguf(m.data, m.size, &err);
        if (st == QN_OK) {
            opened++;
        } else {
            one_line(&err, st, "walked.gguf: ");
        }
        if (i % 8 == 0) {
            // Through a file the answer is the same.
            qn_gguf *g;
            qn_error other = {0};
            write_file(mutated, m.data, m.size);
            assert_int_equal(qn_gguf_open(mutated, &g, &other), st);
            for (size_t k = 0; g && k < qn_gguf_tensor_count(g); k++) {
                assert_true(walk_gguf_tensor(g, qn_gguf_tensor_at(g, k)));
            }
            qn_gguf_close(g);
        }
        free(m.data);
    }
    printf("gguf: seed %llu, %zu of %d mutated files still open\n",
           (unsigned long long)rng.key, opened, FILES);
    assert_in_range(opened, 50, FILES - 200); // else the mutations reach too little
    free(data);
}

// Every prefix of the file: a cut in the metadata or in a tensor is an error, one in the padding
// after the last tensor is not.
static void every_length(void **state) {
    (void)state;
    char path[600];
    char *data;
    size_t size;
    qn_error err = {0};
    write_sample_gguf(temp_path(path, sizeof path, "sample.gguf"));
    assert_int_equal(qn_os_read_file(path, 1 << 20, &data, &size, &err), QN_OK);
    qn_gguf *g;
    assert_int_equal(qn_gguf_open(path, &g, &err), QN_OK);
    const qn_gguf_tensor *last = qn_gguf_tensor_at(g, qn_gguf_tensor_count(g) - 1);
    size_t needed = (size_t)(last->offset + last->size);
    qn_gguf_close(g);
    for (size_t n = 0; n <= size; n++) {
        uint8_t *exact = malloc(n ? n : 1);
        assert_non_null(exact);
        memcpy(exact, data, n);
        err = (qn_error){0};
        qn_status st = walk_gguf(exact, n, &err);
        assert_int_equal(st, n < needed ? QN_ERR_FORMAT : QN_OK);
        if (st != QN_OK) one_line(&err, st, "walked.gguf: ");
        free(exact);
    }
    free(data);
}

static const char safetensors_head[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[4,8],\"data_offsets\":[0,128]},"
    "\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[8],\"data_offsets\":[128,144]},"
    "\"x\":{\"shape\":[],\"data_offsets\":[144,152],\"dtype\":\"I64\"}}";

static void safetensors(void **state) {
    (void)state;
    uint8_t file[1024];
    uint64_t length = sizeof safetensors_head - 1;
    memcpy(file, &length, 8);
    memcpy(file + 8, safetensors_head, length);
    size_t size = 8 + length + 152;
    memset(file + 8 + length, 0x3c, 152);
    qn_error err = {0};
    if (walk_safetensors(file, size, &err) != QN_OK) fail_msg("%s", err.message);
    qn_rng rng = {.key = seed_of_run() + 1};
    size_t opened = 0;
    for (int i = 0; i < FILES; i++) {
        bytes m = mutate(file, size, 8 + length, &rng);
        err = (qn_error){0};
        qn_status st = walk_safetensors(m.data, m.size, &err);
        if (st == QN_OK) {
            opened++;
        } else {
            one_line(&err, st, "walked.safetensors: ");
        }
        free(m.data);
    }
    printf("safetensors: seed %llu, %zu of %d mutated files still open\n",
           (unsigned long long)rng.key, opened, FILES);
    assert_in_range(opened, 20, FILES - 200);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gguf), cmocka_unit_test(every_length),
                                       cmocka_unit_test(safetensors)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_clean();
    return failed;
}
