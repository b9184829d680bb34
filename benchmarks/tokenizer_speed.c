// SPDX-License-Identifier: Apache-2.0
// tokenizer_speed MODEL.gguf|MODEL.json|HF_DIRECTORY TEXT [CHUNK]: seconds to load the tokenizer
// and to tokenize the text once, in pieces of CHUNK bytes (0, the default: whole), as one line
// "load SECONDS tokenize SECONDS tokens N hash H". The hash is FNV-1a over the ids as little-endian
// 32-bit words, for comparing with another tokenizer. See tokenizer_speed.py.
#include "base/os.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static qn_status load(const char *path, qn_tokenizer **t, qn_error *err) {
    bool is_dir = false;
    size_t n = strlen(path), size;
    if (qn_os_exists(path, &is_dir) && is_dir) return qn_tokenizer_from_hf(path, NULL, t, err);
    if (n > 5 && strcmp(path + n - 5, ".json") == 0) {
        char *data;
        qn_status st = qn_os_read_file(path, (size_t)1 << 30, &data, &size, err);
        if (st != QN_OK) return st;
        st = qn_tokenizer_from_json_memory(data, size, NULL, t, err);
        free(data);
        return st;
    }
    qn_gguf *g;
    qn_status st = qn_gguf_open(path, &g, err);
    if (st != QN_OK) return st;
    st = qn_tokenizer_from_gguf(g, NULL, t, err);
    qn_gguf_close(g);
    return st;
}

static uint32_t hash_ids(const qn_ids *ids) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < ids->len; i++) {
        for (int k = 0; k < 32; k += 8) {
            h = (h ^ (((uint32_t)ids->data[i] >> k) & 0xff)) * 16777619u;
        }
    }
    return h;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: tokenizer_speed MODEL TEXT [CHUNK]\n");
        return 2;
    }
    qn_error err = {0};
    qn_tokenizer *t = NULL;
    char *text = NULL;
    size_t len = 0, chunk = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    uint64_t start = qn_os_now_ns();
    qn_status st = load(argv[1], &t, &err);
    uint64_t loaded = qn_os_now_ns();
    if (st == QN_OK) st = qn_os_read_file(argv[2], (size_t)1 << 30, &text, &len, &err);
    if (st != QN_OK) {
        fprintf(stderr, "tokenizer_speed: %s\n", err.message);
        return 1;
    }
    qn_ids ids = {0};
    if (chunk == 0) chunk = len;
    uint64_t begin = qn_os_now_ns();
    for (size_t at = 0; at < len && st == QN_OK;) {
        size_t end = len - at > chunk ? at + chunk : len;
        while (end < len && ((unsigned char)text[end] & 0xc0) == 0x80)
            end++;
        st = qn_tokenize(t, text + at, end - at, NULL, 0, false, 0, &ids, &err);
        at = end;
    }
    uint64_t done = qn_os_now_ns();
    if (st != QN_OK) {
        fprintf(stderr, "tokenizer_speed: %s\n", err.message);
        return 1;
    }
    printf("load %.6f tokenize %.6f tokens %zu hash %08x\n", (double)(loaded - start) * 1e-9,
           (double)(done - begin) * 1e-9, ids.len, hash_ids(&ids));
    qn_ids_free(&ids);
    free(text);
    qn_tokenizer_close(t);
    return 0;
}
