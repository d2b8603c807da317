#include <runjob.h>

// The elements of this block: rj_block_dim(0) of them, fewer in the last one.
#define FIRST (rj_block(0) * rj_block_dim(0))
#define LAST (n - FIRST < rj_block_dim(0) ? n : FIRST + rj_block_dim(0))

void add(const float *x, const float *y, float *z, uint32_t n) {
    for (uint32_t i = FIRST, last = LAST; i < last; i++)
        z[i] = x[i] + y[i];
}

void affine(const float *x, float *y, float scale, float shift, uint32_t n) {
    for (uint32_t i = FIRST, last = LAST; i < last; i++)
        y[i] = scale * x[i] + shift;
}
