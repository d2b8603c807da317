#include <runjob.h>
#include "offset.h"

#ifndef FROM_FLAGS
#error "flags did not reach the compiler"
#endif
#ifdef TEXT_TYPE
typedef TEXT_TYPE text_type;
#endif

// y = x * FACTOR + OFFSET (from the included header) + FROM_FLAGS
void not_the_kernels_name(const float *x, float *y, uint32_t n) {
    for (text_type i = 0; i < n; i++)
        y[i] = x[i] * (FACTOR) + OFFSET + FROM_FLAGS;
}
