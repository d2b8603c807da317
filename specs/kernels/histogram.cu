// A block counts its SHARE elements in shared memory, where additions to one counter seldom meet,
// and adds its counts to the counters of all once.
extern "C" __global__ void histogram(const unsigned char *__restrict__ x, unsigned *counts, unsigned n) {
    __shared__ unsigned mine[BINS];
    unsigned first = blockIdx.x * SHARE, last = min(first + SHARE, n);
    for (unsigned b = threadIdx.x; b < BINS; b += blockDim.x)
        mine[b] = 0;
    __syncthreads();
    for (unsigned i = first + threadIdx.x; i < last; i += blockDim.x)
        atomicAdd(&mine[x[i]], 1);
    __syncthreads();
    for (unsigned b = threadIdx.x; b < BINS; b += blockDim.x)
        if (mine[b])
            atomicAdd(&counts[b], mine[b]);
}
