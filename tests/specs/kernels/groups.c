#include <runjob.h>

void histogram(const uint8_t *x, uint32_t *count, uint32_t n, uint32_t bins) {
    for (uint32_t b = 0; b < bins; b++)
        count[b] = 0;
    for (uint32_t i = 0; i < n; i++)
        count[x[i]]++;
}

// The sums of all elements before each.
void scan(const int32_t *x, int64_t *y, uint32_t n) {
    int64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        y[i] = sum;
        sum += x[i];
    }
}

void spmv(const float *values, const int32_t *indices, const int32_t *indptr, const float *x, float *y, uint32_t rows) {
    for (uint32_t r = 0; r < rows; r++) {
        float s = 0;
        for (int32_t k = indptr[r]; k < indptr[r + 1]; k++)
            s += values[k] * x[indices[k]];
        y[r] = s;
    }
}

void argmax_rows(const float *x, uint32_t *y, uint32_t cols) {
    const float *in = x + rj_block(0) * cols;
    uint32_t best = 0;
    for (uint32_t j = 1; j < cols; j++)
        best = in[j] > in[best] ? j : best;
    y[rj_block(0)] = best;
}

void norm_rows(const float *x, float *y, uint32_t cols) {
    const float *in = x + rj_block(0) * cols;
    double s = 0;
    for (uint32_t j = 0; j < cols; j++)
        s += (double)in[j] * in[j];
    y[rj_block(0)] = (float)__builtin_sqrt(s);
}

// Rows of a table, each as often as it is asked for.
void embed(const float *table, const int32_t *ids, float *y, uint32_t times, uint32_t cols) {
    for (uint32_t t = 0; t < times; t++)
        for (uint32_t j = 0; j < cols; j++)
            y[(rj_block(0) * times + t) * cols + j] = table[ids[rj_block(0)] * cols + j];
}

void sort(const int32_t *x, int32_t *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = i;
        for (; at > 0 && y[at - 1] > x[i]; at--)
            y[at] = y[at - 1];
        y[at] = x[i];
    }
}

// The even positions first, then the odd ones.
void deal(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i % 2 ? (n + 1) / 2 + i / 2 : i / 2] = x[i];
}

void evens(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i += 2)
        y[i / 2] = x[i];
}
