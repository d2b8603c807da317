// Runs a kernel's blocks one after the other in the thread of a stream. A block's threads are fibers that a barrier or
// an exchange of a warp suspends; one fiber does thread after thread as long as none has to wait. What faults in a
// kernel ends it with the driver's error.
#include "sim.h"
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

// The values of a warp's exchange, held by every lane that took part until its next one.
struct Exchange {
    unsigned long long values[33]; // of the lanes, and which of them have one
    int holders;
};

struct Fiber {
#if defined(__x86_64__)
    void *stack = nullptr;
#else
    ucontext_t stack;
#endif
    SimThread *self = nullptr;
    unsigned thread = 0; // in the block
    bool begun = false, waits_for_block = false, waits_for_warp = false;
    unsigned mask = 0;
    unsigned long long value = 0;
    Exchange *exchange = nullptr;
};

struct Warp {
    unsigned left = 0; // lanes that are not at the kernel's end
    Fiber *lanes[32] = {};
};

// What a thread of a stream runs kernels with.
struct Worker {
    Fiber main, *now = nullptr;
    std::vector<Fiber> fibers = std::vector<Fiber>(1024);
    std::vector<Fiber *> idle;
    std::deque<Fiber *> ready;
    std::vector<Fiber *> at_barrier;
    std::vector<Exchange *> spare;
    std::vector<Warp> warps;
    char *stacks = nullptr;
    void *signal_stack = nullptr;
    const Launch *launch = nullptr;
    std::vector<void *> args;
    unsigned block[3] = {}, threads = 0, next = 0, ended = 0;
    int counted[3] = {}, results[2][3] = {}, generation = 0;
    volatile CUresult code = 0;
};

static thread_local Worker *worker_of_thread;

#if defined(__x86_64__)
asm(R"(
.text
.type sim_switch, @function
sim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
extern "C" void sim_switch(void **from, void *to);
static void change(Fiber *from, Fiber *to) { sim_switch(&from->stack, to->stack); }
#else
static void change(Fiber *from, Fiber *to) { swapcontext(&from->stack, &to->stack); }
#endif

// Back to the thread of the stream; comes back when the fiber is resumed.
static void suspend(Worker *worker) { change(worker->now, &worker->main); }

static void let_go(Worker *worker, Fiber *fiber) {
    Exchange *exchange = fiber->exchange;
    fiber->exchange = nullptr;
    if (exchange && --exchange->holders == 0) worker->spare.push_back(exchange);
}

// Lets a barrier go when all threads that have not ended are there.
static void release_barrier(Worker *worker) {
    if (worker->at_barrier.empty() || worker->at_barrier.size() + worker->ended != worker->threads) return;
    int *results = worker->results[worker->generation & 1];
    results[0] = worker->counted[0];
    results[1] = worker->counted[0] == (int)worker->at_barrier.size();
    results[2] = worker->counted[0] != 0;
    worker->counted[0] = 0;
    ++worker->generation;
    for (Fiber *fiber : worker->at_barrier) {
        fiber->waits_for_block = false;
        worker->ready.push_back(fiber);
    }
    worker->at_barrier.clear();
}

// Lets the lanes of a mask go when all of them that have not ended are there.
static void release_lanes(Worker *worker, Warp &warp, unsigned mask) {
    unsigned there = 0, all = mask & warp.left;
    for (int lane = 0; lane < 32; ++lane) {
        Fiber *fiber = warp.lanes[lane];
        if (fiber && fiber->waits_for_warp && fiber->mask == mask) there |= 1u << lane;
    }
    if (!all || (there & all) != all) return;
    Exchange *exchange;
    if (worker->spare.empty()) {
        exchange = new Exchange;
    } else {
        exchange = worker->spare.back();
        worker->spare.pop_back();
    }
    exchange->holders = 0;
    exchange->values[32] = there;
    for (int lane = 0; lane < 32; ++lane) {
        exchange->values[lane] = 0;
        if (!(there >> lane & 1)) continue;
        Fiber *fiber = warp.lanes[lane];
        exchange->values[lane] = fiber->value;
        let_go(worker, fiber);
        fiber->exchange = exchange;
        ++exchange->holders;
        fiber->waits_for_warp = false;
        worker->ready.push_back(fiber);
    }
}

static int barrier(SimThread *self, int what, int predicate) {
    Worker *worker = worker_of_thread;
    Fiber *fiber = (Fiber *)self->fiber;
    int generation = worker->generation;
    worker->counted[0] += predicate != 0;
    fiber->waits_for_block = true;
    worker->at_barrier.push_back(fiber);
    release_barrier(worker);
    suspend(worker);
    return worker->results[generation & 1][what];
}

static const unsigned long long *exchange(SimThread *self, unsigned mask, unsigned long long value) {
    Worker *worker = worker_of_thread;
    Fiber *fiber = (Fiber *)self->fiber;
    unsigned lane = fiber->thread % 32;
    if (!(mask >> lane & 1)) self->device->stop(self, CUDA_ERROR_LAUNCH_FAILED, "a lane exchanges with a mask that lacks it");
    fiber->mask = mask;
    fiber->value = value;
    fiber->waits_for_warp = true;
    release_lanes(worker, worker->warps[fiber->thread / 32], mask);
    suspend(worker);
    return fiber->exchange->values;
}

static unsigned active(SimThread *self) {
    return worker_of_thread->warps[((Fiber *)self->fiber)->thread / 32].left;
}

static void stop(SimThread *, int code, const char *text) {
    Worker *worker = worker_of_thread;
    if (text) fprintf(stderr, "simulated CUDA: %s: %s\n", worker->launch->function->name.c_str(), text);
    worker->code = code;
    suspend(worker);
    __builtin_unreachable();
}

static const SimDevice device = {barrier, exchange, active, stop};

// Takes thread after thread of block after block.
static void run_fiber() {
    Worker *worker = worker_of_thread;
    Fiber *fiber = worker->now;
    for (;;) {
        while (worker->next < worker->threads) {
            unsigned thread = worker->next++;
            const unsigned *size = worker->launch->block;
            fiber->thread = thread;
            fiber->self->thread[0] = thread % size[0];
            fiber->self->thread[1] = thread / size[0] % size[1];
            fiber->self->thread[2] = thread / size[0] / size[1];
            for (int i = 0; i < 3; ++i) {
                fiber->self->block[i] = worker->block[i];
                fiber->self->block_dim[i] = size[i];
                fiber->self->grid_dim[i] = worker->launch->grid[i];
            }
            Warp &warp = worker->warps[thread / 32];
            warp.lanes[thread % 32] = fiber;
            worker->launch->function->kernel->call(worker->args.data());
            let_go(worker, fiber);
            warp.lanes[thread % 32] = nullptr;
            warp.left &= ~(1u << thread % 32);
            ++worker->ended;
            release_barrier(worker);
            for (Fiber *other : warp.lanes) {
                if (other && other->waits_for_warp) release_lanes(worker, warp, other->mask);
            }
        }
        worker->idle.push_back(fiber);
        suspend(worker);
    }
}

// Makes all fibers anew.
static void reset(Worker *worker) {
    worker->idle.clear();
    worker->ready.clear();
    worker->at_barrier.clear();
    for (size_t i = 1024; i--;) {
        worker->fibers[i] = Fiber{};
        worker->idle.push_back(&worker->fibers[i]);
    }
}

static void begin(Worker *worker, Fiber *fiber) {
    size_t index = (size_t)(fiber - worker->fibers.data());
    char *base = worker->stacks + index * SIM_STACK;
    mprotect(base + 4096, 4096, PROT_NONE);
    fiber->begun = true;
    fiber->self = (SimThread *)base;
    fiber->self->device = &device;
    fiber->self->fiber = fiber;
    // Stacks begin at different lines of the caches.
    char *top = base + SIM_STACK - 64 - index % 61 * 192;
#if defined(__x86_64__)
    void **frame = (void **)((uintptr_t)top / 16 * 16) - 8;
    memset(frame, 0, 64);
    frame[6] = (void *)run_fiber;
    fiber->stack = frame;
#else
    getcontext(&fiber->stack);
    fiber->stack.uc_stack.ss_sp = base + 8192;
    fiber->stack.uc_stack.ss_size = (size_t)(top - base - 8192);
    fiber->stack.uc_link = nullptr;
    makecontext(&fiber->stack, run_fiber, 0);
#endif
}

static struct sigaction before[NSIG];

// A fault in a kernel ends the kernel; any other goes where it went before.
static void faulted(int signal, siginfo_t *info, void *context) {
    Worker *worker = worker_of_thread;
    if (worker && worker->now) {
        uintptr_t stacks = (uintptr_t)worker->stacks, at = (uintptr_t)info->si_addr;
        bool overflow = at >= stacks && at < stacks + 1024 * SIM_STACK;
        worker->code = signal == SIGSEGV && !overflow ? CUDA_ERROR_ILLEGAL_ADDRESS : signal == SIGBUS ? CUDA_ERROR_MISALIGNED_ADDRESS : CUDA_ERROR_LAUNCH_FAILED;
        suspend(worker);
    }
    if (before[signal].sa_flags & SA_SIGINFO) {
        before[signal].sa_sigaction(signal, info, context);
    } else if (before[signal].sa_handler != SIG_DFL && before[signal].sa_handler != SIG_IGN) {
        before[signal].sa_handler(signal);
    } else {
        sigaction(signal, &before[signal], nullptr);
    }
}

static void catch_faults() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_sigaction = faulted;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigaction(signal, &action, &before[signal]);
    });
}

static Worker *worker() {
    if (worker_of_thread) return worker_of_thread;
    catch_faults();
    auto made = new Worker;
    char *mapped = (char *)mmap(nullptr, 1025 * SIM_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) misuse("kernel", "no memory for stacks");
    made->stacks = (char *)(((uintptr_t)mapped + SIM_STACK - 1) / SIM_STACK * SIM_STACK);
    munmap(made->stacks + 1024 * SIM_STACK, (size_t)(mapped + 1025 * SIM_STACK - (made->stacks + 1024 * SIM_STACK)));
    if (made->stacks != mapped) munmap(mapped, (size_t)(made->stacks - mapped));
    made->signal_stack = malloc(65536);
    stack_t stack = {};
    stack.ss_sp = made->signal_stack;
    stack.ss_size = 65536;
    sigaltstack(&stack, nullptr);
    reset(made);
    return worker_of_thread = made;
}

void end_of_worker() {
    Worker *worker = worker_of_thread;
    if (!worker) return;
    stack_t stack = {};
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, nullptr);
    free(worker->signal_stack);
    munmap(worker->stacks, 1024 * SIM_STACK);
    for (Exchange *exchange : worker->spare) delete exchange;
    delete worker;
    worker_of_thread = nullptr;
}

static CUresult run_block(Worker *worker) {
    worker->next = worker->ended = 0;
    for (size_t i = 0; i < worker->warps.size(); ++i) {
        unsigned lanes = std::min(32u, worker->threads - (unsigned)i * 32);
        worker->warps[i] = Warp{};
        worker->warps[i].left = lanes == 32 ? ~0u : (1u << lanes) - 1;
    }
    while (worker->ended < worker->threads) {
        Fiber *fiber;
        if (worker->next < worker->threads) {
            fiber = worker->idle.back();
            worker->idle.pop_back();
            if (!fiber->begun) begin(worker, fiber);
        } else if (!worker->ready.empty()) {
            fiber = worker->ready.front();
            worker->ready.pop_front();
        } else {
            fprintf(stderr, "simulated CUDA: %s: threads of a block wait at a barrier or for their warp, and others never come\n", worker->launch->function->name.c_str());
            return CUDA_ERROR_LAUNCH_FAILED;
        }
        worker->now = fiber;
        change(&worker->main, fiber);
        worker->now = nullptr;
        if (worker->code) return worker->code;
    }
    return 0;
}

CUresult run_kernel(const Launch &launch) {
    Worker *worker = ::worker();
    const SimKernel *kernel = launch.function->kernel;
    worker->launch = &launch;
    worker->threads = launch.block[0] * launch.block[1] * launch.block[2];
    worker->warps.assign((worker->threads + 31) / 32, Warp{});
    worker->args.clear();
    for (unsigned long i = 0; i < kernel->param_count; ++i) worker->args.push_back((void *)(launch.args.data() + kernel->params[i].offset));
    char *shared = launch.function->module->shared_base();
    worker->code = 0;
    CUresult code = 0;
    unsigned long long blocks = 1ull * launch.grid[0] * launch.grid[1] * launch.grid[2];
    // Blocks come in either order.
    bool backwards = config().seed % 2 == 0;
    memset(shared + launch.shared, 0xa5, SIM_SHARED_GUARD);
    for (unsigned long long i = 0; i < blocks && !code; ++i) {
        unsigned long long at = backwards ? blocks - 1 - i : i;
        worker->block[0] = (unsigned)(at % launch.grid[0]);
        worker->block[1] = (unsigned)(at / launch.grid[0] % launch.grid[1]);
        worker->block[2] = (unsigned)(at / launch.grid[0] / launch.grid[1]);
        if (launch.shared) memset(shared, 0xc7, launch.shared);
        code = run_block(worker);
    }
    if (code) {
        reset(worker);
        return code;
    }
    for (size_t i = 0; i < SIM_SHARED_GUARD; ++i) {
        if (shared[launch.shared + i] == (char)0xa5) continue;
        fprintf(stderr, "simulated CUDA: %s: writes behind its %u bytes of dynamic shared memory\n", launch.function->name.c_str(), launch.shared);
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    }
    return 0;
}
