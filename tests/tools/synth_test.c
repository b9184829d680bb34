// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/hash.h"
#include "formats/gguf.h"
#include "tools/synth.h"

static char dir[512];

static const char *in_dir(char *out, size_t size, const char *name) {
    snprintf(dir, sizeof dir, "%s/synth-test-%d", QN_BINARY_DIR, (int)getpid());
    mkdir(dir, 0777);
    snprintf(out, size, "%s/%s", dir, name);
    return out;
}

static void write_text(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static const char qwen3_tiny[] =
    "{\"model_type\":\"qwen3\",\"hidden_size\":64,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":32,"
    "\"intermediate_size\":96,\"vocab_size\":400,\"max_position_embeddings\":256,"
    "\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,\"tie_word_embeddings\":true}";
static const char llama_tiny[] =
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":4,\"intermediate_size\":80,\"vocab_size\":512,"
    "\"max_position_embeddings\":131072,\"rope_theta\":500000.0,\"rope_scaling\":"
    "{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
    "\"original_max_position_embeddings\":8192}}";

static qn_gguf *make(const char *config, const char *mix, uint64_t seed, const char *name,
                     qn_synth_result *result) {
    char shape[600], dst[600];
    qn_error err = {0};
    qn_gguf *g;
    write_text(in_dir(shape, sizeof shape, "config.json"), config);
    in_dir(dst, sizeof dst, name);
    qn_synth_options options = {.shape = shape, .dst = dst, .mix = qn_mix_by_name(mix), .seed = seed};
    if (qn_synth(&options, result, &err) != QN_OK) fail_msg("%s", err.message);
    if (qn_gguf_open(dst, &g, &err) != QN_OK) fail_msg("%s", err.message);
    return g;
}

static void is_u64(const qn_gguf *g, const char *key, uint64_t want) {
    uint64_t v = 0;
    qn_error err = {0};
    if (qn_gguf_get_u64(g, key, &v, &err) != QN_OK) fail_msg("%s", err.message);
    assert_int_equal(v, want);
}

static void is_tensor(const qn_gguf *g, const char *name, qn_dtype type, uint64_t d0, uint64_t d1) {
    const qn_gguf_tensor *t = qn_gguf_find_tensor(g, name);
    if (!t) fail_msg("%s is missing", name);
    assert_int_equal(t->type, type);
    assert_int_equal(t->dims[0], d0);
    assert_int_equal(t->dims[1], d1);
}

// Mean and standard deviation of a whole tensor; every value finite.
static void moments(const qn_gguf *g, const char *name, double *mean, double *deviation) {
    const qn_gguf_tensor *t = qn_gguf_find_tensor(g, name);
    assert_non_null(t);
    size_t n = (size_t)(t->dims[0] * t->dims[1]);
    uint8_t *raw = malloc((size_t)t->size);
    float *x = malloc(n * sizeof *x);
    assert_non_null(raw);
    assert_non_null(x);
    qn_error err = {0};
    assert_int_equal(qn_gguf_read_tensor(g, t, 0, raw, (size_t)t->size, &err), QN_OK);
    qn_dequantize_row((qn_dtype)t->type, raw, x, n);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(x[i]));
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
    }
    if (t->type == QN_Q8_0) {
        for (size_t i = 0; i < t->size; i++) {
            if (i % 34 >= 2) assert_int_not_equal(raw[i], 0x80); // level -128
        }
    }
    *mean = sum / (double)n;
    *deviation = sqrt(squares / (double)n - *mean * *mean);
    free(raw);
    free(x);
}

static void qwen3(void **state) {
    (void)state;
    static const char *const names[] = {"F32", "F16", "BF16", "Q8_0", "Q4_0"};
    for (size_t i = 0; i < QN_COUNT(names); i++) {
        qn_synth_result r;
        qn_dtype type = qn_dtype_by_name(names[i])->type;
        qn_gguf *g = make(qwen3_tiny, names[i], 1, "q.gguf", &r);
        is_u64(g, "qwen3.embedding_length", 64);
        is_u64(g, "qwen3.block_count", 2);
        is_u64(g, "qwen3.attention.head_count", 4);
        is_u64(g, "qwen3.attention.head_count_kv", 2);
        is_u64(g, "qwen3.attention.key_length", 32);
        is_u64(g, "qwen3.feed_forward_length", 96);
        is_u64(g, "qwen3.vocab_size", 400);
        assert_int_equal(qn_gguf_tensor_count(g), 2 + 2 * 11);
        assert_int_equal(r.tensors, 24);
        is_tensor(g, "token_embd.weight", type == QN_Q4_0 ? QN_Q8_0 : type, 64, 400);
        is_tensor(g, "blk.1.attn_q.weight", type, 64, 128);
        is_tensor(g, "blk.1.attn_k.weight", type, 64, 64);
        is_tensor(g, "blk.1.attn_output.weight", type, 128, 64);
        is_tensor(g, "blk.1.ffn_down.weight", type, 96, 64);
        is_tensor(g, "blk.1.attn_q_norm.weight", QN_F32, 32, 1);
        is_tensor(g, "output_norm.weight", QN_F32, 64, 1);
        assert_null(qn_gguf_find_tensor(g, "output.weight"));
        double mean, deviation;
        moments(g, "token_embd.weight", &mean, &deviation);
        assert_true(fabs(mean) < 0.005 && fabs(deviation * 8 - 1) < 0.05);
        moments(g, "blk.0.ffn_gate.weight", &mean, &deviation);
        assert_true(fabs(mean) < 0.01 && fabs(deviation * 8 - 1) < 0.06);
        moments(g, "output_norm.weight", &mean, &deviation);
        assert_true(fabs(mean - 1) < 0.02 && deviation < 0.05);
        qn_gguf_close(g);
    }
}

// Each type in a whole model: every matrix has it, with values as large as asked for.
static void all_types(void **state) {
    (void)state;
    static const char config[] =
        "{\"model_type\":\"qwen3\",\"hidden_size\":256,\"num_hidden_layers\":1,"
        "\"num_attention_heads\":8,\"num_key_value_heads\":2,\"head_dim\":32,"
        "\"intermediate_size\":512,\"vocab_size\":400,\"max_position_embeddings\":256,"
        "\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,\"tie_word_embeddings\":true}";
    const qn_dtype_info *info;
    for (size_t i = 0; (info = qn_dtype_at(i)) != NULL; i++) {
        char shape[600], dst[600];
        qn_error err = {0};
        qn_gguf *g;
        qn_mix mix = {info->name, info->type, 0};
        write_text(in_dir(shape, sizeof shape, "config.json"), config);
        in_dir(dst, sizeof dst, "t.gguf");
        const qn_synth_options options = {.shape = shape, .dst = dst, .mix = &mix, .pure = true};
        if (qn_synth(&options, NULL, &err) != QN_OK) fail_msg("%s", err.message);
        if (qn_gguf_open(dst, &g, &err) != QN_OK) fail_msg("%s", err.message);
        static const char *const names[] = {"token_embd", "blk.0.attn_q", "blk.0.attn_v",
                                            "blk.0.attn_output", "blk.0.ffn_gate"};
        for (size_t n = 0; n < QN_COUNT(names); n++) {
            char name[64];
            double mean, deviation;
            snprintf(name, sizeof name, "%s.weight", names[n]);
            assert_int_equal(qn_gguf_find_tensor(g, name)->type, info->type);
            moments(g, name, &mean, &deviation);
            if (!(fabs(mean) < 0.01 && fabs(deviation * 16 - 1) < 0.06)) {
                fail_msg("%s: %s: mean %g, deviation %g", info->name, name, mean, deviation * 16);
            }
        }
        moments(g, "blk.0.ffn_down.weight", &(double){0}, &(double){0}); // all finite
        qn_gguf_close(g);
    }
}

static void llama(void **state) {
    (void)state;
    qn_synth_result r;
    qn_gguf *g = make(llama_tiny, "Q4_0", 1, "l.gguf", &r);
    is_tensor(g, "token_embd.weight", QN_Q4_0, 64, 512);
    is_tensor(g, "output.weight", QN_Q8_0, 64, 512);
    is_tensor(g, "blk.0.attn_k.weight", QN_Q4_0, 64, 64); // key heads default to heads
    is_tensor(g, "blk.0.ffn_down.weight", QN_F16, 80, 64); // 80 does not divide by 32
    is_tensor(g, "rope_freqs.weight", QN_F32, 8, 1);
    // The divisors: 1 for the highest frequency, the factor for the lowest, rising between.
    float divisors[8];
    qn_error err = {0};
    const qn_gguf_tensor *t = qn_gguf_find_tensor(g, "rope_freqs.weight");
    assert_int_equal(qn_gguf_read_tensor(g, t, 0, divisors, sizeof divisors, &err), QN_OK);
    assert_true(divisors[0] == 1.0f && divisors[7] == 8.0f);
    for (int i = 1; i < 8; i++) assert_true(divisors[i] >= divisors[i - 1]);
    // Wavelength 2 pi 500000^(4/8) = 4442.9: smooth = (8192/4442.9 - 1)/3 = 0.28127.
    assert_true(fabs((double)divisors[4] - 1 / ((1 - 0.28127) / 8 + 0.28127)) < 1e-3);
    qn_gguf_close(g);
}

static char *slurp(const char *name, size_t *size) {
    char path[600], *data;
    qn_error err = {0};
    in_dir(path, sizeof path, name);
    assert_int_equal(qn_os_read_file(path, 1 << 24, &data, size, &err), QN_OK);
    return data;
}

static void deterministic(void **state) {
    (void)state;
    size_t a_size, b_size, c_size;
    qn_gguf_close(make(qwen3_tiny, "Q8_0", 5, "a.gguf", NULL));
    qn_gguf_close(make(qwen3_tiny, "Q8_0", 5, "b.gguf", NULL));
    qn_gguf_close(make(qwen3_tiny, "Q8_0", 6, "c.gguf", NULL));
    char *a = slurp("a.gguf", &a_size), *b = slurp("b.gguf", &b_size);
    char *c = slurp("c.gguf", &c_size);
    assert_int_equal(a_size, b_size);
    assert_memory_equal(a, b, a_size);
    assert_int_equal(a_size, c_size);
    assert_int_not_equal(memcmp(a, c, a_size), 0);
    free(a);
    free(b);
    free(c);
}

static int32_t token_id(const qn_gguf *g, const char *name) {
    const qn_gguf_kv *kv = qn_gguf_find(g, "tokenizer.ggml.tokens");
    const uint8_t *cursor = kv->data;
    for (uint64_t i = 0; i < kv->count; i++) {
        if (qn_str_is(qn_gguf_next_string(&cursor), name)) return (int32_t)i;
    }
    return -1;
}

// Every merge joins two tokens into a third; no token occurs twice; ids are in range.
static void check_vocab(const qn_gguf *g, uint64_t size) {
    const qn_gguf_kv *tokens = qn_gguf_find(g, "tokenizer.ggml.tokens");
    const qn_gguf_kv *merges = qn_gguf_find(g, "tokenizer.ggml.merges");
    const qn_gguf_kv *types = qn_gguf_find(g, "tokenizer.ggml.token_type");
    assert_int_equal(tokens->count, size);
    assert_int_equal(types->count, size);
    qn_map known = {0};
    assert_true(qn_map_init(&known, (size_t)size, 1));
    const uint8_t *cursor = tokens->data;
    for (uint64_t i = 0; i < size; i++) {
        qn_str token = qn_gguf_next_string(&cursor);
        uint32_t other;
        assert_false(qn_map_get(&known, token, &other));
        assert_true(qn_map_put(&known, token, (uint32_t)i));
    }
    cursor = merges->data;
    for (uint64_t i = 0; i < merges->count; i++) {
        qn_str merge = qn_gguf_next_string(&cursor);
        const char *space = memchr(merge.data, ' ', merge.len);
        assert_non_null(space);
        qn_str a = {merge.data, (size_t)(space - merge.data)};
        qn_str b = {space + 1, merge.len - a.len - 1};
        char joined[64];
        uint32_t id;
        assert_true(merge.len < sizeof joined);
        memcpy(joined, a.data, a.len);
        memcpy(joined + a.len, b.data, b.len);
        assert_true(qn_map_get(&known, a, &id));
        assert_true(qn_map_get(&known, b, &id));
        assert_true(qn_map_get(&known, (qn_str){joined, a.len + b.len}, &id));
        assert_int_equal(id, 256 + i); // in the order of the merges, after the bytes
    }
    qn_map_free(&known);
}

static void vocabularies(void **state) {
    (void)state;
    qn_gguf *g = make(qwen3_tiny, "Q8_0", 1, "v.gguf", NULL);
    qn_str pre;
    qn_error err = {0};
    check_vocab(g, 400);
    assert_int_equal(qn_gguf_get_str(g, "tokenizer.ggml.pre", &pre, &err), QN_OK);
    assert_true(qn_str_is(pre, "qwen2"));
    is_u64(g, "tokenizer.ggml.eos_token_id", (uint64_t)token_id(g, "<|im_end|>"));
    is_u64(g, "tokenizer.ggml.bos_token_id", (uint64_t)token_id(g, "<|endoftext|>"));
    int32_t start = token_id(g, "<|im_start|>");
    assert_int_equal(qn_gguf_item_i64(qn_gguf_find(g, "tokenizer.ggml.token_type"),
                                      (uint64_t)start), 3);
    qn_gguf_close(g);

    g = make(llama_tiny, "Q8_0", 1, "v.gguf", NULL);
    check_vocab(g, 512);
    assert_int_equal(qn_gguf_get_str(g, "tokenizer.ggml.pre", &pre, &err), QN_OK);
    assert_true(qn_str_is(pre, "llama-bpe"));
    qn_gguf_close(g);

    // Real sizes: the special tokens stand where the real vocabularies have them.
    char config[1024];
    snprintf(config, sizeof config, "{\"model_type\":\"qwen2\",\"hidden_size\":32,"
             "\"num_hidden_layers\":1,\"num_attention_heads\":1,\"intermediate_size\":32,"
             "\"vocab_size\":151936}");
    g = make(config, "Q4_0", 1, "v.gguf", NULL);
    check_vocab(g, 151936);
    assert_int_equal(token_id(g, "<|endoftext|>"), 151643);
    assert_int_equal(token_id(g, "<|im_end|>"), 151645);
    assert_int_equal(token_id(g, "</think>"), 151668);
    is_tensor(g, "blk.0.attn_q.bias", QN_F32, 32, 1);
    qn_gguf_close(g);
    snprintf(config, sizeof config, "{\"model_type\":\"llama\",\"hidden_size\":32,"
             "\"num_hidden_layers\":1,\"num_attention_heads\":1,\"intermediate_size\":32,"
             "\"vocab_size\":128256}");
    g = make(config, "Q4_0", 1, "v.gguf", NULL);
    assert_int_equal(token_id(g, "<|begin_of_text|>"), 128000);
    assert_int_equal(token_id(g, "<|eot_id|>"), 128009);
    qn_gguf_close(g);
}

static void tokenizer_of_another(void **state) {
    (void)state;
    char shape[600], dst[600], from[600];
    qn_error err = {0};
    qn_gguf_close(make(qwen3_tiny, "Q8_0", 1, "from.gguf", NULL));
    write_text(in_dir(shape, sizeof shape, "config.json"), llama_tiny);
    in_dir(dst, sizeof dst, "copied.gguf");
    in_dir(from, sizeof from, "from.gguf");
    qn_synth_options options = {.shape = shape, .dst = dst, .mix = qn_mix_by_name("F16"), .tokenizer_from = from};
    if (qn_synth(&options, NULL, &err) != QN_OK) fail_msg("%s", err.message);
    qn_gguf *g;
    assert_int_equal(qn_gguf_open(dst, &g, &err), QN_OK);
    is_u64(g, "llama.vocab_size", 400);
    is_tensor(g, "output.weight", QN_F16, 64, 400);
    check_vocab(g, 400);
    qn_str pre;
    assert_int_equal(qn_gguf_get_str(g, "tokenizer.ggml.pre", &pre, &err), QN_OK);
    assert_true(qn_str_is(pre, "qwen2"));
    qn_gguf_close(g);
    options.tokenizer_from = shape;
    assert_int_equal(qn_synth(&options, NULL, &err), QN_ERR_FORMAT);
}

static bool stop_at_half(void *user, uint64_t done, uint64_t total) {
    *(uint64_t *)user = done;
    return done < total / 2;
}

static void cancelled_leaves_no_file(void **state) {
    (void)state;
    char shape[600], dst[600], part[620];
    qn_error err = {0};
    uint64_t done = 0;
    write_text(in_dir(shape, sizeof shape, "config.json"), qwen3_tiny);
    in_dir(dst, sizeof dst, "cancelled.gguf");
    snprintf(part, sizeof part, "%s.part0", dst);
    qn_synth_options options = {.shape = shape, .dst = dst, .mix = qn_mix_by_name("Q8_0"),
                                .progress = stop_at_half, .user = &done};
    assert_int_equal(qn_synth(&options, NULL, &err), QN_ERR_CANCELLED);
    assert_true(done > 0);
    assert_int_not_equal(access(dst, F_OK), 0);
    assert_int_not_equal(access(part, F_OK), 0);
}

static void fails(const char *config, qn_status status, const char *reason) {
    char path[600];
    qn_synth_shape shape;
    qn_error err = {0};
    write_text(in_dir(path, sizeof path, "config.json"), config);
    qn_status st = qn_synth_shape_load(path, &shape, &err);
    if (st != status || !strstr(err.message, reason) || strchr(err.message, '\n')) {
        fail_msg("expected %s '%s', got %s: %s", qn_status_name(status), reason,
                 qn_status_name(st), err.message);
    }
}

#define HEAD "\"num_hidden_layers\":1,\"intermediate_size\":32,\"vocab_size\":300,"

static void shapes(void **state) {
    (void)state;
    qn_synth_shape s;
    qn_error err = {0};
    // Parameter counts that the models' names promise.
    static const struct {
        const char *name;
        double billions;
    } known[] = {{"qwen3-0.6b", 0.596}, {"qwen3-4b", 4.022}, {"llama-3.2-1b", 1.236},
                 {"llama-3.1-8b", 8.030}};
    for (size_t i = 0; i < QN_COUNT(known); i++) {
        assert_string_equal(qn_synth_shape_name(i), known[i].name);
        assert_int_equal(qn_synth_shape_load(known[i].name, &s, &err), QN_OK);
        double q = (double)s.heads * s.head_dim, kv = (double)s.kv_heads * s.head_dim;
        double layer = 2 * s.hidden * (q + kv) + 3.0 * s.hidden * s.ff;
        double total = layer * s.layers + (s.tied ? 1.0 : 2.0) * s.vocab * s.hidden;
        assert_true(fabs(total / 1e9 - known[i].billions) < 0.002);
    }
    assert_null(qn_synth_shape_name(QN_COUNT(known)));
    assert_int_equal(qn_synth_shape_load("qwen9", &s, &err), QN_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "llama-3.1-8b"));
    fails("{\"model_type\":\"gpt_neox\"}", QN_ERR_UNSUPPORTED, "'model_type': 'gpt_neox'");
    fails("{}", QN_ERR_UNSUPPORTED, "'model_type'");
    fails("{\"model_type\":\"llama\"}", QN_ERR_NOT_FOUND, "'hidden_size' is missing");
    fails("{\"model_type\":\"llama\",\"hidden_size\":0}", QN_ERR_FORMAT, "'hidden_size': 0 is not");
    fails("{\"model_type\":\"llama\",\"hidden_size\":-64}", QN_ERR_FORMAT, "'hidden_size'");
    fails("{\"model_type\":\"llama\"," HEAD "\"hidden_size\":64,\"num_attention_heads\":4,"
          "\"num_key_value_heads\":3}", QN_ERR_FORMAT, "not a multiple");
    fails("{\"model_type\":\"llama\"," HEAD "\"hidden_size\":64,\"num_attention_heads\":4,"
          "\"head_dim\":7}", QN_ERR_FORMAT, "odd");
    fails("{\"model_type\":\"llama\"," HEAD "\"hidden_size\":64,\"num_attention_heads\":4,"
          "\"attention_bias\":true}", QN_ERR_UNSUPPORTED, "attention_bias");
    fails("{\"model_type\":\"qwen2\"," HEAD "\"hidden_size\":64,\"num_attention_heads\":4,"
          "\"use_sliding_window\":true}", QN_ERR_UNSUPPORTED, "use_sliding_window");
    fails("{\"model_type\":\"llama\"," HEAD "\"hidden_size\":64,\"num_attention_heads\":4,"
          "\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}", QN_ERR_UNSUPPORTED, "dynamic");
    fails("{\"model_type\":\"llama\"," HEAD "\"hidden_size\":64,\"num_attention_heads\":4,"
          "\"rope_scaling\":{\"type\":\"linear\",\"factor\":-2}}", QN_ERR_FORMAT, "'factor'");
    char path[600];
    write_text(in_dir(path, sizeof path, "config.json"),
               "{\"model_type\":\"mistral\"," HEAD "\"hidden_size\":64,\"num_attention_heads\":4,"
               "\"sliding_window\":4096,\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4,"
               "\"rope_theta\":7.0,\"original_max_position_embeddings\":1024}}");
    qn_error_clear(&err);
    assert_int_equal(qn_synth_shape_load(dir, &s, &err), QN_OK); // a directory
    assert_int_equal(s.window, 4096);
    assert_int_equal(s.rope, QN_SYNTH_ROPE_YARN);
    assert_true(s.rope_theta == 7.0 && s.rope_factor == 4.0);
    assert_int_equal(s.rope_original_context, 1024);
    // A vocabulary that cannot hold 256 bytes and the special tokens.
    qn_synth_options options = {.shape = path, .dst = "/nonexistent/x.gguf", .mix = qn_mix_by_name("F32")};
    qn_error_clear(&err);
    assert_int_equal(qn_synth(&options, NULL, &err), QN_ERR_IO);
    qn_error_clear(&err);
    qn_gguf *g = make("{\"model_type\":\"qwen2\"," HEAD "\"hidden_size\":64,"
                      "\"num_attention_heads\":4,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,"
                      "\"original_max_position_embeddings\":1024}}", "F32", 1, "y.gguf", NULL);
    is_u64(g, "qwen2.rope.scaling.original_context_length", 1024);
    double v = 0;
    assert_int_equal(qn_gguf_get_f64(g, "qwen2.rope.scaling.factor", &v, &err), QN_OK);
    assert_true(v == 4.0);
    qn_str kind;
    assert_int_equal(qn_gguf_get_str(g, "qwen2.rope.scaling.type", &kind, &err), QN_OK);
    assert_true(qn_str_is(kind, "yarn"));
    qn_gguf_close(g);
    fails("{\"model_type\":\"llama\"," HEAD "\"hidden_size\":64,\"num_attention_heads\":4,"
          "\"rope_scaling\":{\"type\":\"llama3\",\"factor\":2,\"low_freq_factor\":4}}",
          QN_ERR_FORMAT, "'high_freq_factor'");
}

static void small_vocabulary(void **state) {
    (void)state;
    char path[600], dst[600];
    qn_error err = {0};
    write_text(in_dir(path, sizeof path, "config.json"),
               "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_attention_heads\":4,"
               "\"num_hidden_layers\":1,\"intermediate_size\":32,\"vocab_size\":100}");
    in_dir(dst, sizeof dst, "small.gguf");
    qn_synth_options options = {.shape = path, .dst = dst, .mix = qn_mix_by_name("F32")};
    assert_int_equal(qn_synth(&options, NULL, &err), QN_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "100 tokens is too small"));
    assert_int_not_equal(access(dst, F_OK), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen3),
        cmocka_unit_test(all_types),
        cmocka_unit_test(llama),
        cmocka_unit_test(deterministic),
        cmocka_unit_test(vocabularies),
        cmocka_unit_test(tokenizer_of_another),
        cmocka_unit_test(cancelled_leaves_no_file),
        cmocka_unit_test(shapes),
        cmocka_unit_test(small_vocabulary),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command) != 0) failed++;
    return failed;
}
