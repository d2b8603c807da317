kernel void affine(global const float *x, global float *y, float scale, float shift, uint n) {
    size_t i = get_global_id(0);
    if (i < n)
        y[i] = scale * x[i] + shift;
}
