// SPDX-License-Identifier: Apache-2.0
// quern inspect and quern synth as a user calls them: exit codes, one line for an error, and
// nothing from a hostile file that a terminal would obey.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/os.h"
#include "cli/commands.h"

static char dir[512];

static const char *in_dir(char *out, size_t size, const char *name) {
    snprintf(out, size, "%s/%s", dir, name);
    return out;
}

typedef struct outcome {
    int code;
    char *out, *err;
} outcome;

// Runs a command in a child with its output in files.
static outcome call(int (*run)(int, char **), const char *const *args) {
    char out[600], err[600];
    char *argv[16] = {NULL};
    int argc = 0;
    outcome o = {0};
    for (; args[argc]; argc++) argv[argc] = (char *)(uintptr_t)args[argc];
    in_dir(out, sizeof out, "stdout");
    in_dir(err, sizeof err, "stderr");
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (!freopen(out, "wb", stdout) || !freopen(err, "wb", stderr)) _exit(99);
        int rc = run(argc, argv);
        fflush(NULL);
        _exit(rc);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    o.code = WEXITSTATUS(status);
    size_t n;
    qn_error e = {0};
    assert_int_equal(qn_os_read_file(out, 1 << 24, &o.out, &n, &e), QN_OK);
    assert_int_equal(qn_os_read_file(err, 1 << 20, &o.err, &n, &e), QN_OK);
    return o;
}

#define CALL(run, ...) call(run, (const char *const[]){__VA_ARGS__, NULL})

static void done(outcome *o) {
    free(o->out);
    free(o->err);
}

static bool safe_for_terminal(const char *s) {
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c < 0x20 && c != '\n') || c == 0x7f) return false;
        if (c == 0xc2 && (unsigned char)s[1] < 0xa0) return false;             // C1
        if (c == 0xe2 && !strncmp(s, "\xe2\x80\xae", 3)) return false;          // override
    }
    return true;
}

static void one_line(const outcome *o, const char *part) {
    assert_true(strncmp(o->err, "quern: error: ", 14) == 0);
    assert_ptr_equal(strchr(o->err, '\n'), o->err + strlen(o->err) - 1);
    if (!strstr(o->err, part)) fail_msg("'%s' is not in: %s", part, o->err);
}

static void put_string(qn_buf *b, const char *s) {
    uint64_t n = strlen(s);
    qn_buf_append(b, &n, sizeof n);
    qn_buf_puts(b, s);
}
static void put_u32(qn_buf *b, uint32_t v) { qn_buf_append(b, &v, sizeof v); }
static void put_u64(qn_buf *b, uint64_t v) { qn_buf_append(b, &v, sizeof v); }

static void hostile_names(void **state) {
    (void)state;
    char path[600];
    qn_buf b = {0};
    qn_buf_puts(&b, "GGUF");
    put_u32(&b, 3);
    put_u64(&b, 1);
    put_u64(&b, 2);
    put_string(&b, "name\x1b]0;title\x07");
    put_u32(&b, 8);
    put_string(&b, "\x1b[31mred\xc2\x9b" "31m\xe2\x80\xae\xff\r\n");
    put_string(&b, "list");
    put_u32(&b, 9);
    put_u32(&b, 8);
    put_u64(&b, 50);
    for (int i = 0; i < 50; i++) put_string(&b, "\x1b[2J");
    put_string(&b, "tensor\x1b[2J");
    put_u32(&b, 1);
    put_u64(&b, 256);
    put_u32(&b, 40); // nvfp4
    put_u64(&b, 0);
    while (b.len % 32) qn_buf_putc(&b, '\0');
    assert_false(b.failed);
    FILE *f = fopen(in_dir(path, sizeof path, "hostile.gguf"), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
    assert_int_equal(fclose(f), 0);
    qn_buf_free(&b);

    outcome o = CALL(qn_cli_inspect, "inspect", path, "--full");
    assert_int_equal(o.code, 0);
    assert_true(safe_for_terminal(o.out));
    assert_non_null(strstr(o.out, "name\\x1b]0;title\\x07"));
    assert_non_null(strstr(o.out, "nvfp4"));
    assert_non_null(strstr(o.out, "key 'general.architecture' is missing"));
    done(&o);
    o = CALL(qn_cli_inspect, "inspect", path, "--json");
    assert_int_equal(o.code, 0);
    assert_true(safe_for_terminal(o.out));
    json_t *json = json_loads(o.out, 0, NULL);
    assert_non_null(json);
    json_t *metadata = json_object_get(json, "metadata");
    json_t *name = json_object_get(metadata, "name\x1b]0;title\x07");
    assert_string_equal(json_string_value(json_object_get(name, "value")),
                        "\x1b[31mred\xc2\x9b" "31m\xe2\x80\xae\xef\xbf\xbd\r\n");
    json_t *list = json_object_get(metadata, "list");
    assert_int_equal(json_integer_value(json_object_get(list, "count")), 50);
    assert_int_equal(json_array_size(json_object_get(list, "value")), 6);
    assert_true(json_is_null(json_object_get(json, "program")));
    json_decref(json);
    done(&o);
}

static void models(void **state) {
    (void)state;
    char gguf[600], hf[600];
    snprintf(gguf, sizeof gguf, "%s/tests/golden/data/qwen3/model-q8_0.gguf", QN_SOURCE_DIR);
    snprintf(hf, sizeof hf, "%s/tests/golden/data/mistral/hf", QN_SOURCE_DIR);
    outcome o = CALL(qn_cli_inspect, "inspect", gguf);
    assert_int_equal(o.code, 0);
    assert_string_equal(o.err, "");
    assert_non_null(strstr(o.out, "general.architecture"));
    assert_non_null(strstr(o.out, "blk.1.attn_q_norm.weight"));
    assert_non_null(strstr(o.out, "attend(q)"));
    done(&o);
    o = CALL(qn_cli_inspect, "inspect", gguf, "--no-metadata", "--no-tensors", "--no-program");
    assert_int_equal(o.code, 0);
    assert_null(strstr(o.out, "general.architecture"));
    assert_null(strstr(o.out, "attend(q)"));
    assert_non_null(strstr(o.out, "q8_0"));
    done(&o);
    o = CALL(qn_cli_inspect, "inspect", hf, "--json");
    assert_int_equal(o.code, 0);
    json_t *json = json_loads(o.out, 0, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "format")), "huggingface");
    assert_int_equal(json_array_size(json_object_get(json, "tensors")), 21);
    assert_true(json_array_size(json_object_get(json, "program")) > 20);
    json_t *total = json_object_get(json_object_get(json, "totals"), "BF16");
    assert_int_equal(json_integer_value(json_object_get(total, "tensors")), 21);
    json_decref(json);
    done(&o);
}

static void errors(void **state) {
    (void)state;
    char path[600];
    outcome o = CALL(qn_cli_inspect, "inspect", "/nonexistent\x1b[2J");
    assert_int_equal(o.code, 1);
    one_line(&o, "no such file");
    assert_true(safe_for_terminal(o.err));
    done(&o);
    o = CALL(qn_cli_inspect, "inspect", in_dir(path, sizeof path, "stdout"));
    assert_int_equal(o.code, 1);
    one_line(&o, "GGUF");
    done(&o);
    o = CALL(qn_cli_inspect, "inspect");
    assert_int_equal(o.code, 2);
    done(&o);
    o = CALL(qn_cli_inspect, "inspect", "--no-such-option");
    assert_int_equal(o.code, 2);
    done(&o);
    o = CALL(qn_cli_inspect, "inspect", "--help");
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.out, "usage: quern inspect"));
    done(&o);
}

static void synthesized(void **state) {
    (void)state;
    char shape[600], dst[600];
    snprintf(shape, sizeof shape, "%s/tests/golden/data/llama3/hf", QN_SOURCE_DIR);
    in_dir(dst, sizeof dst, "new.gguf");
    outcome o = CALL(qn_cli_synth, "synth", shape, dst, "--type", "q4_0");
    if (o.code != 0) fail_msg("%s", o.err);
    assert_string_equal(o.out, "");
    assert_null(strchr(o.err, '\r')); // no progress bar in a file
    done(&o);
    o = CALL(qn_cli_inspect, "inspect", dst);
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.out, "attend(q)")); // it compiles
    done(&o);
    o = CALL(qn_cli_synth, "synth", shape, dst);
    assert_int_equal(o.code, 1);
    one_line(&o, "exists already");
    done(&o);
    o = CALL(qn_cli_synth, "synth", shape, dst, "--force");
    assert_int_equal(o.code, 0);
    done(&o);
    o = CALL(qn_cli_synth, "synth", shape, dir);
    assert_int_equal(o.code, 1);
    one_line(&o, "not a regular file");
    done(&o);
    o = CALL(qn_cli_synth, "synth", "no-such-shape", dst, "--force");
    assert_int_equal(o.code, 1);
    one_line(&o, "qwen3-0.6b");
    done(&o);
    o = CALL(qn_cli_synth, "synth", shape, dst, "--type", "q9");
    assert_int_equal(o.code, 2);
    done(&o);
    o = CALL(qn_cli_synth, "synth", shape);
    assert_int_equal(o.code, 2);
    done(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_names),
        cmocka_unit_test(models),
        cmocka_unit_test(errors),
        cmocka_unit_test(synthesized),
    };
    snprintf(dir, sizeof dir, "%s/inspect-test-%d", QN_BINARY_DIR, (int)getpid());
    mkdir(dir, 0777);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command) != 0) failed++;
    return failed;
}
