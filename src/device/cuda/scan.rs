//! CUDA C++ -> the names of the kernels that it defines, and of the files that it includes, as far as they can be read
//! without a compiler: what is behind conditions counts as there.

/// A word or a sign of the source, outside of comments.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Token<'a> {
    Word(&'a str),
    Text,
    Sign(u8),
}

/// The tokens of a source.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let bytes = source.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let until = |end: &[u8], from: usize| {
            let found = rest[from..].windows(end.len()).position(|window| window == end);
            found.map_or(rest.len(), |found| from + found + end.len())
        };
        at += if rest.starts_with(b"//") {
            until(b"\n", 2)
        } else if rest.starts_with(b"/*") {
            until(b"*/", 2)
        } else if rest[0] == b'"' || rest[0] == b'\'' {
            tokens.push(Token::Text);
            let mut end = 1;
            while end < rest.len() && rest[end] != rest[0] && rest[end] != b'\n' {
                end += if rest[end] == b'\\' { 2 } else { 1 };
            }
            (end + 1).min(rest.len())
        } else if is_word(rest[0]) {
            let len = rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len());
            tokens.push(Token::Word(&source[at..at + len]));
            len
        } else {
            if !rest[0].is_ascii_whitespace() {
                tokens.push(Token::Sign(rest[0]));
            }
            1
        };
    }
    tokens
}

/// What stands between `__global__` and a kernel's name and is followed by parentheses of its own.
const WITH_PARENTHESES: &[&str] =
    &["__launch_bounds__", "__cluster_dims__", "__block_size__", "__attribute__", "__maxnreg__", "__declspec"];

/// The kernels that a source defines, by the names that C++ finds them under, without templates.
pub(super) fn kernels(source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let mut found: Vec<String> = Vec::new();
    // By brace: the namespace that it opens; `None` where it opens anything else.
    let mut scopes: Vec<Option<String>> = Vec::new();
    let (mut template, mut namespace) = (false, None);
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match *token {
            Token::Word("template") => template = true,
            Token::Word("namespace") => {
                let mut names = Vec::new();
                while let Some(Token::Word(_) | Token::Sign(b':')) = tokens.get(at) {
                    if let Token::Word(name) = tokens[at] {
                        names.push(name);
                    }
                    at += 1;
                }
                namespace = Some(names.join("::"));
            }
            Token::Sign(b'{') => {
                let is_c = at >= 3 && tokens[at - 3..at - 1] == [Token::Word("extern"), Token::Text];
                scopes.push(namespace.take().or(is_c.then(|| "extern".to_string())));
            }
            Token::Sign(b'}') => {
                scopes.pop();
                template = false;
            }
            Token::Sign(b';') => (template, namespace) = (false, None),
            Token::Word("__global__") => {
                let mut name = None;
                while let Some(token) = tokens.get(at) {
                    match *token {
                        Token::Word(word) if WITH_PARENTHESES.contains(&word) => {
                            at += 1;
                            let mut depth = 0;
                            while let Some(token) = tokens.get(at) {
                                depth += i32::from(*token == Token::Sign(b'(')) - i32::from(*token == Token::Sign(b')'));
                                if depth <= 0 {
                                    break;
                                }
                                at += 1;
                            }
                        }
                        Token::Word(word) => name = Some(word),
                        Token::Sign(b'(' | b';' | b'{') => break,
                        Token::Sign(_) | Token::Text => {}
                    }
                    at += 1;
                }
                // What is in a class or has no name cannot be spoken of from outside.
                let outer: Option<Vec<&str>> = scopes.iter().map(Option::as_deref).collect();
                if let (Some(name), Some(outer), false) = (name, outer, template)
                    && !outer.contains(&"")
                {
                    let outer: String = outer.iter().filter(|scope| **scope != "extern").map(|scope| format!("{scope}::")).collect();
                    let name = format!("{outer}{name}");
                    if !found.contains(&name) {
                        found.push(name);
                    }
                }
                template = false;
            }
            _ => {}
        }
    }
    found
}

/// The names that a source includes, with whether each stands in quotes. `None` where one is made by a macro.
pub(super) fn includes(source: &str) -> Option<Vec<(String, bool)>> {
    let mut names = Vec::new();
    for line in source.lines() {
        let Some(rest) = line.trim_start().strip_prefix('#') else { continue };
        let Some(rest) = rest.trim_start().strip_prefix("include") else { continue };
        let rest = rest.trim_start();
        let (end, quoted) = match rest.chars().next() {
            Some('"') => ('"', true),
            Some('<') => ('>', false),
            _ => return None,
        };
        names.push((rest[1..].split(end).next().unwrap_or("").to_string(), quoted));
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_under_the_names_that_c_plus_plus_has_for_them() {
        for (source, want) in [
            ("extern \"C\" __global__ void axpy(const float *x) { if (1) { } }", vec!["axpy"]),
            ("__global__ void __launch_bounds__(256, 2) a(int *x) {}\n__global__ __launch_bounds__(f(1)) void b() {}", vec!["a", "b"]),
            ("extern \"C\" { __global__ void a() {} }\nnamespace n { namespace m { __global__ void b() {} } }", vec!["a", "n::m::b"]),
            ("namespace { __global__ void a() {} }\nnamespace n::m { __global__ void b() {} }", vec!["n::m::b"]),
            ("template <class T> __global__ void a(T *x) {}\n__global__ void b() {}", vec!["b"]),
            ("// __global__ void a() {}\n/* __global__ void b() {} */ const char *s = \"__global__ void c() {}\";", vec![]),
            ("struct s { static __global__ void a(); };", vec![]),
            ("__global__ void a(int n);\n__global__ void a(int n) {}", vec!["a"]),
            ("__global__ static void a(int n) {}", vec!["a"]),
            ("__global__", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(kernels(source), want, "{source}");
        }
    }

    #[test]
    fn includes_are_listed_unless_a_macro_makes_them() {
        let source = "#include \"a.h\"\n  # include <cuda_fp16.h> // b\nint x;\n";
        assert_eq!(includes(source), Some(vec![("a.h".to_string(), true), ("cuda_fp16.h".to_string(), false)]));
        assert_eq!(includes("#include HEADER\n"), None);
        assert_eq!(includes(""), Some(vec![]));
    }
}
