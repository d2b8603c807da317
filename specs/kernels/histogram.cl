// A work-group counts its SHARE elements in local memory, where additions to one counter seldom meet,
// and adds its counts to the counters of all once.
kernel void histogram(global const uchar *x, global uint *counts, uint n) {
    local uint mine[BINS];
    uint first = get_group_id(0) * SHARE, last = min(first + SHARE, n);
    for (uint b = get_local_id(0); b < BINS; b += get_local_size(0))
        mine[b] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = first + get_local_id(0); i < last; i += get_local_size(0))
        atomic_inc(&mine[x[i]]);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint b = get_local_id(0); b < BINS; b += get_local_size(0))
        if (mine[b])
            atomic_add(&counts[b], mine[b]);
}
