// Device and page-locked memory, copies and fills. Every allocation ends at a page that nobody may touch, and is full of
// junk at first; pages cost nothing until they are written.
#include "sim.h"
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

static const size_t PAGE = 4096, JUNK = 4 << 20, ALIGN = 256;

// A file of junk that is mapped again and again.
static int junk() {
    static int file = [] {
        int made = memfd_create("junk", MFD_CLOEXEC);
        std::vector<uint64_t> words(JUNK / 8);
        std::mt19937_64 random(config().seed ^ 0x6a09e667f3bcc909);
        for (uint64_t &word : words) word = random();
        if (made < 0 || write(made, words.data(), JUNK) != (ssize_t)JUNK) misuse("junk", "no memory file");
        return made;
    }();
    return file;
}

static CUresult allocate(Context *context, size_t size, bool host, void *&out) {
    size_t rounded = (size + ALIGN - 1) / ALIGN * ALIGN, body = (rounded + PAGE - 1) / PAGE * PAGE;
    char *mapped = (char *)mmap(nullptr, body + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t at = 0; at < body; at += JUNK) {
        void *there = mmap(mapped + PAGE + at, std::min(JUNK, body - at), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, junk(), 0);
        if (there == MAP_FAILED) {
            munmap(mapped, body + 2 * PAGE);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    out = mapped + PAGE + body - rounded;
    state().memory[(uintptr_t)out] = {context, size, host, mapped, body + 2 * PAGE};
    if (!host) context->used += rounded;
    return 0;
}

static void release(std::map<uintptr_t, Allocation>::iterator at) {
    if (!at->second.host) at->second.context->used -= (at->second.size + ALIGN - 1) / ALIGN * ALIGN;
    munmap(at->second.mapped, at->second.mapped_size);
    state().memory.erase(at);
}

void free_memory_of(Context *context) {
    auto &memory = state().memory;
    for (auto at = memory.begin(); at != memory.end();) {
        auto here = at++;
        if (here->second.context == context) release(here);
    }
}

// The allocation that holds an address.
static const Allocation *holder(uintptr_t address, uintptr_t &base) {
    auto &memory = state().memory;
    auto at = memory.upper_bound(address);
    if (at == memory.begin()) return nullptr;
    --at;
    base = at->first;
    return address < at->first + at->second.size ? &at->second : nullptr;
}

static bool inside(uintptr_t address, size_t bytes, const Allocation *&allocation) {
    uintptr_t base;
    allocation = holder(address, base);
    return allocation && bytes <= allocation->size - (address - base);
}

API CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t size) {
    ENTER_CONTEXT();
    if (!out || !size) return CUDA_ERROR_INVALID_VALUE;
    if (size > config().memory || context->used + size > config().memory) return CUDA_ERROR_OUT_OF_MEMORY;
    void *made;
    if (CUresult code = allocate(context, size, false, made)) return code;
    *out = (CUdeviceptr)made;
    return 0;
}

static CUresult free_memory(const char *call, Lock &lock, CUresult sticky, uintptr_t address, bool host, Context *context) {
    auto at = state().memory.find(address);
    if (at == state().memory.end() || at->second.host != host) {
        if (!sticky) misuse(call, "no memory of this kind begins at this address");
        return sticky;
    }
    if (!sticky) wait_idle(lock, context);
    release(state().memory.find(address));
    return sticky ? sticky : context->error;
}

API CUresult cuMemFree_v2(CUdeviceptr address) {
    ENTER_RELEASE();
    if (!address) return sticky;
    return free_memory(__func__, lock, sticky, address, false, context);
}

API CUresult cuMemHostAlloc(void **out, size_t size, unsigned flags) {
    ENTER_CONTEXT();
    if (!out || !size || (flags & ~7u)) return CUDA_ERROR_INVALID_VALUE;
    if (size > 1ull << 40) return CUDA_ERROR_OUT_OF_MEMORY;
    return allocate(context, size, true, *out);
}

API CUresult cuMemFreeHost(void *address) {
    ENTER_RELEASE();
    if (!address) return sticky;
    return free_memory(__func__, lock, sticky, (uintptr_t)address, true, context);
}

API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *address, unsigned flags) {
    ENTER_CONTEXT();
    uintptr_t base;
    const Allocation *allocation = holder((uintptr_t)address, base);
    if (!out || flags || !allocation || !allocation->host) return CUDA_ERROR_INVALID_VALUE;
    *out = (CUdeviceptr)address;
    return 0;
}

API CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    ENTER_CONTEXT();
    if (!free || !total) return CUDA_ERROR_INVALID_VALUE;
    *free = config().memory - context->used;
    *total = config().memory;
    return 0;
}

// One side of a copy.
struct Side {
    uintptr_t base;
    size_t pitch, height;
};

static Side from(const CUDA_MEMCPY3D &c) {
    uintptr_t base = c.srcMemoryType == CU_MEMORYTYPE_HOST ? (uintptr_t)c.srcHost : (uintptr_t)c.srcDevice;
    size_t pitch = c.srcPitch ? c.srcPitch : c.WidthInBytes, height = c.srcHeight ? c.srcHeight : c.Height;
    return {base + (c.srcZ * height + c.srcY) * pitch + c.srcXInBytes, pitch, height};
}

static Side to(const CUDA_MEMCPY3D &c) {
    uintptr_t base = c.dstMemoryType == CU_MEMORYTYPE_HOST ? (uintptr_t)c.dstHost : (uintptr_t)c.dstDevice;
    size_t pitch = c.dstPitch ? c.dstPitch : c.WidthInBytes, height = c.dstHeight ? c.dstHeight : c.Height;
    return {base + (c.dstZ * height + c.dstY) * pitch + c.dstXInBytes, pitch, height};
}

static CUresult check_side(const char *call, const CUDA_MEMCPY3D &copy, const Side &side, unsigned type) {
    if (type != CU_MEMORYTYPE_HOST && type != CU_MEMORYTYPE_DEVICE && type != CU_MEMORYTYPE_UNIFIED) return CUDA_ERROR_INVALID_VALUE;
    size_t bytes = (((copy.Depth - 1) * side.height) + copy.Height - 1) * side.pitch + copy.WidthInBytes;
    const Allocation *allocation;
    bool held = inside(side.base, bytes, allocation);
    if (type == CU_MEMORYTYPE_HOST) {
        if (!allocation && config().pageable) return 0;
        if (!allocation) misuse(call, "the host memory is not page-locked");
        if (!allocation->host) return CUDA_ERROR_INVALID_VALUE;
    } else if (!allocation || (type == CU_MEMORYTYPE_DEVICE && allocation->host)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return held ? 0 : CUDA_ERROR_INVALID_VALUE;
}

CUresult check_copy(const char *call, const CUDA_MEMCPY3D &copy) {
    if (!copy.WidthInBytes || !copy.Height || !copy.Depth || copy.srcLOD || copy.dstLOD || copy.reserved0 || copy.reserved1) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    const size_t most = 2147483647;
    if (copy.Height > 1 || copy.Depth > 1) {
        if (copy.srcPitch < copy.srcXInBytes + copy.WidthInBytes || copy.dstPitch < copy.dstXInBytes + copy.WidthInBytes) return CUDA_ERROR_INVALID_VALUE;
        if (copy.srcPitch > most || copy.dstPitch > most) return CUDA_ERROR_INVALID_VALUE;
    }
    if (copy.Depth > 1 && (copy.srcHeight < copy.srcY + copy.Height || copy.dstHeight < copy.dstY + copy.Height)) return CUDA_ERROR_INVALID_VALUE;
    Side a = from(copy), b = to(copy);
    if (CUresult code = check_side(call, copy, a, copy.srcMemoryType)) return code;
    if (CUresult code = check_side(call, copy, b, copy.dstMemoryType)) return code;
    bool row = copy.Height == 1 && copy.Depth == 1;
    if (row && a.base < b.base + copy.WidthInBytes && b.base < a.base + copy.WidthInBytes) misuse(call, "source and destination overlap");
    return 0;
}

void do_copy(const CUDA_MEMCPY3D &copy) {
    Side a = from(copy), b = to(copy);
    for (size_t z = 0; z < copy.Depth; ++z) {
        for (size_t y = 0; y < copy.Height; ++y) {
            memcpy((void *)(b.base + (z * b.height + y) * b.pitch), (const void *)(a.base + (z * a.height + y) * a.pitch), copy.WidthInBytes);
        }
    }
}

CUresult check_fill(const CUDA_MEMSET_NODE_PARAMS &fill) {
    unsigned size = fill.elementSize;
    if ((size != 1 && size != 2 && size != 4) || !fill.width || !fill.height || fill.dst % size) return CUDA_ERROR_INVALID_VALUE;
    if (fill.width > SIZE_MAX / size) return CUDA_ERROR_INVALID_VALUE;
    if (fill.height > 1 && (fill.pitch < fill.width * size || fill.pitch % size || fill.pitch > 2147483647)) return CUDA_ERROR_INVALID_VALUE;
    const Allocation *allocation;
    size_t bytes = (fill.height > 1 ? (fill.height - 1) * fill.pitch : 0) + fill.width * size;
    return inside(fill.dst, bytes, allocation) ? 0 : CUDA_ERROR_INVALID_VALUE;
}

void do_fill(const CUDA_MEMSET_NODE_PARAMS &fill) {
    for (size_t y = 0; y < fill.height; ++y) {
        char *row = (char *)(fill.dst + y * fill.pitch);
        if (fill.elementSize == 1) {
            memset(row, (int)(fill.value & 255), fill.width);
        } else if (fill.elementSize == 2) {
            std::fill_n((uint16_t *)row, fill.width, (uint16_t)fill.value);
        } else {
            std::fill_n((uint32_t *)row, fill.width, (uint32_t)fill.value);
        }
    }
}

static CUresult copy_row(const char *call, CUstream stream, uintptr_t to, unsigned to_type, uintptr_t from, unsigned from_type, size_t bytes) {
    if (CUresult code = entered(call)) return code;
    if (!state().initialised) return CUDA_ERROR_NOT_INITIALIZED;
    Lock lock(state().lock);
    Context *context = nullptr;
    if (CUresult code = current(context)) return code;
    if (!bytes) return 0;
    Work work;
    work.kind = Work::Copy;
    work.copy.srcMemoryType = from_type;
    work.copy.dstMemoryType = to_type;
    work.copy.srcHost = (const void *)from;
    work.copy.srcDevice = from;
    work.copy.dstHost = (void *)to;
    work.copy.dstDevice = to;
    work.copy.WidthInBytes = bytes;
    work.copy.Height = work.copy.Depth = 1;
    if (CUresult code = check_copy(call, work.copy)) return code;
    return submit(lock, context, stream, std::move(work));
}

API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return copy_row(__func__, stream, to, CU_MEMORYTYPE_UNIFIED, from, CU_MEMORYTYPE_UNIFIED, bytes);
}
API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    return copy_row(__func__, stream, to, CU_MEMORYTYPE_DEVICE, (uintptr_t)from, CU_MEMORYTYPE_HOST, bytes);
}
API CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return copy_row(__func__, stream, (uintptr_t)to, CU_MEMORYTYPE_HOST, from, CU_MEMORYTYPE_DEVICE, bytes);
}
API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return copy_row(__func__, stream, to, CU_MEMORYTYPE_DEVICE, from, CU_MEMORYTYPE_DEVICE, bytes);
}

static CUresult fill_row(const char *call, CUstream stream, CUdeviceptr to, unsigned value, unsigned size, size_t count) {
    if (CUresult code = entered(call)) return code;
    if (!state().initialised) return CUDA_ERROR_NOT_INITIALIZED;
    Lock lock(state().lock);
    Context *context = nullptr;
    if (CUresult code = current(context)) return code;
    if (!count) return 0;
    Work work;
    work.kind = Work::Fill;
    work.fill = {to, 0, value, size, count, 1};
    if (CUresult code = check_fill(work.fill)) return code;
    return submit(lock, context, stream, std::move(work));
}

API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
    return fill_row(__func__, stream, to, value, 1, count);
}
API CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream) {
    return fill_row(__func__, stream, to, value, 2, count);
}
API CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
    return fill_row(__func__, stream, to, value, 4, count);
}
