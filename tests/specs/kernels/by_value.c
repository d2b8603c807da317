#include <runjob.h>

struct affine {
    uint32_t n;
    float alpha;
    rj_f32x4 bias;
    int64_t round;
    float three[3];
};

/* y = alpha * x + bias[i % 4] + round + three[2] */
void affine(const float *x, float *y, struct affine p) {
    for (uint32_t i = 0; i < p.n; ++i)
        y[i] = p.alpha * x[i] + p.bias[i % 4] + (float)p.round + p.three[2];
}

/* y = x * s, four at a time; a bias that is not there is 1 */
void scale4(const rj_f32x4 *x, rj_f32x4 s, const float *restrict bias, rj_f32x4 *y, uint32_t n) {
    for (uint32_t i = 0; i < n; ++i)
        y[i] = x[i] * s + (bias ? bias[0] : 1.0f);
}

/* the bits of f32 as integers, and the other way */
void bits(const uint32_t *x, uint32_t *y, uint32_t n) {
    for (uint32_t i = 0; i < n; ++i)
        y[i] = x[i] ^ 0x80000000u;
}

/* four bytes of x in each word */
void unpack(const rj_u32x2 *words, uint32_t *y, uint32_t n) {
    for (uint32_t i = 0; i < n; ++i)
        y[i] = (words[i / 8][i / 4 % 2] >> (i % 4 * 8)) & 0xff;
}

/* element offset + i */
void fill_from(int32_t *y) {
    uint32_t first = rj_block(0) * rj_block_dim(0) + rj_offset(0);
    for (uint32_t t = 0; t < rj_block_dim(0); ++t)
        y[first + t] = (int32_t)(first + t + 1000 * rj_offset(1));
}

/* x and y may be the same bytes */
void increment(const int32_t *x, int32_t *y, uint32_t n) {
    for (uint32_t i = 0; i < n; ++i)
        y[i] = x[i] + 1;
}

/* y[block] = 64 * block + 2016, by way of shared bytes */
void through_shared(uint32_t *y) {
    uint32_t *s = rj_shared(), sum = 0;
    for (uint32_t i = 0; i < 64; ++i)
        s[i] = rj_block(0) + i;
    for (uint32_t i = 0; i < 64; ++i)
        sum += s[i];
    y[rj_block(0)] = sum;
}

/* the place at which each block ran */
void places(uint32_t *y) {
    static uint32_t next;
    if (rj_block(0) == 0)
        next = 0;
    y[rj_block(0)] = next++;
}

#ifdef T
/* the type and the accumulator are named by the spec */
void sum(const T *x, T *y, ACC start, uint32_t n) {
    ACC acc = start;
    for (uint32_t i = 0; i < n; ++i)
        acc += x[i];
    y[0] = (T)acc;
}
#endif
