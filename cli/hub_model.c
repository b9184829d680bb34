// SPDX-License-Identifier: Apache-2.0
#include "cli/hub_model.h"

#include "base/buf.h"
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const char *env(const char *name) {
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

static bool is_true(const char *name) {
    const char *v = env(name);
    return v && (strcmp(v, "1") == 0 || strcasecmp(v, "on") == 0 || strcasecmp(v, "yes") == 0 ||
                 strcasecmp(v, "true") == 0);
}

// value, with a "~" at its beginning resolved, and "/more" behind it.
static bool put_path(qn_buf *out, const char *value, const char *more) {
    const char *home = env("HOME");
    if (value[0] == '~' && (value[1] == '/' || value[1] == '\0') && home) {
        qn_buf_puts(out, home);
        value++;
    }
    qn_buf_puts(out, value);
    return qn_buf_puts(out, more);
}

static bool hf_home(qn_buf *out, const char *more) {
    if (env("HF_HOME")) return put_path(out, env("HF_HOME"), more);
    put_path(out, env("XDG_CACHE_HOME") ? env("XDG_CACHE_HOME") : "~/.cache", "/huggingface");
    return qn_buf_puts(out, more);
}

static bool cache_dir(qn_buf *out) {
    const char *own = env("HF_HUB_CACHE") ? env("HF_HUB_CACHE") : env("HUGGINGFACE_HUB_CACHE");
    return own ? put_path(out, own, "") : hf_home(out, "/hub");
}

// The token without white space around it; an empty buffer where there is none.
static qn_status read_token(qn_buf *out, qn_error *err) {
    const char *value = env("HF_TOKEN") ? env("HF_TOKEN") : env("HUGGING_FACE_HUB_TOKEN");
    char *data = NULL;
    qn_buf path = {0};
    qn_status st = QN_OK;
    if (!value) {
        size_t size;
        bool ok = env("HF_TOKEN_PATH") ? put_path(&path, env("HF_TOKEN_PATH"), "") : hf_home(&path, "/token");
        if (!ok) st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
        if (ok && qn_os_is_file(path.data)) st = qn_os_read_file(path.data, 4096, &data, &size, err);
        value = data;
    }
    if (st == QN_OK && value) {
        static const char space[] = " \t\r\n";
        value += strspn(value, space);
        size_t n = strlen(value);
        while (n && strchr(space, value[n - 1])) n--;
        if (!qn_buf_append(out, value, n)) st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    free(data);
    qn_buf_free(&path);
    return st;
}

typedef struct bar {
    uint64_t shown_ns, started_ns, at_start;
    bool drawn;
} bar;

static void show_progress(void *user, const char *file, uint64_t done, uint64_t total) {
    bar *b = user;
    uint64_t now = qn_os_now_ns();
    if (!file) {
        if (b->drawn) fputs("\r\033[K", stderr);
        return;
    }
    if (!b->started_ns) {
        b->started_ns = now;
        b->at_start = done;
    }
    if (now - b->shown_ns < 100000000 && done < total) return;
    b->shown_ns = now;
    b->drawn = true;
    char line[31] = "";
    double share = total ? (double)done / (double)total : 1;
    for (int i = 0; i < 30; i++) line[i] = i < (int)(share * 30) ? '#' : '.';
    double seconds = (double)(now - b->started_ns) * 1e-9;
    double rate = seconds > 0.5 ? (double)(done - b->at_start) / seconds : 0;
    qn_buf name = {0};
    size_t len = strlen(file);
    qn_buf_visible(&name, len > 32 ? file + len - 32 : file, len > 32 ? 32 : len, false);
    fprintf(stderr, "\r\033[K%s [%s] %3d%% of %.1f MiB", name.data ? name.data : "", line, (int)(share * 100),
            (double)total / 0x1p20);
    if (rate > 0) {
        double left = (double)(total - done) / rate;
        fprintf(stderr, ", %.1f MiB/s, %d:%02d left", rate / 0x1p20, (int)(left / 60), (int)left % 60);
    }
    fflush(stderr);
    qn_buf_free(&name);
}

bool qn_cli_is_hub_name(const char *arg) {
    qn_hub_name name;
    bool is_dir;
    return !qn_os_exists(arg, &is_dir) && qn_hub_name_parse(arg, &name);
}

qn_status qn_cli_model_path(const char *arg, const char *revision, qn_hub_want want, const qn_log *log,
                            char **path, qn_error *err) {
    *path = NULL;
    qn_hub_name name;
    if (!qn_cli_is_hub_name(arg)) {
        *path = strdup(arg);
        return *path ? QN_OK : qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    qn_hub_name_parse(arg, &name);
    qn_buf cache = {0}, token = {0};
    bar b = {0};
    qn_status st = cache_dir(&cache) ? QN_OK : qn_fail(err, QN_ERR_NOMEM, "out of memory");
    if (st == QN_OK) st = read_token(&token, err);
    if (st == QN_OK) {
        const qn_hub_options options = {
            .endpoint = env("HF_ENDPOINT"),
            .cache_dir = cache.data,
            .token = token.data,
            .ca_file = env("REQUESTS_CA_BUNDLE") ? env("REQUESTS_CA_BUNDLE")
                       : env("CURL_CA_BUNDLE")   ? env("CURL_CA_BUNDLE")
                                                 : env("SSL_CERT_FILE"),
            .revision = revision,
            .offline = is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE"),
            .want = want,
            .log = log,
            .progress = isatty(STDERR_FILENO) ? show_progress : NULL,
            .user = &b,
        };
        st = qn_hub_fetch(&name, &options, path, err);
        if (st == QN_ERR_NOT_FOUND || st == QN_ERR_IO) qn_error_prefix(err, "no file or folder '%s'; on the hub", arg);
    }
    if (token.data) explicit_bzero(token.data, token.len);
    qn_buf_free(&token);
    qn_buf_free(&cache);
    return st;
}
