// The largest value, or the sum, of all work-items of the group: halves are folded onto each other, so GROUP is a power
// of two. `t` has GROUP elements and is free again afterwards.
static float group_max(float value, local float *t) {
    uint i = get_local_id(0);
    t[i] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint reach = GROUP / 2; reach > 0; reach /= 2) {
        if (i < reach)
            t[i] = fmax(t[i], t[i + reach]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    float largest = t[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    return largest;
}

static float group_sum(float value, local float *t) {
    uint i = get_local_id(0);
    t[i] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint reach = GROUP / 2; reach > 0; reach /= 2) {
        if (i < reach)
            t[i] += t[i + reach];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    float sum = t[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    return sum;
}

// One row, by one work-group. The largest element is subtracted first, so that no exp overflows.
kernel void softmax(global const float *x, global float *y, uint cols) {
    local float t[GROUP];
    float largest = -INFINITY, sum = 0.0f;
    for (uint c = get_local_id(0); c < cols; c += GROUP)
        largest = fmax(largest, x[c]);
    largest = group_max(largest, t);
    for (uint c = get_local_id(0); c < cols; c += GROUP) {
        y[c] = exp(x[c] - largest);
        sum += y[c];
    }
    sum = group_sum(sum, t);
    for (uint c = get_local_id(0); c < cols; c += GROUP)
        y[c] /= sum;
}
