// Elements the other way round, and a number behind them.
extern "C" __global__ void reverse(const T *x, T *y, T s, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[n - 1 - i];
    if (i == 0)
        y[n] = s;
}
