// As in `params`.
struct sizes {
    unsigned m, n, k;
    float alpha;
};

// One row of y per block, whose threads share out the columns. A word holds eight weights of 4 bits, the first in its
// lowest bits; 8 stands for zero. The part of x that meets one group of weights is read once, into shared memory.
extern "C" __global__ void int4_matmul(const float *__restrict__ x, const unsigned *__restrict__ w,
                                       const float *__restrict__ scale, float *__restrict__ y, sizes p) {
    __shared__ float part[GROUP];
    const float *row = x + (size_t)blockIdx.x * p.k;
    unsigned groups = p.k / GROUP;
    for (unsigned first = 0; first < p.n; first += blockDim.x) {
        unsigned c = first + threadIdx.x;
        float sum = 0.0f;
        for (unsigned g = 0; g < groups; g++) {
            __syncthreads(); // the part before is done with
            for (unsigned i = threadIdx.x; i < GROUP; i += blockDim.x)
                part[i] = row[g * GROUP + i];
            __syncthreads();
            if (c < p.n) {
                float dot = 0.0f;
                for (unsigned i = 0; i < GROUP; i += 8) {
                    unsigned word = w[((size_t)c * p.k + g * GROUP + i) / 8];
                    for (unsigned j = 0; j < 8; j++)
                        dot += part[i + j] * (float)((int)(word >> (4 * j) & 15) - 8);
                }
                sum += dot * scale[(size_t)c * groups + g];
            }
        }
        if (c < p.n)
            y[(size_t)blockIdx.x * p.n + c] = p.alpha * sum;
    }
}
