#include <runjob.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

// Each of these computes y = 2x, until it ends the process or does not end.
static void twice(const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] = 2 * x[i];
}

void null_in_round_7(const float *x, float *y, uint32_t n, uint32_t round) {
    float *volatile p = round == 7 ? NULL : y;
    *p = 0;
    twice(x, y, n);
}

void aborts(const float *x, float *y, uint32_t n, uint32_t round) {
    twice(x, y, n);
    if (round == 2)
        abort();
}

void exits_in_round_5(const float *x, float *y, uint32_t n, uint32_t round) {
    twice(x, y, n);
    if (round == 5)
        exit(0);
}

void leaves_in_round_5(const float *x, float *y, uint32_t n, uint32_t round) {
    twice(x, y, n);
    if (round == 5)
        _exit(0);
}

void endless_in_round_3(const float *x, float *y, uint32_t n, uint32_t round) {
    twice(x, y, n);
    for (volatile uint32_t stay = round == 3; stay;) {
    }
}

void endless_in_warmup(const float *x, float *y, uint32_t n) {
    twice(x, y, n);
    for (volatile uint32_t stay = 1; stay;) {
    }
}

void divides_by_zero(const float *x, float *y, uint32_t n, uint32_t round) {
    volatile uint32_t zero = round == 6 ? 0 : 1;
    twice(x, y, n / zero);
}

static uint32_t depth(volatile uint32_t *below) {
    volatile uint32_t here[1024];
    here[0] = *below + 1;
    return here[0] == 0 ? 0 : depth(here) + here[0];
}

void overflows_the_stack(const float *x, float *y, uint32_t n, uint32_t round) {
    twice(x, y, n);
    volatile uint32_t zero = 0;
    if (round == 1)
        y[0] += (float)depth(&zero);
}

void kills_itself(const float *x, float *y, uint32_t n, uint32_t round) {
    twice(x, y, n);
    if (round == 4)
        raise(SIGKILL);
}

// Correct, but no one can be told so any more.
void closes_descriptors(const float *x, float *y, uint32_t n, uint32_t round) {
    twice(x, y, n);
    if (round == 4)
        for (int fd = 0; fd < 1024; fd++)
            close(fd);
}
