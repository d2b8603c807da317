#include <runjob.h>

// Rows of three elements, ROW elements from one to the next: 3 where they lie side by side, 4 where a device spaces them.
#define EACH(rows) for (uint32_t i = 0; i < (rows) * ROW; i += ROW) for (uint32_t l = 0; l < 3; l++)

void add(const float *x, const float *r, float *y, uint32_t rows) { EACH(rows) y[i + l] = x[i + l] + r[i + l]; }

void grow(const float *x, float *sum, uint32_t rows) {
    EACH(rows) sum[i + l] += x[i + l];
#if ROW == 4
    // Whole rows are written, as a store of four lanes does: nobody looks at the fourth.
    for (uint32_t i = 3; i < rows * ROW; i += ROW)
        sum[i] = -1;
#endif
}

void flip(const uint8_t *a, uint8_t *b, uint32_t rows) { EACH(rows) b[i + l] = (uint8_t)~a[i + l]; }

void halve(double *w, uint32_t rows) { EACH(rows) w[i + l] /= 2; }

// Each of these should compute y = 2x and does not, in a way of its own.

void misses_a_row(const float *x, float *y, uint32_t rows) { EACH(rows) if (i != 17 * ROW) y[i + l] = 2 * x[i + l]; }

void misses_a_lane(const float *x, rj_f8e4m3 *y, uint32_t rows) {
    EACH(rows) if (i != 17 * ROW || l != 2) y[i + l] = rj_f32_to_f8e4m3(2 * x[i + l]);
}

void swaps_lanes(const float *x, float *y, uint32_t rows) { EACH(rows) y[i + l] = 2 * x[i + (l < 2 ? 1 - l : l)]; }

void one_row_more(const float *x, float *y, uint32_t rows) {
    EACH(rows) y[i + l] = 2 * x[i + l];
    y[rows * ROW] = 0;
}

void changes_its_input(const float *x, float *y, uint32_t rows) {
    EACH(rows) y[i + l] = 2 * x[i + l];
    ((float *)x)[200 * ROW + 2] = 0.5f;
}

// The fourth element of a row, where there is one, is nobody's.
void sums_the_padding(const float *x, float *y, uint32_t rows) {
    EACH(rows) y[i + l] = 2 * x[i + l] + (ROW == 4 ? 0 * x[i + 3] : 0.5f);
}
