// What both programs do around their kernels: read the command line, fill inputs, check results, run lanes, print.
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

// ---- Contents: Philox4x32-10, uniform ---------------------------------------------------------------------------

extern const uint32_t KEY_X[2], KEY_Y[2];
#define DATA_ROUND 0xffffffffu // contents that are the same in every round

// Fills out[0 .. n) with uniform values of elements first, first + 1, ... of a tensor; first is a multiple of 4.
typedef void fill_fn(float *out, uint64_t first, uint64_t n, const uint32_t key[2], uint32_t round, float low, float high);
extern fill_fn *fill;

// ---- Checks: |got - want| <= atol + rtol * |want|, want in f64; a NaN is a mismatch ------------------------------

typedef uint64_t check_fn(const float *x, const float *y, const float *z, uint64_t n);
extern check_fn *check_sum; // z = x + y

uint64_t check_affine(const float *x, const float *y, uint64_t n, double scale, double shift);
uint64_t check_values(const double *want, const float *got, uint64_t n, double rtol, double atol);

extern const char *simd;
void choose(void);    // the ways to fill and to check that this processor has
void self_test(void); // known answers of Philox, fills and checks against each other; exits when one is wrong

// ---- Jobs and lanes ----------------------------------------------------------------------------------------------

typedef enum { MODE_TINY, MODE_STREAM, MODE_CHAIN, MODE_MATMUL } mode_kind;

enum {
    TINY = 1024,  // elements of a tiny round
    DEAL = 256,   // tiny rounds that a lane takes at a time
    CHAIN = 20,   // kernels of a chain round
};

typedef struct {
    mode_kind mode;
    const char *name;
    uint64_t rounds, n;
    int threads;
    pthread_barrier_t barrier;
} job_t;

typedef struct {
    job_t *job;
    int id;
    uint64_t bad, calls; // mismatches; driver calls
    double checksum;     // of the last elements seen: what was computed cannot be left out
} lane_t;

typedef struct {
    double seconds, checksum;
    uint64_t bad, calls;
} result_t;

// From MODE ROUNDS THREADS [N]; false where that is no job.
bool read_job(job_t *job, int argc, char **argv);
// Runs `body`, which is given a lane, in a thread for each lane.
result_t run_lanes(job_t *job, void *(*body)(void *));
// One line of JSON; `more` are further members, each with a comma before it.
void print_result(const job_t *job, const result_t *result, const char *more);

void *aligned(uint64_t bytes); // zeros, at a multiple of 2 MiB
void meet(job_t *job);         // all lanes of a job
// This lane's part of n elements, in multiples of `unit`.
void part(const lane_t *lane, uint64_t n, uint64_t unit, uint64_t *from, uint64_t *to);

// Kernel k of a chain is y = scale * x + shift.
float chain_scale(int k);
float chain_shift(int k);
