#include "work.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels.h"

const uint32_t KEY_X[2] = {0x243f6a88u, 0x85a308d3u};
const uint32_t KEY_Y[2] = {0x13198a2eu, 0x03707344u};

// ---- Philox4x32-10 -------------------------------------------------------------------------------------------
// Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

#define M0 0xD2511F53u
#define M1 0xCD9E8D57u
#define W0 0x9E3779B9u
#define W1 0xBB67AE85u

static inline void philox(uint32_t c[4], uint32_t k0, uint32_t k1) {
    for (int r = 0; r < 10; r++) {
        uint64_t p0 = (uint64_t)M0 * c[0], p1 = (uint64_t)M1 * c[2];
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
        c[0] = n0, c[1] = (uint32_t)p1, c[2] = n2, c[3] = (uint32_t)p0;
        k0 += W0, k1 += W1;
    }
}

static void fill_portable(float *out, uint64_t first, uint64_t n, const uint32_t key[2], uint32_t round, float low,
                          float high) {
    float step = (high - low) * 0x1p-24f; // exact: a power of two
    for (uint64_t i = 0; i < n; i += 4) {
        uint64_t block = (first + i) / 4;
        uint32_t c[4] = {(uint32_t)block, (uint32_t)(block >> 32), round, 0};
        philox(c, key[0], key[1]);
        for (uint64_t j = 0; j < 4 && i + j < n; j++)
            out[i + j] = low + step * (float)(c[j] >> 8);
    }
}

#if defined(__x86_64__)
#define AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq")))
#define AVX512_INLINE AVX512 static inline __attribute__((always_inline))

// Eight counters per register: a word is the low half of a 64-bit lane, the high half holds anything.
// Multiplications ignore the high halves, so that neither masks nor blends are needed between rounds.
enum { GROUPS = 4 };

AVX512_INLINE __m512i high_halves(__m512i v) { return _mm512_shuffle_epi32(v, (_MM_PERM_ENUM)0xF5); }

AVX512_INLINE void store16(float *out, __m512i words, __m512 low, __m512 step) {
    __m512 f = _mm512_cvtepi32_ps(_mm512_srli_epi32(words, 8));
    _mm512_storeu_ps(out, _mm512_add_ps(low, _mm512_mul_ps(step, f)));
}

AVX512 static void fill_avx512(float *out, uint64_t first, uint64_t n, const uint32_t key[2], uint32_t round, float low,
                               float high) {
    // Unpacking below leaves counters in the order of the elements when they are dealt like this.
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    const __m512i m0 = _mm512_set1_epi64(M0), m1 = _mm512_set1_epi64(M1);
    const __m512 lo = _mm512_set1_ps(low), step = _mm512_set1_ps((high - low) * 0x1p-24f);
    uint64_t i = 0;
    for (; i + 32 * GROUPS <= n; i += 32 * GROUPS) {
        uint64_t block = (first + i) / 4;
        if ((uint32_t)block > UINT32_MAX - 8 * GROUPS)
            break; // a carry into the high word
        // In the first two rounds half of the state is the same for all counters.
        uint64_t p1 = (uint64_t)M1 * round;
        uint32_t c0 = (uint32_t)(p1 >> 32) ^ (uint32_t)(block >> 32) ^ key[0], c1 = (uint32_t)p1;
        uint64_t p0 = (uint64_t)M0 * c0;
        uint32_t k0 = key[0] + W0, k1 = key[1] + W1;
        __m512i c[GROUPS][4];
        for (int g = 0; g < GROUPS; g++) {
            __m512i counter = _mm512_add_epi64(_mm512_set1_epi64((int64_t)(uint32_t)block + 8 * g), order);
            __m512i a = _mm512_mul_epu32(counter, m0);
            __m512i b = _mm512_mul_epu32(_mm512_xor_si512(high_halves(a), _mm512_set1_epi64(key[1])), m1);
            c[g][0] = _mm512_xor_si512(high_halves(b), _mm512_set1_epi64(c1 ^ k0));
            c[g][1] = b;
            c[g][2] = _mm512_xor_si512(a, _mm512_set1_epi64((uint32_t)(p0 >> 32) ^ k1));
            c[g][3] = _mm512_set1_epi64((uint32_t)p0);
        }
#pragma GCC unroll 8
        for (int r = 2; r < 10; r++) {
            k0 += W0, k1 += W1;
            __m512i w0 = _mm512_set1_epi64(k0), w1 = _mm512_set1_epi64(k1);
#pragma GCC unroll 4
            for (int g = 0; g < GROUPS; g++) {
                __m512i a = _mm512_mul_epu32(c[g][0], m0), b = _mm512_mul_epu32(c[g][2], m1);
                c[g][0] = _mm512_ternarylogic_epi64(high_halves(b), c[g][1], w0, 0x96);
                c[g][1] = b;
                c[g][2] = _mm512_ternarylogic_epi64(high_halves(a), c[g][3], w1, 0x96);
                c[g][3] = a;
            }
        }
        for (int g = 0; g < GROUPS; g++) {
            __m512i c01 = _mm512_mask_shuffle_epi32(c[g][0], 0xAAAA, c[g][1], (_MM_PERM_ENUM)0xA0);
            __m512i c23 = _mm512_mask_shuffle_epi32(c[g][2], 0xAAAA, c[g][3], (_MM_PERM_ENUM)0xA0);
            store16(out + i + 32 * g, _mm512_unpacklo_epi64(c01, c23), lo, step);
            store16(out + i + 32 * g + 16, _mm512_unpackhi_epi64(c01, c23), lo, step);
        }
    }
    fill_portable(out + i, first + i, n - i, key, round, low, high);
}
#endif

fill_fn *fill = fill_portable;

// ---- Checks -----------------------------------------------------------------------------------------------------

#define RTOL 1.3e-6
#define ATOL 1e-5

static uint64_t check_portable(const float *x, const float *y, const float *z, uint64_t n) {
    uint64_t bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        double want = (double)x[i] + (double)y[i];
        bad += !(fabs((double)z[i] - want) <= ATOL + RTOL * fabs(want));
    }
    return bad;
}

#if defined(__x86_64__)
AVX512_INLINE __mmask8 wrong8(const float *x, const float *y, const float *z) {
    __m512d want = _mm512_add_pd(_mm512_cvtps_pd(_mm256_loadu_ps(x)), _mm512_cvtps_pd(_mm256_loadu_ps(y)));
    __m512d off = _mm512_abs_pd(_mm512_sub_pd(_mm512_cvtps_pd(_mm256_loadu_ps(z)), want));
    __m512d bound = _mm512_fmadd_pd(_mm512_abs_pd(want), _mm512_set1_pd(RTOL), _mm512_set1_pd(ATOL));
    return _mm512_cmp_pd_mask(off, bound, _CMP_NLE_UQ);
}

// Counts only in the chunks where something is wrong.
AVX512 static uint64_t check_avx512(const float *x, const float *y, const float *z, uint64_t n) {
    uint64_t bad = 0, i = 0;
    for (; i + 256 <= n; i += 256) {
        unsigned any = 0;
#pragma GCC unroll 4
        for (uint64_t j = i; j < i + 256; j += 8)
            any |= wrong8(x + j, y + j, z + j);
        if (any)
            bad += check_portable(x + i, y + i, z + i, 256);
    }
    return bad + check_portable(x + i, y + i, z + i, n - i);
}
#endif

check_fn *check_sum = check_portable;

uint64_t check_affine(const float *x, const float *y, uint64_t n, double scale, double shift) {
    uint64_t bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        double want = scale * (double)x[i] + shift;
        bad += !(fabs((double)y[i] - want) <= ATOL + RTOL * fabs(want));
    }
    return bad;
}

uint64_t check_values(const double *want, const float *got, uint64_t n, double rtol, double atol) {
    uint64_t bad = 0;
    for (uint64_t i = 0; i < n; i++)
        bad += !(fabs((double)got[i] - want[i]) <= atol + rtol * fabs(want[i]));
    return bad;
}

// ---- What the processor has -----------------------------------------------------------------------------------

const char *simd = "portable";

void choose(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && !getenv("BASELINE_PORTABLE"))
        fill = fill_avx512, check_sum = check_avx512, simd = "avx512";
#endif
}

// The known answers of Philox4x32-10, and both ways to fill and to check against each other.
void self_test(void) {
    uint32_t zero[4] = {0, 0, 0, 0};
    philox(zero, 0, 0);
    uint32_t pi[4] = {0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u};
    philox(pi, 0xa4093822u, 0x299f31d0u);
    float a[1003], b[1003];
    fill_portable(a, 8, 1003, KEY_X, 5, -3.0f, 2.0f);
    fill(b, 8, 1003, KEY_X, 5, -3.0f, 2.0f);
    // Compilers may fuse the last multiplication and addition in one of them.
    float apart = 0;
    for (int i = 0; i < 1003; i++)
        apart = fmaxf(apart, fabsf(a[i] - b[i]));
    if (zero[0] != 0x6627e8d5u || zero[1] != 0xe169c58du || zero[2] != 0xbc57ac4cu || zero[3] != 0x9b00dbd8u ||
        pi[0] != 0xd16cfe09u || pi[1] != 0x94fdccebu || pi[2] != 0x5001e420u || pi[3] != 0x24126ea1u ||
        apart > 5e-7f) {
        fprintf(stderr, "Philox is wrong\n");
        exit(3);
    }
    float sum[1003];
    add_kernel(a, b, sum, 1003);
    uint64_t right = check_sum(a, b, sum, 1003);
    sum[0] = NAN, sum[300] += 1e-3f, sum[1002] -= 1e-3f;
    if (right != 0 || check_sum(a, b, sum, 1003) != 3) {
        fprintf(stderr, "the check is wrong\n");
        exit(3);
    }
}

// ---- Jobs and lanes -------------------------------------------------------------------------------------------

void *aligned(uint64_t bytes) {
    void *p = aligned_alloc(2 << 20, (bytes + (2 << 20) - 1) / (2 << 20) * (2 << 20));
    if (!p) {
        fprintf(stderr, "out of memory: %llu bytes\n", (unsigned long long)bytes);
        exit(3);
    }
    memset(p, 0, bytes);
    return p;
}

void meet(job_t *job) {
    if (job->threads > 1)
        pthread_barrier_wait(&job->barrier);
}

void part(const lane_t *lane, uint64_t n, uint64_t unit, uint64_t *from, uint64_t *to) {
    uint64_t units = (n + unit - 1) / unit, t = (uint64_t)lane->job->threads, id = (uint64_t)lane->id;
    *from = units * id / t * unit;
    *to = units * (id + 1) / t * unit;
    *to = *to < n ? *to : n;
}

float chain_scale(int k) { return k % 2 ? 0.5f : 2.0f; }
float chain_shift(int k) { return (float)(k % 5) - 2.0f; }

bool read_job(job_t *job, int argc, char **argv) {
    static const char *const names[] = {"tiny", "stream", "chain", "matmul"};
    static const uint64_t sizes[] = {TINY, 16 << 20, 1 << 20, 512};
    memset(job, 0, sizeof *job);
    int mode = 0;
    while (mode < 4 && (argc < 3 || strcmp(argv[0], names[mode])))
        mode++;
    if (mode == 4)
        return false;
    job->mode = (mode_kind)mode, job->name = names[mode];
    job->rounds = strtoull(argv[1], NULL, 10);
    job->threads = atoi(argv[2]);
    uint64_t n = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    job->n = n && job->mode != MODE_TINY ? n : sizes[mode];
    // Every lane has a part: of at least 64 Ki elements, or 8 rows.
    uint64_t parts = job->mode == MODE_TINY ? UINT64_MAX : job->mode == MODE_MATMUL ? (job->n + 7) / 8 : (job->n + 65535) / 65536;
    return job->rounds && job->threads >= 1 && job->threads <= 256 && (uint64_t)job->threads <= parts;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

result_t run_lanes(job_t *job, void *(*body)(void *)) {
    pthread_barrier_init(&job->barrier, NULL, (unsigned)job->threads);
    lane_t *lanes = calloc((size_t)job->threads, sizeof *lanes);
    pthread_t *ids = calloc((size_t)job->threads, sizeof *ids);
    if (!lanes || !ids)
        exit(3);
    double start = seconds();
    for (int t = 0; t < job->threads; t++) {
        lanes[t] = (lane_t){.job = job, .id = t};
        if (t && pthread_create(&ids[t], NULL, body, &lanes[t])) {
            fprintf(stderr, "cannot start a thread\n");
            exit(3);
        }
    }
    body(&lanes[0]);
    for (int t = 1; t < job->threads; t++)
        pthread_join(ids[t], NULL);
    result_t result = {.seconds = seconds() - start};
    for (int t = 0; t < job->threads; t++) {
        result.bad += lanes[t].bad;
        result.calls += lanes[t].calls;
        result.checksum += lanes[t].checksum;
    }
    pthread_barrier_destroy(&job->barrier);
    free(lanes);
    free(ids);
    return result;
}

void print_result(const job_t *job, const result_t *result, const char *more) {
    printf("{\"mode\":\"%s\",\"n\":%llu,\"threads\":%d,\"simd\":\"%s\",\"rounds\":%llu,\"seconds\":%.6f,"
           "\"ns_per_round\":%.1f,\"checksum\":%.9g,\"mismatches\":%llu%s}\n",
           job->name, (unsigned long long)job->n, job->threads, simd, (unsigned long long)job->rounds, result->seconds,
           1e9 * result->seconds / (double)job->rounds, result->checksum, (unsigned long long)result->bad, more);
}
