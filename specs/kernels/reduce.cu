// The sum over all threads of the block, in thread 0: halves are folded onto each other, so GROUP is a power of two.
__device__ float block_sum(float value) {
    __shared__ float t[GROUP];
    unsigned i = threadIdx.x;
    t[i] = value;
    __syncthreads();
    for (unsigned reach = GROUP / 2; reach > 0; reach /= 2) {
        if (i < reach)
            t[i] += t[i + reach];
        __syncthreads();
    }
    return t[0];
}

// Sum of one block's elements: all blocks go through x side by side, so that neighbours read neighbours.
extern "C" __global__ void partial_sums(const float *__restrict__ x, float *__restrict__ partial, unsigned n) {
    float sum = 0.0f;
    for (size_t i = (size_t)blockIdx.x * GROUP + threadIdx.x; i < n; i += (size_t)gridDim.x * GROUP)
        sum += x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

// Sum of all partial sums, by one block.
extern "C" __global__ void total(const float *__restrict__ partial, float *__restrict__ sum, unsigned blocks) {
    float mine = 0.0f;
    for (unsigned i = threadIdx.x; i < blocks; i += GROUP)
        mine += partial[i];
    mine = block_sum(mine);
    if (threadIdx.x == 0)
        *sum = mine;
}
