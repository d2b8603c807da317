// As in `params`.
struct sizes {
    uint m, n, k;
    float alpha;
};

// One row of y per work-group, whose work-items share out the columns. A word holds eight weights of 4 bits, the first in
// its lowest bits; 8 stands for zero. The part of x that meets one group of weights is read once, into local memory.
kernel void int4_matmul(global const float *x, global const uint *w, global const float *scale, global float *y,
                        struct sizes p) {
    local float part[GROUP];
    global const float *row = x + (size_t)get_group_id(0) * p.k;
    uint groups = p.k / GROUP;
    for (uint first = 0; first < p.n; first += get_local_size(0)) {
        uint c = first + get_local_id(0);
        float sum = 0.0f;
        for (uint g = 0; g < groups; g++) {
            barrier(CLK_LOCAL_MEM_FENCE); // the part before is done with
            for (uint i = get_local_id(0); i < GROUP; i += get_local_size(0))
                part[i] = row[g * GROUP + i];
            barrier(CLK_LOCAL_MEM_FENCE);
            if (c < p.n) {
                float dot = 0.0f;
                for (uint i = 0; i < GROUP; i += 8) {
                    uint word = w[((size_t)c * p.k + g * GROUP + i) / 8];
                    for (uint j = 0; j < 8; j++)
                        dot += part[i + j] * (float)((int)(word >> (4 * j) & 15) - 8);
                }
                sum += dot * scale[(size_t)c * groups + g];
            }
        }
        if (c < p.n)
            y[(size_t)get_group_id(0) * p.n + c] = p.alpha * sum;
    }
}
