// The hand-written program that runjob's OpenCL backend is measured against: the same work, without runjob.
//
//     cc -O3 -march=native -pthread opencl.c work.c kernels.c -o opencl -lOpenCL -lm
//     ./opencl <kernels.cl> <device> tiny|stream|chain|matmul <rounds> <threads> [n] [way=copy|map] [sets=S] [batch=B]
//
// <device> is a part of its name. Every round fills its inputs anew from Philox4x32-10, launches the kernels, and
// checks every element of the result in f64. Buffers and kernels are made once, arguments are set once.
//
// The fastest way to do that differs by device, so several are tried before the clock starts:
//     way     `copy` writes and reads a device buffer, `map` maps one that the host reaches without a copy;
//     sets    buffers, kernels and a queue for so many submissions, so that the host works on one while others run;
//     batch   rounds per submission, of `tiny`.
// `way=`, `sets=` and `batch=` keep the trial to what they say.
//
// `tiny` gives each thread rounds and sets of its own; the others split every round over all threads, with barriers,
// and the first thread talks to the driver. One line of JSON goes to standard output. The exit code is 1 when an
// element was wrong.

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "work.h"

// ---- Driver calls, counted and checked ---------------------------------------------------------------------------

static _Thread_local uint64_t calls;
static _Thread_local cl_int status;

static void *done(const char *function, cl_int code, void *made) {
    if (code != CL_SUCCESS) {
        fprintf(stderr, "%s ended with %d\n", function, code);
        exit(3);
    }
    return made;
}

#define DO(function, ...) done(#function, (calls++, function(__VA_ARGS__)), NULL)
// For functions that return what they made, with the status in their last argument.
#define MAKE(function, ...) make(#function, (calls++, function(__VA_ARGS__, &status)))
static void *make(const char *function, void *made) { return done(function, status, made); }

// ---- The device --------------------------------------------------------------------------------------------------

static cl_device_id device;
static char device_name[256];
static cl_context context;
static cl_program program;

static void open_device(const char *part_of_name) {
    cl_platform_id platforms[16];
    cl_uint platform_count = 0;
    DO(clGetPlatformIDs, 16, platforms, &platform_count);
    for (cl_uint p = 0; p < platform_count && p < 16 && !device; p++) {
        cl_device_id devices[64];
        cl_uint count = 0;
        if (clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, 64, devices, &count) != CL_SUCCESS)
            continue; // a platform may have none
        for (cl_uint d = 0; d < count && d < 64 && !device; d++) {
            DO(clGetDeviceInfo, devices[d], CL_DEVICE_NAME, sizeof device_name, device_name, NULL);
            if (strstr(device_name, part_of_name))
                device = devices[d];
        }
    }
    if (!device) {
        fprintf(stderr, "no OpenCL device has `%s` in its name\n", part_of_name);
        exit(3);
    }
    context = MAKE(clCreateContext, NULL, 1, &device, NULL, NULL);
}

static void build(const char *path) {
    static char text[1 << 16], log[1 << 14];
    FILE *file = fopen(path, "rb");
    if (!file || fread(text, 1, sizeof text - 1, file) == 0) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(3);
    }
    fclose(file);
    const char *source = text;
    program = MAKE(clCreateProgramWithSource, context, 1, &source, NULL);
    if (clBuildProgram(program, 1, &device, "", NULL, NULL) != CL_SUCCESS) {
        clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, sizeof log - 1, log, NULL);
        fprintf(stderr, "%s: %s\n", path, log);
        exit(3);
    }
}

// ---- Sets: what one submission occupies --------------------------------------------------------------------------

enum { MOST_SETS = 4, MOST_BATCH = 64, PAGE = 4096, BLOCK = 1024 };

typedef struct {
    bool map;
    int sets, batch;
} way_t;

// One buffer holds the inputs of all rounds of the batch, then their outputs: one transfer or map each way.
typedef struct {
    cl_command_queue queue;
    cl_mem whole, parts[3 * MOST_BATCH], scratch[2];
    cl_kernel kernels[MOST_BATCH];
    int part_count, kernel_count, launches; // launches of one round
    float *host;                            // what the host reads and writes
    uint64_t x_step, outputs, bytes;        // floats between the inputs of two rounds; bytes before the outputs, in all
    cl_event ready;
    uint64_t rounds[MOST_BATCH];
    int filled;
} set_t;

static cl_mem fixed;                  // stream, matmul: the input that stays
static float *fixed_host;             // and the host's copy
static double *want, *a_wide, *b_wide; // matmul: the expectation, a and b in f64
static set_t *ring;                   // of lane 0, of lane 1, ...
static way_t way;

static float *x_of(const set_t *set, int b) { return set->host + set->x_step * (uint64_t)b; }
static float *z_of(const set_t *set, const job_t *job, int b) {
    return set->host + set->outputs / sizeof(float) + (uint64_t)b * job->n;
}

static cl_mem part_of(set_t *set, uint64_t at, uint64_t bytes) {
    cl_buffer_region region = {at, bytes};
    return set->parts[set->part_count++] =
               MAKE(clCreateSubBuffer, set->whole, 0, CL_BUFFER_CREATE_TYPE_REGION, &region);
}

static void map_set(set_t *set, cl_bool blocking, cl_event *ready) {
    set->host = MAKE(clEnqueueMapBuffer, set->queue, set->whole, blocking, CL_MAP_READ | CL_MAP_WRITE, 0, set->bytes, 0,
                     NULL, ready);
}

static void add_kernel_of(set_t *set, const char *name, cl_mem in, cl_mem second, cl_mem out, int k, cl_uint n) {
    cl_kernel kernel = set->kernels[set->kernel_count++] = MAKE(clCreateKernel, program, name);
    cl_uint arg = 0;
    DO(clSetKernelArg, kernel, arg++, sizeof in, &in);
    if (second)
        DO(clSetKernelArg, kernel, arg++, sizeof second, &second);
    DO(clSetKernelArg, kernel, arg++, sizeof out, &out);
    if (!second) {
        cl_float scale = chain_scale(k), shift = chain_shift(k);
        DO(clSetKernelArg, kernel, arg++, sizeof scale, &scale);
        DO(clSetKernelArg, kernel, arg++, sizeof shift, &shift);
    }
    DO(clSetKernelArg, kernel, arg++, sizeof n, &n);
}

static uint64_t elements_of(const job_t *job) { return job->mode == MODE_MATMUL ? job->n * job->n : job->n; }

static void make_set(const job_t *job, set_t *set) {
    memset(set, 0, sizeof *set);
    uint64_t bytes = elements_of(job) * sizeof(float), inputs = job->mode == MODE_TINY ? 2 : 1;
    set->x_step = inputs * job->n;
    set->outputs = (inputs * bytes * (uint64_t)way.batch + PAGE - 1) / PAGE * PAGE;
    set->bytes = set->outputs + bytes * (uint64_t)way.batch;
    set->queue = MAKE(clCreateCommandQueue, context, device, 0);
    cl_mem_flags flags = CL_MEM_READ_WRITE | (way.map ? CL_MEM_ALLOC_HOST_PTR : 0);
    set->whole = MAKE(clCreateBuffer, context, flags, set->bytes, NULL);
    if (way.map)
        map_set(set, CL_TRUE, NULL);
    else
        set->host = aligned(set->bytes);
    if (job->mode == MODE_CHAIN)
        for (int i = 0; i < 2; i++)
            set->scratch[i] = MAKE(clCreateBuffer, context, CL_MEM_READ_WRITE | CL_MEM_HOST_NO_ACCESS, bytes, NULL);
    for (int b = 0; b < way.batch; b++) {
        cl_mem in = part_of(set, inputs * bytes * (uint64_t)b, bytes);
        cl_mem second = job->mode == MODE_TINY ? part_of(set, (inputs * (uint64_t)b + 1) * bytes, bytes) : fixed;
        cl_mem out = part_of(set, set->outputs + bytes * (uint64_t)b, bytes);
        if (job->mode != MODE_CHAIN)
            add_kernel_of(set, job->mode == MODE_MATMUL ? "matmul" : "add", in, second, out, 0, (cl_uint)job->n);
        for (int k = 0; job->mode == MODE_CHAIN && k < CHAIN; k++)
            add_kernel_of(set, "affine", k ? set->scratch[(k - 1) % 2] : in, NULL,
                          k == CHAIN - 1 ? out : set->scratch[k % 2], k, (cl_uint)job->n);
    }
    set->launches = set->kernel_count / way.batch;
}

static void free_set(set_t *set) {
    if (way.map)
        DO(clEnqueueUnmapMemObject, set->queue, set->whole, set->host, 0, NULL, NULL);
    DO(clFinish, set->queue);
    if (!way.map)
        free(set->host);
    for (int k = 0; k < set->kernel_count; k++)
        DO(clReleaseKernel, set->kernels[k]);
    for (int p = 0; p < set->part_count; p++)
        DO(clReleaseMemObject, set->parts[p]);
    for (int i = 0; i < 2; i++)
        if (set->scratch[i])
            DO(clReleaseMemObject, set->scratch[i]);
    DO(clReleaseMemObject, set->whole);
    DO(clReleaseCommandQueue, set->queue);
}

// Starts the rounds that are in the set. With several sets the way back starts too, and an event says when it is done.
static void submit(const job_t *job, set_t *set) {
    uint64_t outputs = job->n * sizeof(float) * (uint64_t)set->filled;
    if (way.map)
        DO(clEnqueueUnmapMemObject, set->queue, set->whole, set->host, 0, NULL, NULL);
    else
        DO(clEnqueueWriteBuffer, set->queue, set->whole, CL_FALSE, 0,
           job->mode == MODE_TINY ? 2 * outputs : elements_of(job) * sizeof(float), set->host, 0, NULL, NULL);
    size_t blocks = (job->n + BLOCK - 1) / BLOCK;
    size_t global[2] = {blocks * BLOCK, 1}, local[2] = {BLOCK, 1};
    if (job->mode == MODE_MATMUL)
        global[0] = job->n / 64, global[1] = job->n / 4, local[0] = 1, local[1] = 16;
    for (int k = 0; k < set->launches * set->filled; k++)
        DO(clEnqueueNDRangeKernel, set->queue, set->kernels[k], job->mode == MODE_MATMUL ? 2 : 1, NULL, global, local, 0,
           NULL, NULL);
    if (way.sets > 1) {
        if (way.map)
            map_set(set, CL_FALSE, &set->ready);
        else
            DO(clEnqueueReadBuffer, set->queue, set->whole, CL_FALSE, set->outputs, set->bytes - set->outputs,
               set->host + set->outputs / sizeof(float), 0, NULL, &set->ready);
        DO(clFlush, set->queue);
    }
}

// Returns when the outputs are the host's.
static void retire(set_t *set) {
    if (way.sets > 1) {
        DO(clWaitForEvents, 1, &set->ready);
        DO(clReleaseEvent, set->ready);
    } else if (way.map) {
        map_set(set, CL_TRUE, NULL);
    } else {
        DO(clEnqueueReadBuffer, set->queue, set->whole, CL_TRUE, set->outputs, set->bytes - set->outputs,
           set->host + set->outputs / sizeof(float), 0, NULL, NULL);
    }
}

// ---- Lanes -------------------------------------------------------------------------------------------------------

// The lane's rounds that come next, at most a batch, DEAL at a time; false where there are none.
static bool fill_batch(const lane_t *lane, set_t *set, uint64_t *next) {
    const job_t *job = lane->job;
    for (set->filled = 0; set->filled < way.batch; set->filled++, ++*next) {
        uint64_t round = (*next / DEAL * (uint64_t)job->threads + (uint64_t)lane->id) * DEAL + *next % DEAL;
        if (round >= job->rounds)
            break;
        float *x = x_of(set, set->filled);
        fill(x, 0, TINY, KEY_X, (uint32_t)round, -1.0f, 1.0f);
        fill(x + TINY, 0, TINY, KEY_Y, (uint32_t)round, -1.0f, 1.0f);
        set->rounds[set->filled] = round;
    }
    return set->filled > 0;
}

static void *tiny(void *arg) {
    lane_t *lane = arg;
    job_t *job = lane->job;
    set_t *mine = ring + lane->id * way.sets;
    uint64_t before = calls, next = 0, submitted = 0, retired = 0;
    meet(job);
    for (bool more = true; more || retired < submitted;) {
        set_t *set = &mine[submitted % (uint64_t)way.sets];
        if (more && (more = fill_batch(lane, set, &next))) {
            submit(job, set);
            submitted++;
        }
        if (retired == submitted || (more && submitted - retired < (uint64_t)way.sets))
            continue;
        set = &mine[retired++ % (uint64_t)way.sets];
        retire(set);
        for (int b = 0; b < set->filled; b++) {
            const float *x = x_of(set, b), *z = z_of(set, job, b);
            lane->bad += check_sum(x, x + TINY, z, TINY);
            lane->checksum += z[set->rounds[b] % TINY];
        }
    }
    lane->calls = calls - before;
    meet(job);
    return NULL;
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
    lane_t *lane = arg;
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
            lane->bad += check_part(job, x_of(set, 0), z, from, to);
            lane->checksum += z[from + (step - sets) % (to - from)];
        }
        if (starts)
            fill(x_of(set, 0) + from, from, to - from, KEY_X, (uint32_t)step, -1.0f, 1.0f);
        meet(job); // the input is complete, and every lane has checked
        if (lane->id == 0 && starts) {
            set->filled = 1;
            submit(job, set);
        }
    }
    lane->calls = calls - before;
    return NULL;
}

// ---- Ways --------------------------------------------------------------------------------------------------------

static void *(*body_of(const job_t *job))(void *) { return job->mode == MODE_TINY ? tiny : split; }

static uint64_t lanes_with_sets(const job_t *job) { return job->mode == MODE_TINY ? (uint64_t)job->threads : 1; }

static void make_ring(const job_t *job) {
    uint64_t count = lanes_with_sets(job) * (uint64_t)way.sets;
    ring = calloc(count, sizeof *ring);
    if (!ring)
        exit(3);
    for (uint64_t i = 0; i < count; i++)
        make_set(job, &ring[i]);
}

static void free_ring(const job_t *job) {
    for (uint64_t i = 0; i < lanes_with_sets(job) * (uint64_t)way.sets; i++)
        free_set(&ring[i]);
    free(ring);
}

// Rounds of a warm-up, after which every kernel is compiled, every page touched and every set used.
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
    free_ring(job);
    return 1e9 * least;
}

// 0 and NULL stand for all.
static way_t fastest_way(const job_t *job, const char *only, int sets, int batch) {
    static const int set_counts[] = {1, 2, 3, MOST_SETS}, batches[] = {1, 4, 16, MOST_BATCH};
    way_t best = {0};
    double least = INFINITY;
    for (int map = 0; map < 2; map++)
        for (int s = 0; s < 4; s++)
            for (int b = 0; b < (job->mode == MODE_TINY ? 4 : 1); b++) {
                way = (way_t){map, set_counts[s], batches[b]};
                if ((only && strcmp(only, map ? "map" : "copy")) || (sets && sets != way.sets) || (batch && batch != way.batch))
                    continue;
                double took = try_way(job);
                if (getenv("BASELINE_WAYS"))
                    fprintf(stderr, "%s, %d sets, batches of %d: %.0f ns\n", map ? "map" : "copy", way.sets, way.batch, took);
                if (took < least)
                    least = took, best = way;
            }
    return best;
}

// ------------------------------------------------------------------------------------------------------------------

int main(int argc, char **argv) {
    job_t job;
    const char *only = NULL;
    int sets = 0, batch = 0, options = argc;
    while (options > 3 && strchr(argv[options - 1], '=')) {
        const char *option = argv[--options];
        if (!strncmp(option, "way=", 4))
            only = option + 4;
        else if (sscanf(option, "sets=%d", &sets) != 1 && sscanf(option, "batch=%d", &batch) != 1)
            options = 0;
    }
    if (options < 4 || !read_job(&job, options - 3, argv + 3) || (job.mode == MODE_MATMUL && job.n % 64)) {
        fprintf(stderr, "usage: opencl KERNELS.cl DEVICE tiny|stream|chain|matmul ROUNDS THREADS [N] "
                        "[way=copy|map] [sets=1|2|3|4] [batch=1|4|16|64]\n");
        return 2;
    }
    choose();
    self_test();
    open_device(argv[2]);
    build(argv[1]);
    if (job.mode == MODE_STREAM || job.mode == MODE_MATMUL) {
        uint64_t elements = elements_of(&job);
        fixed_host = aligned(elements * sizeof(float));
        fill(fixed_host, 0, elements, KEY_Y, DATA_ROUND, -1.0f, 1.0f);
        fixed = MAKE(clCreateBuffer, context, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, elements * sizeof(float), fixed_host);
        if (job.mode == MODE_MATMUL) {
            want = aligned(elements * sizeof(double));
            a_wide = aligned(elements * sizeof(double));
            b_wide = aligned(elements * sizeof(double));
            pack_panels(fixed_host, b_wide, job.n, job.n);
        }
    }
    way = fastest_way(&job, only, sets, batch);
    if (!way.sets) {
        fprintf(stderr, "no way that is tried has these options\n");
        return 2;
    }
    job_t warm_up = warm_up_of(&job);
    make_ring(&job);
    run_lanes(&warm_up, body_of(&job));
    result_t result = run_lanes(&job, body_of(&job));
    free_ring(&job);
    char more[512];
    snprintf(more, sizeof more, ",\"device\":\"%s\",\"way\":\"%s\",\"sets\":%d,\"batch\":%d,\"calls_per_round\":%.3f",
             device_name, way.map ? "map" : "copy", way.sets, way.batch, (double)result.calls / (double)job.rounds);
    print_result(&job, &result, more);
    return result.bad != 0;
}
