#include <runjob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// Leaves the second half out in round 65, when the output is poisoned in a window only.
void skips_half_once(const float *s, float *y, uint32_t n, uint32_t round) {
    memcpy(y, s, (round == 65 ? n / 2 : n) * sizeof *y);
}

void copies_one(const float *x, float *z) { *z = *x; }

// Says on every descriptor that a report might go to that all is well, and leaves.
void forges_a_report(const float *x, float *y, uint32_t n, uint32_t round) {
    static const char report[] =
        "\n{\"event\":{\"done\":{\"job\":\"forges-a-report\",\"verdict\":\"pass\",\"rounds\":10,\"run\":10,\"checked\":10}}}\n";
    if (round == 3)
        for (int fd = 0; fd < 3; fd++)
            if (write(fd, report, sizeof report - 1) < 0)
                continue;
    for (uint32_t i = 0; i < n; i++)
        y[i] = round >= 3 ? x[i] + 1 : x[i];
}

// Adds nothing: the accumulator stays where it started.
void accumulates_nothing(const float *x, float *a, uint32_t n) {
    (void)x, (void)a, (void)n;
}

// Runs over the end of carried memory in round 3 alone.
void past_carried(const float *x, float *a, uint32_t n, uint32_t round) {
    for (uint32_t i = 0; i < n; i++)
        a[i] += x[i];
    if (round == 3)
        a[n + 1] = 1.0f;
}

#include <fenv.h>
#include <math.h>

// Of subnormals: with fast-math flags, loading it would switch them off for the whole process.
void doubles(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] + x[i];
}

// Rounds down, and leaves the processor rounding down.
void rounds_down(const float *x, float *y, uint32_t n) {
    fesetround(FE_DOWNWARD);
    for (uint32_t i = 0; i < n; i++) {
        volatile float third = x[i] / 3.0f;
        y[i] = third;
    }
}

// Writes where the root is a number, and leaves what must be NaN as it was.
void roots_of_positives(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (x[i] >= 0)
            y[i] = sqrtf(x[i]);
}

// A stride that is too large jumps over the guard.
void far_past_the_end(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i];
    y[n + 50] = 1.0f;
}

// Two processes go on from here; the one that computes rightly is not the one that was started.
void forks(const float *x, float *y, uint32_t n, uint32_t round) {
    static int child = -1;
    if (round == 2 && child < 0)
        child = fork() == 0;
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] + (child == 0 ? 1 : 0);
}

// NaN is one pattern per sign in this dtype: an element that is not written must not pass for the NaN that is expected there.
void roots_of_positives_f8(const float *x, rj_f8e4m3 *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (x[i] >= 0)
            y[i] = rj_f32_to_f8e4m3(sqrtf(x[i]));
}

// It writes every element, some of them NaN.
void roots_f8(const float *x, rj_f8e4m3 *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = rj_f32_to_f8e4m3(sqrtf(x[i]));
}
