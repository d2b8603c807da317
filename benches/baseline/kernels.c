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

// c (rows x cols of a matrix with n columns) = a (rows x k) b (k rows of cols, ldb apart).
// ROWS rows by VECTORS vectors of c stay in registers while k runs.
enum { ROWS = 4, VECTORS = 4 };

#define PRODUCT(TYPE)                                                                                             \
    typedef TYPE vec_##TYPE __attribute__((vector_size(64), aligned(sizeof(TYPE)), may_alias));                   \
    enum { LANES_##TYPE = 64 / sizeof(TYPE), WIDE_##TYPE = VECTORS * 64 / sizeof(TYPE) };                         \
    static void tile_##TYPE(const TYPE *a, const TYPE *b, uint64_t ldb, TYPE *c, uint64_t n, uint64_t k) {        \
        vec_##TYPE acc[ROWS][VECTORS];                                                                            \
        memset(acc, 0, sizeof acc);                                                                               \
        for (uint64_t p = 0; p < k; p++) {                                                                        \
            vec_##TYPE row[VECTORS];                                                                              \
            for (int v = 0; v < VECTORS; v++)                                                                     \
                row[v] = *(const vec_##TYPE *)(b + p * ldb + v * LANES_##TYPE);                                   \
            for (int i = 0; i < ROWS; i++)                                                                        \
                for (int v = 0; v < VECTORS; v++)                                                                 \
                    acc[i][v] += a[i * k + p] * row[v];                                                           \
        }                                                                                                         \
        for (int i = 0; i < ROWS; i++)                                                                            \
            for (int v = 0; v < VECTORS; v++)                                                                     \
                *(vec_##TYPE *)(c + i * n + v * LANES_##TYPE) = acc[i][v];                                        \
    }                                                                                                             \
    static void panel_##TYPE(const TYPE *a, const TYPE *b, uint64_t ldb, TYPE *c, uint64_t m, uint64_t n,         \
                             uint64_t k, uint64_t cols) {                                                         \
        uint64_t tall = cols == WIDE_##TYPE ? m / ROWS * ROWS : 0;                                                \
        for (uint64_t i = 0; i < tall; i += ROWS)                                                                 \
            tile_##TYPE(a + i * k, b, ldb, c + i * n, n, k);                                                      \
        for (uint64_t i = tall; i < m; i++)                                                                       \
            for (uint64_t j = 0; j < cols; j++) {                                                                 \
                TYPE s = 0;                                                                                       \
                for (uint64_t p = 0; p < k; p++)                                                                  \
                    s += a[i * k + p] * b[p * ldb + j];                                                           \
                c[i * n + j] = s;                                                                                 \
            }                                                                                                     \
    }

PRODUCT(float)
PRODUCT(double)

static uint64_t width(uint64_t n, uint64_t j, uint64_t wide) { return n - j < wide ? n - j : wide; }

void matmul_kernel(const float *a, const float *b, float *c, uint64_t m, uint64_t n, uint64_t k) {
    for (uint64_t j = 0; j < n; j += WIDE_float)
        panel_float(a, b + j, n, c + j, m, n, k, width(n, j, WIDE_float));
}

void pack_panels(const float *b, double *panels, uint64_t n, uint64_t k) {
    for (uint64_t j = 0; j < n; j += WIDE_double)
        for (uint64_t p = 0, cols = width(n, j, WIDE_double); p < k; p++)
            for (uint64_t i = 0; i < cols; i++)
                panels[j * k + p * cols + i] = b[p * n + j + i];
}

void expected_matmul(const double *a, const double *panels, double *c, uint64_t m, uint64_t n, uint64_t k) {
    for (uint64_t j = 0; j < n; j += WIDE_double) {
        uint64_t cols = width(n, j, WIDE_double);
        panel_double(a, panels + j * k, cols, c + j, m, n, k, cols);
    }
}
