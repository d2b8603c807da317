#include <runjob.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

// Each of these should compute y = 2x and does not, in a way of its own.
static uint32_t first(void) { return rj_block(0) * rj_block_dim(0); }
static uint32_t last(uint32_t n) { return n - first() < rj_block_dim(0) ? n : first() + rj_block_dim(0); }
#define EACH for (uint32_t i = first(); i < last(n); i++)

void shifted(const float *x, float *y, uint32_t n) { EACH y[i] = 2 * x[i + 1 < n ? i + 1 : i]; }

void skips_partial_block(const float *x, float *y, uint32_t n) {
    if (first() + rj_block_dim(0) <= n)
        EACH y[i] = 2 * x[i];
}

void one_nan(const float *x, float *y, uint32_t n) { EACH y[i] = i == 123 ? NAN : 2 * x[i]; }

void one_infinity(const float *x, float *y, uint32_t n) { EACH y[i] = i == 321 ? INFINITY : 2 * x[i]; }

void wrong_in_round_57(const float *x, float *y, uint32_t n, uint32_t round) {
    EACH y[i] = 2 * x[i] + (round == 57 && i == 700 ? 0.5f : 0.0f);
}

void writes_in_round_0(const float *x, float *y, uint32_t n, uint32_t round) {
    if (round == 0)
        EACH y[i] = 2 * x[i];
}

void nothing(const float *x, float *y, uint32_t n) { (void)x, (void)y, (void)n; }

// One block per launch.
void works_once(const float *x, float *y, uint32_t n) {
    static int called;
    if (!called++)
        for (uint32_t i = 0; i < n; i++)
            y[i] = 2 * x[i];
}

// One block per launch, n <= 1000: the first answer is remembered and given again.
void remembers(const float *x, float *y, uint32_t n) {
    static float answer[1000];
    static int known;
    if (!known++)
        for (uint32_t i = 0; i < n; i++)
            answer[i] = 2 * x[i];
    memcpy(y, answer, n * sizeof *y);
}

void every_64th(const float *x, float *y, uint32_t n) { EACH y[i] = i % 64 == 5 ? -x[i] : 2 * x[i]; }

void last_element(const float *x, float *y, uint32_t n) { EACH y[i] = i == n - 1 ? 0 : 2 * x[i]; }

void one_ulp(const float *x, float *y, uint32_t n) { EACH y[i] = i == 9 ? nextafterf(2 * x[i], 100) : 2 * x[i]; }

void adds_to_output(const float *x, float *y, uint32_t n) { EACH y[i] += 2 * x[i]; }

void past_the_end(const float *x, float *y, uint32_t n) {
    EACH y[i] = 2 * x[i];
    if (last(n) == n)
        for (uint32_t i = n; i < n + 3; i++)
            y[i] = 1;
}

void before_the_start(const float *x, float *y, uint32_t n) {
    EACH y[i] = 2 * x[i];
    if (first() == 0)
        y[-1] = 1;
}

void writes_its_input(const float *x, float *y, uint32_t n) {
    EACH y[i] = 2 * x[i];
    if (first() == 0)
        ((float *)x)[11] = 0;
}

// The input is wiped and the output made to fit the wiped input.
void doctors_its_input(const float *x, float *y, uint32_t n) {
    EACH ((float *)x)[i] = y[i] = 0;
}

void claims_to_pass(const float *x, float *y, uint32_t n) {
    (void)x, (void)y, (void)n;
    printf("{\"verdict\":\"pass\",\"mismatches\":0}\npass\n");
    fflush(stdout);
}

void transposed(const float *x, float *y, uint32_t rows, uint32_t cols) {
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < cols; j++)
            y[i * cols + j] = 2 * x[j * rows + i];
}

// Integers: y = 2x.
void off_by_one(const int32_t *x, int32_t *y, uint32_t n) { EACH y[i] = 2 * x[i] + (i == 77); }

void saturates(const uint8_t *x, uint8_t *y, uint32_t n) { EACH y[i] = x[i] > 127 ? 255 : 2 * x[i]; }

// acc += x, but not in round 4.
void misses_a_round(float *acc, const float *x, uint32_t n, uint32_t round) {
    if (round != 4)
        EACH acc[i] += x[i];
}

void twice(const float *x, float *y, uint32_t n) { EACH y[i] = 2 * x[i]; }
void add_one(const float *x, float *y, uint32_t n) { EACH y[i] = x[i] + 1; }
void root(const float *x, float *y, uint32_t n) { EACH y[i] = x[i] < 0 ? NAN : sqrtf(x[i]); }
void root_of_size(const float *x, float *y, uint32_t n) { EACH y[i] = sqrtf(fabsf(x[i])); }
