// One source for two kernels; `near.h` lies beside it, `far.h` in a folder that the spec names.
#include "near.h"
#include "far.h"

kernel void scale(global const float *x, global float *y, float a) {
    size_t i = get_global_id(0);
    y[i] = NEAR * a * x[i] + FAR;
}

#ifdef FLAG
kernel void flagged(global const float *x, global float *y) {
    size_t i = get_global_id(0);
    y[i] = x[i] + FLAG;
}
#endif
