// The spec's local parameters take no argument in CUDA: they are the block's dynamic shared memory, in their order. What
// `acc` is to the C kernel, a register is here, so the third of them is left alone.
extern __shared__ float scratch[];

// One TILE x TILE tile of c per block, one element per thread.
extern "C" __global__ void matmul(const float *__restrict__ a, const float *__restrict__ b, float *__restrict__ c,
                                  unsigned m, unsigned n, unsigned k) {
    float *ta = scratch, *tb = scratch + TILE * TILE;
    unsigned i = threadIdx.y, j = threadIdx.x;
    unsigned row = blockIdx.y * TILE + i, col = blockIdx.x * TILE + j;
    float sum = 0.0f;
    for (unsigned k0 = 0; k0 < k; k0 += TILE) {
        // Both tiles are padded with zeros, so that the inner loop needs no bounds.
        ta[i * TILE + j] = row < m && k0 + j < k ? a[(size_t)row * k + k0 + j] : 0.0f;
        tb[i * TILE + j] = k0 + i < k && col < n ? b[(size_t)(k0 + i) * n + col] : 0.0f;
        __syncthreads();
        for (unsigned p = 0; p < TILE; p++)
            sum += ta[i * TILE + p] * tb[p * TILE + j];
        __syncthreads();
    }
    if (row < m && col < n)
        c[(size_t)row * n + col] = sum;
}
