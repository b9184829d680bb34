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
    double base, per_row, per_key, per_context, noise;
    uint32_t rng;
} machine;

static double uniform(machine *m) { // -1 to 1
    m->rng = m->rng * 1664525u + 1013904223u;
    return (double)m->rng / 2147483648.0 - 1;
}

typedef struct step {
    double rows, keys, context;
} step;

// A chunk of a prompt beside `streams` streams of 500 tokens.
static step step_of(double streams, double rows, double position) {
    return (step){streams + rows, streams * 500 + rows * position + rows * (rows + 1) / 2,
                  streams * 500 + (rows > 0 ? position + rows : 0)};
}

static double truth(const machine *m, step s) {
    return m->base + m->per_row * s.rows + m->per_key * s.keys + m->per_context * s.context;
}

static void run(qn_step_fit *f, machine *m, step s) {
    qn_step_fit_add(f, s.rows, s.keys, s.context, truth(m, s) * (1 + m->noise * uniform(m)));
}

static void expect_close(const qn_step_fit *f, const machine *m, step s, double error) {
    qn_step_time_model t;
    assert_true(qn_step_fit_model(f, &t));
    const double said =
        t.base + t.per_row * s.rows + t.per_key * s.keys + t.per_context * s.context;
    if (fabs(said / truth(m, s) - 1) <= error) return;
    fail_msg("%g rows, %g keys, context %g: %g s, not %g s", s.rows, s.keys, s.context, said,
             truth(m, s));
}

static const machine cpu = {8e-3, 0.8e-3, 0.5e-6, 2e-6, 0, 7};

// What a chunk costs is still known after a long time in which only streams ran.
static void streams_do_not_make_it_forget_prompts(void **state) {
    (void)state;
    static const double noises[] = {0, 0.1};
    for (int i = 0; i < 2; i++) {
        machine m = cpu;
        m.noise = noises[i];
        qn_step_fit f = {0};
        for (int round = 0; round < 3; round++) {
            for (int k = 0; k < 8; k++) run(&f, &m, step_of(0, 512, 512.0 * k));
            for (int k = 0; k < 30; k++) run(&f, &m, step_of(8, 24, 24.0 * k));
        }
        for (int k = 0; k < 20000; k++) run(&f, &m, step_of(8, 0, 0));
        expect_close(&f, &m, step_of(8, 0, 0), 0.05 + noises[i] / 3);
        // Noise alone makes it careful, not blind: twice as long at most, and soon no more.
        expect_close(&f, &m, step_of(0, 512, 2000), 0.1 + 10 * noises[i]);
        expect_close(&f, &m, step_of(8, 24, 500), 0.15 + 5 * noises[i]);
        for (int k = 0; k < 20; k++) run(&f, &m, step_of(8, 24, 24.0 * k));
        expect_close(&f, &m, step_of(8, 24, 500), 0.1 + noises[i]);
    }
}

// While a long prompt runs beside streams, what the streams take alone is not seen; it must be told
// from the rest all the same, because the prompt's share is measured by it.
static void a_long_prompt_does_not_hide_what_streams_take(void **state) {
    (void)state;
    machine m = cpu;
    m.noise = 0.05;
    qn_step_fit f = {0};
    for (int k = 0; k < 8; k++) run(&f, &m, step_of(0, 512, 512.0 * k));
    for (int k = 0; k < 100; k++) run(&f, &m, step_of(8, 0, 0));
    double position = 0;
    for (int k = 0; k < 600 && position < 8000; k++) {
        const double rows = 8 + k % 3;
        run(&f, &m, step_of(8, rows, position));
        position += rows;
        expect_close(&f, &m, step_of(8, rows, position), 0.2);
        expect_close(&f, &m, step_of(8, 0, 0), 0.25);
    }
}

// Chunks of all sizes, each at some depth, with and without streams.
static void mixed(qn_step_fit *f, machine *m, int steps) {
    for (int k = 0; k < steps; k++) run(f, m, step_of(k % 9, 8 + k % 61, 37 * (k % 53)));
}

static void it_follows_a_machine_that_changes(void **state) {
    (void)state;
    machine m = cpu;
    m.noise = 0.05;
    qn_step_fit f = {0};
    mixed(&f, &m, 200);
    expect_close(&f, &m, step_of(4, 40, 1000), 0.1);
    // Somebody else took most of the cores.
    m.base *= 3, m.per_row *= 3, m.per_key *= 3, m.per_context *= 3;
    mixed(&f, &m, 200);
    expect_close(&f, &m, step_of(4, 40, 1000), 0.1);
    expect_close(&f, &m, step_of(4, 8, 1000), 0.2);
}

// One step that took a thousand times as long (the process was stopped) counts as one of twice.
static void one_odd_step_does_little(void **state) {
    (void)state;
    machine m = cpu;
    m.noise = 0.05;
    qn_step_fit f = {0};
    const step s = step_of(4, 32, 1000);
    mixed(&f, &m, 200);
    qn_step_fit_add(&f, s.rows, s.keys, s.context, 1000 * truth(&m, s));
    expect_close(&f, &m, s, 0.5);
    mixed(&f, &m, 50);
    expect_close(&f, &m, s, 0.1);
}

static void nonsense_is_ignored(void **state) {
    (void)state;
    static const double bad[] = {0, -1, INFINITY, NAN};
    machine m = cpu;
    qn_step_fit f = {0};
    qn_step_time_model t;
    for (int k = 0; k < 4; k++) {
        qn_step_fit_add(&f, bad[k], 10, 10, 0.1);
        qn_step_fit_add(&f, 10, bad[k], 10, 0.1);
        qn_step_fit_add(&f, 10, 10, bad[k], 0.1);
        qn_step_fit_add(&f, 10, 10, 10, bad[k]);
    }
    assert_false(qn_step_fit_model(&f, &t));
    mixed(&f, &m, 200);
    expect_close(&f, &m, step_of(4, 32, 1000), 0.1);
    // Times without any spread, and extreme ones, leave it finite.
    for (int k = 0; k < 100000; k++) qn_step_fit_add(&f, 1, 1, 1, k % 2 ? 1e-9 : 1e3);
    assert_true(qn_step_fit_model(&f, &t));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_do_not_make_it_forget_prompts),
        cmocka_unit_test(a_long_prompt_does_not_hide_what_streams_take),
        cmocka_unit_test(it_follows_a_machine_that_changes),
        cmocka_unit_test(one_odd_step_does_little),
        cmocka_unit_test(nonsense_is_ignored),
    };
    return cmocka_run_group_tests_name("step_time", tests, NULL, NULL);
}
