// Drives the simulated driver and NVRTC as a program would: one case per run, named by the first argument; ends with 0
// where all held. The second argument is the folder of the libraries. `compile FOLDER FROM TO` makes an image of a `.cu`
// file that the simulated driver loads.
#include "abi.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <string>
#include <thread>
#include <vector>

static void *cuda, *nvrtc;
template <typename F> static F *of(void *library, const char *name) {
    void *it = dlsym(library, name);
    if (!it) fprintf(stderr, "no %s\n", name), exit(3);
    return (F *)it;
}
#define HOLDS(condition) ((condition) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), exit(1)))
#define IS(code, call)                                                                                                  \
    do {                                                                                                                \
        int got_ = (call);                                                                                              \
        if (got_ != (code)) fprintf(stderr, "%s:%d: %s gives %d, not %d\n", __FILE__, __LINE__, #call, got_, (code)), exit(1); \
    } while (0)
#define OK(call) IS(0, call)

// A function of the driver or of NVRTC, called with whatever its ABI takes.
template <typename... A> static int cu(const char *name, A... args) { return of<int(A...)>(cuda, name)(args...); }
template <typename... A> static int rtc(const char *name, A... args) { return of<int(A...)>(nvrtc, name)(args...); }
typedef unsigned long long u64;

static std::string log_of(void *program) {
    size_t size;
    OK(rtc("nvrtcGetProgramLogSize", program, &size));
    std::string log(size, 0);
    OK(rtc("nvrtcGetProgramLog", program, &log[0]));
    return log.c_str();
}

static std::string compile(const char *source, const char *what = "CUBIN", std::vector<const char *> options = {"--gpu-architecture=sm_90"}) {
    void *program;
    OK(rtc("nvrtcCreateProgram", &program, source, "k.cu", 0, (const char **)nullptr, (const char **)nullptr));
    int code = rtc("nvrtcCompileProgram", program, (int)options.size(), options.data());
    if (code) fprintf(stderr, "%s\n", log_of(program).c_str());
    OK(code);
    size_t size;
    OK(rtc(("nvrtcGet" + std::string(what) + "Size").c_str(), program, &size));
    std::string image(size, 0);
    OK(rtc(("nvrtcGet" + std::string(what)).c_str(), program, &image[0]));
    OK(rtc("nvrtcDestroyProgram", &program));
    return image;
}

static void *context, *stream;
static void begin() {
    OK(cu("cuInit", 0u));
    OK(cu("cuDevicePrimaryCtxRetain", &context, 0));
    OK(cu("cuCtxSetCurrent", context));
    OK(cu("cuStreamCreate", &stream, 1u));
}

static u64 memory(size_t bytes) {
    u64 at = 0;
    OK(cu("cuMemAlloc_v2", &at, bytes));
    return at;
}

template <typename T> static T *host(size_t count) {
    T *at = nullptr;
    OK(cu("cuMemHostAlloc", (void **)&at, count * sizeof(T), 0u));
    return at;
}

static void *function(void *module, const char *name) {
    void *found = nullptr;
    OK(cu("cuModuleGetFunction", &found, module, name));
    return found;
}

static void *load(const std::string &image) {
    void *module = nullptr;
    OK(cu("cuModuleLoadData", &module, (const void *)image.data()));
    return module;
}

static int launch(void *kernel, unsigned grid, unsigned block, std::vector<void *> args, unsigned shared = 0) {
    return cu("cuLaunchKernel", kernel, grid, 1u, 1u, block, 1u, 1u, shared, stream, args.data(), (void **)nullptr);
}

static const char *const KERNELS = R"(
extern "C" __global__ void add(const float *x, const float *y, float *z, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) z[i] = x[i] + y[i];
}
extern "C" __global__ void sum(const float *x, float *out) {
    extern __shared__ float part[];
    __shared__ float first[4];
    unsigned t = threadIdx.x;
    if (t < 4) first[t] = x[blockIdx.x * blockDim.x + t];
    part[t] = x[blockIdx.x * blockDim.x + t];
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = first[3] == x[blockIdx.x * blockDim.x + 3] ? part[0] : -1;
}
__global__ void warps(const int *x, int *out) {
    int v = x[threadIdx.x];
    for (int d = 16; d; d /= 2) v += __shfl_down_sync(0xffffffffu, v, d);
    if (threadIdx.x % 32 == 0) out[threadIdx.x / 32] = v;
    unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x & 1);
    if (odd != 0xaaaaaaaau) out[0] = -1;
    atomicAdd(out + 32, 1);
    if (threadIdx.x % 32 < 16) out[64 + threadIdx.x] = __shfl_xor_sync(0xffffu, (int)threadIdx.x, 1);
}
template <typename T> __global__ void __launch_bounds__(64) scale(T *x, T by) { x[threadIdx.x] *= by; }
template __global__ void scale<float>(float *, float);
namespace deep { namespace er { __global__ __launch_bounds__(32 * 2, 1) void three(char a, double b, float3 c, float4 d, short e) {} } }
extern "C" __global__ void poke(int *x, long at) { x[at] = 1; }
extern "C" __global__ void stop(int *x) { __trap(); }
extern "C" __global__ void claim(int *x) { assert(x == nullptr); }
extern "C" __global__ void hang(int *x) { if (threadIdx.x < 5) __shfl_sync(0xffffffffu, 1, 0); else __syncthreads(); }
extern "C" __global__ void deep_stack(int *x) { volatile char big[1 << 20]; for (int i = 0; i < 1 << 20; i += 512) big[i] = 1; }
extern "C" __global__ void past_shared(float *x) { extern __shared__ float s[]; s[threadIdx.x + 1] = 1; }
)";

static void kernels() {
    begin();
    const unsigned n = 100000;
    float *x = host<float>(n), *y = host<float>(n);
    for (unsigned i = 0; i < n; ++i) x[i] = (float)i, y[i] = 1;
    u64 dx = memory(4 * n), dy = memory(4 * n), dz = memory(4 * n);
    for (const char *what : {"CUBIN", "PTX"}) {
        void *module = load(compile(KERNELS, what)), *add = function(module, "add");
        OK(cu("cuMemcpyHtoDAsync_v2", dx, (const void *)x, (size_t)4 * n, stream));
        OK(cu("cuMemcpyHtoDAsync_v2", dy, (const void *)y, (size_t)4 * n, stream));
        unsigned count = n;
        OK(launch(add, (n + 255) / 256, 256, {&dx, &dy, &dz, &count}));
        float *z = host<float>(n);
        OK(cu("cuMemcpyDtoHAsync_v2", (void *)z, dz, (size_t)4 * n, stream));
        OK(cu("cuStreamSynchronize", stream));
        for (unsigned i = 0; i < n; ++i) HOLDS(z[i] == (float)i + 1);
        OK(launch(function(module, "sum"), 4, 1024, {&dx, &dz}, 4096));
        OK(cu("cuMemcpyDtoHAsync_v2", (void *)z, dz, (size_t)16, stream));
        OK(cu("cuStreamSynchronize", stream));
        HOLDS(z[0] == 1023 * 512 && z[1] == 1023 * 512 + 1024 * 1024);
        int *ints = host<int>(128);
        for (int i = 0; i < 128; ++i) ints[i] = i;
        OK(cu("cuMemcpyHtoDAsync_v2", dx, (const void *)ints, (size_t)512, stream));
        OK(cu("cuMemsetD32Async", dz, 0u, (size_t)256, stream));
        OK(launch(function(module, "_Z5warpsPKiPi"), 1, 128, {&dx, &dz}));
        OK(cu("cuMemcpyDtoHAsync_v2", (void *)z, dz, (size_t)1024, stream));
        OK(cu("cuStreamSynchronize", stream));
        int *got = (int *)z;
        HOLDS(got[0] == 31 * 16 && got[1] == 31 * 16 + 1024 && got[32] == 128 && got[64 + 32] == 33 && got[64 + 33] == 32);
        int value;
        OK(cu("cuFuncGetAttribute", &value, 1, function(module, "sum")));
        HOLDS(value == 16);
        void *three = function(module, "_ZN4deep2er5threeEcd6float36float4s");
        OK(cu("cuFuncGetAttribute", &value, 0, three));
        HOLDS(value == 64);
        const size_t offsets[] = {0, 8, 16, 32, 48}, sizes[] = {1, 8, 12, 16, 2};
        for (size_t i = 0; i < 5; ++i) {
            size_t offset, size;
            OK(cu("cuFuncGetParamInfo", three, i, &offset, &size));
            HOLDS(offset == offsets[i] && size == sizes[i]);
        }
        size_t none;
        IS(1, cu("cuFuncGetParamInfo", three, (size_t)5, &none, &none));
        unsigned functions;
        OK(cu("cuModuleGetFunctionCount", &functions, module));
        HOLDS(functions == 10);
        IS(500, cu("cuModuleGetFunction", &three, module, "nothing"));
        IS(1, launch(add, 0, 256, {&dx, &dy, &dz, &count}));
        IS(1, launch(add, 1, 1025, {&dx, &dy, &dz, &count}));
        IS(1, launch(add, 1, 32, {&dx, &dy, &dz, &count}, 49153));
        OK(cu("cuFuncSetAttribute", add, 8, 100000));
        OK(launch(add, 1, 32, {&dx, &dy, &dz, &count}, 100000));
        IS(1, cu("cuFuncSetAttribute", add, 8, 232449));
        IS(701, launch(function(module, "_ZN4deep2er5threeEcd6float36float4s"), 1, 65, {&dx, &dx, &dx, &dx, &dx}));
        OK(cu("cuModuleUnload", module));
    }
}

// Streams of four threads sum at once, in the same static and dynamic shared memory as far as the source says.
static void at_once() {
    begin();
    void *sum = function(load(compile(KERNELS)), "sum");
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([=] {
            void *own;
            OK(cu("cuCtxSetCurrent", context));
            OK(cu("cuStreamCreate", &own, 1u));
            float *x = host<float>(8192), *out = host<float>(8);
            u64 dx = memory(32768), dout = memory(32);
            for (int round = 0; round < 20; ++round) {
                for (int i = 0; i < 8192; ++i) x[i] = (float)(t + round);
                void *args[] = {&dx, &dout};
                OK(cu("cuMemcpyHtoDAsync_v2", dx, (const void *)x, (size_t)32768, own));
                OK(cu("cuLaunchKernel", sum, 8u, 1u, 1u, 1024u, 1u, 1u, 4096u, own, (void **)args, (void **)nullptr));
                OK(cu("cuMemcpyDtoHAsync_v2", (void *)out, dout, (size_t)32, own));
                OK(cu("cuStreamSynchronize", own));
                for (int i = 0; i < 8; ++i) HOLDS(out[i] == (float)(t + round) * 1024);
            }
            OK(cu("cuStreamDestroy_v2", own));
            OK(cu("cuMemFree_v2", dx));
            OK(cu("cuMemFree_v2", dout));
            OK(cu("cuMemFreeHost", (void *)x));
            OK(cu("cuMemFreeHost", (void *)out));
        });
    }
    for (auto &thread : threads) thread.join();
    OK(cu("cuStreamDestroy_v2", stream));
    OK(cu("cuDevicePrimaryCtxRelease_v2", 0));
}

static CUDA_MEMCPY3D copy_of(unsigned to_type, u64 to, unsigned from_type, u64 from, size_t bytes) {
    CUDA_MEMCPY3D c{};
    c.srcMemoryType = from_type, c.dstMemoryType = to_type;
    c.srcHost = (const void *)from, c.srcDevice = from, c.dstHost = (void *)to, c.dstDevice = to;
    c.WidthInBytes = bytes, c.Height = c.Depth = 1;
    return c;
}

// Two branches between an upload and a read-back; `edges`: whether the branches are said to come after the upload.
static bool graph_is_right(bool edges, int launches) {
    const unsigned n = 1000;
    void *module = load(compile(KERNELS)), *add = function(module, "add"), *graph, *exec;
    float *x = host<float>(n), *out = host<float>(4 * n);
    for (unsigned i = 0; i < n; ++i) x[i] = (float)i;
    u64 dx = memory(4 * n), dy = memory(4 * n), a = memory(4 * n), b = memory(4 * n);
    OK(cu("cuGraphCreate", &graph, 0u));
    void *up, *fill, *left, *right, *back, *marked, *event;
    CUDA_MEMCPY3D copy = copy_of(2, dx, 1, (u64)x, 4 * n);
    void *none = nullptr;
    OK(cu("cuGraphAddMemcpyNode", &up, graph, &none, (size_t)0, &copy, context));
    CUDA_MEMSET_NODE_PARAMS set{dy, 0, 0x3f800000, 4, n, 1};
    OK(cu("cuGraphAddMemsetNode", &fill, graph, &none, (size_t)0, &set, context));
    unsigned count = n;
    void *args[] = {&dx, &dy, &a, &count};
    CUDA_KERNEL_NODE_PARAMS params{(CUfunction)add, 4, 1, 1, 256, 1, 1, 0, args, nullptr, nullptr, nullptr};
    void *both[] = {up, fill};
    OK(cu("cuGraphAddKernelNode_v2", &left, graph, both, (size_t)(edges ? 2 : 0), &params));
    args[2] = &b;
    OK(cu("cuGraphAddKernelNode_v2", &right, graph, both, (size_t)(edges ? 2 : 0), &params));
    OK(cu("cuEventCreate", &event, 0u));
    void *ends[] = {left, right};
    copy = copy_of(1, (u64)out, 2, a, 4 * n);
    OK(cu("cuGraphAddMemcpyNode", &back, graph, &left, (size_t)1, &copy, context));
    copy = copy_of(1, (u64)(out + n), 2, b, 4 * n);
    OK(cu("cuGraphAddMemcpyNode", &back, graph, &right, (size_t)1, &copy, context));
    OK(cu("cuGraphAddEventRecordNode", &marked, graph, ends, (size_t)2, event));
    OK(cu("cuGraphInstantiateWithFlags", &exec, graph, 0ull));
    OK(cu("cuGraphUpload", exec, stream));
    bool right_always = true;
    for (int i = 0; i < launches; ++i) {
        OK(cu("cuMemsetD8Async", dy, (unsigned char)0, (size_t)4 * n, stream));
        OK(cu("cuGraphLaunch", exec, stream));
        OK(cu("cuStreamSynchronize", stream));
        OK(cu("cuEventQuery", event));
        for (unsigned k = 0; k < n; ++k) right_always &= out[k] == (float)k + 1 && out[n + k] == (float)k + 1;
    }
    if (!edges) return right_always;
    // Other values, a node less.
    set.value = 0x40000000;
    OK(cu("cuGraphExecMemsetNodeSetParams", exec, fill, &set, context));
    OK(cu("cuGraphNodeSetEnabled", exec, right, 0u));
    IS(1, cu("cuGraphNodeSetEnabled", exec, marked, 0u));
    OK(cu("cuMemsetD8Async", b, (unsigned char)0, (size_t)4 * n, stream));
    count = 10;
    args[2] = &a;
    OK(cu("cuGraphExecKernelNodeSetParams_v2", exec, left, &params));
    OK(cu("cuGraphLaunch", exec, stream));
    OK(cu("cuStreamSynchronize", stream));
    HOLDS(out[9] == 11 && out[10] == 11 && out[n + 9] == 0);
    // Rows at a stride: what lies between stays.
    OK(cu("cuMemsetD32Async", a, 7u, (size_t)n, stream));
    void *rows, *rows_exec;
    OK(cu("cuGraphCreate", &rows, 0u));
    set = {a, 40, 9, 2, 4, 5};
    OK(cu("cuGraphAddMemsetNode", &fill, rows, &none, (size_t)0, &set, context));
    copy = copy_of(1, (u64)out, 2, a, 8);
    copy.Height = 5, copy.srcPitch = 40, copy.dstPitch = 16;
    OK(cu("cuGraphAddMemcpyNode", &back, rows, &fill, (size_t)1, &copy, context));
    OK(cu("cuGraphInstantiateWithFlags", &rows_exec, rows, 0ull));
    IS(1, cu("cuGraphExecMemsetNodeSetParams", rows_exec, fill, &set, context));
    memset(out, 0, 80);
    OK(cu("cuGraphLaunch", rows_exec, stream));
    OK(cu("cuMemcpyDtoHAsync_v2", (void *)(out + 20), a, (size_t)200, stream));
    OK(cu("cuStreamSynchronize", stream));
    const unsigned *words = (const unsigned *)out;
    for (int r = 0; r < 5; ++r) {
        HOLDS(words[4 * r] == 0x00090009 && words[4 * r + 1] == 0x00090009 && words[4 * r + 2] == 0);
        HOLDS(words[20 + 10 * r] == 0x00090009 && words[20 + 10 * r + 2] == 7);
    }
    set = {a, 40, 9, 2, 4, 200};
    IS(1, cu("cuGraphAddMemsetNode", &fill, rows, &none, (size_t)0, &set, context));
    OK(cu("cuGraphExecDestroy", rows_exec));
    OK(cu("cuGraphExecDestroy", exec));
    OK(cu("cuGraphDestroy", rows));
    OK(cu("cuGraphDestroy", graph));
    IS(1, cu("cuGraphDestroy", graph));
    return right_always;
}

// A kernel that ends with this error: it stays until the context is made anew.
static void sticky(const char *name, int code, unsigned threads, long at = 0) {
    u64 x = memory(400), y;
    void *module = load(compile(KERNELS)), *event;
    OK(cu("cuEventCreate", &event, 0u));
    OK(launch(function(module, name), 1, threads, {&x, &at}));
    IS(code, cu("cuStreamSynchronize", stream));
    IS(code, cu("cuMemAlloc_v2", &y, (size_t)4));
    IS(code, cu("cuEventQuery", event));
    IS(code, cu("cuMemFree_v2", x));
    IS(code, cu("cuCtxSynchronize"));
    OK(cu("cuDevicePrimaryCtxReset_v2", 0));
    IS(709, cu("cuCtxSynchronize"));
    OK(cu("cuDevicePrimaryCtxRelease_v2", 0));
    begin();
}

static void errors() {
    u64 at;
    IS(3, cu("cuDeviceGetCount", (int *)&at));
    OK(cu("cuInit", 0u));
    IS(201, cu("cuMemAlloc_v2", &at, (size_t)4));
    begin();
    sticky("poke", 700, 1, 1 << 20);
    sticky("poke", 700, 1, 128);
    sticky("poke", 700, 1, -(1 << 20));
    sticky("stop", 719, 33);
    sticky("claim", 710, 33);
    sticky("hang", 719, 64);
    sticky("deep_stack", 719, 1);
    IS(2, cu("cuMemAlloc_v2", &at, (size_t)9 << 30));
    u64 most = memory((size_t)8 << 30);
    *(volatile char *)(most + (1ull << 32)) = 1;
    IS(2, cu("cuMemAlloc_v2", &at, (size_t)1));
    size_t left, total;
    OK(cu("cuMemGetInfo_v2", &left, &total));
    HOLDS(left == 0 && total == (size_t)8 << 30);
    OK(cu("cuMemFree_v2", most));
    u64 x = memory(64);
    IS(1, cu("cuMemsetD32Async", x, 0u, (size_t)17, stream));
    IS(400, cu("cuMemsetD32Async", x, 0u, (size_t)16, (void *)12345678));
    void *module;
    IS(218, cu("cuModuleLoadData", &module, (const void *)".version 8.0\n"));
    std::string other = compile(KERNELS, "CUBIN", {"--gpu-architecture=sm_100", "-DX=1", "-I/nowhere", "--std=c++17", "--use_fast_math"});
    IS(209, cu("cuModuleLoadData", &module, (const void *)other.data()));
    void *program;
    const char *wrong = "\n#line 7 \"k.cu\"\n__global__ void k(float *x) {\n  x[0] = foo;\n}\n";
    OK(rtc("nvrtcCreateProgram", &program, wrong, "k.cu", 0, (const char **)nullptr, (const char **)nullptr));
    IS(6, rtc("nvrtcCompileProgram", program, 0, (const char **)nullptr));
    HOLDS(log_of(program).find("    x[0] = foo;\n           ^\n") != std::string::npos);
    HOLDS(log_of(program).find("k.cu(8): error: identifier \"foo\" is undefined\n") == 0);
    HOLDS(log_of(program).find("1 error detected in the compilation of \"k.cu\".\n") != std::string::npos);
    const char *unknown[] = {"--foo"};
    IS(5, rtc("nvrtcCompileProgram", program, 1, unknown));
    HOLDS(log_of(program) == "nvrtc: error: unrecognized option --foo found\n");
    OK(rtc("nvrtcDestroyProgram", &program));
    const char *include = "#include \"part.h\"\ntemplate <typename T> __global__ void k(T *x) { x[0] = PART; }\n", *part = "#define PART 3\n", *part_name = "part.h", *lowered;
    OK(rtc("nvrtcCreateProgram", &program, include, "k.cu", 1, &part, &part_name));
    OK(rtc("nvrtcAddNameExpression", program, "k<float>"));
    OK(rtc("nvrtcCompileProgram", program, 0, (const char **)nullptr));
    OK(rtc("nvrtcGetLoweredName", program, "k<float>", &lowered));
    HOLDS(std::string(lowered) == "_Z1kIfEvPT_");
    sticky("past_shared", 700, 4);
}

// Compiles a file to a cubin, or to PTX where the other's name says so.
static void compile_file(const char *from, const std::string &to) {
    std::string source, image;
    char part[4096];
    FILE *in = fopen(from, "rb"), *out = fopen(to.c_str(), "wb");
    HOLDS(in && out);
    for (size_t n; (n = fread(part, 1, sizeof part, in)) > 0;) source.append(part, n);
    bool ptx = to.size() > 4 && to.substr(to.size() - 4) == ".ptx";
    image = compile(source.c_str(), ptx ? "PTX" : "CUBIN");
    if (ptx) image.pop_back();
    HOLDS(fwrite(image.data(), 1, image.size(), out) == image.size() && fclose(out) == 0);
    fclose(in);
}

int main(int count, char **args) {
    HOLDS(count == 3 || count == 5);
    std::string which = args[1], folder = args[2];
    cuda = dlopen((folder + "/libcuda.so").c_str(), RTLD_NOW);
    nvrtc = dlopen((folder + "/libnvrtc.so").c_str(), RTLD_NOW);
    if (!cuda || !nvrtc) fprintf(stderr, "%s\n", dlerror()), exit(3);
    if (which == "kernels") {
        kernels();
    } else if (which == "compile" && count == 5) {
        compile_file(args[3], args[4]);
    } else if (which == "at_once") {
        at_once();
    } else if (which == "graph") {
        begin();
        HOLDS(graph_is_right(true, 20));
    } else if (which == "edgeless") {
        begin();
        HOLDS(!graph_is_right(false, 20));
    } else if (which == "errors") {
        errors();
    } else if (which == "unwaited") {
        begin();
        u64 x = memory(64);
        char *y = host<char>(64);
        memset(y, 1, 64);
        OK(cu("cuMemsetD8Async", x, (unsigned char)2, (size_t)64, stream));
        OK(cu("cuMemcpyDtoHAsync_v2", (void *)y, x, (size_t)64, stream));
        HOLDS(y[0] == 1);
        IS(600, cu("cuStreamQuery", stream));
        void *event;
        OK(cu("cuEventCreate", &event, 2u));
        OK(cu("cuEventRecord", event, stream));
        OK(cu("cuEventSynchronize", event));
        HOLDS(y[63] == 2);
    } else if (which == "pageable") {
        begin();
        char y[64];
        cu("cuMemcpyDtoHAsync_v2", (void *)y, memory(64), (size_t)64, stream);
    } else if (which == "failing") {
        // With SIM_CUDA_FAIL="cuMemAlloc_v2:2:2,kernel:1:719"
        begin();
        u64 x = memory(64), y;
        IS(2, cu("cuMemAlloc_v2", &y, (size_t)64));
        memory(64);
        of<void(const char *)>(cuda, "simCudaFail")("cuEventCreate:1+:999");
        IS(999, cu("cuEventCreate", &y, 0u));
        IS(999, cu("cuEventCreate", &y, 0u));
        of<void(const char *)>(cuda, "simCudaFail")(nullptr);
        HOLDS(of<u64(void)>(cuda, "simCudaCalls")() == of<u64(void)>(cuda, "simCudaThreadCalls")());
        OK(launch(function(load(compile(KERNELS)), "stop"), 1, 1, {&x}));
        IS(719, cu("cuStreamSynchronize", stream));
    } else {
        return 2;
    }
    return 0;
}
