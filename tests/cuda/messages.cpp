// The host compiler's messages in the shape of NVRTC's: `file(line): error: text`, the line, a caret, and a count.
#include "nvrtc.h"
#include <cstdlib>
#include <sstream>

static std::vector<std::string> lines_of(const std::string &text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

static bool starts(const std::string &text, const char *with) { return text.compare(0, std::string(with).size(), with) == 0; }

// The commonest messages in NVRTC's words.
static std::string worded(const std::string &text) {
    size_t end = text.find('\'', 1);
    std::string quoted = text[0] == '\'' && end != std::string::npos ? text.substr(1, end - 1) : "";
    std::string rest = quoted.empty() ? text : text.substr(end + 1);
    if (!quoted.empty() && (starts(rest, " was not declared in this scope") || starts(rest, " does not name a type"))) {
        return "identifier \"" + quoted + "\" is undefined";
    }
    if (starts(text, "expected ';'")) return "expected a \";\"";
    size_t missing = text.find(": No such file or directory");
    if (missing != std::string::npos) return "could not open source file \"" + text.substr(0, missing) + "\" (no directories in search list)";
    return text;
}

std::string messages(const std::string &printed, const std::string &name, const std::string &source) {
    std::vector<std::string> code = lines_of(source);
    std::string out;
    size_t errors = 0;
    bool ended = false;
    for (const std::string &line : lines_of(printed)) {
        size_t undefined = line.find("undefined reference to `");
        if (undefined != std::string::npos) {
            std::string what = line.substr(undefined + 24);
            out += "ptxas fatal   : Unresolved extern function '" + what.substr(0, what.rfind('\'')) + "'\n\n";
            ++errors;
            continue;
        }
        size_t at = line.find(": error: "), length = 9;
        bool fatal = false;
        if (at == std::string::npos) {
            at = line.find(": fatal error: ");
            length = 15;
            fatal = at != std::string::npos;
        }
        if (at == std::string::npos) continue;
        // file:line:column
        std::string place = line.substr(0, at);
        size_t column_at = place.rfind(':'), line_at = column_at == std::string::npos ? column_at : place.rfind(':', column_at - 1);
        if (line_at == std::string::npos) continue;
        std::string file = place.substr(0, line_at);
        size_t number = (size_t)atol(place.c_str() + line_at + 1), column = (size_t)atol(place.c_str() + column_at + 1);
        out += file + "(" + std::to_string(number) + "): " + (fatal ? "catastrophic error: " : "error: ") + worded(line.substr(at + length)) + "\n";
        if (file == name && number >= 1 && number <= code.size()) out += "  " + code[number - 1] + "\n" + std::string(column + 1, ' ') + "^\n";
        out += "\n";
        ended |= fatal;
        ++errors;
    }
    if (!errors) return printed;
    std::string kind = ended ? " catastrophic error" : " error";
    out += std::to_string(errors) + kind + (errors == 1 ? "" : "s") + " detected in the compilation of \"" + name + "\".\n";
    if (ended) out += "Compilation terminated.\n";
    return out;
}
