// The mistake is in line 4.
kernel void mistake(global const float *x, global float *y) {
    size_t i = get_global_id(0);
    y[i] = 2 * x[i]
}
