#include <runjob.h>

// One TILE x TILE tile of c per block. ta, tb and acc are block-local scratch from the spec.
void matmul(const float *a, const float *b, float *c, float *ta, float *tb, float *acc,
            uint32_t m, uint32_t n, uint32_t k) {
    uint32_t row0 = rj_block(1) * TILE, col0 = rj_block(0) * TILE;
    for (uint32_t i = 0; i < TILE * TILE; i++)
        acc[i] = 0.0f;
    for (uint32_t k0 = 0; k0 < k; k0 += TILE) {
        // Both tiles are padded with zeros, so that the inner loops need no bounds.
        for (uint32_t i = 0; i < TILE; i++)
            for (uint32_t j = 0; j < TILE; j++) {
                ta[i * TILE + j] = row0 + i < m && k0 + j < k ? a[(size_t)(row0 + i) * k + k0 + j] : 0.0f;
                tb[i * TILE + j] = k0 + i < k && col0 + j < n ? b[(size_t)(k0 + i) * n + col0 + j] : 0.0f;
            }
        for (uint32_t i = 0; i < TILE; i++)
            for (uint32_t p = 0; p < TILE; p++)
                for (uint32_t j = 0; j < TILE; j++)
                    acc[i * TILE + j] += ta[i * TILE + p] * tb[p * TILE + j];
    }
    for (uint32_t i = 0; i < TILE && row0 + i < m; i++)
        for (uint32_t j = 0; j < TILE && col0 + j < n; j++)
            c[(size_t)(row0 + i) * n + col0 + j] = acc[i * TILE + j];
}
