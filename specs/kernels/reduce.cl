// The sum over all work-items of the group, in work-item 0: halves are folded onto each other, so GROUP is a power of two.
static float group_sum(float value, local float *t) {
    uint i = get_local_id(0);
    t[i] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint reach = GROUP / 2; reach > 0; reach /= 2) {
        if (i < reach)
            t[i] += t[i + reach];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return t[0];
}

// Sum of one work-group's elements: all groups go through x side by side, so that neighbours read neighbours.
kernel void partial_sums(global const float *x, global float *partial, uint n) {
    local float t[GROUP];
    float sum = 0.0f;
    for (size_t i = get_global_id(0); i < n; i += get_global_size(0))
        sum += x[i];
    sum = group_sum(sum, t);
    if (get_local_id(0) == 0)
        partial[get_group_id(0)] = sum;
}

// Sum of all partial sums, by one work-group.
kernel void total(global const float *partial, global float *sum, uint blocks) {
    local float t[GROUP];
    float mine = 0.0f;
    for (uint i = get_local_id(0); i < blocks; i += GROUP)
        mine += partial[i];
    mine = group_sum(mine, t);
    if (get_local_id(0) == 0)
        *sum = mine;
}
