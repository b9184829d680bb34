// SPDX-License-Identifier: Apache-2.0
// Dequantizing and quantizing against the gguf package, bit for bit: tests/golden/quant_goldens.py
// says what the files hold and how both sides draw the same bytes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <math.h>
#include <openssl/sha.h>

#include "base/checked.h"
#include "quant/dtype.h"

#define GOLDEN QN_SOURCE_DIR "/tests/golden/quant/"

static const uint8_t fills[] = {0x00, 0xff, 0x55, 0xaa, 0x0f, 0xf0, 0x80, 0x7f,
                                0x01, 0xfe, 0x3c, 0x7c};

static uint64_t seed_of(const char *name) {
    uint8_t hash[SHA256_DIGEST_LENGTH];
    uint64_t seed;
    SHA256((const uint8_t *)name, strlen(name), hash);
    memcpy(&seed, hash, sizeof seed);
    return seed;
}

static uint64_t next(uint64_t *x) {
    *x ^= *x >> 12;
    *x ^= *x << 25;
    *x ^= *x >> 27;
    return *x * UINT64_C(0x2545f4914f6cdd1d);
}

static void random_bytes(const char *name, uint8_t *dst, size_t n) {
    uint64_t state = seed_of(name);
    for (size_t i = 0; i < n; i += 8) {
        const uint64_t word = next(&state);
        memcpy(dst + i, &word, QN_MIN(n - i, sizeof word));
    }
}

static void hex(const void *data, size_t n, char *out) {
    for (size_t i = 0; i < n; i++) sprintf(out + 2 * i, "%02x", ((const uint8_t *)data)[i]);
}

static void hash_hex(const void *data, size_t n, char out[65]) {
    uint8_t hash[SHA256_DIGEST_LENGTH];
    SHA256(data, n, hash);
    hex(hash, sizeof hash, out);
}

static const qn_dtype_info *info_of(const char *name) {
    const qn_dtype_info *info = qn_dtype_by_name(name);
    if (!info) fail_msg("%s is not known", name);
    return info;
}

// Values as their bits, all NaNs the same.
static void dequantize(qn_dtype type, const uint8_t *blocks, uint32_t *bits, size_t n) {
    qn_dequantize_row(type, blocks, (float *)(void *)bits, n);
    for (size_t i = 0; i < n; i++) {
        if ((bits[i] & 0x7fffffff) > 0x7f800000) bits[i] = 0x7fc00000;
    }
}

static void check_hash(const char *name, size_t n, const char *want) {
    const qn_dtype_info *info = info_of(name);
    const size_t values = n * info->block_size, random = n - sizeof fills;
    uint8_t *blocks = malloc(n * info->block_bytes);
    uint32_t *bits = malloc(values * sizeof *bits);
    assert_true(blocks && bits && n > sizeof fills);
    random_bytes(name, blocks, random * info->block_bytes);
    for (size_t i = 0; i < sizeof fills; i++) {
        memset(blocks + (random + i) * info->block_bytes, fills[i], info->block_bytes);
    }
    dequantize(info->type, blocks, bits, values);
    char got[65];
    hash_hex(bits, values * sizeof *bits, got);
    if (strcmp(got, want) != 0) fail_msg("%s: other values than gguf's", name);
    free(blocks);
    free(bits);
}

static void dequantize_as_gguf(void **state) {
    (void)state;
    enum { LINE = 4096 };
    char name[32], what[32];
    char *text = malloc(LINE), *block_hex = calloc(1, LINE), *got = malloc(LINE);
    FILE *f = fopen(GOLDEN "dequantize.txt", "r");
    assert_true(text && block_hex && got && f);
    size_t types = 0;
    while (fscanf(f, "%31s %31s %4095s", name, what, text) == 3) {
        if (strcmp(what, "block") == 0) {
            strcpy(block_hex, text);
        } else if (strcmp(what, "values") == 0) {
            // The verbatim block first fails with something to look at.
            const qn_dtype_info *info = info_of(name);
            uint8_t block[QN_BLOCK_MAX_BYTES];
            uint32_t bits[QN_BLOCK_MAX];
            for (size_t i = 0; i < info->block_bytes; i++) {
                unsigned byte;
                assert_int_equal(sscanf(block_hex + 2 * i, "%2x", &byte), 1);
                block[i] = (uint8_t)byte;
            }
            dequantize(info->type, block, bits, info->block_size);
            for (size_t i = 0; i < info->block_size; i++) {
                sprintf(got + 8 * i, "%08x", bits[i]);
                if (strncmp(got + 8 * i, text + 8 * i, 8) != 0) {
                    fail_msg("%s: value %zu is %.8s, not %.8s", name, i, got + 8 * i, text + 8 * i);
                }
            }
        } else {
            check_hash(name, (size_t)atoi(what), text);
            types++;
        }
    }
    assert_int_equal(types, 24);
    assert_true(feof(f));
    fclose(f);
    free(text);
    free(block_hex);
    free(got);
}

static void quantize_as_gguf(void **state) {
    (void)state;
    char name[32], want[65], got[65], seed_name[64];
    size_t n, types = 0;
    FILE *f = fopen(GOLDEN "quantize.txt", "r");
    assert_non_null(f);
    while (fscanf(f, "%31s %zu %64s", name, &n, want) == 3) {
        const qn_dtype_info *info = info_of(name);
        const size_t values = n * info->block_size, bytes = n * info->block_bytes;
        float *x = malloc(values * sizeof *x);
        uint8_t *blocks = malloc(bytes);
        assert_true(x && blocks);
        snprintf(seed_name, sizeof seed_name, "%s values", name);
        uint64_t random = seed_of(seed_name);
        for (size_t i = 0; i < values; i++) {
            const uint64_t w = next(&random);
            const double mantissa = (double)(w & 0xffffff) / 0x1p24 * 2 - 1;
            x[i] = (w >> 32 & 15) == 0 ? 0 : (float)ldexp(mantissa, (int)(w >> 24 & 7) - 5);
        }
        assert_true(info->quantizes && qn_quantize_row(info->type, x, blocks, values));
        hash_hex(blocks, bytes, got);
        if (strcmp(got, want) != 0) fail_msg("%s: other blocks than gguf's", name);
        types++;
        free(x);
        free(blocks);
    }
    assert_int_equal(types, 10);
    fclose(f);
}

// Types that have no quantizer say so and leave the destination alone.
static void without_quantizer(void **state) {
    (void)state;
    float x[256] = {1};
    size_t without = 0;
    const qn_dtype_info *info;
    for (size_t i = 0; (info = qn_dtype_at(i)) != NULL; i++) {
        uint8_t block[QN_BLOCK_MAX_BYTES], same[QN_BLOCK_MAX_BYTES];
        memset(block, 0xa5, sizeof block);
        memset(same, 0xa5, sizeof same);
        if (info->quantizes) continue;
        without++;
        assert_false(qn_quantize_row(info->type, x, block, info->block_size));
        assert_memory_equal(block, same, sizeof block);
    }
    assert_int_equal(without, 14);
    assert_null(qn_dtype_get(9));  // q8_1
    assert_null(qn_dtype_get(15)); // q8_K
    assert_string_equal(qn_dtype_gguf_name(15), "q8_K");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dequantize_as_gguf),
        cmocka_unit_test(quantize_as_gguf),
        cmocka_unit_test(without_quantizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
