// The hand-written program that runjob's CUDA backend is measured against: the same work, without runjob.
//
//     cc -O3 -march=native -c work.c kernels.c
//     nvcc -O3 -std=c++17 -arch=native cuda.cu work.o kernels.o -o cuda
//     ./cuda tiny|stream|chain|matmul <rounds> <threads> [n] [sets=S] [batch=B]
//
// Every round fills its inputs anew from Philox4x32-10 in page-locked memory, uploads them, launches the kernels of
// `../specs/kernels/kernels.cu`, reads the result back, and checks every element of it in f64. Memory is allocated once;
// all that a submission does on the device is one graph, captured once and launched with one call.
//
// What is fastest differs by device, so several are tried before the clock starts:
//     sets    memory, graphs and streams for so many submissions, so that the host works on one while others run;
//     batch   rounds per submission, of `tiny`.
// `sets=` and `batch=` keep the trial to what they say.
//
// `tiny` gives each thread rounds and sets of its own; the others split every round over all threads, with barriers,
// and the first thread talks to the driver. One line of JSON goes to standard output. The exit code is 1 when an
// element was wrong, and 3 when there is no device.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" {
#include "kernels.h"
#include "work.h"
}

#include "../specs/kernels/kernels.cu"

static thread_local uint64_t calls;

#define DO(call) check_call((calls++, call), #call)

static void check_call(cudaError_t code, const char *call) {
    if (code != cudaSuccess) {
        fprintf(stderr, "%s: %s: %s\n", call, cudaGetErrorName(code), cudaGetErrorString(code));
        exit(3);
    }
}

// ---- Sets: what one submission occupies --------------------------------------------------------------------------

constexpr int MOST_SETS = 4, MOST_BATCH = 64;
constexpr unsigned BLOCK = 256;

struct way_t {
    int sets, batch;
};

// The inputs of all rounds of the batch, then their outputs: one transfer each way.
struct set_t {
    cudaStream_t stream;
    cudaGraphExec_t graph;
    float *host, *device, *scratch[2];
    uint64_t inputs, outputs; // floats
    int filled;
    uint64_t rounds[MOST_BATCH];
};

static way_t way;
static std::vector<set_t> ring;
static float *fixed, *fixed_host; // what stays: the second term of a stream, the second factor of a matmul
static double *want, *a_wide, *b_wide;

static uint64_t elements_of(const job_t *job) { return job->mode == MODE_MATMUL ? job->n * job->n : job->n; }

static uint64_t inputs_of(const job_t *job) { return job->mode == MODE_TINY ? 2 : 1; }

static float *x_of(const set_t *set, const job_t *job, int b) { return set->host + inputs_of(job) * elements_of(job) * b; }

static const float *z_of(const set_t *set, const job_t *job, int b) { return set->host + set->inputs + elements_of(job) * b; }

static void launch(const job_t *job, const set_t *set, int b) {
    uint64_t elements = elements_of(job);
    const float *x = set->device + inputs_of(job) * elements * b;
    float *z = set->device + set->inputs + elements * b;
    unsigned n = (unsigned)job->n, block = job->mode == MODE_TINY ? (unsigned)TINY : BLOCK, blocks = (n + block - 1) / block;
    switch (job->mode) {
    case MODE_TINY:
        add<<<blocks, block, 0, set->stream>>>(x, x + TINY, z, n);
        break;
    case MODE_STREAM:
        add<<<blocks, block, 0, set->stream>>>(x, fixed, z, n);
        break;
    case MODE_CHAIN:
        for (int k = 0; k < CHAIN; k++)
            affine<<<blocks, block, 0, set->stream>>>(k ? set->scratch[(k - 1) % 2] : x, k == CHAIN - 1 ? z : set->scratch[k % 2],
                                                      chain_scale(k), chain_shift(k), n);
        break;
    case MODE_MATMUL:
        matmul<<<dim3(n / 64, n / 64), dim3(16, 16), 0, set->stream>>>(x, fixed, z, n);
        break;
    }
    DO(cudaGetLastError());
}

static void make_set(const job_t *job, set_t *set) {
    uint64_t elements = elements_of(job), bytes = sizeof(float);
    set->inputs = inputs_of(job) * elements * way.batch;
    set->outputs = elements * way.batch;
    DO(cudaStreamCreateWithFlags(&set->stream, cudaStreamNonBlocking));
    DO(cudaHostAlloc((void **)&set->host, (set->inputs + set->outputs) * bytes, cudaHostAllocDefault));
    memset(set->host, 0, (set->inputs + set->outputs) * bytes);
    DO(cudaMalloc((void **)&set->device, (set->inputs + set->outputs) * bytes));
    for (int i = 0; i < 2 && job->mode == MODE_CHAIN; i++)
        DO(cudaMalloc((void **)&set->scratch[i], elements * bytes));
    cudaGraph_t graph;
    DO(cudaStreamBeginCapture(set->stream, cudaStreamCaptureModeThreadLocal));
    DO(cudaMemcpyAsync(set->device, set->host, set->inputs * bytes, cudaMemcpyHostToDevice, set->stream));
    for (int b = 0; b < way.batch; b++)
        launch(job, set, b);
    DO(cudaMemcpyAsync(set->host + set->inputs, set->device + set->inputs, set->outputs * bytes, cudaMemcpyDeviceToHost, set->stream));
    DO(cudaStreamEndCapture(set->stream, &graph));
    DO(cudaGraphInstantiateWithFlags(&set->graph, graph, 0));
    DO(cudaGraphDestroy(graph));
    DO(cudaGraphUpload(set->graph, set->stream));
    DO(cudaStreamSynchronize(set->stream));
}

static void free_set(set_t *set) {
    DO(cudaStreamSynchronize(set->stream));
    DO(cudaGraphExecDestroy(set->graph));
    for (float *scratch : set->scratch)
        if (scratch)
            DO(cudaFree(scratch));
    DO(cudaFree(set->device));
    DO(cudaFreeHost(set->host));
    DO(cudaStreamDestroy(set->stream));
}

static void submit(set_t *set) { DO(cudaGraphLaunch(set->graph, set->stream)); }

// Returns when the outputs are the host's.
static void retire(set_t *set) { DO(cudaStreamSynchronize(set->stream)); }

// ---- Lanes -------------------------------------------------------------------------------------------------------

// The lane's rounds that come next, at most a batch, DEAL at a time; false where there are none.
static bool fill_batch(const lane_t *lane, set_t *set, uint64_t *next) {
    const job_t *job = lane->job;
    for (set->filled = 0; set->filled < way.batch; set->filled++, ++*next) {
        uint64_t round = (*next / DEAL * (uint64_t)job->threads + (uint64_t)lane->id) * DEAL + *next % DEAL;
        if (round >= job->rounds)
            break;
        float *x = x_of(set, job, set->filled);
        fill(x, 0, TINY, KEY_X, (uint32_t)round, -1.0f, 1.0f);
        fill(x + TINY, 0, TINY, KEY_Y, (uint32_t)round, -1.0f, 1.0f);
        set->rounds[set->filled] = round;
    }
    return set->filled > 0;
}

static void *tiny(void *arg) {
    lane_t *lane = (lane_t *)arg;
    job_t *job = lane->job;
    set_t *mine = ring.data() + lane->id * way.sets;
    uint64_t before = calls, next = 0, submitted = 0, retired = 0;
    meet(job);
    for (bool more = true; more || retired < submitted;) {
        set_t *set = &mine[submitted % (uint64_t)way.sets];
        if (more && (more = fill_batch(lane, set, &next))) {
            submit(set);
            submitted++;
        }
        if (retired == submitted || (more && submitted - retired < (uint64_t)way.sets))
            continue;
        set = &mine[retired++ % (uint64_t)way.sets];
        retire(set);
        for (int b = 0; b < set->filled; b++) {
            const float *x = x_of(set, job, b), *z = z_of(set, job, b);
            lane->bad += check_sum(x, x + TINY, z, TINY);
            lane->checksum += z[set->rounds[b] % TINY];
        }
    }
    lane->calls = calls - before;
    meet(job);
    return nullptr;
}

static uint64_t check_part(const job_t *job, const float *x, const float *z, uint64_t from, uint64_t to) {
    if (job->mode == MODE_STREAM)
        return check_sum(x + from, fixed_host + from, z + from, to - from);
    if (job->mode == MODE_CHAIN) {
        double scale = 1, shift = 0;
        for (int k = 0; k < CHAIN; k++)
            scale *= chain_scale(k), shift = shift * chain_scale(k) + chain_shift(k);
        return check_affine(x + from, z + from, to - from, scale, shift);
    }
    for (uint64_t i = from; i < to; i++)
        a_wide[i] = x[i];
    expected_matmul(a_wide + from, b_wide, want + from, (to - from) / job->n, job->n, job->n);
    return check_values(want + from, z + from, to - from, 1e-4, 1e-4);
}

// Step r checks round r - sets and fills round r in the same set, while the rounds between are on the device.
static void *split(void *arg) {
    lane_t *lane = (lane_t *)arg;
    job_t *job = lane->job;
    uint64_t sets = (uint64_t)way.sets, row = job->mode == MODE_MATMUL ? job->n : 1, before = calls, from, to;
    part(lane, job->n, row == 1 ? 65536 : 8, &from, &to);
    from *= row, to *= row;
    for (uint64_t step = 0; step < job->rounds + sets; step++) {
        set_t *set = &ring[step % sets];
        bool ends = step >= sets && step - sets < job->rounds, starts = step < job->rounds;
        if (lane->id == 0 && ends)
            retire(set);
        meet(job); // the outputs are the host's
        if (ends) {
            const float *z = z_of(set, job, 0);
            lane->bad += check_part(job, x_of(set, job, 0), z, from, to);
            lane->checksum += z[from + (step - sets) % (to - from)];
        }
        if (starts)
            fill(x_of(set, job, 0) + from, from, to - from, KEY_X, (uint32_t)step, -1.0f, 1.0f);
        meet(job); // the input is complete, and every lane has checked
        if (lane->id == 0 && starts)
            submit(set);
    }
    lane->calls = calls - before;
    return nullptr;
}

// ---- Ways --------------------------------------------------------------------------------------------------------

static void *(*body_of(const job_t *job))(void *) { return job->mode == MODE_TINY ? tiny : split; }

static void make_ring(const job_t *job) {
    uint64_t lanes = job->mode == MODE_TINY ? (uint64_t)job->threads : 1;
    ring.assign(lanes * (uint64_t)way.sets, set_t());
    for (set_t &set : ring)
        make_set(job, &set);
}

static void free_ring() {
    for (set_t &set : ring)
        free_set(&set);
}

// Rounds of a warm-up, after which every page is touched and every set used.
static job_t warm_up_of(const job_t *job) {
    job_t some = *job;
    some.rounds = job->mode == MODE_TINY ? (uint64_t)job->threads * DEAL * MOST_SETS : MOST_SETS;
    return some;
}

// Nanoseconds per round in this way: the least of three short runs.
static double try_way(const job_t *job) {
    job_t some = warm_up_of(job);
    double least = INFINITY;
    make_ring(job);
    run_lanes(&some, body_of(job));
    for (int i = 0; i < 3; i++)
        least = fmin(least, run_lanes(&some, body_of(job)).seconds / (double)some.rounds);
    free_ring();
    return 1e9 * least;
}

// 0 stands for all.
static way_t fastest_way(const job_t *job, int sets, int batch) {
    static const int set_counts[] = {1, 2, 3, MOST_SETS}, batches[] = {1, 4, 16, MOST_BATCH};
    way_t best = {};
    double least = INFINITY;
    for (int s : set_counts)
        for (int b : batches) {
            if ((sets && sets != s) || (batch && batch != b) || (job->mode != MODE_TINY && b != 1))
                continue;
            way = {s, b};
            double took = try_way(job);
            if (getenv("BASELINE_WAYS"))
                fprintf(stderr, "%d sets, batches of %d: %.0f ns\n", s, b, took);
            if (took < least)
                least = took, best = way;
        }
    return best;
}

// ------------------------------------------------------------------------------------------------------------------

int main(int argc, char **argv) {
    job_t job;
    int sets = 0, batch = 0, options = argc;
    while (options > 1 && strchr(argv[options - 1], '=')) {
        const char *option = argv[--options];
        if (sscanf(option, "sets=%d", &sets) != 1 && sscanf(option, "batch=%d", &batch) != 1)
            options = 0;
    }
    if (options < 2 || !read_job(&job, options - 1, argv + 1) || (job.mode == MODE_MATMUL && job.n % 64)) {
        fprintf(stderr, "usage: cuda tiny|stream|chain|matmul ROUNDS THREADS [N] [sets=1|2|3|4] [batch=1|4|16|64]\n");
        return 2;
    }
    choose();
    self_test();
    cudaDeviceProp device;
    DO(cudaGetDeviceProperties(&device, 0));
    if (job.mode == MODE_STREAM || job.mode == MODE_MATMUL) {
        uint64_t elements = elements_of(&job);
        fixed_host = (float *)aligned(elements * sizeof(float));
        fill(fixed_host, 0, elements, KEY_Y, DATA_ROUND, -1.0f, 1.0f);
        DO(cudaMalloc((void **)&fixed, elements * sizeof(float)));
        DO(cudaMemcpy(fixed, fixed_host, elements * sizeof(float), cudaMemcpyHostToDevice));
        if (job.mode == MODE_MATMUL) {
            want = (double *)aligned(elements * sizeof(double));
            a_wide = (double *)aligned(elements * sizeof(double));
            b_wide = (double *)aligned(elements * sizeof(double));
            pack_panels(fixed_host, b_wide, job.n, job.n);
        }
    }
    way = fastest_way(&job, sets, batch);
    if (!way.sets) {
        fprintf(stderr, "no way that is tried has these options\n");
        return 2;
    }
    job_t warm_up = warm_up_of(&job);
    make_ring(&job);
    run_lanes(&warm_up, body_of(&job));
    result_t result = run_lanes(&job, body_of(&job));
    free_ring();
    char more[512];
    snprintf(more, sizeof more, ",\"device\":\"%s\",\"sets\":%d,\"batch\":%d,\"calls_per_round\":%.3f", device.name, way.sets,
             way.batch, (double)result.calls / (double)job.rounds);
    print_result(&job, &result, more);
    return result.bad != 0;
}
