// The part of CUDA's driver interface that runjob calls: types, structs and numbers as `cuda.h` of 13.0 has them. A
// machine that builds the simulated driver has no CUDA headers.
#pragma once
#include <cstddef>
#include <cstdint>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct Context *CUcontext;
typedef struct Stream *CUstream;
typedef struct Event *CUevent;
typedef struct Module *CUmodule;
typedef struct Function *CUfunction;
typedef struct Graph *CUgraph;
typedef struct Node *CUgraphNode;
typedef struct Exec *CUgraphExec;
typedef int CUdevice_attribute, CUfunction_attribute, CUlimit, CUjit_option;
struct CUuuid { char bytes[16]; };

struct CUDA_MEMCPY3D {
    size_t srcXInBytes, srcY, srcZ, srcLOD;
    unsigned srcMemoryType;
    const void *srcHost;
    CUdeviceptr srcDevice;
    void *srcArray, *reserved0;
    size_t srcPitch, srcHeight;
    size_t dstXInBytes, dstY, dstZ, dstLOD;
    unsigned dstMemoryType;
    void *dstHost;
    CUdeviceptr dstDevice;
    void *dstArray, *reserved1;
    size_t dstPitch, dstHeight;
    size_t WidthInBytes, Height, Depth;
};
static_assert(sizeof(CUDA_MEMCPY3D) == 200);
static_assert(offsetof(CUDA_MEMCPY3D, srcHost) == 40 && offsetof(CUDA_MEMCPY3D, srcDevice) == 48 && offsetof(CUDA_MEMCPY3D, srcPitch) == 72);
static_assert(offsetof(CUDA_MEMCPY3D, dstXInBytes) == 88 && offsetof(CUDA_MEMCPY3D, dstHost) == 128 && offsetof(CUDA_MEMCPY3D, dstDevice) == 136);
static_assert(offsetof(CUDA_MEMCPY3D, dstPitch) == 160 && offsetof(CUDA_MEMCPY3D, WidthInBytes) == 176 && offsetof(CUDA_MEMCPY3D, Depth) == 192);

struct CUDA_MEMSET_NODE_PARAMS {
    CUdeviceptr dst;
    size_t pitch;
    unsigned value, elementSize;
    size_t width, height;
};
static_assert(sizeof(CUDA_MEMSET_NODE_PARAMS) == 40);
static_assert(offsetof(CUDA_MEMSET_NODE_PARAMS, value) == 16 && offsetof(CUDA_MEMSET_NODE_PARAMS, width) == 24);

struct CUDA_KERNEL_NODE_PARAMS {
    CUfunction func;
    unsigned gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
    void **kernelParams, **extra;
    void *kern;
    CUcontext ctx;
};
static_assert(sizeof(CUDA_KERNEL_NODE_PARAMS) == 72);
static_assert(offsetof(CUDA_KERNEL_NODE_PARAMS, gridDimX) == 8 && offsetof(CUDA_KERNEL_NODE_PARAMS, sharedMemBytes) == 32);
static_assert(offsetof(CUDA_KERNEL_NODE_PARAMS, kernelParams) == 40 && offsetof(CUDA_KERNEL_NODE_PARAMS, ctx) == 64);

// Code, name, text.
#define RESULTS(X)                                                                                     \
    X(0, SUCCESS, "no error")                                                                          \
    X(1, ERROR_INVALID_VALUE, "invalid argument")                                                      \
    X(2, ERROR_OUT_OF_MEMORY, "out of memory")                                                         \
    X(3, ERROR_NOT_INITIALIZED, "initialization error")                                                \
    X(4, ERROR_DEINITIALIZED, "driver shutting down")                                                  \
    X(34, ERROR_STUB_LIBRARY, "CUDA driver is a stub library")                                         \
    X(46, ERROR_DEVICE_UNAVAILABLE, "CUDA-capable device(s) is/are busy or unavailable")               \
    X(100, ERROR_NO_DEVICE, "no CUDA-capable device is detected")                                      \
    X(101, ERROR_INVALID_DEVICE, "invalid device ordinal")                                             \
    X(200, ERROR_INVALID_IMAGE, "device kernel image is invalid")                                      \
    X(201, ERROR_INVALID_CONTEXT, "invalid device context")                                            \
    X(209, ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device")        \
    X(214, ERROR_ECC_UNCORRECTABLE, "uncorrectable ECC error encountered")                             \
    X(215, ERROR_UNSUPPORTED_LIMIT, "limit is not supported on this architecture")                     \
    X(218, ERROR_INVALID_PTX, "a PTX JIT compilation failed")                                          \
    X(222, ERROR_UNSUPPORTED_PTX_VERSION, "the provided PTX was compiled with an unsupported toolchain.") \
    X(300, ERROR_INVALID_SOURCE, "device kernel image is invalid")                                     \
    X(301, ERROR_FILE_NOT_FOUND, "file not found")                                                     \
    X(304, ERROR_OPERATING_SYSTEM, "OS call failed or operation not supported on this OS")             \
    X(400, ERROR_INVALID_HANDLE, "invalid resource handle")                                            \
    X(401, ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state")              \
    X(500, ERROR_NOT_FOUND, "named symbol not found")                                                  \
    X(600, ERROR_NOT_READY, "device not ready")                                                        \
    X(700, ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered")                          \
    X(701, ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch")                   \
    X(702, ERROR_LAUNCH_TIMEOUT, "the launch timed out and was terminated")                            \
    X(708, ERROR_PRIMARY_CONTEXT_ACTIVE, "cannot set while device is active in this process")          \
    X(709, ERROR_CONTEXT_IS_DESTROYED, "context is destroyed")                                         \
    X(710, ERROR_ASSERT, "device-side assert triggered")                                               \
    X(714, ERROR_HARDWARE_STACK_ERROR, "hardware stack error")                                         \
    X(715, ERROR_ILLEGAL_INSTRUCTION, "an illegal instruction was encountered")                        \
    X(716, ERROR_MISALIGNED_ADDRESS, "misaligned address")                                             \
    X(717, ERROR_INVALID_ADDRESS_SPACE, "operation not supported on global/shared address space")      \
    X(718, ERROR_INVALID_PC, "invalid program counter")                                                \
    X(719, ERROR_LAUNCH_FAILED, "unspecified launch failure")                                          \
    X(800, ERROR_NOT_PERMITTED, "operation not permitted")                                             \
    X(801, ERROR_NOT_SUPPORTED, "operation not supported")                                             \
    X(802, ERROR_SYSTEM_NOT_READY, "system not yet initialized")                                       \
    X(803, ERROR_SYSTEM_DRIVER_MISMATCH, "system has unsupported display driver / cuda driver combination") \
    X(910, ERROR_GRAPH_EXEC_UPDATE_FAILURE, "the graph update was not performed because it included changes which violated constraints specific to instantiated graph update") \
    X(999, ERROR_UNKNOWN, "unknown error")
#define RESULT_CONSTANT(code, name, text) CUDA_##name = code,
enum { RESULTS(RESULT_CONSTANT) };

enum { CU_MEMORYTYPE_HOST = 1, CU_MEMORYTYPE_DEVICE = 2, CU_MEMORYTYPE_ARRAY = 3, CU_MEMORYTYPE_UNIFIED = 4 };
enum { CU_EVENT_DISABLE_TIMING = 2, CU_EVENT_INTERPROCESS = 4 };
enum {
    CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0,
    CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
    CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES = 2,
    CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES = 3,
    CU_FUNC_ATTRIBUTE_NUM_REGS = 4,
    CU_FUNC_ATTRIBUTE_PTX_VERSION = 5,
    CU_FUNC_ATTRIBUTE_BINARY_VERSION = 6,
    CU_FUNC_ATTRIBUTE_CACHE_MODE_CA = 7,
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
    CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT = 9,
};
enum { CU_LIMIT_PERSISTING_L2_CACHE_SIZE = 6, CU_LIMIT_MAX = 11 };
enum { CU_JIT_INFO_LOG_BUFFER = 3, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES = 4, CU_JIT_ERROR_LOG_BUFFER = 5, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6 };
