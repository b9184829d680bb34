// SPDX-License-Identifier: Apache-2.0
// SipHash-1-3 (facts.h), the hash map against a plain array, and Philox's known answers.
#include "base/checked.h"
#include "base/hash.h"
#include "base/philox.h"
#include "tests/base/facts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static void test_siphash(void **state) {
    (void)state;
    unsigned char data[1001];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)i;
    for (size_t i = 0; i < QN_COUNT(fact_siphash); i++) {
        assert_true(qn_hash_bytes(data, fact_siphash[i].len, fact_siphash[i].seed) ==
                    fact_siphash[i].hash);
    }
    // Any alignment.
    unsigned char shifted[65];
    memcpy(shifted + 1, data, 64);
    assert_true(qn_hash_bytes(shifted + 1, 64, 5) == qn_hash_bytes(data, 64, 5));
}

static void test_map_against_an_array(void **state) {
    (void)state;
    enum { KEYS = 3000 };
    static char names[KEYS][12];
    static uint32_t values[KEYS];
    static bool there[KEYS];
    qn_map map = {.seed = 77};
    size_t count = 0;
    uint32_t v;
    assert_false(qn_map_get(&map, QN_STR("x"), &v)); // before the first put
    qn_rng rng = {.key = 3};
    for (int i = 0; i < KEYS; i++) snprintf(names[i], sizeof names[i], "key%d", i);
    for (int round = 0; round < 20000; round++) {
        size_t k = (size_t)qn_rng_below(&rng, KEYS);
        if (qn_rng_below(&rng, 2)) {
            values[k] = (uint32_t)qn_rng_next(&rng);
            count += !there[k];
            there[k] = true;
            assert_true(qn_map_put(&map, qn_str_from(names[k]), values[k]));
            assert_int_equal(map.count, count);
        } else {
            bool found = qn_map_get(&map, qn_str_from(names[k]), &v);
            assert_int_equal(found, there[k]);
            if (found) assert_int_equal(v, values[k]);
        }
    }
    for (size_t k = 0; k < KEYS; k++) {
        assert_int_equal(qn_map_get(&map, qn_str_from(names[k]), &v), there[k]);
        if (there[k]) assert_int_equal(v, values[k]);
    }
    assert_false(qn_map_get(&map, QN_STR("key"), &v));
    qn_map_free(&map);
    qn_map_free(&map);
}

static void test_map_odd_keys(void **state) {
    (void)state;
    qn_map map;
    uint32_t v = 0;
    assert_true(qn_map_init(&map, 0, 1));
    assert_true(qn_map_put(&map, (qn_str){NULL, 0}, 5)); // the empty key, without data
    assert_true(qn_map_get(&map, QN_STR(""), &v) && v == 5);
    assert_true(qn_map_put(&map, QN_STR("a\0b"), 6));
    assert_true(qn_map_put(&map, QN_STR("a\0c"), 7));
    assert_true(qn_map_get(&map, QN_STR("a\0b"), &v) && v == 6);
    assert_false(qn_map_get(&map, QN_STR("a"), &v));
    assert_int_equal(map.count, 3);
    qn_map_free(&map);
    assert_false(qn_map_init(&map, SIZE_MAX / 2 + 2, 1)); // overflow, not a loop without end
}

// From the Random123 distribution's known-answer file (philox4x32, 10 rounds).
static void test_philox_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4];
        uint64_t key;
        uint32_t want[4];
    } cases[] = {
        {{0, 0, 0, 0}, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         0xffffffffffffffffu,
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         0x299f31d0a4093822u,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < QN_COUNT(cases); i++) {
        uint32_t out[4];
        qn_philox4x32(cases[i].key, cases[i].counter, out);
        assert_memory_equal(out, cases[i].want, sizeof out);
    }
}

static void test_rng(void **state) {
    (void)state;
    qn_rng a = {.key = 9}, b = {.key = 9};
    int counts[10] = {0};
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        assert_true(qn_rng_next(&a) == qn_rng_next(&b));
        counts[qn_rng_below(&a, 10)]++;
        double u = qn_rng_uniform(&a);
        assert_true(u >= 0 && u < 1);
        sum += u;
        b.n = a.n;
    }
    for (int i = 0; i < 10; i++) assert_in_range(counts[i], 9500, 10500);
    assert_true(sum > 49500 && sum < 50500);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_siphash),
        cmocka_unit_test(test_map_against_an_array),
        cmocka_unit_test(test_map_odd_keys),
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_rng),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
