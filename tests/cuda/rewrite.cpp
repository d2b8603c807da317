// Rewrites preprocessed CUDA C++ into C++ of the host: finds the kernels, and makes thread-local memory of `__shared__`.
#include "nvrtc.h"
#include <cctype>

struct Token {
    size_t begin, end;
    char kind; // i identifier, s string or number, else the character
};

static std::vector<Token> tokens_of(const std::string &text) {
    std::vector<Token> tokens;
    bool line = true; // at the begin of a line
    for (size_t i = 0; i < text.size();) {
        char c = text[i];
        if (c == '\n') {
            line = true;
            ++i;
        } else if (isspace((unsigned char)c)) {
            ++i;
        } else if (c == '#' && line) {
            while (i < text.size() && text[i] != '\n') ++i;
        } else {
            line = false;
            size_t begin = i;
            if (isalpha((unsigned char)c) || c == '_') {
                while (i < text.size() && (isalnum((unsigned char)text[i]) || text[i] == '_')) ++i;
                tokens.push_back({begin, i, 'i'});
            } else if (isdigit((unsigned char)c)) {
                while (i < text.size() && (isalnum((unsigned char)text[i]) || text[i] == '.' || text[i] == '\'')) ++i;
                tokens.push_back({begin, i, 's'});
            } else if (c == '"' || c == '\'') {
                for (++i; i < text.size() && text[i] != c; ++i) {
                    if (text[i] == '\\') ++i;
                }
                tokens.push_back({begin, ++i, 's'});
            } else {
                tokens.push_back({begin, ++i, c});
            }
        }
    }
    return tokens;
}

// The token behind the bracket that closes the one at `at`.
static size_t behind(const std::vector<Token> &tokens, size_t at) {
    int depth = 0;
    for (; at < tokens.size(); ++at) {
        char kind = tokens[at].kind;
        if (kind == '(' || kind == '[' || kind == '{') ++depth;
        if ((kind == ')' || kind == ']' || kind == '}') && --depth == 0) return at + 1;
    }
    return at;
}

// The first argument of the call at `at`, as it is written.
static std::string first_argument(const std::string &source, const std::vector<Token> &tokens, size_t at) {
    size_t end = behind(tokens, at + 1), comma = at + 2;
    while (comma + 1 < end && tokens[comma].kind != ',') comma = tokens[comma].kind == '(' ? behind(tokens, comma) : comma + 1;
    return comma > at + 2 ? source.substr(tokens[at + 2].begin, tokens[comma - 1].end - tokens[at + 2].begin) : "";
}

struct Change {
    size_t begin, end;
    std::string text;
};

Rewritten rewrite(const std::string &source) {
    Rewritten out;
    std::vector<Token> tokens = tokens_of(source);
    std::vector<Change> changes;
    std::vector<std::string> scopes; // names of namespaces with `::`; empty for any other brace
    auto text = [&](size_t at) { return at < tokens.size() ? source.substr(tokens[at].begin, tokens[at].end - tokens[at].begin) : std::string(); };
    size_t statement = 0;
    auto has = [&](const char *word, size_t to) {
        for (size_t i = statement; i < to; ++i) if (text(i) == word) return true;
        return false;
    };
    std::string threads; // of `__launch_bounds__` in this statement
    for (size_t at = 0; at < tokens.size(); ++at) {
        char kind = tokens[at].kind;
        if (kind == ';' || kind == '{' || kind == '}') {
            if (kind == '{') {
                std::string name;
                for (size_t i = statement; i < at; ++i) {
                    if (text(i) != "namespace") continue;
                    for (size_t k = i + 1; k < at; ++k) name += text(k);
                    name += name.empty() ? "" : "::";
                }
                scopes.push_back(name);
            }
            if (kind == '}' && !scopes.empty()) scopes.pop_back();
            statement = at + 1;
            threads.clear();
            continue;
        }
        if (kind != 'i') continue;
        std::string word = text(at);
        if (word == "__launch_bounds__") {
            size_t end = behind(tokens, at + 1);
            threads = first_argument(source, tokens, at);
            changes.push_back({tokens[at].begin, tokens[end - 1].end, ""});
            at = end - 1;
        } else if (word == "__global__") {
            changes.push_back({tokens[at].begin, tokens[at].end, std::string(10, ' ')});
            if (has("template", at)) continue;
            size_t name = at + 1;
            while (name < tokens.size() && tokens[name].kind != ';') {
                if (tokens[name].kind == 'i' && name + 1 < tokens.size() && tokens[name + 1].kind == '(') {
                    if (text(name) != "__launch_bounds__" && text(name) != "__attribute__") break;
                    if (text(name) == "__launch_bounds__") threads = first_argument(source, tokens, name);
                    name = behind(tokens, name + 1);
                    continue;
                }
                ++name;
            }
            if (name >= tokens.size() || tokens[name].kind != 'i') continue;
            size_t body = behind(tokens, name + 1);
            if (body >= tokens.size() || tokens[body].kind != '{') continue;
            std::string qualified;
            for (const std::string &scope : scopes) qualified += scope;
            out.kernels.push_back({qualified + text(name), threads});
        } else if (word == "__shared__") {
            bool dynamic = has("extern", at), is_static = has("static", at);
            changes.push_back({tokens[at].begin, tokens[at].end, dynamic || is_static ? "__thread" : "static __thread"});
            size_t end = at, bracket = 0;
            for (; end < tokens.size() && tokens[end].kind != ';'; ++end) if (tokens[end].kind == ']') bracket = end;
            if (dynamic && bracket) changes.push_back({tokens[bracket].end, tokens[bracket].end, " asm(\"sim_dynamic_shared\")"});
        }
    }
    size_t from = 0;
    for (const Change &change : changes) {
        out.text.append(source, from, change.begin - from);
        out.text += change.text;
        for (size_t i = change.begin; i < change.end; ++i) if (source[i] == '\n') out.text += '\n';
        from = change.end;
    }
    out.text.append(source, from, std::string::npos);
    return out;
}
