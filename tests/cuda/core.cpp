// Configuration, faults and the log of calls; devices and their primary contexts.
#include "sim.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtol(text, nullptr, 10) : otherwise;
}

const Config &config() {
    static const Config *it = new Config{
        number("SIM_CUDA_DEVICES", 1),
        number("SIM_CUDA_VERSION", 13000),
        number("SIM_CUDA_CAPABILITY", 90),
        number("SIM_CUDA_DELAY_US", 0),
        (unsigned long long)number("SIM_CUDA_MEMORY", 8l << 30),
        (unsigned long long)number("SIM_CUDA_SEED", 1),
        number("SIM_CUDA_PAGEABLE", 0) != 0,
    };
    return *it;
}

// Never destroyed: threads of streams may outlive the end of main.
State &state() {
    static State *it = [] {
        auto made = new State;
        made->random.seed(config().seed);
        for (long i = 0; i < config().devices; ++i) {
            made->contexts.push_back(new Context{(int)i});
        }
        return made;
    }();
    return *it;
}

// A fault: the calls of that name from the `from`-th to the `to`-th give `code`.
struct Fault {
    std::string name;
    unsigned long long from, to;
    CUresult code;
};

// `name:n:code`, or `name:n+:code` for the n-th and all later ones; many of them with commas between.
static std::vector<Fault> faults_of(const char *text) {
    std::vector<Fault> faults;
    while (text && *text) {
        const char *end = strchrnul(text, ',');
        std::string one(text, end);
        size_t a = one.find(':'), b = one.rfind(':');
        if (a == std::string::npos || a == b) {
            fprintf(stderr, "simulated CUDA: SIM_CUDA_FAIL has no name:n:code in `%s`\n", one.c_str());
            abort();
        }
        std::string nth = one.substr(a + 1, b - a - 1);
        unsigned long long from = strtoull(nth.c_str(), nullptr, 10);
        faults.push_back({one.substr(0, a), from, nth.back() == '+' ? ~0ull : from, atoi(one.c_str() + b + 1)});
        text = *end ? end + 1 : end;
    }
    return faults;
}

// Counts calls by name, and says which of them fails.
struct Faults {
    std::vector<Fault> faults;
    std::map<std::string, unsigned long long> counts;
    unsigned long long all = 0;
    CUresult count(const char *name) {
        unsigned long long nth = ++counts[name];
        bool call = strncmp(name, "cu", 2) == 0;
        all += call;
        for (const Fault &fault : faults) {
            unsigned long long at = call && fault.name == "*" ? all : fault.name == name ? nth : 0;
            if (at && at >= fault.from && at <= fault.to) return fault.code;
        }
        return 0;
    }
};

static std::mutex log_lock;
static std::atomic<unsigned long long> calls_of_all;
static thread_local unsigned long long calls_of_thread;
static thread_local Faults *faults_of_thread;

static Faults &faults_of_process() {
    static Faults *it = new Faults{faults_of(getenv("SIM_CUDA_FAIL")), {}, 0};
    return *it;
}

void note(const std::string &line) {
    static int file = [] {
        const char *path = getenv("SIM_CUDA_LOG");
        return path && *path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    }();
    if (file < 0) return;
    std::string all = line + "\n";
    ssize_t written = write(file, all.data(), all.size());
    (void)written;
}

CUresult entered(const char *name) {
    ++calls_of_all;
    ++calls_of_thread;
    note(name);
    if (faults_of_thread) {
        if (CUresult code = faults_of_thread->count(name)) return code;
    }
    std::lock_guard<std::mutex> held(log_lock);
    return faults_of_process().count(name);
}

CUresult planned(const char *work) {
    std::lock_guard<std::mutex> held(log_lock);
    return faults_of_process().count(work);
}

void misuse(const char *call, const std::string &what) {
    note("misuse: " + std::string(call) + ": " + what);
    fprintf(stderr, "simulated CUDA: %s: %s\n", call, what.c_str());
    abort();
}

void needs_version(const char *call, long version) {
    if (config().version < version) {
        misuse(call, "a driver of version " + std::to_string(config().version) + " has no such function: it came with " + std::to_string(version));
    }
}

// Calls of the driver that the process has made.
API unsigned long long simCudaCalls(void) { return calls_of_all; }
// Calls of the driver that the calling thread has made.
API unsigned long long simCudaThreadCalls(void) { return calls_of_thread; }
// Makes calls of the calling thread fail, as `SIM_CUDA_FAIL` does, counted from here; null ends it.
API void simCudaFail(const char *faults) {
    delete faults_of_thread;
    faults_of_thread = faults ? new Faults{faults_of(faults), {}, 0} : nullptr;
}

static thread_local Context *context_of_thread;

CUresult current(Context *&context) {
    context = context_of_thread;
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    if (!context->active) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return context->error;
}

API CUresult cuInit(unsigned flags) {
    if (CUresult code = entered(__func__)) return code;
    if (flags) return CUDA_ERROR_INVALID_VALUE;
    if (config().devices < 1) return CUDA_ERROR_NO_DEVICE;
    Lock lock(state().lock);
    state().initialised = true;
    return 0;
}

API CUresult cuDriverGetVersion(int *version) {
    if (CUresult code = entered(__func__)) return code;
    if (!version) return CUDA_ERROR_INVALID_VALUE;
    *version = (int)config().version;
    return 0;
}

API CUresult cuGetErrorName(CUresult code, const char **name) {
    switch (code) {
#define RESULT_NAME(number, text, description) case number: *name = "CUDA_" #text; return 0;
        RESULTS(RESULT_NAME)
    }
    *name = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}

API CUresult cuGetErrorString(CUresult code, const char **text) {
    switch (code) {
#define RESULT_TEXT(number, name, description) case number: *text = description; return 0;
        RESULTS(RESULT_TEXT)
    }
    *text = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}

static bool is_device(CUdevice device) { return device >= 0 && device < config().devices; }

API CUresult cuDeviceGetCount(int *count) {
    ENTER();
    if (!count) return CUDA_ERROR_INVALID_VALUE;
    *count = (int)config().devices;
    return 0;
}

API CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER();
    if (!device) return CUDA_ERROR_INVALID_VALUE;
    if (!is_device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return 0;
}

API CUresult cuDeviceGetName(char *name, int len, CUdevice device) {
    ENTER();
    if (!name || len < 1) return CUDA_ERROR_INVALID_VALUE;
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    snprintf(name, (size_t)len, "Simulated GPU");
    return 0;
}

API CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
    ENTER();
    if (!uuid) return CUDA_ERROR_INVALID_VALUE;
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    for (int i = 0; i < 16; ++i) uuid->bytes[i] = (char)(0x51 + 7 * i + device);
    return 0;
}

API CUresult cuDeviceGetPCIBusId(char *name, int len, CUdevice device) {
    ENTER();
    if (!name || len < 13) return CUDA_ERROR_INVALID_VALUE;
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    snprintf(name, (size_t)len, "0000:%02X:00.0", 1 + device);
    return 0;
}

API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    ENTER();
    if (!bytes) return CUDA_ERROR_INVALID_VALUE;
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    *bytes = config().memory;
    return 0;
}

// Attributes that are not zero. Clocks are in kHz.
static const struct { int attribute, value; } attributes[] = {
    {1, 1024},          {2, 1024},        {3, 1024},       {4, 64},         {5, 2147483647}, {6, 65535},     {7, 65535},
    {8, 49152},         {9, 65536},       {10, 32},        {11, 2147483647}, {12, 65536},    {13, 1980000},  {14, 512},
    {15, 1},            {16, 132},        {19, 1},         {30, 512},       {31, 1},         {32, 1},        {36, 2619000},
    {37, 5120},         {38, 52428800},   {39, 2048},      {40, 3},         {41, 1},         {51, 32},       {78, 1},
    {79, 1},            {80, 1},          {81, 233472},    {82, 65536},     {83, 1},         {87, 2},        {89, 1},
    {90, 1},            {91, 1},          {92, 1},         {93, 1},         {94, 1},         {95, 1},        {97, 232448},
    {99, 1},            {102, 1},         {103, 1},        {106, 32},       {107, 1},        {108, 32768000}, {109, 134217728},
    {111, 1024},        {112, 1},         {113, 1},        {114, 1},        {115, 1},        {120, 1},       {121, 1},
    {122, 1},           {123, 1},         {125, 1},        {126, 4},        {127, 1},        {129, 1},       {130, -1},
    {131, -1},          {134, -1},
};

API CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    ENTER();
    if (!value || attribute < 1 || attribute > 147) return CUDA_ERROR_INVALID_VALUE;
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    *value = 0;
    for (auto &known : attributes) {
        if (known.attribute == attribute) *value = known.value;
    }
    if (attribute == 33) *value = 1 + device;
    if (attribute == 75) *value = (int)config().capability / 10;
    if (attribute == 76) *value = (int)config().capability % 10;
    return 0;
}

// Names what a context still holds. After a sticky error nothing leaks: its end is what frees all.
static void report_leaks(Context *context) {
    State &all = state();
    if (context->error) return;
    char line[160];
    for (auto &[base, allocation] : all.memory) {
        if (allocation.context != context) continue;
        snprintf(line, sizeof line, "leak: %s memory of %zu bytes", allocation.host ? "host" : "device", allocation.size);
        note(line);
    }
    for (Exec *exec : all.execs) if (exec->context == context) note("leak: executable graph");
    for (Graph *graph : all.graphs) if (graph->context == context) note("leak: graph");
    for (Event *event : all.events) if (event->context == context) note("leak: event");
    for (Stream *stream : all.streams) if (stream->context == context && stream != context->null_stream) note("leak: stream");
    for (Module *module : all.modules) if (module->context == context) note("leak: module");
}

// Ends a context and all that is its own.
static void end_context(Lock &lock, Context *context) {
    State &all = state();
    report_leaks(context);
    close_streams_of(lock, context);
    for (auto at = all.execs.begin(); at != all.execs.end();) at = (*at)->context == context ? all.execs.erase(at) : std::next(at);
    for (auto at = all.events.begin(); at != all.events.end();) at = (*at)->context == context ? all.events.erase(at) : std::next(at);
    for (auto at = all.functions.begin(); at != all.functions.end();) at = (*at)->module->context == context ? all.functions.erase(at) : std::next(at);
    for (auto at = all.modules.begin(); at != all.modules.end();) at = (*at)->context == context ? all.modules.erase(at) : std::next(at);
    free_memory_of(context);
    context->active = false;
    context->error = 0;
    context->used = 0;
    context->null_stream = nullptr;
}

API CUresult cuDevicePrimaryCtxRetain(CUcontext *handle, CUdevice device) {
    ENTER();
    if (!handle) return CUDA_ERROR_INVALID_VALUE;
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    Lock lock(state().lock);
    Context *context = state().contexts[(size_t)device];
    if (context->active && context->error) return context->error;
    if (!context->active) {
        context->active = true;
        const size_t limits[] = {1024, 1 << 20, 8 << 20, 0, 0, 128, 0, 0, 0, 0, 0};
        memcpy(context->limits, limits, sizeof limits);
    }
    ++context->retained;
    *handle = context;
    return 0;
}

API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    ENTER();
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    Lock lock(state().lock);
    Context *context = state().contexts[(size_t)device];
    if (context->retained < 1) return CUDA_ERROR_INVALID_CONTEXT;
    if (--context->retained == 0 && context->active) end_context(lock, context);
    return 0;
}

API CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
    ENTER();
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    Lock lock(state().lock);
    Context *context = state().contexts[(size_t)device];
    if (context->active) end_context(lock, context);
    return 0;
}

API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) {
    ENTER();
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    if ((flags & ~0xdfu) || (flags & 7) == 3 || (flags & 7) > 4) return CUDA_ERROR_INVALID_VALUE;
    Lock lock(state().lock);
    state().contexts[(size_t)device]->flags = flags;
    return 0;
}

API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    ENTER();
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    if (!flags || !active) return CUDA_ERROR_INVALID_VALUE;
    Lock lock(state().lock);
    *flags = state().contexts[(size_t)device]->flags;
    *active = state().contexts[(size_t)device]->active;
    return 0;
}

API CUresult cuCtxSetCurrent(CUcontext context) {
    ENTER();
    Lock lock(state().lock);
    bool known = !context;
    for (Context *one : state().contexts) known |= one == context;
    if (!known) return CUDA_ERROR_INVALID_CONTEXT;
    if (context && !context->active) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    context_of_thread = context;
    return 0;
}

API CUresult cuCtxGetCurrent(CUcontext *context) {
    ENTER();
    if (!context) return CUDA_ERROR_INVALID_VALUE;
    *context = context_of_thread;
    return 0;
}

API CUresult cuCtxSynchronize(void) {
    ENTER_CONTEXT();
    wait_idle(lock, context);
    return context->error;
}

API CUresult cuCtxSetLimit(CUlimit limit, size_t value) {
    ENTER_CONTEXT();
    if (limit < 0 || limit >= CU_LIMIT_MAX) return CUDA_ERROR_INVALID_VALUE;
    if (limit == 3 || limit == 4 || limit > CU_LIMIT_PERSISTING_L2_CACHE_SIZE) return CUDA_ERROR_UNSUPPORTED_LIMIT;
    context->limits[limit] = value;
    return 0;
}

API CUresult cuCtxGetLimit(size_t *value, CUlimit limit) {
    ENTER_CONTEXT();
    if (!value || limit < 0 || limit >= CU_LIMIT_MAX) return CUDA_ERROR_INVALID_VALUE;
    if (limit == 3 || limit == 4 || limit > CU_LIMIT_PERSISTING_L2_CACHE_SIZE) return CUDA_ERROR_UNSUPPORTED_LIMIT;
    *value = context->limits[limit];
    return 0;
}

API CUresult cuCtxResetPersistingL2Cache(void) {
    ENTER_CONTEXT();
    return 0;
}

// What a process that ends leaves behind.
__attribute__((destructor)) static void at_end() {
    Lock lock(state().lock, std::try_to_lock);
    if (!lock) return;
    for (Context *context : state().contexts) if (context->active) report_leaks(context);
}
