typedef unsigned char uchar;

// The weighted sum of one row's pixels around column c, edges clamped.
__device__ unsigned across(const uchar *row, unsigned c, unsigned w) {
    return row[max(c, 1u) - 1] + 2 * row[c] + row[min(c + 1, w - 1)];
}

// 3x3 binomial blur of a grey image, edges clamped, rounded to nearest. One block is BAND rows; a thread goes down its
// columns and keeps the sums of the rows above and at its place, so that each pixel is read in one row only.
extern "C" __global__ void blur(const uchar *__restrict__ image, uchar *__restrict__ blurred, unsigned h, unsigned w) {
    unsigned first = blockIdx.x * BAND, last = min(first + BAND, h);
    for (unsigned c = threadIdx.x; c < w; c += blockDim.x) {
        unsigned above = across(image + (size_t)(max(first, 1u) - 1) * w, c, w);
        unsigned here = across(image + (size_t)first * w, c, w);
        for (unsigned r = first; r < last; r++) {
            unsigned below = across(image + (size_t)min(r + 1, h - 1) * w, c, w);
            blurred[(size_t)r * w + c] = (above + 2 * here + below + 8) >> 4;
            above = here;
            here = below;
        }
    }
}
