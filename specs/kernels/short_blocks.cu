// Wrong on purpose: a block that is not full does nothing.
extern "C" __global__ void square(const float *__restrict__ x, float *__restrict__ y, unsigned n) {
    if ((blockIdx.x + 1) * blockDim.x > n)
        return;
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i] * x[i];
}
