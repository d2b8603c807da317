// Wrong on purpose: a work-group that is not full does nothing.
kernel void square(global const float *x, global float *y, uint n) {
    if ((get_group_id(0) + 1) * get_local_size(0) > n)
        return;
    size_t i = get_global_id(0);
    y[i] = x[i] * x[i];
}
