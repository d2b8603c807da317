#include <math.h>
#include <runjob.h>

// One row. The largest element is subtracted first, so that no exp overflows.
void softmax(const float *x, float *y, uint32_t cols) {
    float largest = x[0];
    for (uint32_t c = 1; c < cols; c++)
        largest = x[c] > largest ? x[c] : largest;
    float sum = 0.0f;
    for (uint32_t c = 0; c < cols; c++) {
        y[c] = expf(x[c] - largest);
        sum += y[c];
    }
    for (uint32_t c = 0; c < cols; c++)
        y[c] /= sum;
}
