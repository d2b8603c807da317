// The host compiler's messages in the shape of NVRTC's: `file(line): error: text`, the line, a caret, and a count.
#include "nvrtc.h"
#include <cctype>
#include <cstdlib>
#include <sstream>

static std::vector<std::string> lines_of(const std::string &text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

// A line of the program, and where it says that it is: `#line` moves it.
struct Line {
    std::string file;
    size_t number;
    std::string text;
};

static std::vector<Line> places_of(const std::string &source, const std::string &name) {
    std::vector<Line> lines;
    std::string file = name;
    size_t number = 1;
    for (const std::string &text : lines_of(source)) {
        lines.push_back({file, number++, text});
        size_t word = text.find_first_not_of(" \t");
        if (word == std::string::npos || text[word] != '#') continue;
        word = text.find_first_not_of(" \t", word + 1);
        if (word == std::string::npos || text.compare(word, 4, "line") != 0) continue;
        size_t digits = text.find_first_of("0123456789", word), open = text.find('"', word), close = text.rfind('"');
        if (digits != std::string::npos) number = (size_t)atol(text.c_str() + digits);
        if (open != std::string::npos && close > open) file = text.substr(open + 1, close - open - 1);
    }
    return lines;
}

// The column of a word's occurrence that is nearest to a column; macros and rewritten words move what follows them.
static size_t nearest(const std::string &line, const std::string &word, size_t column) {
    size_t best = 0, distance = std::string::npos;
    auto part = [](char c) { return isalnum((unsigned char)c) || c == '_'; };
    for (size_t at = line.find(word); at != std::string::npos; at = line.find(word, at + 1)) {
        if ((at && part(line[at - 1])) || (at + word.size() < line.size() && part(line[at + word.size()]))) continue;
        size_t away = at + 1 > column ? at + 1 - column : column - at - 1;
        if (away < distance) best = at + 1, distance = away;
    }
    return best ? best : column;
}

static bool starts(const std::string &text, const char *with) { return text.compare(0, std::string(with).size(), with) == 0; }

static std::string quoted_in(const std::string &text) {
    size_t begin = text.find('\''), end = begin == std::string::npos ? begin : text.find('\'', begin + 1);
    return end == std::string::npos ? "" : text.substr(begin + 1, end - begin - 1);
}

// The commonest messages in NVRTC's words.
static std::string worded(const std::string &text, const std::string &line) {
    std::string quoted = text[0] == '\'' ? quoted_in(text) : "";
    std::string rest = quoted.empty() ? text : text.substr(quoted.size() + 2);
    for (const char *undefined : {" was not declared in this scope", " does not name a type", " has not been declared"}) {
        if (!quoted.empty() && starts(rest, undefined)) return "identifier \"" + quoted + "\" is undefined";
    }
    if (starts(text, "expected ';'")) return "expected a \";\"";
    size_t missing = text.find(": No such file or directory");
    if (missing == std::string::npos) return text;
    std::string name = "open source file \"" + text.substr(0, missing) + "\"";
    return line.find('<') == std::string::npos ? "cannot " + name : "could not " + name + " (no directories in search list)";
}

std::string messages(const std::string &printed, const std::string &name, const std::string &source) {
    std::vector<Line> code = places_of(source, name);
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
        std::string text = line.substr(at + length);
        size_t here = code.size();
        for (size_t i = 0; i < code.size(); ++i) if (code[i].file == file && code[i].number == number) here = i;
        // NVRTC complains at the word before which something is missing.
        if (here < code.size() && starts(text, "expected ';' before")) {
            while (here + 1 < code.size() && code[here].text.find_first_not_of(" \t", column) == std::string::npos) ++here, column = 0;
            column = code[here].text.find_first_not_of(" \t", column) + 1;
            number = code[here].number;
        } else if (here < code.size() && !quoted_in(text).empty()) {
            column = nearest(code[here].text, quoted_in(text), column);
        }
        if (fatal && here < code.size() && text.find("No such file") != std::string::npos) column = code[here].text.size() + 1;
        out += file + "(" + std::to_string(number) + "): " + (fatal ? "catastrophic error: " : "error: ");
        out += worded(text, here < code.size() ? code[here].text : "") + "\n";
        if (here < code.size()) out += "  " + code[here].text + "\n" + std::string(column + 1, ' ') + "^\n";
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
