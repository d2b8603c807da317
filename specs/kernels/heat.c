#include <runjob.h>

// One step of dst = src + c * laplacian(src) on a block of rows and columns; the rim keeps its values.
void heat(const float *src, float *dst, uint32_t h, uint32_t w, float c) {
    uint32_t r0 = rj_block(1) * rj_block_dim(1), c0 = rj_block(0) * rj_block_dim(0);
    for (uint32_t row = r0; row < h && row < r0 + rj_block_dim(1); row++)
        for (uint32_t col = c0; col < w && col < c0 + rj_block_dim(0); col++) {
            size_t i = (size_t)row * w + col;
            if (row == 0 || row == h - 1 || col == 0 || col == w - 1)
                dst[i] = src[i];
            else
                dst[i] = src[i] + c * (src[i - w] + src[i + w] + src[i - 1] + src[i + 1] - 4.0f * src[i]);
        }
}
