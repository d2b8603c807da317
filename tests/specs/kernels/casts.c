#include <runjob.h>

void casts(const float *x, rj_f16 *h, uint8_t *wrapped, int32_t *whole, uint32_t *bits, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        h[i] = (rj_f16)x[i];
        whole[i] = (int32_t)x[i];
        wrapped[i] = (uint8_t)(whole[i] * 3);
        bits[i] = ((uint32_t)whole[i] ^ 0xffu) & 0xfffu;
    }
}

void big(const uint64_t *x, uint64_t *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] / 3 + 1;
}
