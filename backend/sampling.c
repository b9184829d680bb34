// SPDX-License-Identifier: Apache-2.0
// Linear in the vocabulary where it can be: the largest logit and its id by scanning; top_k by a
// heap of k; top_p by a histogram of probability mass, which bounds the ids that need sorting;
// the noise only of ids that could still win.
//
// Every filter keeps a prefix of one order: logit descending, then id ascending. z = logit /
// temperature is taken in double, where distinct logits stay distinct.
#include "backend/sampling.h"

#include "base/checked.h"
#include "base/philox.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum {
    LANES = 16,
    MASS_BUCKETS = 1024, // of distance from the largest z, 1/16 each
    HEAP_MAX = 256,      // up to this many are selected with a heap; more by sorting all
};

// g = -log(-log(u)) for the largest u, 1 - 2^-33, rounded up.
static const double noise_max = 22.8739;

typedef struct candidate {
    uint32_t key; // ascending key is descending logit
    int32_t id;
} candidate;

typedef struct sampler {
    const float *logits; // as changed by point 3
    int32_t n;
    const qn_sample_row *row;
    double temperature, z_max;
    int32_t best; // id of the largest logit
    candidate *list, *other;
} sampler;

static size_t part(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

size_t qn_sample_scratch_bytes(int32_t vocab_size) {
    const size_t n = (size_t)vocab_size;
    return 2 * part(n * sizeof(candidate)) + part(n * sizeof(float)) +
           part(MASS_BUCKETS * sizeof(double)) + 64;
}

// e[j] = exp(x[j]) for x <= 0, and 0 below -700; 1 ulp. Plain multiplications and additions, so
// that every machine gives the same bits; lane by lane, so that compilers use vectors.
static void exp_lanes(const double *x, double *e) {
    const double magic = 0x1.8p52; // the sum's low bits are the integer
    static const double series[] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880,
                                    1.0 / 40320,     1.0 / 5040,     1.0 / 720,     1.0 / 120,
                                    1.0 / 24,        1.0 / 6,        0.5,           1.0,
                                    1.0};
    double t[LANES], r[LANES], p[LANES];
    uint64_t u[LANES];
    for (int j = 0; j < LANES; j++) {
        const double c = x[j] < -700.0 ? -700.0 : x[j];
        t[j] = c * 0x1.71547652b82fep+0 + magic;
        const double n = t[j] - magic;
        r[j] = (c - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
        p[j] = 1.0 / 6227020800;
    }
    for (size_t i = 0; i < QN_COUNT(series); i++) {
        for (int j = 0; j < LANES; j++) p[j] = p[j] * r[j] + series[i];
    }
    memcpy(u, t, sizeof u);
    for (int j = 0; j < LANES; j++) u[j] = (u[j] << 52) + 0x3ff0000000000000u;
    memcpy(t, u, sizeof t);
    for (int j = 0; j < LANES; j++) e[j] = x[j] < -700.0 ? 0.0 : p[j] * t[j];
}

static double exp_negative(double x) {
    double in[LANES] = {x}, e[LANES];
    exp_lanes(in, e);
    return e[0];
}

// log(x) for normal x > 0: x = 2^e m, log m = 2 atanh((m - 1) / (m + 1)) as a series; 1 ulp.
static double log_positive(double x) {
    union {
        double d;
        uint64_t u;
    } v = {x};
    // m in [sqrt(1/2), sqrt(2)).
    const uint64_t shifted = v.u - 0x3fe6a09e667f3bcdu;
    const int64_t e = (int64_t)shifted >> 52;
    v.u -= (uint64_t)e << 52;
    const double s = (v.d - 1.0) / (v.d + 1.0), s2 = s * s;
    double p = 0.0;
    for (int i = 21; i >= 3; i -= 2) p = p * s2 + 1.0 / i;
    p = p * s2;
    const double n = (double)e;
    return n * 0x1.62e42feep-1 + (2.0 * s + (2.0 * s * p + n * 0x1.a39ef35793c76p-33));
}

static double noise_of(uint32_t word) {
    const double u = ((double)word + 0.5) * 0x1p-32;
    return -log_positive(-log_positive(u));
}

static uint32_t noise_word(const qn_sample_row *row, int32_t id) {
    const uint32_t counter[4] = {(uint32_t)id, (uint32_t)row->position, (uint32_t)row->choice, 0};
    uint32_t out[4];
    qn_philox4x32(row->seed, counter, out);
    return out[0];
}

// The largest value; false where one is NaN or +inf, or none is finite.
static bool find_max(const float *x, int32_t n, float *max) {
    float m[LANES];
    uint32_t bad[LANES] = {0};
    for (int j = 0; j < LANES; j++) m[j] = -INFINITY;
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            const float v = x[i + j];
            m[j] = v > m[j] ? v : m[j];
            bad[j] |= v < INFINITY ? 0u : 1u;
        }
    }
    for (int j = 0; i < n; i++, j++) {
        m[j] = x[i] > m[j] ? x[i] : m[j];
        bad[j] |= x[i] < INFINITY ? 0u : 1u;
    }
    uint32_t any = 0;
    *max = -INFINITY;
    for (int j = 0; j < LANES; j++) {
        any |= bad[j];
        *max = m[j] > *max ? m[j] : *max;
    }
    return !any && *max > -INFINITY;
}

static int32_t first_equal(const float *x, int32_t n, float value) {
    int32_t i = 0;
    while (i < n - 1 && x[i] != value) i++;
    return i;
}

// log of the sum of exp(x - max), the sum in 16 lanes.
static double log_sum_exp(const float *x, int32_t n, float max) {
    double sum[LANES] = {0}, d[LANES], e[LANES], total = 0;
    for (int32_t i = 0; i < n; i += LANES) {
        const int32_t left = n - i;
        for (int j = 0; j < LANES; j++) d[j] = j < left ? (double)x[i + j] - (double)max : -1e9;
        exp_lanes(d, e);
        for (int j = 0; j < LANES; j++) sum[j] += e[j];
    }
    for (int j = 0; j < LANES; j++) total += sum[j];
    return log_positive(total);
}

static uint32_t key_of(float logit) {
    const float v = logit + 0.0f; // -0 and 0 are equal
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return u >> 31 ? u : ~(u | 0x80000000u);
}

static float logit_of(uint32_t key) {
    const uint32_t u = key >> 31 ? key : ~key & 0x7fffffffu;
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}

static bool after(candidate a, candidate b) {
    return a.key != b.key ? a.key > b.key : a.id > b.id;
}

static void sift_down(candidate *heap, int32_t n, int32_t i) {
    for (;;) {
        int32_t child = 2 * i + 1;
        if (child >= n) return;
        if (child + 1 < n && after(heap[child + 1], heap[child])) child++;
        if (!after(heap[child], heap[i])) return;
        const candidate t = heap[i];
        heap[i] = heap[child];
        heap[child] = t;
        i = child;
    }
}

// Sorts by key, then id. list holds ascending ids unless n is small. Stable, so equal keys stay in
// the order of ids.
static void sort_candidates(candidate *list, candidate *other, int32_t n) {
    if (n <= 64) {
        for (int32_t i = 1; i < n; i++) {
            const candidate c = list[i];
            int32_t j = i;
            for (; j > 0 && after(list[j - 1], c); j--) list[j] = list[j - 1];
            list[j] = c;
        }
        return;
    }
    for (int shift = 0; shift < 32; shift += 8) {
        int32_t count[257] = {0};
        for (int32_t i = 0; i < n; i++) count[((list[i].key >> shift) & 255) + 1]++;
        for (int b = 0; b < 256; b++) count[b + 1] += count[b];
        for (int32_t i = 0; i < n; i++) other[count[(list[i].key >> shift) & 255]++] = list[i];
        candidate *t = list;
        list = other;
        other = t;
    }
}

static void heap_sort(candidate *heap, int32_t n) {
    for (int32_t end = n - 1; end > 0; end--) {
        const candidate t = heap[0];
        heap[0] = heap[end];
        heap[end] = t;
        sift_down(heap, end, 0);
    }
}

// The k largest finite logits in order, k <= HEAP_MAX; returns how many there are.
static int32_t select_heap(const float *x, int32_t n, int32_t k, candidate *list) {
    int32_t count = 0;
    float threshold = -INFINITY; // the worst that is kept, once k are
    for (int32_t i = 0; i < n; i++) {
        if (!(x[i] > threshold)) continue;
        const candidate c = {key_of(x[i]), i};
        if (count < k) {
            list[count++] = c;
            if (count < k) continue;
            for (int32_t j = k / 2 - 1; j >= 0; j--) sift_down(list, k, j);
        } else {
            list[0] = c;
            sift_down(list, k, 0);
        }
        threshold = logit_of(list[0].key);
    }
    if (count < k) {
        for (int32_t j = count / 2 - 1; j >= 0; j--) sift_down(list, count, j);
    }
    heap_sort(list, count);
    return count;
}

static double distance(const sampler *s, float logit) {
    return s->z_max - (double)logit / s->temperature;
}

static int32_t select_top_k(const sampler *s, int32_t k) {
    if (k <= HEAP_MAX) return select_heap(s->logits, s->n, k, s->list);
    int32_t count = 0;
    for (int32_t i = 0; i < s->n; i++) {
        if (s->logits[i] > -INFINITY) s->list[count++] = (candidate){key_of(s->logits[i]), i};
    }
    sort_candidates(s->list, s->other, count);
    return QN_MIN(count, k);
}

static int32_t bucket_of(double distance) {
    const double b = distance * 16.0;
    return b < MASS_BUCKETS - 1 ? (int32_t)b : MASS_BUCKETS - 1;
}

// Candidates, in order, that hold every member of the top_p set; *total: the sum over all ids.
static int32_t select_mass(const sampler *s, double top_p, double *mass, double *total) {
    memset(mass, 0, MASS_BUCKETS * sizeof *mass);
    double d[LANES], e[LANES];
    *total = 0;
    for (int32_t i = 0; i < s->n; i += LANES) {
        const int32_t left = s->n - i;
        for (int j = 0; j < LANES; j++) {
            d[j] = j < left ? (double)s->logits[i + j] / s->temperature - s->z_max : -1e9;
        }
        exp_lanes(d, e);
        for (int j = 0; j < LANES; j++) {
            if (e[j] > 0) mass[bucket_of(-d[j])] += e[j];
            *total += e[j];
        }
    }
    // The margin is far above the rounding of the sums, so that the bucket of the cut is inside.
    const double want = top_p * *total * (1 + 1e-9);
    int32_t last = 0;
    for (double sum = mass[0]; sum < want && last < MASS_BUCKETS - 1;) sum += mass[++last];
    int32_t count = 0;
    for (int32_t i = 0; i < s->n; i++) {
        const float x = s->logits[i];
        if (x > -INFINITY && bucket_of(distance(s, x)) <= last) {
            s->list[count++] = (candidate){key_of(x), i};
        }
    }
    sort_candidates(s->list, s->other, count);
    return count;
}

// exp(-distance) of list[begin] and those after it; 0 past n.
static void list_lanes(const sampler *s, int32_t begin, int32_t n, double *e) {
    double d[LANES];
    for (int32_t j = 0; j < LANES; j++) {
        d[j] = begin + j < n ? -distance(s, logit_of(s->list[begin + j].key)) : -1e9;
    }
    exp_lanes(d, e);
}

static double sum_list(const sampler *s, int32_t n) {
    double e[LANES], sum = 0;
    for (int32_t i = 0; i < n; i += LANES) {
        list_lanes(s, i, n, e);
        for (int32_t j = 0; j < LANES; j++) sum += e[j];
    }
    return sum;
}

// The shortest prefix whose probabilities reach top_p of the total.
static int32_t cut_top_p(const sampler *s, int32_t n, double top_p, double total) {
    double e[LANES], sum = 0;
    for (int32_t i = 0; i < n; i += LANES) {
        list_lanes(s, i, n, e);
        for (int32_t j = 0; j < LANES && i + j < n; j++) {
            sum += e[j];
            if (sum >= top_p * total) return i + j + 1;
        }
    }
    return n;
}

static int32_t cut_min_p(const sampler *s, int32_t n, double min_p) {
    double e[LANES];
    for (int32_t i = 0; i < n; i += LANES) {
        list_lanes(s, i, n, e);
        for (int32_t j = 0; j < LANES && i + j < n; j++) {
            if (e[j] < min_p) return i + j;
        }
    }
    return n;
}

static int32_t sample_list(const sampler *s, int32_t n) {
    double best = -INFINITY;
    int32_t id = s->best;
    for (int32_t i = 0; i < n; i++) {
        const double z = (double)logit_of(s->list[i].key) / s->temperature;
        if (z + noise_max < best) break; // and all that follow
        const double v = z + noise_of(noise_word(s->row, s->list[i].id));
        if (v > best || (v == best && s->list[i].id < id)) {
            best = v;
            id = s->list[i].id;
        }
    }
    return id;
}

// Over all ids with exp(-distance) >= min_p.
static int32_t sample_all(const sampler *s, double min_p) {
    // g > t needs 1 - u < exp(-t), for -log(u) >= 1 - u: most words are refused without a
    // logarithm. limit[i] bounds 2^32 exp(-t) for t in [i/4, (i+1)/4).
    double limit[96];
    for (int i = 0; i < 96; i++) limit[i] = 4294967296.0 * exp_negative(-0.25 * i) + 2.0;
    double best = s->z_max + noise_of(noise_word(s->row, s->best));
    int32_t id = s->best;
    const double far = min_p > 0 ? -log_positive(min_p) + 1e-6 : INFINITY;
    for (int32_t i = 0; i < s->n; i++) {
        const double z = (double)s->logits[i] / s->temperature;
        const double t = best - z;
        if (!(t <= noise_max) || s->z_max - z > far || i == s->best) continue;
        const uint32_t word = noise_word(s->row, i);
        if (t > 0 && 4294967296.0 - (double)word > limit[(int)(t * 4.0)]) continue;
        if (min_p > 0 && exp_negative(z - s->z_max) < min_p) continue;
        const double v = z + noise_of(word);
        if (v > best || (v == best && i < id)) {
            best = v;
            id = i;
        }
    }
    return id;
}

static int32_t choose(const sampler *s, double *mass) {
    const qn_sample_row *row = s->row;
    const bool top_k = row->top_k > 0 && row->top_k < s->n, top_p = row->top_p < 1.0f;
    if (!top_k && !top_p) return sample_all(s, (double)row->min_p);
    int32_t n;
    double total = 0;
    if (top_k) {
        n = select_top_k(s, row->top_k);
        if (top_p) total = sum_list(s, n);
    } else {
        n = select_mass(s, (double)row->top_p, mass, &total);
    }
    if (top_p) n = cut_top_p(s, n, (double)row->top_p, total);
    if (row->min_p > 0) n = cut_min_p(s, n, (double)row->min_p);
    return sample_list(s, n);
}

static int32_t count_larger(const float *x, int32_t n, float value) {
    int32_t count[LANES] = {0}, total = 0, i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) count[j] += x[i + j] > value;
    }
    for (; i < n; i++) total += x[i] > value;
    for (int j = 0; j < LANES; j++) total += count[j];
    return total;
}

static void log_probabilities(const float *logits, int32_t n, float max, int32_t want,
                              candidate *list, qn_sample *out) {
    const double lse = log_sum_exp(logits, n, max);
    out->logprob = (float)((double)logits[out->id] - (double)max - lse);
    out->rank = 1 + count_larger(logits, n, logits[out->id]);
    if (want <= 0) return;
    out->n_top = select_heap(logits, n, QN_MIN(want, (int32_t)QN_MAX_TOP_LOGPROBS), list);
    for (int32_t i = 0; i < out->n_top; i++) {
        out->top_ids[i] = list[i].id;
        out->top_logprobs[i] = (float)((double)logits[list[i].id] - (double)max - lse);
    }
}

static float to_float(double x) {
    if (x > (double)FLT_MAX) return FLT_MAX;
    if (x < -(double)FLT_MAX) return -FLT_MAX;
    return (float)x;
}

// counts [n]: twice how often an id is in the output; 1 more if it is in the prompt.
static void count_history(const qn_sample_row *row, int32_t n, uint32_t *counts) {
    memset(counts, 0, (size_t)n * sizeof *counts);
    for (int32_t i = 0; i < row->n_output; i++) {
        const int32_t id = row->output[i];
        if (id >= 0 && id < n) counts[id] += 2;
    }
    for (int32_t i = 0; i < row->n_prompt; i++) {
        const int32_t id = row->prompt[i];
        if (id >= 0 && id < n) counts[id] |= 1;
    }
}

static void penalize(const qn_sample_row *row, const uint32_t *counts, int32_t n, float *x) {
    const double r = row->repetition_penalty > 0 ? (double)row->repetition_penalty : 1.0;
    for (int32_t i = 0; i < n; i++) {
        if (counts[i] == 0 || x[i] == -INFINITY) continue;
        double v = (double)x[i];
        v = v > 0 ? v / r : v * r;
        const uint32_t outputs = counts[i] / 2;
        if (outputs > 0) {
            v -= (double)row->frequency_penalty * (double)outputs;
            v -= (double)row->presence_penalty;
        }
        x[i] = to_float(v);
    }
}

static bool changes_logits(const qn_sample_row *row) {
    return row->n_banned > 0 || row->allowed || row->n_biases > 0 || qn_sample_has_penalties(row);
}

// Point 3 of the header. counts: scratch of n words.
static void change_logits(const float *logits, int32_t n, const qn_sample_row *row,
                          uint32_t *counts, float *x) {
    memcpy(x, logits, (size_t)n * sizeof *x);
    for (int32_t i = 0; row->allowed && i < n; i++) {
        if (!(row->allowed[i / 32] >> (i % 32) & 1)) x[i] = -INFINITY;
    }
    for (int32_t i = 0; i < row->n_banned; i++) {
        const int32_t id = row->banned[i];
        if (id >= 0 && id < n) x[id] = -INFINITY;
    }
    for (int32_t i = 0; i < row->n_biases; i++) {
        const int32_t id = row->bias_ids[i];
        if (id < 0 || id >= n || x[id] == -INFINITY) continue;
        x[id] = to_float((double)x[id] + (double)row->biases[i]);
    }
    if (qn_sample_has_penalties(row)) {
        count_history(row, n, counts);
        penalize(row, counts, n, x);
    }
}

void qn_sample_logits(const float *logits, int32_t vocab_size, const qn_sample_row *row,
                      void *scratch, qn_sample *out) {
    *out = (qn_sample){.status = QN_OK, .id = -1};
    const size_t n = (size_t)vocab_size;
    char *at = (char *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    sampler s = {.logits = logits, .n = vocab_size, .row = row};
    s.list = (candidate *)(void *)at;
    at += part(n * sizeof(candidate));
    s.other = (candidate *)(void *)at;
    at += part(n * sizeof(candidate));
    double *mass = (double *)(void *)at;
    at += part(MASS_BUCKETS * sizeof(double));
    float *masked = (float *)(void *)at;
    float max;
    if (!find_max(logits, vocab_size, &max)) {
        out->status = QN_ERR_NUMERIC;
        return;
    }
    if (row->score_only) {
        out->id = row->target;
        if (row->n_logprobs >= 0) {
            log_probabilities(logits, vocab_size, max, row->n_logprobs, s.list, out);
        }
        return;
    }
    float allowed = max;
    if (changes_logits(row)) {
        change_logits(logits, vocab_size, row, (uint32_t *)(void *)s.other, masked);
        s.logits = masked;
        if (!find_max(masked, vocab_size, &allowed)) {
            out->status = QN_ERR_INVALID;
            return;
        }
    }
    s.best = first_equal(s.logits, vocab_size, allowed);
    if (row->temperature > 0 && row->top_k != 1) {
        s.temperature = (double)row->temperature;
        s.z_max = (double)allowed / s.temperature;
        out->id = choose(&s, mass);
    } else {
        out->id = s.best;
    }
    if (row->n_logprobs >= 0) {
        log_probabilities(logits, vocab_size, max, row->n_logprobs, s.list, out);
    }
}
