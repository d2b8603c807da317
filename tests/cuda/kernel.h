// What a compiled kernel and the driver know of each other. Included by both sides; takes no header, since kernels are
// compiled without any.
#pragma once

// Every thread of a block runs on a stack of this size, aligned to it: the thread finds itself in its lowest bytes.
#define SIM_STACK 262144ul
// The most dynamic shared memory, and the bytes behind it that tell of a write past what was asked for.
#define SIM_SHARED 232448ul
#define SIM_SHARED_GUARD 4096ul

struct SimThread;

struct SimDevice {
    // Waits for the block's threads; what = 0 counts, 1 ands, 2 ors the predicates.
    int (*barrier)(SimThread *, int what, int predicate);
    // Waits for the warp's lanes of the mask, and gives the values of all 32 and a mask of those that have one: good
    // until the lane's next exchange.
    const unsigned long long *(*exchange)(SimThread *, unsigned mask, unsigned long long value);
    unsigned (*active)(SimThread *);
    // Ends the kernel with an error of the driver's.
    void (*stop)(SimThread *, int code, const char *text);
};

struct SimThread {
    unsigned thread[3], block[3], block_dim[3], grid_dim[3];
    const SimDevice *device;
    void *fiber;
};

struct SimParam {
    unsigned long offset, size;
};

// A kernel of a module; `expression` is its name in the source.
struct SimKernel {
    const char *expression;
    void *address;
    void (*call)(void **);
    const SimParam *params;
    unsigned long param_count;
    int max_threads;
    SimKernel *next;
};

// The symbols of a module.
#define SIM_KERNELS "sim_kernels"
#define SIM_SHARED_BASE "sim_shared_base"
typedef SimKernel *(*SimKernels)(void);
typedef char *(*SimSharedBase)(void);
