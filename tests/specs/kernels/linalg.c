#include <runjob.h>
#include <math.h>

void matmul(const float *a, const float *b, float *c, uint32_t m, uint32_t n, uint32_t k) {
    for (uint32_t i = 0; i < m; i++)
        for (uint32_t j = 0; j < n; j++) {
            float s = 0;
            for (uint32_t p = 0; p < k; p++)
                s += a[i * k + p] * b[p * n + j];
            c[i * n + j] = s;
        }
}

void transpose(const float *x, float *y, uint32_t rows, uint32_t cols) {
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < cols; j++)
            y[j * rows + i] = x[i * cols + j];
}

void softmax_rows(const float *x, float *y, uint32_t cols) {
    const float *in = x + rj_block(0) * cols;
    float *out = y + rj_block(0) * cols, top = in[0], sum = 0;
    for (uint32_t j = 1; j < cols; j++)
        top = in[j] > top ? in[j] : top;
    for (uint32_t j = 0; j < cols; j++)
        sum += out[j] = expf(in[j] - top);
    for (uint32_t j = 0; j < cols; j++)
        out[j] /= sum;
}

// The interior of a 5-point Laplacian: (h - 2) x (w - 2).
void laplace(const float *x, float *y, uint32_t h, uint32_t w) {
    for (uint32_t r = 1; r + 1 < h; r++)
        for (uint32_t c = 1; c + 1 < w; c++)
            y[(r - 1) * (w - 2) + c - 1] =
                x[(r - 1) * w + c] + x[(r + 1) * w + c] + x[r * w + c - 1] + x[r * w + c + 1] - 4 * x[r * w + c];
}

void stats(const float *x, float *total, float *largest, int32_t *positive, uint8_t *flags, uint32_t rows,
           uint32_t cols) {
    *positive = 0;
    flags[0] = 1;
    flags[1] = 0;
    for (uint32_t i = 0; i < rows; i++) {
        double s = 0;
        largest[i] = x[i * cols];
        for (uint32_t j = 0; j < cols; j++) {
            float v = x[i * cols + j];
            s += v;
            largest[i] = v > largest[i] ? v : largest[i];
            *positive += v > 0;
            flags[0] &= v < 10;
            flags[1] |= v < -10;
        }
        total[i] = (float)s;
    }
}

void gather(const float *x, const int32_t *where, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[where[i]];
}
