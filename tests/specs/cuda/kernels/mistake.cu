// The mistake is in line 4.
extern "C" __global__ void mistake(const float *x, float *y) {
    unsigned i = threadIdx.x;
    y[i] = 2 * x[i]
}
