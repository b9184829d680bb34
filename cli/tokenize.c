// SPDX-License-Identifier: Apache-2.0
// quern tokenize: text to ids, and ids to text.
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hub_model.h"

#include "base/checked.h"
#include "base/os.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_INPUT = 1 << 30 };

typedef struct options {
    const char *file, *revision;
    bool ids, bos, parse_special, decode, skip_special;
} options;

static qn_status open_tokenizer(const char *path, const qn_log *log, qn_tokenizer **out,
                                qn_error *err) {
    bool is_dir = false;
    if (!qn_os_exists(path, &is_dir)) {
        return qn_fail(err, QN_ERR_NOT_FOUND, "%s: no such file or directory", path);
    }
    if (is_dir) return qn_tokenizer_from_hf(path, log, out, err);
    size_t n = strlen(path);
    if (n > 5 && strcmp(path + n - 5, ".json") == 0) {
        char *data;
        size_t size;
        qn_status st = qn_os_read_file(path, MAX_INPUT / 2, &data, &size, err);
        if (st != QN_OK) return st;
        st = qn_tokenizer_from_json_memory(data, size, log, out, err);
        if (st != QN_OK) qn_error_prefix(err, "%s", path);
        free(data);
        return st;
    }
    qn_gguf *g;
    qn_status st = qn_gguf_open(path, &g, err);
    if (st != QN_OK) return st;
    st = qn_tokenizer_from_gguf(g, log, out, err);
    qn_gguf_close(g);
    return st;
}

static qn_status read_stdin(qn_buf *text, qn_error *err) {
    char block[65536];
    size_t n;
    text->limit = MAX_INPUT;
    while ((n = fread(block, 1, sizeof block, stdin)) > 0) {
        if (!qn_buf_append(text, block, n)) {
            return qn_fail(err, QN_ERR_LIMIT, "standard input has more than %d bytes", MAX_INPUT);
        }
    }
    return ferror(stdin) ? qn_fail(err, QN_ERR_IO, "cannot read standard input") : QN_OK;
}

static qn_status read_input(const options *o, const char *arg, qn_buf *text, qn_error *err) {
    if (arg) {
        return qn_buf_puts(text, arg) ? QN_OK : qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    if (!o->file || strcmp(o->file, "-") == 0) return read_stdin(text, err);
    char *data;
    size_t size;
    qn_status st = qn_os_read_file(o->file, MAX_INPUT, &data, &size, err);
    if (st == QN_OK) *text = (qn_buf){.data = data, .len = size, .cap = size + 1};
    return st;
}

static void print_ids(const qn_ids *ids) {
    for (size_t i = 0; i < ids->len; i++)
        printf("%s%d", i ? " " : "", ids->data[i]);
    printf("\n");
}

// One line each: the id, the token's text with what a terminal must not see escaped, its kind.
static bool print_table(const qn_tokenizer *t, const qn_ids *ids) {
    qn_buf bytes = {0}, shown = {0};
    bool ok = true;
    for (size_t i = 0; i < ids->len && ok; i++) {
        uint32_t attrs = qn_tokenizer_attrs(t, ids->data[i]);
        qn_buf_clear(&bytes);
        qn_buf_clear(&shown);
        ok = qn_token_bytes(t, ids->data[i], true, &bytes) &&
             qn_buf_visible(&shown, bytes.data ? bytes.data : "", bytes.len, false);
        printf("%8d  '%s'%s\n", ids->data[i], shown.data ? shown.data : "",
               attrs & QN_TOKEN_CONTROL ? "  (special)" : "");
    }
    printf("%zu tokens, %s\n", ids->len, qn_tokenizer_kind(t));
    qn_buf_free(&bytes);
    qn_buf_free(&shown);
    return ok;
}

static qn_status encode(const qn_tokenizer *t, const options *o, const qn_buf *text,
                        qn_error *err) {
    qn_ids ids = {0};
    const qn_text_span span = {text->len, o->parse_special};
    qn_status st =
        qn_tokenize(t, text->data ? text->data : "", text->len, &span, 1, o->bos, 0, &ids, err);
    if (st == QN_OK && o->ids) print_ids(&ids);
    if (st == QN_OK && !o->ids && !print_table(t, &ids)) {
        st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    qn_ids_free(&ids);
    return st;
}

// Ids separated by spaces, commas or brackets.
static qn_status parse_ids(const qn_tokenizer *t, const qn_buf *text, qn_ids *ids, qn_error *err) {
    const char *p = text->data ? text->data : "", *end = p + text->len;
    while (p < end) {
        if (memchr(" ,\t\r\n[]", *p, 7)) {
            p++;
            continue;
        }
        long long v = 0;
        const char *start = p;
        while (p < end && *p >= '0' && *p <= '9' && v < 1000000000)
            v = v * 10 + (*p++ - '0');
        if (p == start || (p < end && !memchr(" ,\t\r\n[]", *p, 7))) {
            return qn_fail(err, QN_ERR_INVALID, "'%.*s' is not a token id",
                           (int)QN_MIN(end - start, 20), start);
        }
        if (v >= qn_tokenizer_size(t)) {
            return qn_fail(err, QN_ERR_INVALID, "there is no token %lld (the vocabulary has %d)", v,
                           qn_tokenizer_size(t));
        }
        if (!qn_ids_push(ids, (int32_t)v)) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    return QN_OK;
}

static qn_status decode(const qn_tokenizer *t, const options *o, const qn_buf *text,
                        qn_error *err) {
    qn_ids ids = {0};
    qn_buf out = {0}, shown = {0};
    qn_detok d;
    qn_status st = parse_ids(t, text, &ids, err);
    bool ok = true;
    qn_detok_init(&d, t, !o->skip_special, true);
    for (size_t i = 0; i < ids.len && ok && st == QN_OK; i++)
        ok = qn_detok_push(&d, ids.data[i], &out);
    ok = ok && qn_detok_flush(&d, &out);
    if (st == QN_OK && ok) {
        // A file or another program gets the text as it is, a terminal what it can safely show.
        bool terminal = isatty(STDOUT_FILENO);
        if (terminal) ok = qn_buf_visible(&shown, out.data ? out.data : "", out.len, true);
        const qn_buf *print = terminal ? &shown : &out;
        if (print->len) fwrite(print->data, 1, print->len, stdout);
        if (terminal) printf("\n");
    }
    if (st == QN_OK && !ok) st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
    qn_ids_free(&ids);
    qn_buf_free(&out);
    qn_buf_free(&shown);
    return st;
}

int qn_cli_tokenize(int argc, char **argv) {
    options o = {.bos = true, .parse_special = true};
    const qn_flag flags[] = {
        {"file", 'f', QN_FLAG_TEXT, &o.file, "FILE",
         "read the text from a file (-: standard input)", 0, 0},
        {"ids", 0, QN_FLAG_BOOL, &o.ids, NULL, "print only the ids, on one line", 0, 0},
        {"bos", 0, QN_FLAG_BOOL, &o.bos, NULL, "add BOS and EOS where the model wants them", 0, 0},
        {"parse-special", 0, QN_FLAG_BOOL, &o.parse_special, NULL,
         "strings of special tokens become their ids", 0, 0},
        {"decode", 'd', QN_FLAG_BOOL, &o.decode, NULL, "the input is ids; print their text", 0, 0},
        {"skip-special", 0, QN_FLAG_BOOL, &o.skip_special, NULL,
         "with --decode: leave special tokens out", 0, 0},
        {"revision", 0, QN_FLAG_TEXT, &o.revision, "NAME",
         "branch, tag or commit of a model from the hub (default: main)", 0, 0},
    };
    const qn_flag_set set = {
        .command = "tokenize",
        .usage = "quern tokenize MODEL [TEXT] [options]",
        .about =
            "Shows the tokens of a text, or with --decode the text of token ids. MODEL is a GGUF\n"
            "file (vocabulary-only too), a Hugging Face directory or a tokenizer.json. Without\n"
            "TEXT and --file the input is read from standard input.",
        .examples = "  quern tokenize model.gguf 'Hello world'\n"
                    "  quern tokenize model.gguf --file book.txt --ids\n"
                    "  quern tokenize model.gguf --decode '9707 1879'\n",
        .flags = flags,
        .n_flags = QN_COUNT(flags),
    };
    const char *positional[2] = {NULL, NULL};
    size_t n = 0;
    int rc = qn_flags_parse(&set, argc, argv, positional, 2, &n);
    if (rc >= 0) return rc;
    if (n == 0) {
        qn_cli_error("tokenize needs a model: quern tokenize MODEL [TEXT]");
        return 2;
    }
    if (n == 2 && o.file) {
        qn_cli_error("tokenize takes a TEXT or --file, not both");
        return 2;
    }
    const qn_log log = qn_log_stderr(QN_LOG_WARN);
    qn_error err = {0};
    qn_tokenizer *t = NULL;
    qn_buf text = {0};
    char *path;
    qn_status st = qn_cli_model_path(positional[0], o.revision, QN_HUB_TOKENIZER, &log, &path, &err);
    if (st == QN_OK) st = open_tokenizer(path, &log, &t, &err);
    if (st == QN_OK) st = read_input(&o, positional[1], &text, &err);
    if (st == QN_OK) st = o.decode ? decode(t, &o, &text, &err) : encode(t, &o, &text, &err);
    qn_buf_free(&text);
    qn_tokenizer_close(t);
    free(path);
    if (st == QN_OK && (fflush(stdout) != 0 || ferror(stdout))) {
        st = qn_fail(&err, QN_ERR_IO, "cannot write to standard output");
    }
    if (st != QN_OK) {
        qn_cli_error("%s", err.message);
        return 1;
    }
    return 0;
}
