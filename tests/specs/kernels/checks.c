#include <runjob.h>
#include <math.h>

// Kernels that are right in what a check of theirs looks at, and beside each one that is not.

// y = 2x inside, and the border is left alone.
void inside(const float *x, float *y, uint32_t h, uint32_t w) {
    for (uint32_t i = 1; i + 1 < h; i++)
        for (uint32_t j = 1; j + 1 < w; j++)
            y[i * w + j] = 2 * x[i * w + j];
}

void inside_but_one(const float *x, float *y, uint32_t h, uint32_t w) {
    inside(x, y, h, w);
    y[3 * w + 5] += 1;
}

void inside_but_a_row(const float *x, float *y, uint32_t h, uint32_t w) {
    for (uint32_t i = 1; i + 2 < h; i++)
        for (uint32_t j = 1; j + 1 < w; j++)
            y[i * w + j] = 2 * x[i * w + j];
}

void reversed(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[n - 1 - i];
}

// Two are the same, and one is lost.
void reversed_but_one(const float *x, float *y, uint32_t n) {
    reversed(x, y, n);
    y[7] = y[8];
}

void reversed_with_nan(const float *x, float *y, uint32_t n) {
    reversed(x, y, n);
    y[7] = NAN;
}

void reversed_integers(const int32_t *x, int32_t *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[n - 1 - i];
}

void reversed_integers_but_one(const int32_t *x, int32_t *y, uint32_t n) {
    reversed_integers(x, y, n);
    y[3] = 7;
}

// Off by one part in ten thousand, up and down.
void off_by_little(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] * (1.0f + (i % 2 ? 1e-4f : -1e-4f));
}

void off_by_little_and_one_nan(const float *x, float *y, uint32_t n) {
    off_by_little(x, y, n);
    y[n - 1] = NAN;
}

// Everything else is near enough that its norm is.
void off_in_one(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i];
    y[11] += 0.25f;
}

void zeros(const float *x, float *y, uint32_t n) {
    (void)x;
    for (uint32_t i = 0; i < n; i++)
        y[i] = 0;
}

void negative_zeros(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] * -0.0f;
}

// Writes where x is positive, and there alone.
void where_positive(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (x[i] > 0)
            y[i] = 3 * x[i];
}

void where_positive_but_one(const float *x, float *y, uint32_t n) {
    where_positive(x, y, n);
    for (uint32_t i = n; i-- > 0;)
        if (x[i] > 0) {
            y[i] = -1;
            return;
        }
}

void copies(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i];
}

void copies_but(const float *x, float *y, uint32_t n, uint32_t round, uint32_t bad) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] + (round == bad && i == 2 ? 1.0f : 0.0f);
}

void accumulates_but(const float *x, float *acc, uint32_t n, uint32_t round, uint32_t bad) {
    for (uint32_t i = 0; i < n; i++)
        acc[i] += round == bad ? 0 : x[i];
}

void counts(const int32_t *x, int32_t *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] + 1;
}

void counts_all_but_one(const int32_t *x, int32_t *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (i != 77)
            y[i] = x[i] + 1;
}

// A guess at each element, so that nothing is left as it was; some element holds NaN.
void guesses(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] < 0 ? NAN : x[i];
}

void guesses_all_but_one(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (i != 41)
            y[i] = x[i];
}
