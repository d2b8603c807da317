#include <runjob.h>

// Called once per block: elements from `first` to `last` are its own.
void saxpy(const float *x, float *y, float a, uint32_t n) {
    uint32_t first = rj_block(0) * rj_block_dim(0);
    uint32_t last = n - first < rj_block_dim(0) ? n : first + rj_block_dim(0);
    for (uint32_t i = first; i < last; i++)
        y[i] = a * x[i] + y[i];
}
