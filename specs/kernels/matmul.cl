// One TILE x TILE tile of c per work-group, one element per work-item. ta and tb are the spec's local parameters;
// what acc is to the C kernel, a private variable is here.
kernel void matmul(global const float *a, global const float *b, global float *c, local float *ta, local float *tb,
                   local float *acc, uint m, uint n, uint k) {
    uint i = get_local_id(1), j = get_local_id(0), row = get_global_id(1), col = get_global_id(0);
    float sum = 0.0f;
    for (uint k0 = 0; k0 < k; k0 += TILE) {
        // Both tiles are padded with zeros, so that the inner loop needs no bounds.
        ta[i * TILE + j] = row < m && k0 + j < k ? a[(size_t)row * k + k0 + j] : 0.0f;
        tb[i * TILE + j] = k0 + i < k && col < n ? b[(size_t)(k0 + i) * n + col] : 0.0f;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint p = 0; p < TILE; p++)
            sum += ta[i * TILE + p] * tb[p * TILE + j];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (row < m && col < n)
        c[(size_t)row * n + col] = sum;
}
