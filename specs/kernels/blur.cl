// The weighted sum of one row's pixels around column c, edges clamped.
static uint across(global const uchar *row, uint c, uint w) {
    return row[max(c, 1u) - 1] + 2 * row[c] + row[min(c + 1, w - 1)];
}

// 3x3 binomial blur of a grey image, edges clamped, rounded to nearest. One work-group is BAND rows; a work-item goes
// down its columns and keeps the sums of the rows above and at its place, so that each pixel is read in one row only.
kernel void blur(global const uchar *image, global uchar *blurred, uint h, uint w) {
    uint first = get_group_id(0) * BAND, last = min(first + BAND, h);
    for (uint c = get_local_id(0); c < w; c += get_local_size(0)) {
        uint above = across(image + (size_t)(max(first, 1u) - 1) * w, c, w);
        uint here = across(image + (size_t)first * w, c, w);
        for (uint r = first; r < last; r++) {
            uint below = across(image + (size_t)min(r + 1, h - 1) * w, c, w);
            blurred[(size_t)r * w + c] = (above + 2 * here + below + 8) >> 4;
            above = here;
            here = below;
        }
    }
}
