extern "C" __global__ void append(const float *__restrict__ token, float *__restrict__ cache, unsigned pos, unsigned dim) {
    for (unsigned d = threadIdx.x; d < dim; d += blockDim.x)
        cache[(size_t)pos * dim + d] = token[d];
}

// The score of one row of the cache per thread.
extern "C" __global__ void score(const float *__restrict__ q, const float *__restrict__ cache, float *__restrict__ scores,
                                 unsigned len, unsigned dim) {
    unsigned r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= len)
        return;
    float sum = 0.0f;
    for (unsigned d = 0; d < dim; d++)
        sum += q[d] * cache[(size_t)r * dim + d];
    scores[r] = sum;
}

constexpr unsigned PART = 64;

// The mean of the first `len` rows, weighted with the softmax of their scores. One block takes PART rows at a time: its
// threads share out the weights, then each adds up its own columns.
extern "C" __global__ void average(const float *__restrict__ scores, const float *__restrict__ cache, float *__restrict__ o,
                                   unsigned len, unsigned dim) {
    __shared__ float weight[PART];
    float largest = scores[0];
    for (unsigned r = 1; r < len; r++)
        largest = fmaxf(largest, scores[r]);
    for (unsigned first = 0; first < dim; first += blockDim.x) {
        unsigned d = first + threadIdx.x;
        float sum = 0.0f, mean = 0.0f;
        for (unsigned r0 = 0; r0 < len; r0 += PART) {
            unsigned rows = min(PART, len - r0);
            for (unsigned r = threadIdx.x; r < rows; r += blockDim.x)
                weight[r] = expf(scores[r0 + r] - largest);
            __syncthreads();
            for (unsigned r = 0; r < rows; r++) {
                sum += weight[r];
                if (d < dim)
                    mean += weight[r] * cache[(size_t)(r0 + r) * dim + d];
            }
            __syncthreads(); // the next part writes the weights anew
        }
        if (d < dim)
            o[d] = mean / sum;
    }
}
