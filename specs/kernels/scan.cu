// The sum of the values of the threads before and of a thread's own (Hillis and Steele). All B threads of the block call
// it; `all` becomes the sum of the whole block, for each of them.
__device__ unsigned inclusive(unsigned value, unsigned &all) {
    __shared__ unsigned t[B];
    unsigned i = threadIdx.x;
    t[i] = value;
    __syncthreads();
    for (unsigned apart = 1; apart < B; apart *= 2) {
        unsigned before = i >= apart ? t[i - apart] : 0;
        __syncthreads(); // all have read before any writes
        t[i] += before;
        __syncthreads();
    }
    unsigned sum = t[i];
    all = t[B - 1];
    __syncthreads(); // t is read by all before the next call writes it
    return sum;
}

// The elements past the end count as zeros.
extern "C" __global__ void scan_blocks(const unsigned *__restrict__ x, unsigned *__restrict__ y, unsigned *__restrict__ sums,
                                       unsigned n) {
    unsigned i = blockIdx.x * B + threadIdx.x, all;
    unsigned mine = i < n ? x[i] : 0, sum = inclusive(mine, all);
    if (i < n)
        y[i] = sum - mine;
    if (threadIdx.x == 0)
        sums[blockIdx.x] = all;
}

// One block goes through all sums, B at a time, and carries the sum of what is behind it.
extern "C" __global__ void scan_sums(unsigned *sums, unsigned blocks) {
    unsigned carried = 0;
    for (unsigned first = 0; first < blocks; first += B) {
        unsigned i = first + threadIdx.x, all;
        unsigned mine = i < blocks ? sums[i] : 0, sum = inclusive(mine, all);
        if (i < blocks)
            sums[i] = carried + sum - mine;
        carried += all;
    }
}

extern "C" __global__ void add_sums(unsigned *__restrict__ y, const unsigned *__restrict__ sums, unsigned n) {
    unsigned i = blockIdx.x * B + threadIdx.x;
    if (i < n)
        y[i] += sums[blockIdx.x];
}
