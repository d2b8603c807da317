// What all threads of the block make of their values: halves are folded onto each other, so GROUP is a power of two.
template <class Join>
__device__ float block_join(float value, Join join) {
    __shared__ float t[GROUP];
    unsigned i = threadIdx.x;
    t[i] = value;
    __syncthreads();
    for (unsigned reach = GROUP / 2; reach > 0; reach /= 2) {
        if (i < reach)
            t[i] = join(t[i], t[i + reach]);
        __syncthreads();
    }
    float joined = t[0];
    __syncthreads(); // t is read by all before the next call writes it
    return joined;
}

// One row, by one block. The largest element is subtracted first, so that no exp overflows.
extern "C" __global__ void softmax(const float *__restrict__ x, float *__restrict__ y, unsigned cols) {
    float largest = x[0], sum = 0.0f;
    for (unsigned c = threadIdx.x; c < cols; c += GROUP)
        largest = fmaxf(largest, x[c]);
    largest = block_join(largest, [](float a, float b) { return fmaxf(a, b); });
    for (unsigned c = threadIdx.x; c < cols; c += GROUP) {
        y[c] = expf(x[c] - largest);
        sum += y[c];
    }
    sum = block_join(sum, [](float a, float b) { return a + b; });
    for (unsigned c = threadIdx.x; c < cols; c += GROUP)
        y[c] /= sum;
}
