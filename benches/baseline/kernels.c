#include "kernels.h"

#include <string.h>

void add_kernel(const float *x, const float *y, float *z, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        z[i] = x[i] + y[i];
}

void affine_kernel(const float *x, float *y, float scale, float shift, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        y[i] = scale * x[i] + shift;
}

// Four rows by LANES columns stay in registers while k runs.
#define ROWS 4

#define MATMUL(TYPE, LANES)                                                                                  \
    typedef TYPE vec_##TYPE __attribute__((vector_size(64), aligned(sizeof(TYPE)), may_alias));              \
    enum { LANES_##TYPE = 64 / sizeof(TYPE), WIDE_##TYPE = LANES * 64 / sizeof(TYPE) };                      \
    static void tile_##TYPE(const float *a, const TYPE *b, TYPE *c, uint64_t n, uint64_t k) {                \
        vec_##TYPE acc[ROWS][LANES];                                                                         \
        memset(acc, 0, sizeof acc);                                                                          \
        for (uint64_t p = 0; p < k; p++) {                                                                   \
            vec_##TYPE row[LANES];                                                                           \
            for (int v = 0; v < LANES; v++)                                                                  \
                row[v] = *(const vec_##TYPE *)(b + p * n + v * LANES_##TYPE);                                \
            for (int i = 0; i < ROWS; i++)                                                                   \
                for (int v = 0; v < LANES; v++)                                                              \
                    acc[i][v] += (TYPE)a[i * k + p] * row[v];                                                \
        }                                                                                                    \
        for (int i = 0; i < ROWS; i++)                                                                       \
            for (int v = 0; v < LANES; v++)                                                                  \
                *(vec_##TYPE *)(c + i * n + v * LANES_##TYPE) = acc[i][v];                                   \
    }                                                                                                        \
    static void edge_##TYPE(const float *a, const TYPE *b, TYPE *c, uint64_t n, uint64_t k, uint64_t cols) { \
        for (uint64_t j = 0; j < cols; j++) {                                                                \
            TYPE s = 0;                                                                                      \
            for (uint64_t p = 0; p < k; p++)                                                                 \
                s += (TYPE)a[p] * b[p * n + j];                                                              \
            c[j] = s;                                                                                        \
        }                                                                                                    \
    }                                                                                                        \
    static void all_##TYPE(const float *a, const TYPE *b, TYPE *c, uint64_t m, uint64_t n, uint64_t k) {     \
        uint64_t wide = n / WIDE_##TYPE * WIDE_##TYPE, tall = m / ROWS * ROWS;                               \
        for (uint64_t j = 0; j < wide; j += WIDE_##TYPE)                                                     \
            for (uint64_t i = 0; i < tall; i += ROWS)                                                        \
                tile_##TYPE(a + i * k, b + j, c + i * n + j, n, k);                                          \
        for (uint64_t i = 0; i < m; i++) {                                                                   \
            uint64_t from = i < tall ? wide : 0;                                                             \
            edge_##TYPE(a + i * k, b + from, c + i * n + from, n, k, n - from);                              \
        }                                                                                                    \
    }

MATMUL(float, 4)
MATMUL(double, 4)

void matmul_kernel(const float *a, const float *b, float *c, uint64_t m, uint64_t n, uint64_t k) { all_float(a, b, c, m, n, k); }

void expected_matmul(const float *a, const double *b, double *c, uint64_t m, uint64_t n, uint64_t k) {
    all_double(a, b, c, m, n, k);
}
