// Modules and their kernels: what the simulated NVRTC made is loaded as a shared object of this machine. What is loaded,
// and what a launch may ask for, is judged as a real driver does.
#include "sim.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

static const int EM_OF_CUDA = 190;

// Loads a shared object by way of a file that is gone afterwards.
static void *load(const std::string &object) {
    // A name of its own: what has the name of something loaded is taken for that.
    const char *temp = getenv("TMPDIR");
    std::string path = std::string(temp && *temp ? temp : "/tmp") + "/simulated-module-XXXXXX";
    char *name = &path[0];
    int file = mkstemp(name);
    void *library = nullptr;
    if (file >= 0 && write(file, object.data(), object.size()) == (ssize_t)object.size()) {
        library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        if (!library) fprintf(stderr, "simulated CUDA: %s\n", dlerror());
    }
    if (file >= 0) {
        close(file);
        unlink(name);
    }
    return library;
}

// The object of a simulated cubin: an ELF file whose machine is CUDA's, with the host's kept in the identification.
static CUresult object_of_cubin(const char *image, std::string &object) {
    Elf64_Ehdr header;
    memcpy(&header, image, sizeof header);
    if (header.e_ident[EI_CLASS] != ELFCLASS64) return CUDA_ERROR_INVALID_IMAGE;
    if (header.e_machine != EM_OF_CUDA || memcmp(header.e_ident + 9, "SIMU", 4) != 0) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    long arch = header.e_flags & 255, own = config().capability;
    if (arch / 10 != own / 10 || arch > own) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    object.assign(image, header.e_shoff + (size_t)header.e_shnum * header.e_shentsize);
    header.e_machine = (Elf64_Half)(header.e_ident[13] | header.e_ident[14] << 8);
    header.e_ident[EI_OSABI] = header.e_ident[15];
    memset(header.e_ident + 9, 0, 7);
    header.e_flags = 0;
    memcpy(&object[0], &header, sizeof header);
    return 0;
}

// The object of a simulated PTX: text with the object's bytes in a comment.
static CUresult object_of_ptx(const char *image, std::string &object, std::string &log) {
    const char *magic = "// Simulated PTX.";
    if (strncmp(image, magic, strlen(magic)) != 0) {
        log = "ptxas fatal   : the simulated driver runs simulated PTX only\n";
        return CUDA_ERROR_INVALID_PTX;
    }
    const char *target = strstr(image, ".target sm_"), *bytes = strstr(image, "// object ");
    if (!target || !bytes) {
        log = "ptxas fatal   : no .target or no object\n";
        return CUDA_ERROR_INVALID_PTX;
    }
    if (atol(target + 11) > config().capability) {
        log = "ptxas fatal   : SM version of the target is higher than the device's\n";
        return CUDA_ERROR_INVALID_PTX;
    }
    auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    for (bytes += 10; *bytes > ' ' && bytes[1] > ' '; bytes += 2) object.push_back((char)(digit(bytes[0]) << 4 | digit(bytes[1])));
    return 0;
}

// Puts text where the options ask for a log.
static void give_log(const std::string &log, unsigned count, CUjit_option *options, void **values) {
    for (unsigned i = 0; i < count; ++i) {
        if (options[i] != CU_JIT_ERROR_LOG_BUFFER) continue;
        for (unsigned k = 0; k < count; ++k) {
            if (options[k] != CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) continue;
            size_t room = (uintptr_t)values[k] & 0xffffffff;
            if (room && values[i]) snprintf((char *)values[i], room, "%s", log.c_str());
            values[k] = (void *)(uintptr_t)std::min(log.size() + 1, room);
        }
    }
}

// The bytes of a kernel's `__shared__` variables: thread-local ones of the object, by their mangled names.
static long static_shared(const std::string &object, const std::string &kernel) {
    std::string encoded = kernel.compare(0, 2, "_Z") == 0 ? kernel.substr(2) : std::to_string(kernel.size()) + kernel;
    std::string own = "_ZZ" + encoded + "E";
    auto header = (const Elf64_Ehdr *)object.data();
    auto sections = (const Elf64_Shdr *)(object.data() + header->e_shoff);
    long bytes = 0;
    for (int i = 0; i < header->e_shnum; ++i) {
        if (sections[i].sh_type != SHT_SYMTAB) continue;
        const char *names = object.data() + sections[sections[i].sh_link].sh_offset;
        auto symbols = (const Elf64_Sym *)(object.data() + sections[i].sh_offset);
        for (size_t k = 0; k < sections[i].sh_size / sizeof(Elf64_Sym); ++k) {
            const char *name = names + symbols[k].st_name;
            if (ELF64_ST_TYPE(symbols[k].st_info) != STT_TLS || strncmp(name, "sim_", 4) == 0) continue;
            if (strncmp(name, own.c_str(), own.size()) == 0 || strncmp(name, "_ZZ", 3) != 0) bytes += (long)symbols[k].st_size;
        }
    }
    return bytes;
}

static CUresult load_module(CUmodule *out, const void *image, unsigned count, CUjit_option *options, void **values, Context *context) {
    if (!out || !image || (count && (!options || !values))) return CUDA_ERROR_INVALID_VALUE;
    std::string object, log;
    const char *bytes = (const char *)image;
    CUresult code = memcmp(bytes, ELFMAG, SELFMAG) == 0 ? object_of_cubin(bytes, object) : object_of_ptx(bytes, object, log);
    give_log(log, count, options, values);
    if (code) return code;
    void *library = load(object);
    auto kernels = library ? (SimKernels)dlsym(library, SIM_KERNELS) : nullptr;
    auto base = library ? (SimSharedBase)dlsym(library, SIM_SHARED_BASE) : nullptr;
    if (!kernels || !base) return CUDA_ERROR_INVALID_IMAGE;
    auto module = new Module{context, library, {}, base};
    std::set<void *> seen;
    for (const SimKernel *kernel = kernels(); kernel; kernel = kernel->next) {
        if (!seen.insert(kernel->address).second) continue;
        Dl_info info;
        bool named = dladdr(kernel->address, &info) && info.dli_sname && info.dli_saddr == kernel->address;
        module->functions.emplace_back(new Function{module, named ? info.dli_sname : kernel->expression, kernel});
        module->functions.back()->shared_static = static_shared(object, module->functions.back()->name);
        state().functions.insert(module->functions.back().get());
    }
    std::reverse(module->functions.begin(), module->functions.end());
    state().modules.insert(module);
    *out = module;
    return 0;
}

API CUresult cuModuleLoadData(CUmodule *out, const void *image) {
    ENTER_CONTEXT();
    return load_module(out, image, 0, nullptr, nullptr, context);
}

API CUresult cuModuleLoadDataEx(CUmodule *out, const void *image, unsigned count, CUjit_option *options, void **values) {
    ENTER_CONTEXT();
    return load_module(out, image, count, options, values, context);
}

API CUresult cuModuleUnload(CUmodule module) {
    ENTER_RELEASE();
    if (!state().modules.count(module)) return sticky ? sticky : CUDA_ERROR_INVALID_HANDLE;
    if (!sticky) wait_idle(lock, context);
    for (auto &function : module->functions) state().functions.erase(function.get());
    state().modules.erase(module);
    // The object stays mapped: threads of streams may hold its thread-local memory.
    return sticky;
}

API CUresult cuModuleGetFunction(CUfunction *out, CUmodule module, const char *name) {
    ENTER_CONTEXT();
    if (!out || !name) return CUDA_ERROR_INVALID_VALUE;
    if (!state().modules.count(module)) return CUDA_ERROR_INVALID_HANDLE;
    for (auto &function : module->functions) {
        if (function->name != name) continue;
        *out = function.get();
        return 0;
    }
    return CUDA_ERROR_NOT_FOUND;
}

API CUresult cuModuleGetFunctionCount(unsigned *count, CUmodule module) {
    needs_version(__func__, 12040);
    ENTER_CONTEXT();
    if (!count) return CUDA_ERROR_INVALID_VALUE;
    if (!state().modules.count(module)) return CUDA_ERROR_INVALID_HANDLE;
    *count = (unsigned)module->functions.size();
    return 0;
}

API CUresult cuModuleEnumerateFunctions(CUfunction *out, unsigned count, CUmodule module) {
    needs_version(__func__, 12040);
    ENTER_CONTEXT();
    if (!out) return CUDA_ERROR_INVALID_VALUE;
    if (!state().modules.count(module)) return CUDA_ERROR_INVALID_HANDLE;
    for (unsigned i = 0; i < count && i < module->functions.size(); ++i) out[i] = module->functions[i].get();
    return 0;
}

API CUresult cuFuncGetName(const char **name, CUfunction function) {
    needs_version(__func__, 12030);
    ENTER_CONTEXT();
    if (!name) return CUDA_ERROR_INVALID_VALUE;
    if (!state().functions.count(function)) return CUDA_ERROR_INVALID_HANDLE;
    *name = function->name.c_str();
    return 0;
}

API CUresult cuFuncLoad(CUfunction function) {
    needs_version(__func__, 12040);
    ENTER_CONTEXT();
    return state().functions.count(function) ? 0 : CUDA_ERROR_INVALID_HANDLE;
}

API CUresult cuFuncGetParamInfo(CUfunction function, size_t index, size_t *offset, size_t *size) {
    needs_version(__func__, 12040);
    ENTER_CONTEXT();
    if (!state().functions.count(function)) return CUDA_ERROR_INVALID_HANDLE;
    if (!offset || index >= function->kernel->param_count) return CUDA_ERROR_INVALID_VALUE;
    *offset = function->kernel->params[index].offset;
    if (size) *size = function->kernel->params[index].size;
    return 0;
}

static const long SHARED_DEFAULT = 49152, SHARED_MOST = SIM_SHARED;

static long dynamic_limit(const Function *function) {
    return function->shared_dynamic ? function->shared_dynamic : SHARED_DEFAULT - function->shared_static;
}

API CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    ENTER_CONTEXT();
    if (!state().functions.count(function)) return CUDA_ERROR_INVALID_HANDLE;
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
        if (value < 0 || value > SHARED_MOST - function->shared_static) return CUDA_ERROR_INVALID_VALUE;
        function->shared_dynamic = value;
    } else if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) {
        if (value < -1 || value > 100) return CUDA_ERROR_INVALID_VALUE;
        function->carveout = value;
    } else {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return 0;
}

API CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
    ENTER_CONTEXT();
    if (!state().functions.count(function)) return CUDA_ERROR_INVALID_HANDLE;
    if (!value) return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = function->kernel->max_threads; return 0;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *value = (int)function->shared_static; return 0;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
    case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA: *value = 0; return 0;
    case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = 32; return 0;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *value = (int)config().capability; return 0;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = (int)dynamic_limit(function); return 0;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: *value = (int)function->carveout; return 0;
    }
    return attribute >= 0 && attribute < 18 ? (*value = 0, 0) : CUDA_ERROR_INVALID_VALUE;
}

// The arguments in a launch's buffer, each at its offset.
static CUresult take_args(const SimKernel *kernel, void **params, void **extra, std::vector<char> &args) {
    if (params && extra) return CUDA_ERROR_INVALID_VALUE;
    unsigned long count = kernel->param_count;
    unsigned long size = count ? kernel->params[count - 1].offset + kernel->params[count - 1].size : 0;
    args.assign(size, 0);
    if (extra) {
        const char *buffer = nullptr;
        size_t given = 0;
        for (; *extra; extra += 2) {
            if (*extra == (void *)1) buffer = (const char *)extra[1];
            else if (*extra == (void *)2) given = *(const size_t *)extra[1];
            else return CUDA_ERROR_INVALID_VALUE;
        }
        if (given < size || (size && !buffer)) return CUDA_ERROR_INVALID_VALUE;
        if (size) memcpy(args.data(), buffer, size);
        return 0;
    }
    if (count && !params) return CUDA_ERROR_INVALID_VALUE;
    for (unsigned long i = 0; i < count; ++i) {
        if (!params[i]) return CUDA_ERROR_INVALID_VALUE;
        memcpy(args.data() + kernel->params[i].offset, params[i], kernel->params[i].size);
    }
    return 0;
}

CUresult make_launch(const char *call, Context *context, const CUDA_KERNEL_NODE_PARAMS &params, Launch &launch) {
    (void)call;
    if (!state().functions.count(params.func)) return CUDA_ERROR_INVALID_HANDLE;
    if (params.func->module->context != context) return CUDA_ERROR_INVALID_CONTEXT;
    unsigned long long x = params.blockDimX, y = params.blockDimY, z = params.blockDimZ;
    if (!params.gridDimX || !params.gridDimY || !params.gridDimZ || !x || !y || !z) return CUDA_ERROR_INVALID_VALUE;
    if (params.gridDimX > 2147483647u || params.gridDimY > 65535 || params.gridDimZ > 65535) return CUDA_ERROR_INVALID_VALUE;
    if (x > 1024 || y > 1024 || z > 64 || x * y * z > 1024) return CUDA_ERROR_INVALID_VALUE;
    if ((int)(x * y * z) > params.func->kernel->max_threads) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    if ((long)params.sharedMemBytes > dynamic_limit(params.func)) return CUDA_ERROR_INVALID_VALUE;
    launch.function = params.func;
    launch.grid[0] = params.gridDimX, launch.grid[1] = params.gridDimY, launch.grid[2] = params.gridDimZ;
    launch.block[0] = params.blockDimX, launch.block[1] = params.blockDimY, launch.block[2] = params.blockDimZ;
    launch.shared = params.sharedMemBytes;
    return take_args(params.func->kernel, params.kernelParams, params.extra, launch.args);
}

API CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                            CUstream stream, void **params, void **extra) {
    ENTER_CONTEXT();
    Work work;
    work.kind = Work::Kernel;
    CUDA_KERNEL_NODE_PARAMS all{function, gx, gy, gz, bx, by, bz, shared, params, extra, nullptr, nullptr};
    if (CUresult code = make_launch(__func__, context, all, work.launch)) return code;
    return submit(lock, context, stream, std::move(work));
}
