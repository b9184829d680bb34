// SPDX-License-Identifier: Apache-2.0
// A tokenizer from the metadata of a GGUF file, a fixed text through it and back.
#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char text[] = "Hello <s> ab  ab'S 123\r\n\xC3\xA9 e\xCC\x81 <|im_end|>\xFF\xE4\xB8 "
                           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa z\xE2\x96\x81";

static void round_trip(const qn_tokenizer *t) {
    qn_ids ids = {0};
    qn_buf out = {0};
    qn_detok d;
    if (qn_tokenize(t, text, sizeof text - 1, NULL, 0, true, 4096, &ids, NULL) == QN_OK) {
        qn_detok_init(&d, t, false, true);
        for (size_t i = 0; i < ids.len; i++) {
            if (ids.data[i] < 0 || ids.data[i] >= qn_tokenizer_size(t)) abort();
            if (!qn_detok_push(&d, ids.data[i], &out)) break;
        }
        qn_detok_flush(&d, &out);
        if (out.data && !qn_utf8_valid(out.data, out.len)) abort();
    }
    qn_ids_free(&ids);
    qn_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qn_gguf *g = NULL;
    qn_tokenizer *t = NULL;
    if (qn_gguf_open_memory(data, size, "input", &g, NULL) != QN_OK) return 0;
    if (qn_tokenizer_from_gguf(g, NULL, &t, NULL) == QN_OK) {
        round_trip(t);
        qn_tokenizer_close(t);
    }
    qn_gguf_close(g);
    return 0;
}
