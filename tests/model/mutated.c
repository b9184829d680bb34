// SPDX-License-Identifier: Apache-2.0
// 1,000 mutated GGUF files through everything that reads them: metadata, architecture, program,
// tokenizer, and for those that still open, the engine and a few tokens. Nothing may crash (run it
// under the address sanitizer), and every refusal is one line that names the file.
// usage: model_mutated [first seed] [count]
#include "cpu/cpu_backend.h"
#include "engine/engine.h"
#include "model/model.h"

#include "base/os.h"
#include "base/philox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put_random(qn_rng *rng, char *data, size_t size) {
    static const uint64_t extremes[] = {0,          1,          0x7f,        0xff,
                                        0x7fffffff, 0xffffffff, 0x100000000, 0x7fffffffffffffff,
                                        UINT64_MAX, 1ull << 61, 33,          12};
    uint64_t v = qn_rng_below(rng, 2) ? extremes[qn_rng_below(rng, 12)] : qn_rng_next(rng);
    size_t width = (size_t)1 << qn_rng_below(rng, 4);
    size_t at = (size_t)qn_rng_below(rng, size - 8);
    memcpy(data + at, &v, width);
}

// Most mutations hit the metadata: that is where the structure is.
static size_t mutate(qn_rng *rng, char *data, size_t size, size_t meta) {
    int n = 1 + (int)qn_rng_below(rng, 4);
    for (int i = 0; i < n; i++) {
        size_t reach = qn_rng_below(rng, 8) ? meta : size;
        switch (qn_rng_below(rng, 5)) {
        case 0: data[qn_rng_below(rng, reach)] ^= (char)(1u << qn_rng_below(rng, 8)); break;
        case 1: put_random(rng, data, reach); break;
        case 2: data[qn_rng_below(rng, reach)] = (char)qn_rng_next(rng); break;
        case 3: { // a piece copied elsewhere
            size_t len = 1 + (size_t)qn_rng_below(rng, 64);
            size_t from = (size_t)qn_rng_below(rng, reach - len);
            memmove(data + qn_rng_below(rng, reach - len), data + from, len);
            break;
        }
        default:
            if (qn_rng_below(rng, 3) == 0) size = 1 + (size_t)qn_rng_below(rng, size);
            if (size < 256) return size;
            meta = meta < size ? meta : size;
            break;
        }
    }
    return size;
}

static int check_refusal(const qn_error *err, qn_status st, const char *path) {
    if (st == err->status && err->message[0] && !strchr(err->message, '\n') &&
        (strstr(err->message, path) || st == QN_ERR_NOMEM)) {
        return 0;
    }
    printf("a refusal that does not name the file: status %d, '%s'\n", (int)st, err->message);
    return 1;
}

static int generate(const char *path, int *served) {
    const qn_engine_options options = {
        .backend = &qn_cpu_backend,
        .backend_options = {.threads = 1},
        .max_num_seqs = 2,
        .max_num_batched_tokens = 32,
        .max_model_len = 64,
        .num_blocks_override = 8,
    };
    qn_engine *e;
    qn_error err = {0};
    qn_status st = qn_engine_open(path, &options, &e, &err);
    if (st != QN_OK) return err.message[0] ? 0 : 1;
    const qn_engine_info *info = qn_engine_get_info(e);
    int32_t id = 5 % info->vocab_size;
    const qn_request request = {.prompt = &id, .n_prompt = 1, .max_tokens = 3, .ignore_eos = true,
                                .top_p = 1, .n_logprobs = -1};
    qn_mailbox box;
    uint64_t handle;
    qn_request_state state = {0};
    int bad = 0;
    if (qn_mailbox_open(&box, 4, NULL) != QN_OK ||
        qn_engine_submit(e, &request, &box, &handle, &err) != QN_OK) {
        printf("%s\n", err.message);
        bad = 1;
    } else {
        while (state.outcome == QN_RUNNING) {
            qn_token_event events[8];
            size_t n;
            qn_engine_read(e, handle, events, 8, &n, &state);
            usleep(200);
        }
        qn_buf text = {0};
        qn_token_bytes(info->tokenizer, id, false, &text);
        qn_buf_free(&text);
        qn_engine_release(e, handle);
    }
    ++*served;
    qn_engine_close(e);
    qn_mailbox_close(&box);
    return bad;
}

int main(int argc, char **argv) {
    static const char *const sources[] = {
        QN_SOURCE_DIR "/tests/golden/data/qwen3/model-f32.gguf",
        QN_SOURCE_DIR "/tests/golden/data/llama3/model-q8_0.gguf",
        QN_SOURCE_DIR "/tests/golden/data/llama2/model-f16.gguf",
    };
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    int count = argc > 2 ? atoi(argv[2]) : 1000;
    int failed = 0, opened = 0, served = 0;
    char path[600];
    snprintf(path, sizeof path, "%s/mutated-%d.gguf", QN_BINARY_DIR, (int)getpid());
    for (int i = 0; i < count; i++) {
        qn_rng rng = {.key = first + (uint64_t)i};
        char *data;
        size_t size;
        qn_error err = {0};
        if (qn_os_read_file(sources[i % 3], 64 << 20, &data, &size, &err) != QN_OK) {
            printf("%s\n", err.message);
            return 1;
        }
        qn_gguf *g;
        size_t meta = size;
        if (qn_gguf_open(sources[i % 3], &g, NULL) == QN_OK) {
            meta = (size_t)qn_gguf_tensor_at(g, 0)->offset;
            qn_gguf_close(g);
        }
        size = mutate(&rng, data, size, meta);
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
            perror(path);
            return 1;
        }
        free(data);
        qn_model *m;
        int bad = 0;
        qn_status st = qn_model_open(path, NULL, &m, &err);
        if (st != QN_OK) {
            bad = check_refusal(&err, st, path);
        } else {
            opened++;
            qn_buf text = {0};
            qn_program_print(qn_model_program(m), &text);
            qn_buf_free(&text);
            qn_tokenizer *t;
            if (qn_model_tokenizer(m, NULL, &t, &err) == QN_OK) {
                qn_ids ids = {0};
                qn_tokenize(t, "Hello <|im_end|> wor\xff""ld 12", 24, NULL, 0, true, 0, &ids, &err);
                qn_ids_free(&ids);
                qn_tokenizer_close(t);
            } else if (!err.message[0]) {
                bad = 1;
            }
            qn_model_close(m);
            bad |= generate(path, &served);
        }
        if (bad) printf("seed %llu fails\n", (unsigned long long)(first + (uint64_t)i));
        failed += bad;
    }
    unlink(path);
    printf("%d files from seed %llu: %d opened, %d served, %d failed\n", count,
           (unsigned long long)first, opened, served, failed);
    return failed != 0;
}
