#include <runjob.h>

void twice(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = 2 * undeclared_thing;
}
