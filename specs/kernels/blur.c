#include <runjob.h>

// 3x3 binomial blur of a grey image, edges clamped, rounded to nearest. One block is BAND rows.
void blur(const uint8_t *image, uint8_t *blurred, uint32_t h, uint32_t w) {
    static const int weight[3] = {1, 2, 1};
    for (uint32_t r = rj_block(0) * BAND; r < h && r < (rj_block(0) + 1) * BAND; r++)
        for (uint32_t c = 0; c < w; c++) {
            int sum = 8;
            for (int dr = -1; dr <= 1; dr++)
                for (int dc = -1; dc <= 1; dc++) {
                    uint32_t rr = dr < 0 && r == 0 ? 0 : dr > 0 && r == h - 1 ? h - 1 : r + dr;
                    uint32_t cc = dc < 0 && c == 0 ? 0 : dc > 0 && c == w - 1 ? w - 1 : c + dc;
                    sum += weight[dr + 1] * weight[dc + 1] * image[(size_t)rr * w + cc];
                }
            blurred[(size_t)r * w + c] = (uint8_t)(sum >> 4);
        }
}
