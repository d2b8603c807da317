// The hand-written program that runjob is measured against: the same work, without runjob.
//
//     cc -O3 -march=native -pthread baseline.c work.c kernels.c -o baseline -lm
//     ./baseline tiny <rounds> <threads>
//     ./baseline stream <rounds> <threads> [n]
//     ./baseline chain <rounds> <threads> [n]
//     ./baseline matmul <rounds> <threads> [n]
//
// Every round fills its inputs anew from Philox4x32-10, runs the kernels (which live in another translation unit
// and are called through a pointer), and checks every element of the result in f64. Buffers are allocated once.
// `tiny` gives each thread rounds of its own; the others split every round over all threads, with barriers.
// One line of JSON goes to standard output. The exit code is 1 when an element was wrong.

#include <stdio.h>
#include <stdlib.h>

#include "kernels.h"
#include "work.h"

static struct {
    float *x, *y, *z, *scratch[2];
    double *want, *a_wide, *b_wide; // matmul: the expectation, a and b in f64
} mem;

// 1,024 elements, z = x + y, x and y new in every round; a lane runs whole rounds, dealt 256 at a time.
static void *tiny(void *arg) {
    lane_t *lane = arg;
    job_t *job = lane->job;
    add_fn *volatile pointer = add_kernel;
    add_fn *kernel = pointer;
    float *x = aligned(3 * TINY * sizeof(float)), *y = x + TINY, *z = y + TINY;
    meet(job);
    for (uint64_t deal = (uint64_t)lane->id * DEAL; deal < job->rounds; deal += (uint64_t)job->threads * DEAL) {
        uint64_t end = deal + DEAL < job->rounds ? deal + DEAL : job->rounds;
        for (uint64_t round = deal; round < end; round++) {
            fill(x, 0, TINY, KEY_X, (uint32_t)round, -1.0f, 1.0f);
            fill(y, 0, TINY, KEY_Y, (uint32_t)round, -1.0f, 1.0f);
            kernel(x, y, z, TINY);
            lane->bad += check_sum(x, y, z, TINY);
            lane->checksum += z[round % TINY];
        }
    }
    meet(job);
    free(x);
    return NULL;
}

// z = x + y over n elements; y stays, x is new in every round.
static void *stream(void *arg) {
    lane_t *lane = arg;
    job_t *job = lane->job;
    add_fn *volatile pointer = add_kernel;
    add_fn *kernel = pointer;
    uint64_t from, to;
    part(lane, job->n, 65536, &from, &to);
    fill(mem.y + from, from, to - from, KEY_Y, DATA_ROUND, -1.0f, 1.0f);
    meet(job);
    for (uint64_t round = 0; round < job->rounds; round++) {
        fill(mem.x + from, from, to - from, KEY_X, (uint32_t)round, -1.0f, 1.0f);
        meet(job); // the input is complete before the kernel starts
        kernel(mem.x + from, mem.y + from, mem.z + from, to - from);
        meet(job); // the output is complete before it is checked
        lane->bad += check_sum(mem.x + from, mem.y + from, mem.z + from, to - from);
        lane->checksum += mem.z[from + round % (to - from)];
        meet(job);
    }
    return NULL;
}

// Twenty kernels in a row over n elements, ping and pong between two scratch buffers.
static void *chain(void *arg) {
    lane_t *lane = arg;
    job_t *job = lane->job;
    affine_fn *volatile pointer = affine_kernel;
    affine_fn *kernel = pointer;
    double scale = 1, shift = 0;
    for (int k = 0; k < CHAIN; k++)
        scale *= chain_scale(k), shift = shift * chain_scale(k) + chain_shift(k);
    uint64_t from, to;
    part(lane, job->n, 65536, &from, &to);
    meet(job);
    for (uint64_t round = 0; round < job->rounds; round++) {
        fill(mem.x + from, from, to - from, KEY_X, (uint32_t)round, -1.0f, 1.0f);
        const float *in = mem.x;
        for (int k = 0; k < CHAIN; k++) {
            meet(job); // a kernel may read all of what the one before wrote
            float *out = k == CHAIN - 1 ? mem.z : mem.scratch[k % 2];
            kernel(in + from, out + from, chain_scale(k), chain_shift(k), to - from);
            in = out;
        }
        meet(job);
        lane->bad += check_affine(mem.x + from, mem.z + from, to - from, scale, shift);
        lane->checksum += mem.z[from + round % (to - from)];
        meet(job);
    }
    return NULL;
}

// c = a b, n x n; a is new in every round, b stays. The expectation is the same product in f64.
static void *matmul(void *arg) {
    lane_t *lane = arg;
    job_t *job = lane->job;
    matmul_fn *volatile pointer = matmul_kernel;
    matmul_fn *kernel = pointer;
    uint64_t n = job->n, from, to;
    part(lane, n, 8, &from, &to); // rows
    fill(mem.y + from * n, from * n, (to - from) * n, KEY_Y, DATA_ROUND, -1.0f, 1.0f);
    meet(job);
    if (lane->id == 0)
        pack_panels(mem.y, mem.b_wide, n, n);
    meet(job);
    for (uint64_t round = 0; round < job->rounds; round++) {
        fill(mem.x + from * n, from * n, (to - from) * n, KEY_X, (uint32_t)round, -1.0f, 1.0f);
        meet(job);
        kernel(mem.x + from * n, mem.y, mem.z + from * n, to - from, n, n);
        meet(job);
        for (uint64_t i = from * n; i < to * n; i++)
            mem.a_wide[i] = mem.x[i];
        expected_matmul(mem.a_wide + from * n, mem.b_wide, mem.want + from * n, to - from, n, n);
        lane->bad += check_values(mem.want + from * n, mem.z + from * n, (to - from) * n, 1e-4, 1e-4);
        lane->checksum += mem.z[from * n + round % n];
        meet(job);
    }
    return NULL;
}

int main(int argc, char **argv) {
    job_t job;
    if (!read_job(&job, argc - 1, argv + 1)) {
        fprintf(stderr, "usage: baseline tiny|stream|chain|matmul ROUNDS THREADS [N]\n");
        return 2;
    }
    choose();
    self_test();
    if (job.mode != MODE_TINY) {
        uint64_t elements = job.mode == MODE_MATMUL ? job.n * job.n : job.n;
        mem.x = aligned(elements * sizeof(float));
        mem.z = aligned(elements * sizeof(float));
        if (job.mode == MODE_CHAIN) {
            mem.scratch[0] = aligned(elements * sizeof(float));
            mem.scratch[1] = aligned(elements * sizeof(float));
        } else {
            mem.y = aligned(elements * sizeof(float));
        }
        if (job.mode == MODE_MATMUL) {
            mem.want = aligned(elements * sizeof(double));
            mem.a_wide = aligned(elements * sizeof(double));
            mem.b_wide = aligned(elements * sizeof(double));
        }
    }
    static void *(*const bodies[])(void *) = {tiny, stream, chain, matmul};
    result_t result = run_lanes(&job, bodies[job.mode]);
    print_result(&job, &result, "");
    return result.bad != 0;
}
