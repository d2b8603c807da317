// The simulated driver's objects, and what its files share.
#pragma once
#include "abi.h"
#include "kernel.h"
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

// What the environment asks for, read once.
struct Config {
    long devices, version, capability, delay_us;
    unsigned long long memory, seed;
    bool pageable;
};
const Config &config();

// A completion that somebody may wait for.
struct Point {
    bool done = false;
    double ms = 0;
};

struct Launch {
    Function *function = nullptr;
    unsigned grid[3] = {1, 1, 1}, block[3] = {1, 1, 1}, shared = 0;
    std::vector<char> args;
};

// Work of a stream, or of a node of a graph.
struct Work {
    enum Kind { Kernel, Copy, Fill, Empty, Record, Wait, Graph } kind = Empty;
    Launch launch;
    CUDA_MEMCPY3D copy{};
    CUDA_MEMSET_NODE_PARAMS fill{};
    Event *event = nullptr;
    std::shared_ptr<Point> point;
    Exec *exec = nullptr;
    std::shared_ptr<std::vector<struct Node>> nodes;
    std::vector<std::shared_ptr<Point>> points; // of the nodes that record
    unsigned long long order = 0;               // what the order of the nodes is drawn from
};

struct Node {
    Graph *graph = nullptr;
    Work work;
    std::vector<size_t> after;
    size_t index = 0;
    bool enabled = true;
};

struct Stream {
    Context *context;
    unsigned flags;
    std::deque<Work> queue;
    std::shared_ptr<Point> last; // of what was submitted last
    bool closing = false;
    std::condition_variable wake;
};

struct Event {
    Context *context;
    unsigned flags;
    std::shared_ptr<Point> point; // of the last record
};

struct Graph {
    Context *context;
    std::deque<Node> nodes; // a deque: nodes are handles
};

struct Exec {
    Context *context;
    Graph *graph;
    std::shared_ptr<std::vector<Node>> nodes;
    std::shared_ptr<Point> last;
    Stream *stream = nullptr;
};

struct Function {
    Module *module;
    std::string name;
    const SimKernel *kernel;
    long shared_static = 0, shared_dynamic = 0, carveout = -1;
};

struct Module {
    Context *context;
    void *library;
    std::vector<std::unique_ptr<Function>> functions;
    SimSharedBase shared_base;
};

struct Allocation {
    Context *context;
    size_t size;
    bool host;
    void *mapped; // with the guard pages
    size_t mapped_size;
};

struct Context {
    int device;
    int retained = 0;
    bool active = false;
    unsigned flags = 0;
    CUresult error = 0; // sticky
    size_t limits[CU_LIMIT_MAX] = {};
    size_t used = 0;
    size_t pending = 0, workers = 0; // works that are not done; threads of streams
    Stream *null_stream = nullptr;
};

// Everything that lives. Handles of what was destroyed are never given again.
struct State {
    std::mutex lock;
    std::condition_variable done; // a point, or a stream's end
    bool initialised = false;
    std::vector<Context *> contexts; // a device each
    std::set<Stream *> streams;
    std::set<Event *> events;
    std::set<Graph *> graphs;
    std::unordered_set<Node *> nodes;
    std::set<Exec *> execs;
    std::set<Module *> modules;
    std::set<Function *> functions;
    std::map<uintptr_t, Allocation> memory;
    std::mt19937_64 random;
};
State &state();
typedef std::unique_lock<std::mutex> Lock;

// Counts and logs a call; the code that it fails with, or 0.
CUresult entered(const char *name);
// The code that the n-th work of this kind fails with, or 0.
CUresult planned(const char *work);
void note(const std::string &line);
// Says what a program must never do, and aborts.
[[noreturn]] void misuse(const char *call, const std::string &what);
// What a call that came with that version of the driver needs.
void needs_version(const char *call, long version);

// The thread's context; an error without one, with a destroyed one, or after a sticky error.
CUresult current(Context *&context);

#define ENTER()                                       \
    do {                                              \
        if (CUresult code_ = entered(__func__)) return code_; \
        if (!state().initialised) return CUDA_ERROR_NOT_INITIALIZED; \
    } while (0)
#define ENTER_CONTEXT()                               \
    ENTER();                                          \
    Lock lock(state().lock);                          \
    Context *context = nullptr;                       \
    if (CUresult code_ = current(context)) return code_

// A context with a sticky error still forgets what is freed: the call fails, and nothing leaks.
#define ENTER_RELEASE()                           \
    ENTER();                                      \
    Lock lock(state().lock);                      \
    Context *context = nullptr;                   \
    CUresult sticky = current(context);           \
    if (sticky && (!context || !context->active)) return sticky

// memory.cpp
CUresult check_copy(const char *call, const CUDA_MEMCPY3D &copy);
CUresult check_fill(const CUDA_MEMSET_NODE_PARAMS &fill);
void do_copy(const CUDA_MEMCPY3D &copy);
void do_fill(const CUDA_MEMSET_NODE_PARAMS &fill);
void free_memory_of(Context *context);

// streams.cpp
double now_ms();
CUresult stream_of(Context *context, CUstream handle, Stream *&stream);
// Hands work to the stream's thread. The null stream's is waited for, as is everything before it.
CUresult submit(Lock &lock, Context *context, CUstream handle, Work work);
void wait_idle(Lock &lock, Context *context);
void close_streams_of(Lock &lock, Context *context);
CUresult perform(Context *context, Work &work);

// graphs.cpp
CUresult perform_graph(Context *context, Work &work);

// modules.cpp
CUresult make_launch(const char *call, Context *context, const CUDA_KERNEL_NODE_PARAMS &params, Launch &launch);

// blocks.cpp
CUresult run_kernel(const Launch &launch);
void end_of_worker();
