// One source for two kernels; `near.h` lies beside it, `far.h` in a folder that the spec names.
#include "near.h"
#include "far.h"

extern "C" __global__ void scale(const float *x, float *y, float a) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = NEAR * a * x[i] + FAR;
}

#ifdef FLAG
extern "C" __global__ void flagged(const float *x, float *y) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i] + FLAG;
}
#endif
