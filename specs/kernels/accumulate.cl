kernel void accumulate(global float *acc, global const float *x, uint n) {
    size_t i = get_global_id(0);
    if (i < n)
        acc[i] += x[i];
}
