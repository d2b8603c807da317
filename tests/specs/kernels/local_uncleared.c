#include <stdint.h>

// Takes for granted that its scratch is zeros at first.
void twice(const float *x, float *y, float *sum, uint32_t n) {
    for (uint32_t i = 0; i < n; ++i) {
        y[i] = 2.0f * x[i] + sum[0];
        sum[0] *= 0.0f;
    }
}
