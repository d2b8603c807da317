#include <runjob.h>

// Small kernels that most specs share. `first` and `last` bound the elements of one block.
static uint32_t first(void) { return rj_block(0) * rj_block_dim(0); }
static uint32_t last(uint32_t n) { return n - first() < rj_block_dim(0) ? n : first() + rj_block_dim(0); }

void add(const float *x, const float *y, float *z, uint32_t n) {
    for (uint32_t i = first(); i < last(n); i++)
        z[i] = x[i] + y[i];
}

void scale(const float *x, float *y, float a, uint32_t n) {
    for (uint32_t i = first(); i < last(n); i++)
        y[i] = a * x[i];
}

void bump(float *y, float a, uint32_t n) {
    for (uint32_t i = first(); i < last(n); i++)
        y[i] += a;
}

void copy_f32(const float *x, float *y, uint32_t n) {
    for (uint32_t i = first(); i < last(n); i++)
        y[i] = x[i];
}

void copy_f64(const double *x, double *y, uint32_t n) {
    for (uint32_t i = first(); i < last(n); i++)
        y[i] = x[i];
}

void copy_i32(const int32_t *x, int32_t *y, uint32_t n) {
    for (uint32_t i = first(); i < last(n); i++)
        y[i] = x[i];
}

void copy_u8(const uint8_t *x, uint8_t *y, uint32_t n) {
    for (uint32_t i = first(); i < last(n); i++)
        y[i] = x[i];
}

void put_i32(int32_t *y, int32_t v) { y[0] = v; }

// One block, any n.
void sum_f32(const float *x, float *total, uint32_t n) {
    double s = 0;
    for (uint32_t i = 0; i < n; i++)
        s += x[i];
    *total = (float)s;
}

void count_blocks(uint32_t *marks) {
    marks[rj_block(0) + rj_grid(0) * (rj_block(1) + rj_grid(1) * rj_block(2))] =
        100 * rj_block(0) + 10 * rj_block(1) + rj_block(2);
}
