// One step of dst = src + c * laplacian(src), an element for each work-item; the rim keeps its values.
kernel void heat(global const float *src, global float *dst, uint h, uint w, float c) {
    uint row = get_global_id(1), col = get_global_id(0);
    if (row >= h || col >= w)
        return;
    size_t i = (size_t)row * w + col;
    if (row == 0 || row == h - 1 || col == 0 || col == w - 1)
        dst[i] = src[i];
    else
        dst[i] = src[i] + c * (src[i - w] + src[i + w] + src[i - 1] + src[i + 1] - 4.0f * src[i]);
}
