#include <runjob.h>

void accumulate(float *acc, const float *x, uint32_t n) {
    uint32_t first = rj_block(0) * rj_block_dim(0);
    uint32_t last = n - first < rj_block_dim(0) ? n : first + rj_block_dim(0);
    for (uint32_t i = first; i < last; i++)
        acc[i] += x[i];
}
