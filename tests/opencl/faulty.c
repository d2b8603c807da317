// Stands for the OpenCL library: forwards every call that runjob makes to the real one, and makes one of them fail.
//
// FAULTY_REAL    the real library; otherwise libOpenCL.so.1
// FAULTY_CALL    the function that fails, at its FAULTY_NTH call (1), with FAULTY_CODE (-5); FAULTY_FROM: and ever after
// FAULTY_ANY     the call that fails, counted over all functions
// FAULTY_NULL    the call that fails says that it worked, and gives nothing
// FAULTY_DEVICE  no-platforms, no-devices, unavailable, discrete, no-command-buffer, typedef, no-arg-info, absurd, endless
// FAULTY_HIT     a file that gets the name of the call that failed, and which of all calls it was
// FAULTY_COUNTS  a file that gets the name of every call, a line each
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What it takes of OpenCL's headers, which a machine with a driver need not have.
typedef int32_t cl_int;
typedef uint32_t cl_uint, cl_bool, cl_device_info, cl_platform_info, cl_event_info, cl_profiling_info, cl_program_info, cl_kernel_info,
    cl_program_build_info, cl_kernel_work_group_info, cl_kernel_arg_info, cl_buffer_create_type;
typedef uint64_t cl_device_type, cl_map_flags, cl_mem_flags, cl_command_queue_properties;
typedef intptr_t cl_context_properties;
typedef void *cl_platform_id, *cl_device_id, *cl_context, *cl_command_queue, *cl_mem, *cl_program, *cl_kernel, *cl_event;
enum { CL_FALSE, CL_SUCCESS = 0, CL_DEVICE_NOT_FOUND = -1, CL_OUT_OF_RESOURCES = -5, CL_KERNEL_ARG_INFO_NOT_AVAILABLE = -19, CL_INVALID_VALUE = -30 };
enum {
    CL_DEVICE_AVAILABLE = 0x1027,
    CL_DEVICE_EXTENSIONS = 0x1030,
    CL_DEVICE_HOST_UNIFIED_MEMORY = 0x1035,
    CL_KERNEL_ARG_TYPE_NAME = 0x1198
};

#define MOST_NAMES 96

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *names[MOST_NAMES];
static long counts[MOST_NAMES];
static int known;
static long total;
static FILE *counted;

static void *real(const char *name) {
    static void *library;
    pthread_mutex_lock(&lock);
    if (!library) {
        const char *path = getenv("FAULTY_REAL");
        library = dlopen(path && *path ? path : "libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            fprintf(stderr, "faulty: %s\n", dlerror());
            abort();
        }
    }
    pthread_mutex_unlock(&lock);
    return dlsym(library, name);
}

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}

static int is(const char *what) {
    const char *text = getenv("FAULTY_DEVICE");
    return text && strcmp(text, what) == 0;
}

static int gives_nothing(void) { return getenv("FAULTY_NULL") != NULL; }

// Notes the call that fails.
static cl_int hit(const char *name, long at, cl_int code) {
    const char *path = getenv("FAULTY_HIT");
    FILE *file = path && *path ? fopen(path, "a") : NULL;
    if (file) {
        fprintf(file, "%s %ld\n", name, at);
        fclose(file);
    }
    return code;
}

// The code that this call fails with; 0 for a call that is forwarded.
static cl_int fault(const char *name) {
    pthread_mutex_lock(&lock);
    int at = 0;
    while (at < known && strcmp(names[at], name) != 0) ++at;
    if (at == known && known < MOST_NAMES) names[known++] = name;
    long nth = ++counts[at], all = ++total;
    const char *path = getenv("FAULTY_COUNTS");
    if (!counted && path && *path) counted = fopen(path, "w");
    if (counted) {
        fprintf(counted, "%s\n", name);
        fflush(counted);
    }
    pthread_mutex_unlock(&lock);
    const char *call = getenv("FAULTY_CALL");
    cl_int code = (cl_int)number("FAULTY_CODE", CL_OUT_OF_RESOURCES);
    if (call && strcmp(call, name) == 0) {
        long from = number("FAULTY_NTH", 1);
        if (nth == from || (getenv("FAULTY_FROM") && nth > from)) return hit(name, all, code);
    }
    if (number("FAULTY_ANY", 0) == all) return hit(name, all, code);
    return CL_SUCCESS;
}

// A call that returns a code.
#define CODE(name, params, args)                      \
    cl_int name params {     \
        cl_int code = fault(#name);                   \
        if (code != CL_SUCCESS) return code;          \
        cl_int(*forward) params = real(#name);        \
        return forward args;                          \
    }

// A call that returns an object.
#define MADE(type, name, params, args)                            \
    type name params {                   \
        cl_int code = fault(#name);                               \
        if (code != CL_SUCCESS) {                                 \
            if (errcode) *errcode = gives_nothing() ? CL_SUCCESS : code; \
            return NULL;                                          \
        }                                                         \
        type(*forward) params = real(#name);                      \
        return forward args;                                      \
    }

static cl_int answer(const char *text, size_t size, void *value, size_t *len) {
    size_t need = strlen(text) + 1;
    if (len) *len = need;
    if (value) {
        if (size < need) return CL_INVALID_VALUE;
        memcpy(value, text, need);
    }
    return CL_SUCCESS;
}

cl_int clGetPlatformIDs(cl_uint n, cl_platform_id *ids, cl_uint *count) {
    cl_int code = fault("clGetPlatformIDs");
    if (code != CL_SUCCESS) return code;
    if (is("no-platforms")) {
        if (count) *count = 0;
        return -1001;
    }
    if (is("absurd")) {
        if (count) *count = 0xfffffff0u;
        return CL_SUCCESS;
    }
    cl_int (*forward)(cl_uint, cl_platform_id *, cl_uint *) = real("clGetPlatformIDs");
    return forward(n, ids, count);
}

cl_int clGetDeviceIDs(cl_platform_id p, cl_device_type t, cl_uint n, cl_device_id *ids, cl_uint *count) {
    cl_int code = fault("clGetDeviceIDs");
    if (code != CL_SUCCESS) return code;
    if (is("no-devices")) return CL_DEVICE_NOT_FOUND;
    cl_int (*forward)(cl_platform_id, cl_device_type, cl_uint, cl_device_id *, cl_uint *) = real("clGetDeviceIDs");
    return forward(p, t, n, ids, count);
}

cl_int clGetDeviceInfo(cl_device_id d, cl_device_info what, size_t size, void *value, size_t *len) {
    cl_int code = fault("clGetDeviceInfo");
    if (code != CL_SUCCESS) return code;
    cl_int (*forward)(cl_device_id, cl_device_info, size_t, void *, size_t *) = real("clGetDeviceInfo");
    code = forward(d, what, size, value, len);
    if (code != CL_SUCCESS) return code;
    if (value && what == CL_DEVICE_AVAILABLE && is("unavailable")) *(cl_bool *)value = CL_FALSE;
    if (value && what == CL_DEVICE_HOST_UNIFIED_MEMORY && is("discrete")) *(cl_bool *)value = CL_FALSE;
    if (len && what == CL_DEVICE_EXTENSIONS && is("endless")) *len = (size_t)-1;
    if (value && what == CL_DEVICE_EXTENSIONS && is("no-command-buffer")) {
        char *at = strstr(value, "cl_khr_command_buffer");
        if (at) memcpy(at, "cl_khr_commands_gone!", strlen("cl_khr_command_buffer"));
    }
    return CL_SUCCESS;
}

cl_int clGetKernelArgInfo(cl_kernel k, cl_uint at, cl_kernel_arg_info what, size_t size, void *value, size_t *len) {
    cl_int code = fault("clGetKernelArgInfo");
    if (code != CL_SUCCESS) return code;
    if (is("no-arg-info")) return CL_KERNEL_ARG_INFO_NOT_AVAILABLE;
    if (what == CL_KERNEL_ARG_TYPE_NAME && is("typedef")) return answer("my_type", size, value, len);
    cl_int (*forward)(cl_kernel, cl_uint, cl_kernel_arg_info, size_t, void *, size_t *) = real("clGetKernelArgInfo");
    return forward(k, at, what, size, value, len);
}

void *clEnqueueMapBuffer(cl_command_queue q, cl_mem m, cl_bool b, cl_map_flags f, size_t o, size_t s, cl_uint n,
                                                   const cl_event *w, cl_event *e, cl_int *errcode) {
    cl_int code = fault("clEnqueueMapBuffer");
    if (code != CL_SUCCESS) {
        if (errcode) *errcode = gives_nothing() ? CL_SUCCESS : code;
        return NULL;
    }
    void *(*forward)(cl_command_queue, cl_mem, cl_bool, cl_map_flags, size_t, size_t, cl_uint, const cl_event *, cl_event *, cl_int *) =
        real("clEnqueueMapBuffer");
    return forward(q, m, b, f, o, s, n, w, e, errcode);
}

CODE(clGetPlatformInfo, (cl_platform_id p, cl_platform_info i, size_t s, void *v, size_t *l), (p, i, s, v, l))
CODE(clReleaseContext, (cl_context c), (c))
CODE(clReleaseCommandQueue, (cl_command_queue q), (q))
CODE(clFlush, (cl_command_queue q), (q))
CODE(clFinish, (cl_command_queue q), (q))
CODE(clReleaseMemObject, (cl_mem m), (m))
CODE(clEnqueueUnmapMemObject, (cl_command_queue q, cl_mem m, void *p, cl_uint n, const cl_event *w, cl_event *e), (q, m, p, n, w, e))
CODE(clEnqueueReadBuffer,
     (cl_command_queue q, cl_mem m, cl_bool b, size_t o, size_t s, void *p, cl_uint n, const cl_event *w, cl_event *e),
     (q, m, b, o, s, p, n, w, e))
CODE(clEnqueueWriteBuffer,
     (cl_command_queue q, cl_mem m, cl_bool b, size_t o, size_t s, const void *p, cl_uint n, const cl_event *w, cl_event *e),
     (q, m, b, o, s, p, n, w, e))
CODE(clEnqueueCopyBuffer,
     (cl_command_queue q, cl_mem a, cl_mem b, size_t f, size_t t, size_t s, cl_uint n, const cl_event *w, cl_event *e),
     (q, a, b, f, t, s, n, w, e))
CODE(clEnqueueFillBuffer,
     (cl_command_queue q, cl_mem m, const void *p, size_t ps, size_t o, size_t s, cl_uint n, const cl_event *w, cl_event *e),
     (q, m, p, ps, o, s, n, w, e))
CODE(clEnqueueNDRangeKernel,
     (cl_command_queue q, cl_kernel k, cl_uint d, const size_t *o, const size_t *g, const size_t *l, cl_uint n, const cl_event *w, cl_event *e),
     (q, k, d, o, g, l, n, w, e))
CODE(clEnqueueMarkerWithWaitList, (cl_command_queue q, cl_uint n, const cl_event *w, cl_event *e), (q, n, w, e))
CODE(clEnqueueBarrierWithWaitList, (cl_command_queue q, cl_uint n, const cl_event *w, cl_event *e), (q, n, w, e))
CODE(clGetEventInfo, (cl_event e, cl_event_info i, size_t s, void *v, size_t *l), (e, i, s, v, l))
CODE(clGetEventProfilingInfo, (cl_event e, cl_profiling_info i, size_t s, void *v, size_t *l), (e, i, s, v, l))
CODE(clReleaseEvent, (cl_event e), (e))
CODE(clBuildProgram,
     (cl_program p, cl_uint n, const cl_device_id *d, const char *o, void(*f)(cl_program, void *), void *u),
     (p, n, d, o, f, u))
CODE(clGetProgramInfo, (cl_program p, cl_program_info i, size_t s, void *v, size_t *l), (p, i, s, v, l))
CODE(clGetProgramBuildInfo, (cl_program p, cl_device_id d, cl_program_build_info i, size_t s, void *v, size_t *l), (p, d, i, s, v, l))
CODE(clReleaseProgram, (cl_program p), (p))
CODE(clSetKernelArg, (cl_kernel k, cl_uint i, size_t s, const void *v), (k, i, s, v))
CODE(clGetKernelInfo, (cl_kernel k, cl_kernel_info i, size_t s, void *v, size_t *l), (k, i, s, v, l))
CODE(clGetKernelWorkGroupInfo, (cl_kernel k, cl_device_id d, cl_kernel_work_group_info i, size_t s, void *v, size_t *l), (k, d, i, s, v, l))
CODE(clReleaseKernel, (cl_kernel k), (k))

MADE(cl_context, clCreateContext,
     (const cl_context_properties *p, cl_uint n, const cl_device_id *d,
      void(*f)(const char *, const void *, size_t, void *), void *u, cl_int *errcode),
     (p, n, d, f, u, errcode))
MADE(cl_command_queue, clCreateCommandQueue, (cl_context c, cl_device_id d, cl_command_queue_properties p, cl_int *errcode), (c, d, p, errcode))
MADE(cl_mem, clCreateBuffer, (cl_context c, cl_mem_flags f, size_t s, void *h, cl_int *errcode), (c, f, s, h, errcode))
MADE(cl_mem, clCreateSubBuffer, (cl_mem m, cl_mem_flags f, cl_buffer_create_type t, const void *i, cl_int *errcode), (m, f, t, i, errcode))
MADE(cl_program, clCreateProgramWithSource, (cl_context c, cl_uint n, const char **t, const size_t *l, cl_int *errcode), (c, n, t, l, errcode))
MADE(cl_program, clCreateProgramWithIL, (cl_context c, const void *i, size_t l, cl_int *errcode), (c, i, l, errcode))
MADE(cl_kernel, clCreateKernel, (cl_program p, const char *n, cl_int *errcode), (p, n, errcode))

// The extension's functions come from the driver by name; those that runjob takes are wrapped. Their parameters differ
// by version, and are passed on as they came: none is wider than a register.
typedef void *(*any)(void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *);
#define REGISTERS \
    void *a, void *b, void *c, void *d, void *e, void *f, void *g, void *h, void *i, void *j, void *k, void *l, void *m
#define EXTENSION(name)                                          \
    static any real_##name;                                      \
    static cl_int faulty_##name(REGISTERS) {                     \
        cl_int code = fault(#name);                              \
        if (code != CL_SUCCESS) return code;                     \
        return (cl_int)(intptr_t)real_##name(a, b, c, d, e, f, g, h, i, j, k, l, m); \
    }
EXTENSION(clFinalizeCommandBufferKHR)
EXTENSION(clReleaseCommandBufferKHR)
EXTENSION(clEnqueueCommandBufferKHR)
EXTENSION(clCommandNDRangeKernelKHR)
EXTENSION(clCommandCopyBufferKHR)
EXTENSION(clCommandFillBufferKHR)

static void *(*real_clCreateCommandBufferKHR)(cl_uint, const cl_command_queue *, const void *, cl_int *);
static void *faulty_clCreateCommandBufferKHR(cl_uint n, const cl_command_queue *q, const void *p, cl_int *errcode) {
    cl_int code = fault("clCreateCommandBufferKHR");
    if (code != CL_SUCCESS) {
        if (errcode) *errcode = gives_nothing() ? CL_SUCCESS : code;
        return NULL;
    }
    return real_clCreateCommandBufferKHR(n, q, p, errcode);
}

void *clGetExtensionFunctionAddressForPlatform(cl_platform_id p, const char *name) {
    if (fault("clGetExtensionFunctionAddressForPlatform") != CL_SUCCESS) return NULL;
    void *(*forward)(cl_platform_id, const char *) = real("clGetExtensionFunctionAddressForPlatform");
    void *there = forward(p, name);
    if (!there) return NULL;
#define WRAP(of)                       \
    if (strcmp(name, #of) == 0) {      \
        real_##of = there;             \
        return (void *)faulty_##of;    \
    }
    WRAP(clCreateCommandBufferKHR)
    WRAP(clFinalizeCommandBufferKHR)
    WRAP(clReleaseCommandBufferKHR)
    WRAP(clEnqueueCommandBufferKHR)
    WRAP(clCommandNDRangeKernelKHR)
    WRAP(clCommandCopyBufferKHR)
    WRAP(clCommandFillBufferKHR)
    return there;
}
