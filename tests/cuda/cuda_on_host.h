// CUDA C++ on the host: what NVRTC's compiler knows by itself, for a C++17 compiler without any header. Comes before the
// user's source; `__global__`, `__shared__` and `__launch_bounds__` are left to the simulated NVRTC, which rewrites them.
#pragma once
#pragma GCC system_header
#include "kernel.h"

#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define __NVCC__ 1
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __attribute__((aligned(n)))

typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;

extern "C" {
int printf(const char *, ...);
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);
void *malloc(size_t);
void free(void *);
}

#define SIM_VECTORS(type, name, one, two, four)                                                          \
    struct name##1 { type x; };                                                                          \
    struct __attribute__((aligned(two))) name##2 { type x, y; };                                         \
    struct name##3 { type x, y, z; };                                                                    \
    struct __attribute__((aligned(four))) name##4 { type x, y, z, w; };                                  \
    static inline name##1 make_##name##1(type x) { return {x}; }                                         \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; }                              \
    static inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                   \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
SIM_VECTORS(signed char, char, 1, 2, 4)
SIM_VECTORS(unsigned char, uchar, 1, 2, 4)
SIM_VECTORS(short, short, 2, 4, 8)
SIM_VECTORS(unsigned short, ushort, 2, 4, 8)
SIM_VECTORS(int, int, 4, 8, 16)
SIM_VECTORS(unsigned, uint, 4, 8, 16)
SIM_VECTORS(long, long, 8, 16, 16)
SIM_VECTORS(unsigned long, ulong, 8, 16, 16)
SIM_VECTORS(long long, longlong, 8, 16, 16)
SIM_VECTORS(unsigned long long, ulonglong, 8, 16, 16)
SIM_VECTORS(float, float, 4, 8, 16)
SIM_VECTORS(double, double, 8, 16, 16)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    operator uint3() const { return {x, y, z}; }
};

// The thread that runs, in the lowest bytes of its stack.
static inline __attribute__((always_inline)) SimThread *sim_self() {
    return (SimThread *)((unsigned long)__builtin_frame_address(0) & ~(SIM_STACK - 1));
}
#define threadIdx (*(const uint3 *)sim_self()->thread)
#define blockIdx (*(const uint3 *)sim_self()->block)
#define blockDim (*(const dim3 *)sim_self()->block_dim)
#define gridDim (*(const dim3 *)sim_self()->grid_dim)
static const int warpSize = 32;

extern "C" {
__attribute__((visibility("hidden"), aligned(1024))) __thread char sim_dynamic_shared[SIM_SHARED + SIM_SHARED_GUARD];
__attribute__((visibility("default"), used)) char *sim_shared_base() { return sim_dynamic_shared; }
}

// Barriers, warps, the end of a kernel. Error codes are the driver's.
static inline void __syncthreads() { sim_self()->device->barrier(sim_self(), 0, 0); }
static inline int __syncthreads_count(int p) { return sim_self()->device->barrier(sim_self(), 0, p); }
static inline int __syncthreads_and(int p) { return sim_self()->device->barrier(sim_self(), 1, p); }
static inline int __syncthreads_or(int p) { return sim_self()->device->barrier(sim_self(), 2, p); }
static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __trap() { sim_self()->device->stop(sim_self(), 719, nullptr); }
static inline void __brkpt() { __trap(); }
static inline void __nanosleep(unsigned) {}
static inline long long clock64() {
    static long long ticks;
    return __atomic_add_fetch(&ticks, 1, __ATOMIC_RELAXED);
}
static inline int clock() { return (int)clock64(); }
#define assert(condition) ((condition) ? (void)0 : sim_self()->device->stop(sim_self(), 710, "assertion `" #condition "` failed"))

static inline unsigned sim_lane() {
    const SimThread *t = sim_self();
    return (t->thread[0] + t->block_dim[0] * (t->thread[1] + t->block_dim[1] * t->thread[2])) % 32;
}
static inline const unsigned long long *sim_exchange(unsigned mask, unsigned long long value) {
    return sim_self()->device->exchange(sim_self(), mask, value);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu) { sim_exchange(mask, 0); }
static inline unsigned __activemask() { return sim_self()->device->active(sim_self()); }
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    const unsigned long long *all = sim_exchange(mask, predicate != 0);
    unsigned bits = 0;
    for (int i = 0; i < 32; ++i) bits |= (all[32] >> i & 1) && all[i] ? 1u << i : 0;
    return bits;
}
static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
static inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }

template <typename SimT> struct SimWord {
    unsigned long long word = 0;
    SimWord(SimT value) { __builtin_memcpy(&word, &value, sizeof(SimT)); }
    static SimT of(unsigned long long word) {
        SimT value;
        __builtin_memcpy(&value, &word, sizeof(SimT));
        return value;
    }
    static_assert(sizeof(SimT) <= 8);
};
template <typename SimT> static inline unsigned __match_any_sync(unsigned mask, SimT value) {
    const unsigned long long *all = sim_exchange(mask, SimWord<SimT>(value).word);
    unsigned bits = 0;
    for (int i = 0; i < 32; ++i) bits |= (all[32] >> i & 1) && all[i] == SimWord<SimT>(value).word ? 1u << i : 0;
    return bits;
}
// The value of another lane of the segment of `width` lanes, or the own one where there is none.
template <typename SimT> static inline SimT sim_from(unsigned mask, SimT value, int lane, bool own) {
    const unsigned long long *all = sim_exchange(mask, SimWord<SimT>(value).word);
    return own ? value : SimWord<SimT>::of(all[lane]);
}
template <typename SimT> static inline SimT __shfl_sync(unsigned mask, SimT value, int lane, int width = 32) {
    return sim_from(mask, value, (int)(sim_lane() & ~(unsigned)(width - 1)) + (lane & (width - 1)), false);
}
template <typename SimT> static inline SimT __shfl_up_sync(unsigned mask, SimT value, unsigned delta, int width = 32) {
    int to = (int)sim_lane() - (int)delta;
    return sim_from(mask, value, to, to < (int)(sim_lane() & ~(unsigned)(width - 1)));
}
template <typename SimT> static inline SimT __shfl_down_sync(unsigned mask, SimT value, unsigned delta, int width = 32) {
    int to = (int)sim_lane() + (int)delta;
    return sim_from(mask, value, to, to > (int)(sim_lane() | (unsigned)(width - 1)));
}
template <typename SimT> static inline SimT __shfl_xor_sync(unsigned mask, SimT value, int bits, int width = 32) {
    int to = (int)sim_lane() ^ bits;
    return sim_from(mask, value, to, to > (int)(sim_lane() | (unsigned)(width - 1)));
}
#define SIM_REDUCE(name, type, start, step)                               \
    static inline type __reduce_##name##_sync(unsigned mask, type value) { \
        const unsigned long long *all = sim_exchange(mask, (unsigned)value); \
        type r = start;                                                   \
        for (int i = 0; i < 32; ++i) {                                    \
            type v = (type)all[i];                                        \
            if (all[32] >> i & 1) r = step;                               \
        }                                                                 \
        return r;                                                         \
    }
SIM_REDUCE(add, unsigned, 0, r + v)
SIM_REDUCE(add, int, 0, r + v)
SIM_REDUCE(min, unsigned, ~0u, v < r ? v : r)
SIM_REDUCE(min, int, 0x7fffffff, v < r ? v : r)
SIM_REDUCE(max, unsigned, 0, v > r ? v : r)
SIM_REDUCE(max, int, -0x7fffffff - 1, v > r ? v : r)
SIM_REDUCE(and, unsigned, ~0u, r & v)
SIM_REDUCE(or, unsigned, 0, r | v)
SIM_REDUCE(xor, unsigned, 0, r ^ v)

// Atomics: each a loop that swaps bits.
#define SIM_ATOMIC(name, type, word, step)                                                              \
    static inline type name(type *at, type value) {                                                     \
        word *bits = (word *)at, before = __atomic_load_n(bits, __ATOMIC_RELAXED), after;               \
        type old, made;                                                                                 \
        do {                                                                                            \
            __builtin_memcpy(&old, &before, sizeof old);                                                \
            made = (type)(step);                                                                        \
            __builtin_memcpy(&after, &made, sizeof old);                                                \
        } while (!__atomic_compare_exchange_n(bits, &before, after, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)); \
        return old;                                                                                     \
    }
#define SIM_ATOMIC_INTEGER(type, word)                           \
    SIM_ATOMIC(atomicAdd, type, word, old + value)               \
    SIM_ATOMIC(atomicSub, type, word, old - value)               \
    SIM_ATOMIC(atomicExch, type, word, value)                    \
    SIM_ATOMIC(atomicMin, type, word, value < old ? value : old) \
    SIM_ATOMIC(atomicMax, type, word, value > old ? value : old) \
    SIM_ATOMIC(atomicAnd, type, word, old & value)               \
    SIM_ATOMIC(atomicOr, type, word, old | value)                \
    SIM_ATOMIC(atomicXor, type, word, old ^ value)               \
    static inline type atomicCAS(type *at, type compare, type value) { \
        __atomic_compare_exchange_n(at, &compare, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
        return compare;                                          \
    }
SIM_ATOMIC_INTEGER(int, unsigned)
SIM_ATOMIC_INTEGER(unsigned, unsigned)
SIM_ATOMIC_INTEGER(unsigned long long, unsigned long long)
SIM_ATOMIC(atomicMin, long long, unsigned long long, value < old ? value : old)
SIM_ATOMIC(atomicMax, long long, unsigned long long, value > old ? value : old)
SIM_ATOMIC(atomicAdd, float, unsigned, old + value)
SIM_ATOMIC(atomicExch, float, unsigned, value)
SIM_ATOMIC(atomicAdd, double, unsigned long long, old + value)
SIM_ATOMIC(atomicInc, unsigned, unsigned, old >= value ? 0 : old + 1)
SIM_ATOMIC(atomicDec, unsigned, unsigned, old == 0 || old > value ? value : old - 1)

// Loads and stores with a hint.
template <typename SimT> static inline SimT __ldg(const SimT *p) { return *p; }
template <typename SimT> static inline SimT __ldcg(const SimT *p) { return *p; }
template <typename SimT> static inline SimT __ldca(const SimT *p) { return *p; }
template <typename SimT> static inline SimT __ldcs(const SimT *p) { return *p; }
template <typename SimT> static inline SimT __ldlu(const SimT *p) { return *p; }
template <typename SimT> static inline SimT __ldcv(const SimT *p) { return *p; }
template <typename SimT> static inline void __stcg(SimT *p, SimT v) { *p = v; }
template <typename SimT> static inline void __stcs(SimT *p, SimT v) { *p = v; }
template <typename SimT> static inline void __stwb(SimT *p, SimT v) { *p = v; }
template <typename SimT> static inline void __stwt(SimT *p, SimT v) { *p = v; }

#include "cuda_math_on_host.h"

// Kernels of the module: a line behind the source for each.
extern "C" {
__attribute__((visibility("hidden"))) SimKernel *sim_first;
__attribute__((visibility("default"), used)) SimKernel *sim_kernels() { return sim_first; }
}
template <typename SimF> struct SimOf;
template <typename... SimA> struct SimOf<void (*)(SimA...)> {
    template <void (*SimF)(SimA...)> struct Call {
        struct Now {
            Now(SimA... args) { SimF(args...); }
        };
        static void call(void **args) {
            int at = 0;
            (void)at, (void)args;
            Now now{*(SimA *)args[at++]...};
        }
    };
    // Each at its alignment, in order.
    static SimParam *params() {
        static SimParam list[sizeof...(SimA) + 1];
        const unsigned long sizes[] = {sizeof(SimA)..., 0}, aligns[] = {alignof(SimA)..., 1};
        unsigned long at = 0;
        for (unsigned long i = 0; i < sizeof...(SimA); ++i) {
            at = (at + aligns[i] - 1) / aligns[i] * aligns[i];
            list[i] = {at, sizes[i]};
            at += sizes[i];
        }
        return list;
    }
    static const unsigned long count = sizeof...(SimA);
};
template <auto SimF> struct SimEntry {
    typedef SimOf<decltype(SimF)> Of;
    SimKernel kernel;
    SimEntry(const char *expression, int threads) {
        kernel = {expression, (void *)SimF, &Of::template Call<SimF>::call, Of::params(), Of::count, threads > 0 ? threads : 1024, sim_first};
        sim_first = &kernel;
    }
};
