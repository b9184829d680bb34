// SPDX-License-Identifier: Apache-2.0
// The step-time fit against machines whose times are known.
#include "engine/step_time.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

typedef struct machine {
    double base, per_row, per_key, noise;
    uint32_t rng;
} machine;

static double uniform(machine *m) { // -1 to 1
    m->rng = m->rng * 1664525u + 1013904223u;
    return (double)m->rng / 2147483648.0 - 1;
}

static double run(machine *m, double rows, double keys) {
    return (m->base + m->per_row * rows + m->per_key * keys) * (1 + m->noise * uniform(m));
}

static double predict(const qn_step_fit *f, double rows, double keys) {
    qn_step_time_model t;
    assert_true(qn_step_fit_model(f, &t));
    return t.base + t.per_row * rows + t.per_key * keys;
}

static void expect_close(const qn_step_fit *f, const machine *m, double rows, double keys,
                         double error) {
    const double truth = m->base + m->per_row * rows + m->per_key * keys;
    const double said = predict(f, rows, keys);
    if (fabs(said / truth - 1) <= error) return;
    fail_msg("%g rows, %g keys: %g s, not %g s", rows, keys, said, truth);
}

static void chunk(qn_step_fit *f, machine *m, double rows, double position) {
    const double keys = rows * position + rows * (rows + 1) / 2;
    qn_step_fit_add(f, rows, keys, run(m, rows, keys));
}

// What a chunk costs is still known after a long time in which only streams ran.
static void streams_do_not_make_it_forget_prompts(void **state) {
    (void)state;
    static const double noises[] = {0, 0.1, 0.3};
    for (int i = 0; i < 3; i++) {
        machine m = {8e-3, 0.6e-3, 0.5e-6, noises[i], 7};
        qn_step_fit f = {0};
        for (int round = 0; round < 3; round++) {
            for (int k = 0; k < 8; k++) chunk(&f, &m, 512, 512.0 * k);
            for (int k = 0; k < 30; k++) chunk(&f, &m, 24, 24.0 * k);
        }
        for (int k = 0; k < 20000; k++) {
            const double keys = 8 * (100 + k % 1000);
            qn_step_fit_add(&f, 8, keys, run(&m, 8, keys));
        }
        expect_close(&f, &m, 8, 8 * 1099, 0.05 + noises[i] / 3);
        expect_close(&f, &m, 512, 512.0 * 1000, 0.35 + noises[i]);
    }
}

// Chunks of all sizes, each at some depth.
static void mixed(qn_step_fit *f, machine *m, int steps) {
    for (int k = 0; k < steps; k++) chunk(f, m, 8 + k % 61, 37 * (k % 53));
}

static void it_follows_a_machine_that_changes(void **state) {
    (void)state;
    machine m = {8e-3, 0.6e-3, 0.5e-6, 0.05, 3};
    qn_step_fit f = {0};
    mixed(&f, &m, 200);
    expect_close(&f, &m, 40, 40 * 1000, 0.1);
    m.base *= 3, m.per_row *= 3, m.per_key *= 3; // somebody else took most of the cores
    mixed(&f, &m, 200);
    expect_close(&f, &m, 40, 40 * 1000, 0.1);
    expect_close(&f, &m, 8, 8 * 1000, 0.2);
}

// One step that took a thousand times as long (the process was stopped) counts as one of twice.
static void one_odd_step_does_little(void **state) {
    (void)state;
    machine m = {8e-3, 0.6e-3, 0.5e-6, 0.05, 5};
    qn_step_fit f = {0};
    mixed(&f, &m, 200);
    qn_step_fit_add(&f, 32, 32000, 1000 * run(&m, 32, 32000));
    expect_close(&f, &m, 32, 32000, 0.5);
    mixed(&f, &m, 50);
    expect_close(&f, &m, 32, 32000, 0.1);
}

static void nonsense_is_ignored(void **state) {
    (void)state;
    static const double bad[] = {0, -1, INFINITY, NAN};
    machine m = {8e-3, 0.6e-3, 0.5e-6, 0, 5};
    qn_step_fit f = {0};
    qn_step_time_model t;
    for (int k = 0; k < 4; k++) {
        qn_step_fit_add(&f, bad[k], 10, 0.1);
        qn_step_fit_add(&f, 10, bad[k], 0.1);
        qn_step_fit_add(&f, 10, 10, bad[k]);
    }
    assert_false(qn_step_fit_model(&f, &t));
    mixed(&f, &m, 200);
    expect_close(&f, &m, 32, 32000, 0.1);
    // Times without any spread, and extreme ones, leave it finite.
    for (int k = 0; k < 100000; k++) qn_step_fit_add(&f, 1, 1, k % 2 ? 1e-9 : 1e3);
    assert_true(qn_step_fit_model(&f, &t));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_do_not_make_it_forget_prompts),
        cmocka_unit_test(it_follows_a_machine_that_changes),
        cmocka_unit_test(one_odd_step_does_little),
        cmocka_unit_test(nonsense_is_ignored),
    };
    return cmocka_run_group_tests_name("step_time", tests, NULL, NULL);
}
