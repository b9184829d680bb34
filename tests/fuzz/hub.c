// SPDX-License-Identifier: Apache-2.0
// What a hub answers: the first byte says what the rest is. '0' a listing, '1' an index of shards,
// '2' the head of an answer, '3' a name, '4' an endpoint and behind a newline a redirect from it.
#include "tools/hub_parts.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void choose(const qn_hub_listing *l) {
    static const char *const names[] = {"o/n", "o/n:Q4_K_M", "o/n:a"};
    for (int i = 0; i < 6; i++) {
        qn_hub_name name;
        qn_hub_pick pick = {0};
        qn_error err = {0};
        if (!qn_hub_name_parse(names[i % 3], &name)) abort();
        qn_status st = qn_hub_choose(&name, i < 3 ? QN_HUB_MODEL : QN_HUB_TOKENIZER, l, &pick, &err);
        if ((st == QN_OK) != (err.status == QN_OK)) abort();
        // Nothing is picked but files of the listing, each with a path below the folder.
        for (size_t k = 0; k < pick.n; k++) {
            if (pick.files[k] < l->files || pick.files[k] >= l->files + l->n) abort();
            if (!qn_hub_path_ok(qn_str_from(pick.files[k]->path))) abort();
        }
        qn_hub_pick_free(&pick);
    }
}

static void index_of_shards(const char *text, size_t len) {
    qn_hub_listing l = {0};
    qn_hub_pick pick = {0};
    if (!qn_hub_listing_add(&l, QN_STR("a.safetensors"), 1, "") || !qn_hub_listing_add(&l, QN_STR("b.bin"), 1, "") ||
        !qn_hub_listing_add(&l, QN_STR("c.safetensors"), 1, "")) {
        abort();
    }
    if (qn_hub_add_shards(&l, text, len, &pick, NULL) == QN_OK && pick.n > 2) abort();
    qn_hub_pick_free(&pick);
    qn_hub_listing_free(&l);
}

static void head(const char *text, size_t len) {
    qn_hub_head h;
    qn_hub_head_clear(&h);
    for (size_t i = 0; i < len;) {
        const char *end = memchr(text + i, '\n', len - i);
        size_t n = end ? (size_t)(end - text) - i + 1 : len - i;
        qn_hub_head_line(&h, (qn_str){text + i, n});
        i += n;
    }
    if (strlen(h.location) >= sizeof h.location || strlen(h.linked_hash) > QN_HUB_HASH_MAX) abort();
}

static void redirect(const char *text) {
    const char *newline = strchr(text, '\n');
    char *endpoint = strndup(text, newline ? (size_t)(newline - text) : strlen(text)), *next = NULL;
    const qn_hub_options o = {.endpoint = endpoint};
    qn_hub_client c;
    if (endpoint && qn_hub_client_open(&c, &o, NULL) == QN_OK) {
        if (qn_hub_redirect(&c, c.endpoint, newline ? newline + 1 : "/x", &next, NULL) == QN_OK && !c.insecure &&
            strncmp(next, "https://", 8) != 0) {
            abort();
        }
        free(next);
        qn_hub_client_close(&c);
    }
    free(endpoint);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 1 << 20) return 0;
    char *text = malloc(size);
    if (!text) return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    qn_hub_listing l = {0};
    qn_hub_name name;
    switch (data[0]) {
    case '0':
        if (qn_hub_read_listing(text, size - 1, &l, NULL) == QN_OK) choose(&l);
        qn_hub_listing_free(&l);
        break;
    case '1': index_of_shards(text, size - 1); break;
    case '2': head(text, size - 1); break;
    case '3':
        if (qn_hub_name_parse(text, &name) && (strstr(name.repo, "..") || strchr(name.choice, '/'))) abort();
        if (qn_hub_revision_ok(text) && strstr(text, "..")) abort();
        break;
    case '4': redirect(text); break;
    default: break;
    }
    free(text);
    return 0;
}
