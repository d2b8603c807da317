#include <runjob.h>

// Each block doubles its elements by way of two block-local arrays, the second of f64 and backwards.
void turn_blocks(const float *x, float *y, float *near, double *wide, uint32_t n) {
    uint32_t b = rj_block_dim(0), first = rj_block(0) * b, len = n - first < b ? n - first : b;
    for (uint32_t i = 0; i < b; i++)
        near[i] = -1.0f;
    for (uint32_t i = 0; i < len; i++)
        near[i] = x[first + i];
    for (uint32_t i = 0; i < len; i++)
        wide[i] = 2.0 * near[len - 1 - i];
    for (uint32_t i = 0; i < len; i++)
        y[first + i] = ((uintptr_t)near | (uintptr_t)wide) % 64 == 0 ? (float)wide[len - 1 - i] : 0.0f;
}
