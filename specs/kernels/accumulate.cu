extern "C" __global__ void accumulate(float *__restrict__ acc, const float *__restrict__ x, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        acc[i] += x[i];
}
