// The kernels of the bench specs, which `baseline/cuda.cu` launches too, with the same blocks.

// One element for each thread; the last block may be partial.
extern "C" __global__ void add(const float *__restrict__ x, const float *__restrict__ y, float *__restrict__ z, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        z[i] = x[i] + y[i];
}

extern "C" __global__ void affine(const float *__restrict__ x, float *__restrict__ y, float scale, float shift, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = scale * x[i] + shift;
}

// c = a b, n x n; n is a multiple of 64. A block of 16 x 16 threads makes 64 x 64 of c, a thread 4 x 4 of them in registers,
// from slices of a and b that are 16 deep. Four columns of a thread lie 16 apart, so that neighbours read neighbours.
extern "C" __global__ void __launch_bounds__(256)
matmul(const float *__restrict__ a, const float *__restrict__ b, float *__restrict__ c, unsigned n) {
    __shared__ float as[16][65], bs[16][64]; // a turned; a row more of padding keeps its banks apart
    unsigned x = threadIdx.x, y = threadIdx.y, at = y * 16 + x;
    size_t row = (size_t)blockIdx.y * 64, col = (size_t)blockIdx.x * 64;
    float sum[4][4] = {};
    for (unsigned p = 0; p < n; p += 16) {
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            as[x][y + 16 * i] = a[(row + y + 16 * i) * n + p + x];
            bs[at / 64 + 4 * i][at % 64] = b[(size_t)(p + at / 64 + 4 * i) * n + col + at % 64];
        }
        __syncthreads();
#pragma unroll
        for (unsigned k = 0; k < 16; k++) {
            float left[4], right[4];
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                left[i] = as[k][y * 4 + i];
                right[i] = bs[k][x + 16 * i];
            }
#pragma unroll
            for (unsigned i = 0; i < 16; i++)
                sum[i / 4][i % 4] += left[i / 4] * right[i % 4];
        }
        __syncthreads();
    }
#pragma unroll
    for (unsigned i = 0; i < 16; i++)
        c[(row + y * 4 + i / 4) * n + col + x + 16 * (i % 4)] = sum[i / 4][i % 4];
}
