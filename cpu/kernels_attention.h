// SPDX-License-Identifier: Apache-2.0
// Attention of one KV head's group of query heads over the paged cache, on 16 lanes (rule 4 of
// kernels.h). Included after a lanes_*.h, kernels_math.h and kernels_linear.h.
//
// A call takes several queries (rows x heads of the group) through each span together, so that K
// and V stream once. Pages lie anywhere, so that the hardware cannot know what comes next: the tiles of
// the first queries fetch ahead (scores: the span's values and the next keys; values: the next span's
// keys). Scores of keys that only some of them see are computed and then masked; values
// are added for each query over exactly its own keys, so that nothing hidden (stale, or NaN) can
// reach a result.
#ifndef QN_CPU_KERNELS_ATTENTION_H
#define QN_CPU_KERNELS_ATTENTION_H

typedef struct query_state {
    float max, sum;           // M and L
    float span_max, span_sum; // m and l
    int32_t lo, hi;           // its visible keys of the current span; lo > hi: none
    bool started;
} query_state;

typedef struct attention_work {
    const attention_args *a;
    float *queries;     // [head_dim][queries]: one d of a tile's queries lies together
    float *scores;      // [queries][QN_KV_SPAN]
    float *part, *out;  // [queries][padded]: o of the span, O
    query_state *state; // [queries]
    int32_t n_queries, padded;
    int32_t last; // the last key that any query sees
} attention_work;

static inline const uint8_t *page_of(const attention_args *a, int32_t key) {
    return a->pages + (size_t)a->blocks[key / a->block_size] * a->page_bytes;
}

static inline const float *query_at(const attention_args *a, int32_t q) {
    return a->q + (size_t)(q / a->n_group) * a->q_stride +
           (size_t)(q % a->n_group) * (size_t)a->head_dim;
}

static inline __attribute__((always_inline)) v16 load_kv(const uint8_t *p, size_t i,
                                                         const bool f16) {
    return f16 ? v16_load_f16((const uint16_t *)(const void *)p + i)
               : v16_load((const float *)(const void *)p + i);
}

// Scores of T queries against S groups of 16 keys starting at key.
QN_TILE score_tile(const attention_work *w, int32_t query, int32_t key, const int S, const int T,
                   const bool f16) {
    const attention_args *a = w->a;
    const uint8_t *k[4], *values[4], *next[4];
    const float *q = w->queries + query;
    const size_t n = (size_t)w->n_queries, key_bytes = (size_t)a->head_dim * (f16 ? 2u : 4u);
    v16 acc[4][8];
#pragma GCC unroll 4
    for (int s = 0; s < S; s++) {
        const int32_t at = key + 16 * s, in_page = at % a->block_size;
        k[s] = page_of(a, at) + a->k_offset + (size_t)in_page * key_bytes;
        // Once for all queries: these keys' values, and the keys that come next.
        const int32_t after = at + 16 * S;
        const bool ahead = query == 0 && after <= w->last;
        values[s] = query == 0 ? page_of(a, at) + a->v_offset + (size_t)in_page * key_bytes : k[s];
        next[s] = ahead ? page_of(a, after) + a->k_offset +
                              (size_t)(after % a->block_size) * key_bytes : k[s];
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
#pragma GCC unroll 4
        for (int s = 0; s < S; s++) acc[s][t] = v16_set1(0.0f);
    }
    for (int32_t d = 0; d < a->head_dim; d++, q += n) {
        v16 kd[4];
        if (!f16 || d % 2 == 0) { // a line of 64 bytes
#pragma GCC unroll 4
            for (int s = 0; s < S; s++) {
                __builtin_prefetch(values[s] + (size_t)d * (f16 ? 32u : 64u), 0, 2);
                __builtin_prefetch(next[s] + (size_t)d * (f16 ? 32u : 64u), 0, 3);
            }
        }
#pragma GCC unroll 4
        for (int s = 0; s < S; s++) kd[s] = load_kv(k[s], (size_t)d * 16, f16);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const v16 qd = v16_set1(q[t]);
#pragma GCC unroll 4
            for (int s = 0; s < S; s++) acc[s][t] = v16_fma(qd, kd[s], acc[s][t]);
        }
    }
    const v16 scale = v16_set1(a->scale), cap = v16_set1(a->softcap);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
#pragma GCC unroll 4
        for (int s = 0; s < S; s++) {
            v16 v = v16_mul(acc[s][t], scale);
            if (a->softcap > 0) v = v16_mul(cap, v16_tanh(v16_div(v, cap)));
            v16_store(w->scores + (size_t)(query + t) * QN_KV_SPAN +
                          (size_t)(key % QN_KV_SPAN + 16 * s), v);
        }
    }
}

// The tiles that most of the time is spent in are functions of their own: inlined into one large
// function, their accumulators would compete for registers with everything around them.
#define QN_HOT static __attribute__((noinline)) void

QN_HOT score_many(const attention_work *w, int32_t query, int32_t key, bool f16) {
    if (f16) score_tile(w, query, key, SCORE_SUBS, SCORE_QUERIES, true);
    else score_tile(w, query, key, SCORE_SUBS, SCORE_QUERIES, false);
}

QN_HOT score_two(const attention_work *w, int32_t query, int32_t key, bool f16) {
    if (f16) score_tile(w, query, key, SCORE_SUBS_FEW, 2, true);
    else score_tile(w, query, key, SCORE_SUBS_FEW, 2, false);
}

// S groups of 16 keys against all queries; few queries take more groups at once, so that there are
// always enough independent chains.
QN_TILE score_keys(const attention_work *w, int32_t key, const int S, const bool f16) {
    int32_t q = 0;
    for (; q + SCORE_QUERIES <= w->n_queries; q += SCORE_QUERIES) {
        if (S == SCORE_SUBS) score_many(w, q, key, f16);
        else score_tile(w, q, key, S, SCORE_QUERIES, f16);
    }
    for (; SCORE_QUERIES > 2 && q + 2 <= w->n_queries; q += 2) score_tile(w, q, key, S, 2, f16);
    for (; q < w->n_queries; q++) score_tile(w, q, key, S, 1, f16);
}

QN_TILE score_span(const attention_work *w, int32_t lo, int32_t hi, const bool f16) {
    int32_t key = lo & ~15;
    if (w->n_queries < SCORE_QUERIES) {
        for (; key + 16 * (SCORE_SUBS_FEW - 1) <= hi; key += 16 * SCORE_SUBS_FEW) {
            int32_t q = 0;
            for (; q + 2 <= w->n_queries; q += 2) score_two(w, q, key, f16);
            if (q < w->n_queries) score_tile(w, q, key, SCORE_SUBS_FEW, 1, f16);
        }
    } else {
        for (; key + 16 * (SCORE_SUBS - 1) <= hi; key += 16 * SCORE_SUBS) {
            score_keys(w, key, SCORE_SUBS, f16);
        }
    }
    for (; key <= hi; key += 16) score_keys(w, key, 1, f16);
}

// Turns the scores of one query into p (0 for hidden keys of the groups it touches); lo and hi are
// its keys within the span.
static void softmax_span(float *scores, int32_t lo, int32_t hi, query_state *state) {
    const float hidden = -__builtin_inff();
    v16 m = v16_set1(hidden);
    for (int32_t i = lo & ~15; i <= hi; i += 16) {
        v16 s = v16_keep(v16_load(scores + i), lo - i, hi + 1 - i, hidden);
        v16_store(scores + i, s);
        m = v16_max(m, s);
    }
    state->span_max = v16_hmax(m);
    const v16 top = v16_set1(state->span_max);
    v16 l = v16_set1(0.0f);
    for (int32_t i = lo & ~15; i <= hi; i += 16) {
        v16 p = v16_exp(v16_sub(v16_load(scores + i), top));
        v16_store(scores + i, p);
        l = v16_add(l, p);
    }
    state->span_sum = v16_hsum(l);
}

// part[query + t] += p * V over keys lo..hi ascending, for T queries and N vectors of the head.
QN_TILE value_tile(const attention_work *w, int32_t query, int32_t lo, int32_t hi, int32_t d,
                   const int T, const int N, const bool f16) {
    const attention_args *a = w->a;
    v16 acc[4][8];
    float *part = w->part + (size_t)query * (size_t)w->padded + d;
    const float *p = w->scores + (size_t)query * QN_KV_SPAN;
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) {
            acc[t][n] = v16_load(part + (size_t)t * (size_t)w->padded + n * 16);
        }
    }
    for (int32_t key = lo; key <= hi;) {
        const int32_t in_page = key % a->block_size;
        const int32_t end = QN_MIN(hi, key + (a->block_size - in_page) - 1);
        const uint8_t *v = page_of(a, key) + a->v_offset;
        size_t at = (size_t)in_page * (size_t)w->padded + (size_t)d;
        // The next span's keys, those of a page for the values of a page.
        const size_t key_bytes = (size_t)a->head_dim * (f16 ? 2u : 4u);
        const bool ahead = query == 0 && d == 0 && key + QN_KV_SPAN <= w->last;
        const uint8_t *next = ahead ? page_of(a, key + QN_KV_SPAN) + a->k_offset +
                                          (size_t)in_page * key_bytes : v;
        for (; key <= end; key++, at += (size_t)w->padded) {
            v16 vn[8];
            if (ahead) {
                for (size_t i = 0; i < key_bytes; i += 64) __builtin_prefetch(next + i, 0, 2);
                next += key_bytes;
            }
#pragma GCC unroll 8
            for (int n = 0; n < N; n++) vn[n] = load_kv(v, at + (size_t)n * 16, f16);
#pragma GCC unroll 4
            for (int t = 0; t < T; t++) {
                const v16 pt = v16_set1(p[(size_t)t * QN_KV_SPAN + (size_t)(key % QN_KV_SPAN)]);
#pragma GCC unroll 8
                for (int n = 0; n < N; n++) acc[t][n] = v16_fma(pt, vn[n], acc[t][n]);
            }
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) {
            v16_store(part + (size_t)t * (size_t)w->padded + n * 16, acc[t][n]);
        }
    }
}

QN_HOT value_many(const attention_work *w, int32_t query, int32_t lo, int32_t hi, int32_t d,
                  bool f16) {
    if (f16) value_tile(w, query, lo, hi, d, VALUE_QUERIES, VALUE_VECTORS, true);
    else value_tile(w, query, lo, hi, d, VALUE_QUERIES, VALUE_VECTORS, false);
}

QN_HOT value_two(const attention_work *w, int32_t query, int32_t lo, int32_t hi, int32_t d,
                 bool f16) {
    if (f16) value_tile(w, query, lo, hi, d, 2, VALUE_VECTORS_TWO, true);
    else value_tile(w, query, lo, hi, d, 2, VALUE_VECTORS_TWO, false);
}

QN_TILE value_keys(const attention_work *w, int32_t query, int32_t lo, int32_t hi, const int T,
                   const int N, const bool f16) {
    if (lo > hi) return;
    int32_t d = 0;
    for (; d + 16 * N <= w->padded; d += 16 * N) {
        if (T == VALUE_QUERIES && T > 2) value_many(w, query, lo, hi, d, f16);
        else if (T == 2) value_two(w, query, lo, hi, d, f16);
        else value_tile(w, query, lo, hi, d, T, N, f16);
    }
    for (; d < w->padded; d += 16) value_tile(w, query, lo, hi, d, T, 1, f16);
}

// T queries together over the keys that all of them see, each alone before and after.
QN_TILE value_queries(const attention_work *w, int32_t q, const int T, const int N,
                      const bool f16) {
    const query_state *s = &w->state[q];
    int32_t lo = s[0].lo, hi = s[0].hi;
    for (int t = 1; t < T; t++) {
        lo = QN_MAX(lo, s[t].lo);
        hi = QN_MIN(hi, s[t].hi);
    }
    if (lo > hi) lo = hi + 1; // nothing in common: all of it is "after"
    for (int t = 0; t < T; t++) {
        value_keys(w, q + t, s[t].lo, QN_MIN(lo - 1, s[t].hi), 1, VALUE_VECTORS_ONE, f16);
    }
    value_keys(w, q, lo, hi, T, N, f16);
    for (int t = 0; t < T; t++) {
        value_keys(w, q + t, QN_MAX(hi + 1, s[t].lo), s[t].hi, 1, VALUE_VECTORS_ONE, f16);
    }
}

QN_TILE value_span(const attention_work *w, const bool f16) {
    memset(w->part, 0, (size_t)w->n_queries * (size_t)w->padded * sizeof(float));
    int32_t q = 0;
    for (; VALUE_QUERIES > 2 && q + VALUE_QUERIES <= w->n_queries; q += VALUE_QUERIES) {
        value_queries(w, q, VALUE_QUERIES, VALUE_VECTORS, f16);
    }
    for (; VALUE_QUERIES > 1 && q + 2 <= w->n_queries; q += 2) {
        value_queries(w, q, 2, VALUE_VECTORS_TWO, f16);
    }
    for (; q < w->n_queries; q++) {
        value_keys(w, q, w->state[q].lo, w->state[q].hi, 1, VALUE_VECTORS_ONE, f16);
    }
}

static float exp_one(float x) {
    float t[16];
    v16_store(t, v16_exp(v16_set1(x)));
    return t[0];
}

// Merges the span's (m, l, o) into the query's (M, L, O).
static void merge_span(const attention_work *w, int32_t q) {
    query_state *s = &w->state[q];
    float *out = w->out + (size_t)q * (size_t)w->padded;
    const float *part = w->part + (size_t)q * (size_t)w->padded;
    if (!s->started) {
        s->started = true;
        s->max = s->span_max;
        s->sum = s->span_sum;
        memcpy(out, part, (size_t)w->padded * sizeof(float));
        return;
    }
    const float top = s->max > s->span_max ? s->max : s->span_max;
    const float a = exp_one(s->max - top), b = exp_one(s->span_max - top);
    s->max = top;
    s->sum = fmaf(s->span_sum, b, s->sum * a);
    const v16 va = v16_set1(a), vb = v16_set1(b);
    for (int32_t d = 0; d < w->padded; d += 16) {
        v16_store(out + d, v16_fma(v16_load(part + d), vb, v16_mul(v16_load(out + d), va)));
    }
}

static void attention_rows(const attention_args *a) {
    attention_work w = {.a = a, .n_queries = a->n_rows * a->n_group,
                        .padded = round_up16(a->head_dim)};
    const size_t n = (size_t)w.n_queries, row = (size_t)w.padded;
    w.queries = a->scratch;
    w.scores = w.queries + n * (size_t)a->head_dim;
    w.part = w.scores + n * QN_KV_SPAN;
    w.out = w.part + n * row;
    w.state = (query_state *)(void *)(w.out + n * row);
    for (int32_t q = 0; q < w.n_queries; q++) {
        const float *src = query_at(a, q);
        for (int32_t d = 0; d < a->head_dim; d++) w.queries[(size_t)d * n + (size_t)q] = src[d];
        w.state[q] = (query_state){0};
    }
    const int32_t last = w.last = a->pos + a->n_rows - 1;
    const int32_t first = a->window && a->pos >= a->window ? a->pos - a->window + 1 : 0;
    for (int32_t span = first / QN_KV_SPAN * QN_KV_SPAN; span <= last; span += QN_KV_SPAN) {
        const int32_t lo = QN_MAX(span, first), hi = QN_MIN(span + QN_KV_SPAN - 1, last);
        if (a->f16) score_span(&w, lo, hi, true);
        else score_span(&w, lo, hi, false);
        for (int32_t q = 0; q < w.n_queries; q++) {
            query_state *s = &w.state[q];
            const int32_t pos = a->pos + q / a->n_group;
            s->lo = QN_MAX(span, a->window && pos >= a->window ? pos - a->window + 1 : 0);
            s->hi = QN_MIN(hi, pos);
            if (s->lo > s->hi) continue;
            softmax_span(w.scores + (size_t)q * QN_KV_SPAN, s->lo - span, s->hi - span, s);
        }
        if (a->f16) value_span(&w, true);
        else value_span(&w, false);
        for (int32_t q = 0; q < w.n_queries; q++) {
            if (w.state[q].lo <= w.state[q].hi) merge_span(&w, q);
        }
    }
    for (int32_t q = 0; q < w.n_queries; q++) {
        float *y = a->out + (size_t)(q / a->n_group) * a->out_stride +
                   (size_t)(q % a->n_group) * (size_t)a->head_dim;
        const v16 sum = v16_set1(w.state[q].sum);
        for (int32_t d = 0; d < a->head_dim; d += 16) {
            const int left = QN_MIN(16, a->head_dim - d);
            v16_store_n(y + d, v16_div(v16_load(w.out + (size_t)q * row + d), sum), left);
        }
    }
}

#endif
