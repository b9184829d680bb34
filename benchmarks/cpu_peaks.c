// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/cpu_peaks.h"

#include "base/os.h"
#include "cpu/kernels.h"

#include <stdlib.h>
#include <string.h>

double best_seconds(void (*fn)(void *), void *arg) {
    double best = 1e30, total = 0;
    for (int i = 0; i < 5 || total < 0.5; i++) {
        const uint64_t start = qn_os_now_ns();
        fn(arg);
        const double s = (double)(qn_os_now_ns() - start) * 1e-9;
        total += s;
        if (i > 0 && s < best) best = s;
    }
    return best;
}

#ifdef QN_CPU_X86
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma")))
#define VNNI __attribute__((target("avx512f,avx512vl,avx512bw,avx512vnni")))

enum { SPIN = 1 << 14, PIECE = 1 << 20, PIECES = 384, PIECES_A_RUN = 24 };

typedef struct probe {
    pool *pool;
    pool_fn fn;
    int32_t n;
    const char *data;
    size_t offset;
} probe;

static void run_probe(void *arg) {
    probe *p = arg;
    p->offset = (p->offset + PIECES_A_RUN) % PIECES; // data that no cache holds any more
    pool_run(p->pool, p->fn, p, p->n);
}

VNNI static void spin_vnni(void *user, int32_t item, int32_t worker) {
    (void)user;
    (void)worker;
    __m512i a[16], x = _mm512_set1_epi32(item), w = _mm512_set1_epi32(3);
    for (int i = 0; i < 16; i++) a[i] = _mm512_set1_epi32(i);
    for (int i = 0; i < SPIN; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < 16; j++) a[j] = _mm512_dpbusd_epi32(a[j], w, x);
        __asm__ volatile("" : "+v"(x), "+v"(w));
    }
    for (int i = 1; i < 16; i++) a[0] = _mm512_add_epi32(a[0], a[i]);
    volatile int sink = _mm512_reduce_add_epi32(a[0]);
    (void)sink;
}

VNNI static void spin_fma512(void *user, int32_t item, int32_t worker) {
    (void)user;
    (void)worker;
    __m512 a[16], x = _mm512_set1_ps((float)item), w = _mm512_set1_ps(0.5f);
    for (int i = 0; i < 16; i++) a[i] = _mm512_set1_ps((float)i);
    for (int i = 0; i < SPIN; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < 16; j++) a[j] = _mm512_fmadd_ps(a[j], w, x);
        __asm__ volatile("" : "+v"(x), "+v"(w));
    }
    for (int i = 1; i < 16; i++) a[0] = _mm512_add_ps(a[0], a[i]);
    volatile float sink = _mm512_reduce_add_ps(a[0]);
    (void)sink;
}

AVX2 static void spin_fma256(void *user, int32_t item, int32_t worker) {
    (void)user;
    (void)worker;
    __m256 a[12], x = _mm256_set1_ps((float)item), w = _mm256_set1_ps(0.5f);
    for (int i = 0; i < 12; i++) a[i] = _mm256_set1_ps((float)i);
    for (int i = 0; i < SPIN; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) a[j] = _mm256_fmadd_ps(a[j], w, x);
        __asm__ volatile("" : "+x"(x), "+x"(w));
    }
    for (int i = 1; i < 12; i++) a[0] = _mm256_add_ps(a[0], a[i]);
    volatile float sink = _mm256_cvtss_f32(a[0]);
    (void)sink;
}

AVX2 static void read_piece(const char *p, size_t ahead) {
    __m256i s0 = _mm256_setzero_si256(), s1 = s0;
    for (size_t i = 0; i < PIECE; i += 64) {
        if (ahead) _mm_prefetch(p + i + ahead, _MM_HINT_T1);
        s0 = _mm256_xor_si256(s0, _mm256_load_si256((const __m256i *)(const void *)(p + i)));
        s1 = _mm256_xor_si256(s1, _mm256_load_si256((const __m256i *)(const void *)(p + i + 32)));
    }
    volatile int sink = _mm256_extract_epi32(_mm256_xor_si256(s0, s1), 0);
    (void)sink;
}

static const char *piece_of(const probe *p, int32_t item) {
    return p->data + (p->offset + (size_t)item) * PIECE;
}

static void read_plain(void *user, int32_t item, int32_t worker) {
    (void)worker;
    read_piece(piece_of(user, item), 0);
}

static void read_near(void *user, int32_t item, int32_t worker) {
    (void)worker;
    read_piece(piece_of(user, item), 2048);
}

static void read_far(void *user, int32_t item, int32_t worker) {
    (void)worker;
    read_piece(piece_of(user, item), 8192);
}

cpu_peaks measure_peaks(pool *p) {
    cpu_peaks peaks = {0};
    const int32_t threads = pool_threads(p);
    const double spins = (double)threads * 4 * SPIN;
    probe it = {.pool = p, .n = threads * 4};
    if (qn_cpu_kernels_find("avx512vnni")) {
        it.fn = spin_vnni;
        peaks.int8_top = spins * 16 * 64 * 2 / best_seconds(run_probe, &it) * 1e-12;
        it.fn = spin_fma512;
        peaks.fma_top = spins * 16 * 16 * 2 / best_seconds(run_probe, &it) * 1e-12;
    } else if (qn_cpu_kernels_find("avx2")) {
        it.fn = spin_fma256;
        peaks.fma_top = spins * 12 * 8 * 2 / best_seconds(run_probe, &it) * 1e-12;
    }
    char *data = qn_os_pages_alloc((size_t)PIECE * PIECES + 65536);
    if (data) {
        memset(data, 1, (size_t)PIECE * PIECES);
        it.data = data;
        it.n = PIECES_A_RUN;
        static const pool_fn ways[] = {read_plain, read_near, read_far};
        for (size_t i = 0; i < 3; i++) {
            it.fn = ways[i];
            const double gb = (double)PIECE * PIECES_A_RUN / best_seconds(run_probe, &it) * 1e-9;
            if (gb > peaks.read_gb) peaks.read_gb = gb;
        }
        qn_os_pages_free(data, (size_t)PIECE * PIECES + 65536);
    }
    return peaks;
}
#else
cpu_peaks measure_peaks(pool *p) {
    (void)p;
    return (cpu_peaks){0};
}
#endif
