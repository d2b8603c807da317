// The kernels of the bench specs, which `baseline/opencl.c` launches too, with the same blocks.

// One element for each work-item; the last work-group may be partial.
kernel void add(global const float *x, global const float *y, global float *z, uint n) {
    size_t i = get_global_id(0);
    if (i < n)
        z[i] = x[i] + y[i];
}

kernel void affine(global const float *x, global float *y, float scale, float shift, uint n) {
    size_t i = get_global_id(0);
    if (i < n)
        y[i] = scale * x[i] + shift;
}

// c = a b, n x n; n is a multiple of 64. One work-item keeps 4 rows of 64 columns of c in registers while p runs.
kernel void matmul(global const float *a, global const float *b, global float *c, uint n) {
    size_t col = get_global_id(0) * 64, row = get_global_id(1) * 4;
    float16 sum[4][4];
#pragma unroll
    for (int i = 0; i < 16; i++)
        sum[i / 4][i % 4] = 0.0f;
    for (size_t p = 0; p < n; p++) {
        float16 part[4];
#pragma unroll
        for (int v = 0; v < 4; v++)
            part[v] = vload16(v, b + p * n + col);
#pragma unroll
        for (int i = 0; i < 16; i++)
            sum[i / 4][i % 4] += a[(row + i / 4) * n + p] * part[i % 4];
    }
#pragma unroll
    for (int i = 0; i < 16; i++)
        vstore16(sum[i / 4][i % 4], i % 4, c + (row + i / 4) * n + col);
}
