#include <runjob.h>
#include <math.h>

// y = x, some elements off: two steps up everywhere, and one element in `rare` far away.
void nearly(const float *x, float *y, float *spoilt, uint32_t n, uint32_t rare) {
    for (uint32_t i = 0; i < n; i++) {
        y[i] = nextafterf(nextafterf(x[i], INFINITY), INFINITY);
        spoilt[i] = i % rare == 0 ? 0.0f : x[i];
    }
}

void root(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = sqrtf(x[i]);
}
