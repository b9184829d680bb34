// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.h"

#include "base/checked.h"
#include "cli/engine_flags.h"
#include "cli/local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *prompt, *ids;
    int64_t n, logprobs;
    qn_sampling_flags sampling;
    bool json, ignore_eos, special, no_special;
} options;

static bool parse_ids(const char *text, qn_ids *ids) {
    while (*text) {
        char *end;
        errno = 0;
        long v = strtol(text, &end, 10);
        if (end == text || errno || v < 0 || v > INT32_MAX || !qn_ids_push(ids, (int32_t)v)) {
            return false;
        }
        text = end;
        while (*text == ' ') text++;
        if (*text == ',' && *++text == '\0') return false;
    }
    return ids->len > 0;
}

static const char *finish_name(qn_outcome o) {
    switch (o) {
    case QN_DONE_STOP: return "stop";
    case QN_DONE_LENGTH: return "length";
    case QN_DONE_ERROR: return "error";
    default: return "abort";
    }
}

static void print_json(const qn_local_result *r) {
    qn_buf out = {0};
    qn_buf_puts(&out, "{\"text\": ");
    qn_buf_json_string(&out, r->text.data ? r->text.data : "", r->text.len);
    qn_buf_puts(&out, ", \"ids\": [");
    for (size_t i = 0; i < r->ids.len; i++) {
        qn_buf_printf(&out, "%s%d", i ? ", " : "", r->ids.data[i]);
    }
    qn_buf_puts(&out, "]");
    if (r->logprobs) {
        qn_buf_puts(&out, ", \"logprobs\": [");
        for (size_t i = 0; i < r->ids.len; i++) {
            qn_buf_printf(&out, "%s%.9g", i ? ", " : "", (double)r->logprobs[i]);
        }
        qn_buf_puts(&out, "]");
    }
    qn_buf_printf(&out,
                  ", \"finish_reason\": \"%s\", \"prompt_tokens\": %d, \"completion_tokens\": %d, "
                  "\"ttft_s\": %.6f, \"total_s\": %.6f}\n",
                  finish_name(r->state.outcome), r->state.n_prompt, r->state.n_output,
                  r->first_token_seconds, r->total_seconds);
    if (!out.failed) fwrite(out.data, 1, out.len, stdout);
    qn_buf_free(&out);
}

static int run(qn_engine *e, const options *o) {
    const qn_engine_info *info = qn_engine_get_info(e);
    qn_error err = {0};
    qn_ids ids = {0};
    qn_local_result result = {0};
    qn_status st = QN_OK;
    if (o->ids) {
        if (!parse_ids(o->ids, &ids)) {
            st = qn_fail(&err, QN_ERR_INVALID, "--ids: expected numbers separated by commas");
        }
    } else {
        const qn_text_span span = {strlen(o->prompt), !o->no_special};
        st = qn_tokenize(info->tokenizer, o->prompt, strlen(o->prompt), &span, 1, true,
                         (size_t)info->max_model_len, &ids, &err);
        if (st == QN_OK && ids.len == 0) {
            st = qn_fail(&err, QN_ERR_INVALID, "the prompt has no tokens");
        }
    }
    if (st == QN_OK) {
        qn_request request = {
            .prompt = ids.data,
            .n_prompt = (int32_t)QN_MIN(ids.len, (size_t)INT32_MAX),
            .max_tokens = (int32_t)o->n,
            .ignore_eos = o->ignore_eos,
            .n_logprobs = o->logprobs >= 0 ? (int32_t)o->logprobs : -1,
        };
        qn_sampling_flags_apply(&o->sampling, info, &request);
        st = qn_local_run(e, &request, o->special, false, o->json ? NULL : qn_print_text, NULL,
                          &result, &err);
    }
    if (st != QN_OK) {
        if (result.text.len) putchar('\n');
        fflush(stdout);
        qn_cli_error("%s", err.message);
    } else if (o->json) {
        print_json(&result);
    } else {
        putchar('\n');
    }
    qn_local_result_free(&result);
    qn_ids_free(&ids);
    return st == QN_OK ? 0 : 1;
}

int qn_cli_generate(int argc, char **argv) {
    options o = {.n = 128, .logprobs = -1};
    qn_sampling_flags_init(&o.sampling);
    qn_engine_flags engine;
    qn_engine_flags_init(&engine);
    engine.max_num_seqs = 1;
    qn_flag flags[8 + QN_SAMPLING_FLAG_COUNT + QN_ENGINE_FLAG_COUNT] = {
        {"prompt", 'p', QN_FLAG_TEXT, &o.prompt, "TEXT", "the text to go on with", 0, 0},
        {"ids", 0, QN_FLAG_TEXT, &o.ids, "1,2,3", "token ids instead of a text", 0, 0},
        {"n-predict", 'n', QN_FLAG_INT, &o.n, "N", "most tokens to generate", 1, 1 << 28},
        {"logprobs", 0, QN_FLAG_INT, &o.logprobs, "N", "with --json: log probabilities", 0, 20},
        {"json", 0, QN_FLAG_BOOL, &o.json, NULL, "one JSON object at the end", 0, 0},
        {"ignore-eos", 0, QN_FLAG_BOOL, &o.ignore_eos, NULL, "do not stop at the end token", 0, 0},
        {"special", 0, QN_FLAG_BOOL, &o.special, NULL, "show special tokens", 0, 0},
        {"no-parse-special", 0, QN_FLAG_BOOL, &o.no_special, NULL,
         "special tokens' names in the prompt are plain text", 0, 0},
    };
    qn_sampling_flags_table(&o.sampling, flags + 8);
    qn_engine_flags_table(&engine, flags + 8 + QN_SAMPLING_FLAG_COUNT);
    const qn_flag_set set = {
        .command = "generate",
        .usage = "quern generate MODEL -p TEXT [options]",
        .about = "Completes a text, streamed to the terminal. MODEL is a GGUF file, a Hugging Face\n"
                 "directory or a name on the hub (owner/name). The prompt is taken as it is: for a conversation use 'quern chat'.",
        .examples = "  quern generate model.gguf -p 'Once upon a time' -n 64 --temperature 0\n",
        .flags = flags,
        .n_flags = QN_COUNT(flags),
    };
    const char *model = NULL;
    size_t n = 0;
    int rc = qn_flags_parse(&set, argc, argv, &model, 1, &n);
    if (rc >= 0) return rc;
    if (n != 1 || (!o.prompt && !o.ids)) {
        qn_cli_error(n != 1 ? "generate needs a model" : "generate needs a prompt (-p) or --ids");
        fprintf(stderr, "quern: see 'quern generate --help'\n");
        return 2;
    }
    qn_engine *e = NULL;
    rc = qn_engine_flags_open(&engine, model, &e);
    if (rc == 0) rc = run(e, &o);
    qn_engine_close(e);
    qn_engine_flags_free(&engine);
    return rc;
}
