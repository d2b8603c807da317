// Stands for NVRTC: compiles CUDA C++ with the host's C++ compiler into shared objects that the simulated driver loads.
// A cubin is such an object under the machine's number of CUDA; PTX is text that holds one in a comment.
#include "nvrtc.h"
#include "kernel.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <map>
#include <mutex>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define API extern "C" __attribute__((visibility("default")))
extern char **environ;

typedef int nvrtcResult;
enum {
    NVRTC_SUCCESS = 0,
    NVRTC_ERROR_PROGRAM_CREATION_FAILURE = 2,
    NVRTC_ERROR_INVALID_INPUT = 3,
    NVRTC_ERROR_INVALID_PROGRAM = 4,
    NVRTC_ERROR_INVALID_OPTION = 5,
    NVRTC_ERROR_COMPILATION = 6,
    NVRTC_ERROR_NO_NAME_EXPRESSIONS_AFTER_COMPILATION = 8,
    NVRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION = 9,
    NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID = 10,
    NVRTC_ERROR_INTERNAL_ERROR = 11,
};
static const char *const texts[] = {
    "NVRTC_SUCCESS", "NVRTC_ERROR_OUT_OF_MEMORY", "NVRTC_ERROR_PROGRAM_CREATION_FAILURE", "NVRTC_ERROR_INVALID_INPUT",
    "NVRTC_ERROR_INVALID_PROGRAM", "NVRTC_ERROR_INVALID_OPTION", "NVRTC_ERROR_COMPILATION", "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE",
    "NVRTC_ERROR_NO_NAME_EXPRESSIONS_AFTER_COMPILATION", "NVRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION",
    "NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID", "NVRTC_ERROR_INTERNAL_ERROR",
};
static const int archs[] = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};

struct Program {
    std::string source, name, log, ptx, cubin;
    std::vector<std::pair<std::string, std::string>> headers; // name, text
    std::vector<std::string> expressions;
    std::map<std::string, std::string> lowered;
    bool compiled = false;
};
typedef Program *nvrtcProgram;

// What the options say.
struct Options {
    std::string defines, standard = "gnu++17";
    std::vector<std::string> includes;
    int arch = 75;
    bool real = false;  // sm_, not compute_
    bool beside = true; // includes are looked for beside the program
};

static const char *const accepted[] = {
    "--use_fast_math", "-use_fast_math", "--fmad", "-fmad", "--ftz", "-ftz", "--prec-div", "-prec-div", "--prec-sqrt", "-prec-sqrt",
    "--device-debug", "-G", "--generate-line-info", "-lineinfo", "--maxrregcount", "-maxrregcount", "--relocatable-device-code", "-rdc",
    "--dopt", "-dopt", "--extra-device-vectorization", "-extra-device-vectorization", "--restrict", "-restrict", "--disable-warnings", "-w",
    "--diag-suppress", "-diag-suppress", "--diag-error", "-diag-error", "--diag-warn", "-diag-warn", "--default-device", "-default-device",
    "--device-as-default-execution-space", "--no-source-include", "-no-source-include", "--time", "-time", "--minimal", "-minimal",
    "--ptxas-options", "-Xptxas", "--split-compile", "--device-int128", "-device-int128", "--extensible-whole-program", "-ewp",
    "--display-error-number", "--no-display-error-number", "-no-err-no", "-err-no", "--builtin-move-forward", "--builtin-initializer-list",
    "--modify-stack-limit", "--device-float128", "--no-cache", "-no-cache", "--optimization-info", "-opt-info", "--version-ident",
    "--dlink-time-opt", "-dlto",
};

// The rest of an option that begins with one of two spellings.
static bool valued(const std::string &option, const char *a, const char *b, std::string &value) {
    for (const char *with : {a, b}) {
        size_t length = strlen(with);
        if (option.compare(0, length, with) != 0) continue;
        value = option.substr(length);
        value.erase(0, std::min(value.size(), value.find_first_not_of(" =")));
        return true;
    }
    return false;
}

// Options whose value may be the next one.
static bool alone(const std::string &option) {
    static const char *const names[] = {"--gpu-architecture", "-arch", "--define-macro", "-D", "--undefine-macro", "-U", "--include-path", "-I",
                                        "--pre-include", "-include", "--std", "-std"};
    return std::any_of(std::begin(names), std::end(names), [&](const char *one) { return option == one; });
}

static bool read_options(int count, const char *const *given, Options &options, std::string &log) {
    for (int i = 0; i < count; ++i) {
        std::string option = given[i], value;
        if (alone(option) && i + 1 < count) option += "=" + std::string(given[++i]);
        if (valued(option, "--gpu-architecture", "-arch", value)) {
            options.real = value.compare(0, 3, "sm_") == 0;
            bool known = options.real || value.compare(0, 8, "compute_") == 0;
            options.arch = known ? atoi(value.c_str() + (options.real ? 3 : 8)) : 0;
            if (std::find(std::begin(archs), std::end(archs), options.arch) == std::end(archs)) {
                log = "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
                return false;
            }
        } else if (valued(option, "--define-macro", "-D", value)) {
            size_t equal = value.find('=');
            options.defines += "#define " + (equal == std::string::npos ? value + " 1" : value.substr(0, equal) + " " + value.substr(equal + 1)) + "\n";
        } else if (valued(option, "--undefine-macro", "-U", value)) {
            options.defines += "#undef " + value + "\n";
        } else if (valued(option, "--include-path", "-I", value)) {
            options.includes.push_back(value);
        } else if (valued(option, "--pre-include", "-include", value)) {
            options.defines += "#include \"" + value + "\"\n";
        } else if (valued(option, "--std", "-std", value)) {
            if (value != "c++03" && value != "c++11" && value != "c++14" && value != "c++17" && value != "c++20" && value != "c++23") {
                log = "nvrtc: error: invalid value for --std (-std)\n";
                return false;
            }
            options.standard = value == "c++23" ? "gnu++23" : value == "c++20" ? "gnu++20" : "gnu++17";
        } else {
            std::string name = option.substr(0, option.find_first_of("= "));
            options.beside &= name != "--no-source-include" && name != "-no-source-include";
            bool known = std::any_of(std::begin(accepted), std::end(accepted), [&](const char *one) { return name == one; });
            if (!known) {
                log = "nvrtc: error: unrecognized option " + option + " found\n";
                return false;
            }
        }
    }
    return true;
}

static bool write_file(const std::string &path, const std::string &text) {
    FILE *file = fopen(path.c_str(), "wb");
    if (!file) return false;
    bool whole = fwrite(text.data(), 1, text.size(), file) == text.size();
    return fclose(file) == 0 && whole;
}

static std::string read_file(const std::string &path) {
    std::string text;
    FILE *file = fopen(path.c_str(), "rb");
    if (!file) return text;
    char part[65536];
    for (size_t n; (n = fread(part, 1, sizeof part, file)) > 0;) text.append(part, n);
    fclose(file);
    return text;
}

// Runs the host's compiler in the language C; true when it says that all is well.
static bool run(const std::vector<std::string> &args, const std::string &out, const std::string &err) {
    std::vector<char *> argv, env;
    for (const std::string &arg : args) argv.push_back(const_cast<char *>(arg.c_str()));
    argv.push_back(nullptr);
    for (char **at = environ; *at; ++at) {
        if (strncmp(*at, "LC_", 3) != 0 && strncmp(*at, "LANG", 4) != 0 && strncmp(*at, "LD_PRELOAD", 10) != 0) env.push_back(*at);
    }
    static char plain[] = "LC_ALL=C";
    env.push_back(plain);
    env.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t child;
    int code = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), env.data());
    posix_spawn_file_actions_destroy(&actions);
    if (code != 0) return false;
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// The folder that the headers lie in, beside this library.
static std::string own_folder() {
    Dl_info info;
    if (!dladdr((void *)own_folder, &info) || !info.dli_fname) return ".";
    std::string path = info.dli_fname;
    size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

// A folder that is gone with its contents at the end.
struct Folder {
    std::string path;
    Folder() {
        const char *temp = getenv("TMPDIR");
        std::string made = std::string(temp && *temp ? temp : "/tmp") + "/simulated-nvrtc-XXXXXX";
        if (mkdtemp(&made[0])) path = made;
    }
    ~Folder() {
        if (!path.empty()) run({"rm", "-rf", path}, "/dev/null", "/dev/null");
    }
};

// Leaves the kernels as the only functions that the object's symbols tell of, as in a cubin.
static void hide_others(std::string &object, const Elf64_Ehdr &header, const std::vector<std::string> &kernels) {
    auto sections = (const Elf64_Shdr *)(object.data() + header.e_shoff);
    for (int i = 0; i < header.e_shnum; ++i) {
        if (sections[i].sh_type != SHT_SYMTAB) continue;
        const char *names = object.data() + sections[sections[i].sh_link].sh_offset;
        auto symbols = (Elf64_Sym *)(&object[0] + sections[i].sh_offset);
        for (size_t k = 0; k < sections[i].sh_size / sizeof(Elf64_Sym); ++k) {
            bool kernel = std::find(kernels.begin(), kernels.end(), names + symbols[k].st_name) != kernels.end();
            if (ELF64_ST_TYPE(symbols[k].st_info) == STT_FUNC && !kernel) symbols[k].st_info = ELF64_ST_INFO(ELF64_ST_BIND(symbols[k].st_info), STT_NOTYPE);
        }
    }
}

// The object under the machine's number of CUDA; the host's number lies in the identification.
static std::string cubin_of(std::string object, int arch, const std::vector<std::string> &kernels) {
    Elf64_Ehdr header;
    memcpy(&header, object.data(), sizeof header);
    hide_others(object, header, kernels);
    unsigned char system = header.e_ident[EI_OSABI];
    memcpy(header.e_ident + 9, "SIMU", 4);
    header.e_ident[13] = (unsigned char)(header.e_machine & 255);
    header.e_ident[14] = (unsigned char)(header.e_machine >> 8);
    header.e_ident[15] = system;
    header.e_ident[EI_OSABI] = 0x33;
    header.e_machine = 190;
    header.e_flags = (unsigned)arch;
    memcpy(&object[0], &header, sizeof header);
    return object;
}

static std::string ptx_of(const std::string &object, int arch, const std::vector<std::string> &kernels) {
    std::string text = "// Simulated PTX.\n.version 9.0\n.target sm_" + std::to_string(arch) + "\n.address_size 64\n";
    for (const std::string &kernel : kernels) text += "// .visible .entry " + kernel + "\n";
    text += "// object ";
    for (unsigned char byte : object) {
        text += "0123456789abcdef"[byte >> 4];
        text += "0123456789abcdef"[byte & 15];
    }
    return text + "\n";
}

static nvrtcResult compile(Program &program, const Options &options) {
    Folder folder;
    std::string main = folder.path + "/main.cu", expanded = folder.path + "/main.ii", rewritten = folder.path + "/rewritten.ii";
    std::string object = folder.path + "/module.so", errors = folder.path + "/errors", mark = "#pragma simulated_source\n";
    if (folder.path.empty()) return NVRTC_ERROR_INTERNAL_ERROR;
    std::string text = "#include \"" + own_folder() + "/cuda_on_host.h\"\n#define __CUDA_ARCH__ " + std::to_string(options.arch) + "0\n";
    text += "#define __CUDACC_VER_MAJOR__ 13\n#define __CUDACC_VER_MINOR__ 0\n" + options.defines + mark;
    bool written = write_file(main, text + "#line 1 \"" + program.name + "\"\n" + program.source + "\n");
    std::vector<std::string> command = {"c++", "-std=" + options.standard, "-x", "c++", "-nostdinc", "-nostdinc++", "-E", main, "-fno-diagnostics-show-caret"};
    size_t slash = program.name.rfind('/');
    if (options.beside && slash != std::string::npos) command.insert(command.end(), {"-iquote", program.name.substr(0, slash + 1)});
    for (const std::string &include : options.includes) command.push_back("-I" + include);
    if (!program.headers.empty()) command.push_back("-I" + folder.path + "/headers");
    mkdir((folder.path + "/headers").c_str(), 0700);
    for (auto &[name, header] : program.headers) {
        for (size_t at = name.find('/'); at != std::string::npos; at = name.find('/', at + 1)) mkdir((folder.path + "/headers/" + name.substr(0, at)).c_str(), 0700);
        written &= write_file(folder.path + "/headers/" + name, header);
    }
    if (!written) return NVRTC_ERROR_INTERNAL_ERROR;
    auto failed = [&] {
        program.log = messages(read_file(errors), program.name, program.source);
        return NVRTC_ERROR_COMPILATION;
    };
    if (!run(command, expanded, errors)) return failed();
    std::string whole = read_file(expanded);
    size_t begin = whole.find(mark);
    if (begin == std::string::npos) return NVRTC_ERROR_INTERNAL_ERROR;
    begin += mark.size();
    Rewritten user = rewrite(whole.substr(begin));
    std::string lines = "\n# 1 \"__nv_name_map\"\n";
    int nth = 0;
    auto entry = [&](const std::string &name, const std::string &kernel, const std::string &threads) {
        lines += "static SimEntry<(&" + kernel + ")> sim_entry_" + std::to_string(nth++) + "(\"" + name + "\", " + (threads.empty() ? "0" : "(" + threads + ")") + ");\n";
    };
    for (const Found &kernel : user.kernels) entry(kernel.name, kernel.name, kernel.threads);
    for (const std::string &expression : program.expressions) entry(expression, expression.substr(std::min(expression.size(), expression.find_first_not_of("& "))), "");
    if (!write_file(rewritten, whole.substr(0, begin) + user.text + lines)) return NVRTC_ERROR_INTERNAL_ERROR;
    command = {"c++", "-std=" + options.standard, "-x", "c++-cpp-output", "-O1", "-fPIC", "-shared", "-w", "-fno-strict-aliasing", "-ffp-contract=off",
               "-fno-exceptions", "-fstack-clash-protection", "-fno-diagnostics-show-caret", "-U_FORTIFY_SOURCE", "-Wl,-Bsymbolic", "-Wl,-z,defs", rewritten, "-o", object, "-lm"};
    if (!run(command, "/dev/null", errors)) return failed();
    void *library = dlopen(object.c_str(), RTLD_NOW | RTLD_LOCAL);
    auto kernels = library ? (SimKernels)dlsym(library, SIM_KERNELS) : nullptr;
    if (!kernels) return NVRTC_ERROR_INTERNAL_ERROR;
    std::vector<std::string> names;
    for (const SimKernel *kernel = kernels(); kernel; kernel = kernel->next) {
        Dl_info info;
        bool named = dladdr(kernel->address, &info) && info.dli_sname && info.dli_saddr == kernel->address;
        names.push_back(named ? info.dli_sname : kernel->expression);
        program.lowered[kernel->expression] = names.back();
    }
    dlclose(library);
    std::string bytes = read_file(object);
    program.ptx = ptx_of(bytes, options.arch, names);
    program.ptx.push_back('\0');
    if (options.real) program.cubin = cubin_of(bytes, options.arch, names);
    program.compiled = true;
    return NVRTC_SUCCESS;
}

API nvrtcResult nvrtcVersion(int *major, int *minor) {
    if (!major || !minor) return NVRTC_ERROR_INVALID_INPUT;
    const char *text = getenv("SIM_NVRTC_VERSION");
    long version = text && *text ? strtol(text, nullptr, 10) : 13000;
    *major = (int)(version / 1000);
    *minor = (int)(version % 1000 / 10);
    return NVRTC_SUCCESS;
}

API const char *nvrtcGetErrorString(nvrtcResult result) {
    return result >= 0 && result <= NVRTC_ERROR_INTERNAL_ERROR ? texts[result] : "NVRTC_ERROR unknown";
}

API nvrtcResult nvrtcGetNumSupportedArchs(int *count) {
    if (!count) return NVRTC_ERROR_INVALID_INPUT;
    *count = (int)(sizeof archs / sizeof *archs);
    return NVRTC_SUCCESS;
}

API nvrtcResult nvrtcGetSupportedArchs(int *out) {
    if (!out) return NVRTC_ERROR_INVALID_INPUT;
    std::copy(std::begin(archs), std::end(archs), out);
    return NVRTC_SUCCESS;
}

API nvrtcResult nvrtcCreateProgram(nvrtcProgram *out, const char *source, const char *name, int count, const char *const *headers, const char *const *names) {
    if (!out || !source || count < 0 || (count && (!headers || !names))) return NVRTC_ERROR_INVALID_INPUT;
    auto program = new Program;
    program->source = source;
    program->name = name && *name ? name : "default_program";
    for (int i = 0; i < count; ++i) program->headers.emplace_back(names[i], headers[i]);
    *out = program;
    return NVRTC_SUCCESS;
}

API nvrtcResult nvrtcDestroyProgram(nvrtcProgram *program) {
    if (!program || !*program) return NVRTC_ERROR_INVALID_PROGRAM;
    delete *program;
    *program = nullptr;
    return NVRTC_SUCCESS;
}

API nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int count, const char *const *given) {
    if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
    if (count < 0 || (count && !given)) return NVRTC_ERROR_INVALID_INPUT;
    const char *fail = getenv("SIM_NVRTC_FAIL");
    if (fail && *fail) return atoi(fail);
    Options options;
    program->log.clear();
    if (!read_options(count, given, options, program->log)) return NVRTC_ERROR_INVALID_OPTION;
    return compile(*program, options);
}

API nvrtcResult nvrtcAddNameExpression(nvrtcProgram program, const char *expression) {
    if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
    if (!expression) return NVRTC_ERROR_INVALID_INPUT;
    if (program->compiled) return NVRTC_ERROR_NO_NAME_EXPRESSIONS_AFTER_COMPILATION;
    program->expressions.push_back(expression);
    return NVRTC_SUCCESS;
}

API nvrtcResult nvrtcGetLoweredName(nvrtcProgram program, const char *expression, const char **name) {
    if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
    if (!expression || !name) return NVRTC_ERROR_INVALID_INPUT;
    if (!program->compiled) return NVRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION;
    auto &asked = program->expressions;
    if (std::find(asked.begin(), asked.end(), expression) == asked.end()) return NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID;
    *name = program->lowered[expression].c_str();
    return NVRTC_SUCCESS;
}

API nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *size) {
    if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
    if (!size) return NVRTC_ERROR_INVALID_INPUT;
    *size = program->log.size() + 1;
    return NVRTC_SUCCESS;
}

API nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *out) {
    if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
    if (!out) return NVRTC_ERROR_INVALID_INPUT;
    memcpy(out, program->log.c_str(), program->log.size() + 1);
    return NVRTC_SUCCESS;
}

#define OUTPUT(what, member)                                                       \
    API nvrtcResult nvrtcGet##what##Size(nvrtcProgram program, size_t *size) {     \
        if (!program || !program->compiled) return NVRTC_ERROR_INVALID_PROGRAM;    \
        if (!size) return NVRTC_ERROR_INVALID_INPUT;                               \
        *size = program->member.size();                                            \
        return NVRTC_SUCCESS;                                                      \
    }                                                                              \
    API nvrtcResult nvrtcGet##what(nvrtcProgram program, char *out) {              \
        if (!program || !program->compiled || program->member.empty()) return NVRTC_ERROR_INVALID_PROGRAM; \
        if (!out) return NVRTC_ERROR_INVALID_INPUT;                                \
        memcpy(out, program->member.data(), program->member.size());               \
        return NVRTC_SUCCESS;                                                      \
    }
OUTPUT(PTX, ptx)
OUTPUT(CUBIN, cubin)
