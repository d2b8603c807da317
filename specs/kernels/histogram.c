#include <runjob.h>

// Blocks run on several threads at a time and count in the same places: the additions are atomic.
void histogram(const uint8_t *x, uint32_t *counts, uint32_t n) {
    uint32_t first = rj_block(0) * rj_block_dim(0);
    uint32_t last = n - first < rj_block_dim(0) ? n : first + rj_block_dim(0);
    for (uint32_t i = first; i < last; i++)
        __atomic_fetch_add(&counts[x[i]], 1, __ATOMIC_RELAXED);
}
