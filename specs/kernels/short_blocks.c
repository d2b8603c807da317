#include <runjob.h>

// Wrong on purpose: a block that is not full does nothing.
void square(const float *x, float *y, uint32_t n) {
    uint32_t first = rj_block(0) * rj_block_dim(0);
    if (first + rj_block_dim(0) > n)
        return;
    for (uint32_t i = first; i < first + rj_block_dim(0); i++)
        y[i] = x[i] * x[i];
}
