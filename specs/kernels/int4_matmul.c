#include <runjob.h>

// As in `params`: the types and their order are checked when the kernel is built.
struct sizes {
    uint32_t m, n, k;
    float alpha;
};

// One row of y per block. A word holds eight weights of 4 bits, the first in its lowest bits; 8 stands for zero.
void int4_matmul(const float *x, const uint32_t *w, const float *scale, float *y, struct sizes p) {
    const float *row = x + (size_t)rj_block(0) * p.k;
    for (uint32_t c = 0; c < p.n; c++) {
        float sum = 0.0f;
        for (uint32_t g = 0; g < p.k / GROUP; g++) {
            float part = 0.0f;
            for (uint32_t i = g * GROUP; i < (g + 1) * GROUP; i += 8) {
                uint32_t word = w[((size_t)c * p.k + i) / 8];
                for (uint32_t j = 0; j < 8; j++)
                    part += row[i + j] * (float)((int)(word >> (4 * j) & 15) - 8);
            }
            sum += part * scale[(size_t)c * (p.k / GROUP) + g];
        }
        y[(size_t)rj_block(0) * p.n + c] = p.alpha * sum;
    }
}
