kernel void append(global const float *token, global float *cache, uint pos, uint dim) {
    for (uint d = get_local_id(0); d < dim; d += get_local_size(0))
        cache[(size_t)pos * dim + d] = token[d];
}

// The score of one row of the cache per work-item.
kernel void score(global const float *q, global const float *cache, global float *scores, uint len, uint dim) {
    uint r = get_global_id(0);
    if (r >= len)
        return;
    float sum = 0.0f;
    for (uint d = 0; d < dim; d++)
        sum += q[d] * cache[(size_t)r * dim + d];
    scores[r] = sum;
}

enum { PART = 64 };

// The mean of the first `len` rows, weighted with the softmax of their scores. One work-group takes PART rows at a time:
// its work-items share out the weights, then each adds up its own columns.
kernel void average(global const float *scores, global const float *cache, global float *o, uint len, uint dim) {
    local float weight[PART];
    float largest = scores[0];
    for (uint r = 1; r < len; r++)
        largest = fmax(largest, scores[r]);
    for (uint first = 0; first < dim; first += get_local_size(0)) {
        uint d = first + get_local_id(0);
        float sum = 0.0f, mean = 0.0f;
        for (uint r0 = 0; r0 < len; r0 += PART) {
            uint rows = min((uint)PART, len - r0);
            for (uint r = get_local_id(0); r < rows; r += get_local_size(0))
                weight[r] = exp(scores[r0 + r] - largest);
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint r = 0; r < rows; r++) {
                sum += weight[r];
                if (d < dim)
                    mean += weight[r] * cache[(size_t)(r0 + r) * dim + d];
            }
            barrier(CLK_LOCAL_MEM_FENCE); // the next part writes the weights anew
        }
        if (d < dim)
            o[d] = mean / sum;
    }
}
