// SPDX-License-Identifier: Apache-2.0
// The parts of a start, each alone: files, tokenizers, chat templates, and a whole engine.
#include "base/buf.h"
#include "base/os.h"
#include "base/checked.h"
#include "cpu/cpu_backend.h"
#include "engine/engine.h"
#include "formats/gguf.h"
#include "formats/hf_dir.h"
#include "formats/safetensors.h"
#include "template/chat_template.h"
#include "tests/faults/faults.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

#define GOLDEN QN_SOURCE_DIR "/tests/golden/data/"
#define TOKENIZERS QN_SOURCE_DIR "/tests/tokenizer/goldens/"
#define DEMO QN_SOURCE_DIR "/models/quern-demo-q8_0.gguf"

static faults_result result_of(qn_status st, const qn_error *err) {
    if (st == QN_OK) return FAULTS_DONE;
    return err->status == st ? FAULTS_FAILED : faults_wrong((qn_error *)(uintptr_t)err,
                                                            "the status is not the error's");
}

// ---------------------------------------------------------------- files

static faults_result open_gguf(const faults_scenario *s, qn_error *err) {
    qn_gguf *g;
    qn_status st = qn_gguf_open(s->user, &g, err);
    if (st == QN_OK) qn_gguf_close(g);
    return result_of(st, err);
}

static faults_result open_safetensors(const faults_scenario *s, qn_error *err) {
    qn_safetensors *t;
    qn_status st = qn_safetensors_open(s->user, &t, err);
    if (st == QN_OK) qn_safetensors_close(t);
    return result_of(st, err);
}

static faults_result open_hf_dir(const faults_scenario *s, qn_error *err) {
    qn_hf_dir *d;
    qn_status st = qn_hf_dir_open(s->user, &d, err);
    if (st == QN_OK) qn_hf_dir_close(d);
    return result_of(st, err);
}

// ---------------------------------------------------------------- tokenizers

static const char text[] =
    "<|im_start|>It's 1234 o\xCC\x81 caf\xC3\xA9  \xF0\x9F\x99\x82 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa<|im_end|>\n\tthe end \xE1\xBA\x9B\xCC\xA3 \xEF\xBC\xA1";

// Tokenizes, detokenizes, looks for a stop string; the result must be that of the first run.
static faults_result use_tokenizer(const qn_tokenizer *t, qn_error *err, uint64_t *result) {
    qn_ids ids = {0};
    qn_buf shown = {0}, kept = {0};
    qn_stop_matcher *m = NULL;
    static const qn_str stops[] = {{"zzzz", 4}, {"not there", 9}};
    qn_status st = QN_OK;
    for (int i = 0; i < 3 && st == QN_OK; i++) {
        st = qn_tokenize(t, text, sizeof text - 1, NULL, 0, true, 0, &ids, err);
    }
    if (st == QN_OK) st = qn_stop_matcher_create(stops, 2, &m, err);
    qn_detok d;
    qn_detok_init(&d, t, true, true);
    bool ok = st == QN_OK;
    for (size_t i = 0; i < ids.len && ok; i++) ok = qn_detok_push(&d, ids.data[i], &shown);
    ok = ok && qn_detok_flush(&d, &shown);
    if (ok && shown.len) {
        if (qn_stop_matcher_push(m, shown.data, shown.len, false, &kept) >= 0) {
            st = QN_ERR_INTERNAL;
            faults_wrong(err, "a stop string was found that is not there");
        }
        qn_stop_matcher_flush(m, &kept);
        ok = !kept.failed;
    }
    if (st == QN_OK && !ok) st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
    if (st == QN_OK) {
        uint64_t h = ids.len;
        for (size_t i = 0; i < ids.len; i++) h = h * 1000003 + (uint64_t)ids.data[i];
        for (size_t i = 0; i < kept.len; i++) h = h * 1000003 + (unsigned char)kept.data[i];
        *result = h;
    }
    qn_stop_matcher_destroy(m);
    qn_buf_free(&shown);
    qn_buf_free(&kept);
    qn_ids_free(&ids);
    return st == QN_ERR_INTERNAL ? FAULTS_WRONG : result_of(st, err);
}

static faults_result tokenizer_gguf(const faults_scenario *s, qn_error *err) {
    qn_gguf *g;
    qn_tokenizer *t = NULL;
    uint64_t result = 0;
    qn_status st = qn_gguf_open(s->user, &g, err);
    if (st != QN_OK) return result_of(st, err);
    st = qn_tokenizer_from_gguf(g, NULL, &t, err);
    faults_result r = st == QN_OK ? use_tokenizer(t, err, &result) : result_of(st, err);
    if (st == QN_OK) qn_tokenizer_close(t);
    qn_gguf_close(g);
    return r == FAULTS_DONE ? faults_same(s, 0, result, err) : r;
}

static faults_result tokenizer_json(const faults_scenario *s, qn_error *err) {
    char *data;
    size_t len;
    qn_tokenizer *t = NULL;
    uint64_t result = 0;
    qn_status st = qn_os_read_file(s->user, 16 << 20, &data, &len, err);
    if (st != QN_OK) return result_of(st, err);
    st = qn_tokenizer_from_json_memory(data, len, NULL, &t, err);
    free(data);
    faults_result r = st == QN_OK ? use_tokenizer(t, err, &result) : result_of(st, err);
    if (st == QN_OK) qn_tokenizer_close(t);
    return r == FAULTS_DONE ? faults_same(s, 0, result, err) : r;
}

static faults_result tokenizer_hf(const faults_scenario *s, qn_error *err) {
    qn_tokenizer *t = NULL;
    uint64_t result = 0;
    qn_status st = qn_tokenizer_from_hf(s->user, NULL, &t, err);
    faults_result r = st == QN_OK ? use_tokenizer(t, err, &result) : result_of(st, err);
    if (st == QN_OK) qn_tokenizer_close(t);
    return r == FAULTS_DONE ? faults_same(s, 0, result, err) : r;
}

// ---------------------------------------------------------------- chat templates

static const char features[] =
    "{%- macro show(m, sep=': ') -%}<|{{ m.role }}|>{{ sep ~ m['content'] | trim | upper }}\n"
    "{%- endmacro -%}"
    "{%- set ns = namespace(n=0, names=[]) -%}"
    "{%- for m in messages if m.role != 'tool' -%}"
    "{%- set ns.n = ns.n + 1 -%}{%- set ns.names = ns.names + [m.role] -%}"
    "{{ show(m) }}{{ loop.index }}/{{ loop.length }}{%- if not loop.last %}, {% endif -%}"
    "{%- else -%}none{%- endfor -%}"
    "{{ ns.names | join('-') }} {{ {'b': [1, 2.5, none, true], 'a': 'x<y'} | tojson(indent=2) }}"
    "{{ messages[::-1] | map(attribute='role') | list | length }} {{ 'a,b,c'.split(',') | last }}"
    "{{ '%s is %d' | format('x', 3) }} {{ messages | selectattr('role', 'equalto', 'user') | list"
    " | length }} {{ messages[0].content[1:4] ~ 'abc'.replace('b', 'dd') }}"
    "{% if 'lo' in messages[0].content and not (1 > 2) %}{{ bos_token }}{% endif %}"
    "{{ namespace(a=1).a }}{{ range(3) | list }}{{ dict(a=1).items() | list }}"
    "{{ messages | tojson }}{% set x %}block {{ 1 + 2 * 3 }}{% endset %}{{ x | length }}"
    "{{ strftime_now('%Y') | length }}";

static json_t *messages(void) {
    return json_pack("{s:[{s:s,s:s},{s:s,s:s},{s:s,s:s}],s:b}", "messages", "role", "user",
                     "content", "hello <|im_end|> there", "role", "assistant", "content",
                     "  caf\xC3\xA9 ", "role", "tool", "content", "{}", "add_generation_prompt", 1);
}

static faults_result render(const faults_scenario *s, qn_error *err) {
    const char *source = s->user;
    qn_chat_template *t = NULL;
    inject_count_thread(false); // the conversation is the caller's
    json_t *variables = messages(), *trusted = json_pack("{s:s}", "bos_token", "<s>");
    inject_count_thread(true);
    qn_rendered out = {0};
    uint64_t result = 0;
    qn_status st = qn_template_compile(source, strlen(source), &t, err);
    if (st == QN_OK) {
        st = qn_template_render(t, variables, trusted, 1e9, NULL, &out, err);
        for (size_t i = 0; i < out.text.len; i++) {
            result = result * 1000003 + (unsigned char)out.text.data[i];
        }
        for (size_t i = 0; i < out.n_spans; i++) {
            result = result * 1000003 + out.spans[i].len * 2 + out.spans[i].trusted;
        }
        qn_rendered_free(&out);
        qn_template_free(t);
    }
    json_decref(variables);
    json_decref(trusted);
    return st == QN_OK ? faults_same(s, 0, result, err) : result_of(st, err);
}

// ---------------------------------------------------------------- engines

static faults_result open_engine(const faults_scenario *s, qn_error *err) {
    const qn_engine_options o = {.backend = &qn_cpu_backend, .backend_options = {.threads = 2},
                                 .max_num_seqs = 4, .max_num_queued_reqs = 8, .max_model_len = 128,
                                 .kv_dtype = QN_KV_F16};
    qn_engine *e = NULL;
    qn_status st = qn_engine_open(s->user, &o, &e, err);
    if (st == QN_OK) qn_engine_close(e);
    return result_of(st, err);
}

int main(int argc, char **argv) {
    inject_init();
    static const faults_scenario scenarios[] = {
        {.name = "gguf", .user = GOLDEN "qwen3/model-q8_0.gguf", .run = open_gguf},
        {.name = "safetensors", .user = GOLDEN "qwen3/hf", .run = open_safetensors},
        {.name = "hf_dir", .user = GOLDEN "llama3/hf", .run = open_hf_dir},
        {.name = "tokenizer_spm", .user = TOKENIZERS "spm.gguf", .run = tokenizer_gguf},
        {.name = "tokenizer_bpe_gguf", .user = GOLDEN "qwen3/model-q8_0.gguf", .run = tokenizer_gguf},
        {.name = "tokenizer_qwen2", .user = TOKENIZERS "qwen2.json", .run = tokenizer_json},
        {.name = "tokenizer_llama3", .user = TOKENIZERS "llama3.json", .run = tokenizer_json},
        {.name = "tokenizer_llama2", .user = TOKENIZERS "llama2.json", .run = tokenizer_json},
        {.name = "tokenizer_mistral", .user = TOKENIZERS "mistral.json", .run = tokenizer_json},
        {.name = "tokenizer_deepseek", .user = TOKENIZERS "deepseek.json", .run = tokenizer_json},
        {.name = "tokenizer_gpt2", .user = TOKENIZERS "gpt2.json", .run = tokenizer_json},
        {.name = "tokenizer_gpt4o", .user = TOKENIZERS "gpt4o.json", .run = tokenizer_json},
        {.name = "tokenizer_behaviors", .user = TOKENIZERS "behaviors.json", .run = tokenizer_json},
        {.name = "tokenizer_metaspace", .user = TOKENIZERS "metaspace_unk.json",
         .run = tokenizer_json},
        {.name = "tokenizer_hf", .user = GOLDEN "llama3/hf", .run = tokenizer_hf},
        {.name = "template_chatml", .user = qn_template_chatml, .run = render},
        {.name = "template_features", .user = features, .run = render},
        {.name = "engine_gguf", .user = GOLDEN "qwen3/model-q8_0.gguf", .run = open_engine},
        {.name = "engine_hf", .user = GOLDEN "llama3/hf", .run = open_engine},
        {.name = "engine_hf_window", .user = GOLDEN "mistral/hf", .run = open_engine},
        {.name = "engine_demo", .user = DEMO, .run = open_engine},
    };
    return faults_main(argc, argv, scenarios, QN_COUNT(scenarios));
}
