// Replaces each work-item's value by the sum of those of the work-items before it and its own (Hillis and Steele).
// t has B elements.
static uint inclusive(uint value, local uint *t) {
    uint i = get_local_id(0);
    t[i] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint apart = 1; apart < B; apart *= 2) {
        uint before = i >= apart ? t[i - apart] : 0;
        barrier(CLK_LOCAL_MEM_FENCE); // all have read before any writes
        t[i] += before;
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return t[i];
}

// The elements past the end count as zeros.
kernel void scan_blocks(global const uint *x, global uint *y, global uint *sums, uint n) {
    local uint t[B];
    size_t i = get_global_id(0);
    uint mine = i < n ? x[i] : 0, sum = inclusive(mine, t);
    if (i < n)
        y[i] = sum - mine;
    if (get_local_id(0) == B - 1)
        sums[get_group_id(0)] = sum;
}

// One work-group goes through all sums, B at a time, and carries the sum of what is behind it.
kernel void scan_sums(global uint *sums, uint blocks) {
    local uint t[B];
    uint carried = 0;
    for (uint first = 0; first < blocks; first += B) {
        uint i = first + get_local_id(0);
        uint mine = i < blocks ? sums[i] : 0, sum = inclusive(mine, t);
        if (i < blocks)
            sums[i] = carried + sum - mine;
        carried += t[B - 1];
        barrier(CLK_LOCAL_MEM_FENCE); // t is read by all before the next turn writes it
    }
}

kernel void add_sums(global uint *y, global const uint *sums, uint n) {
    size_t i = get_global_id(0);
    if (i < n)
        y[i] += sums[get_group_id(0)];
}
