#include <runjob.h>

// Four floats at a time; `rows` is the number of groups of four.
void add4(const rj_f32x4 *x, const rj_f32x4 *y, rj_f32x4 *z, uint32_t groups) {
    for (uint32_t i = 0; i < groups; i++)
        z[i] = x[i] + y[i];
}
