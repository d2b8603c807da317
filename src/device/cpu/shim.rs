//! Turns a kernel's source and its parameters into one C or C++ file: the source as it is, then a generated entry.
//!
//! The entry has the kernel's type from `params`, so a source that disagrees is a compile error that names both types,
//! and holds the loop over blocks, so the compiler can inline the kernel into it. It is
//!
//! ```c
//! void rj_shim_<hash>(void *const *params, const struct rj_range_ *range);
//! ```
//!
//! with one pointer per parameter that is not `local`: to a tensor's first byte, or to the bits of a scalar or a struct;
//! null for `null`.

use std::fmt::Write as _;

use super::compile::unusable;
use crate::device::{DeviceError, KernelSource};
use crate::tensor::{Access, Dtype, Field, Lang, Param, ParamKind, Struct, type_name};

/// The header that kernels may include.
pub(super) const HEADER: &str = include_str!("runjob.h");

/// Alignment of `local` scratch. *Units*: bytes.
pub(super) const LOCAL_ALIGN: u64 = 64;

/// Blocks `begin..end` of a launch, in linear order with x fastest. The C side is in [`RANGE`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub begin: u64,
    pub end: u64,
    pub grid: [u32; 3],
    pub block_dim: [u32; 3],
    pub offset: [u32; 3],
    /// The scratch of the thread that runs these blocks: the kernel's `shared` bytes, then its `local` parameters.
    pub local: *mut u8,
}

const RANGE: &str = "struct rj_range_ { uint64_t begin, end; uint32_t grid[3], block_dim[3], offset[3]; char *local; };";

/// A kernel's entry as it is called.
pub(super) type Entry = unsafe extern "C" fn(params: *const *mut u8, range: *const Range);

/// What a compiler is given, and the symbol to look up in what it makes.
pub(super) struct Unit {
    /// Names and contents; the first is what is compiled.
    pub files: Vec<(&'static str, String)>,
    pub symbol: String,
    /// What compiler messages about the generated part call its file.
    pub label: String,
    /// What compiler messages call a file, where that is not its own name.
    pub shown: Vec<(&'static str, String)>,
}

/// A kernel's source as it was read.
pub(super) struct SourceText {
    pub text: String,
    pub lang: Lang,
    /// What compiler messages call it.
    pub shown: String,
    /// The line on which it starts there, from 1.
    pub line: usize,
    /// The file that holds this text and nothing else.
    pub file: Option<std::path::PathBuf>,
}

impl Unit {
    /// The name of the generated entry, from all that it is made of.
    pub fn symbol(kernel: &KernelSource, parts: &[&str]) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in [kernel.name.as_str(), kernel.entry.as_str()].iter().chain(parts) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        format!("rj_shim_{}", &hasher.finalize().to_hex()[..16])
    }

    /// What compiler messages call the generated part of a kernel.
    pub fn label(kernel: &KernelSource) -> String {
        format!("params of kernel `{}`", kernel.name)
    }
}

/// Which function the generated entry calls.
#[derive(Clone, Copy)]
pub(super) enum Callee<'s> {
    /// One of this source.
    Source(&'s SourceText),
    /// One of a built object, whose address is put into a variable after both are loaded.
    Address {
        /// Tells this object from any other.
        object: &'s str,
        /// Whether the object can be told where its block is: it has [`HERE`].
        asks: bool,
    },
}

/// What `runjob.h` defines in an object that was not compiled here: the address of the thread's `rj_at_`.
pub(super) const HERE: &str = "rj_here_2_";

/// The variable of a shim that holds the kernel's address, and that which holds [`HERE`]'s.
pub(super) const KERNEL_ADDRESS: &str = "_kernel";
pub(super) const HERE_ADDRESS: &str = "_here";

/// Byte offset of each `local` parameter in a thread's scratch, behind its `shared` bytes, and the size of the whole.
pub(super) fn local_layout(kernel: &KernelSource) -> Result<(Vec<u64>, u64), DeviceError> {
    let locals: Vec<&Param> = kernel.params.iter().filter(|p| matches!(p.kind, ParamKind::Local { .. })).collect();
    let build = |message: String| unusable(kernel, message);
    if locals.len() != kernel.local_lens.len() {
        return Err(build(format!("{} `local` parameters have {} lengths", locals.len(), kernel.local_lens.len())));
    }
    let mut offsets = Vec::new();
    let too_large = |what: String| build(format!("{what} is larger than 4 GiB"));
    let mut end = kernel
        .shared
        .checked_next_multiple_of(LOCAL_ALIGN)
        .filter(|&end| end <= 1 << 32)
        .ok_or_else(|| too_large(format!("`shared` of {} bytes", kernel.shared)))?;
    for (param, &len) in locals.iter().zip(&kernel.local_lens) {
        offsets.push(end);
        end = len
            .checked_mul(param.element_bytes())
            .and_then(|bytes| end.checked_add(bytes)?.checked_next_multiple_of(LOCAL_ALIGN))
            .filter(|&end| end <= 1 << 32)
            .ok_or_else(|| too_large(format!("`local` parameter `{}` of {len} elements", param.name)))?;
    }
    Ok((offsets, end))
}

/// Whether a text is a function's name in the languages of kernels.
pub(super) fn is_function_name(text: &str) -> bool {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    !text.is_empty() && plain && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Writes the file of a kernel in C or C++.
///
/// *Errors*: an entry that is no C name, a scalar of three lanes, or a struct without a tag, for neither of which C has a type.
pub(super) fn unit(kernel: &KernelSource, callee: Callee<'_>) -> Result<Unit, DeviceError> {
    let build = |message: String| unusable(kernel, message);
    let entry = &kernel.entry;
    if !is_function_name(entry) {
        return Err(build(format!("entry `{entry}` is not a C function name")));
    }
    let cxx = matches!(callee, Callee::Source(SourceText { lang: Lang::Cxx, .. }));
    if is_keyword(entry) {
        return Err(build(format!("entry `{entry}` is a word of C and names no function")));
    }
    let (offsets, _) = local_layout(kernel)?;
    let mut types = Vec::new();
    // What the kernel is given: statements that make the values `rj_<i>_`.
    let mut values = Vec::new();
    let mut asserts = String::new();
    let mut defined = Vec::new();
    let (mut argument, mut local) = (0, 0);
    for (index, param) in kernel.params.iter().enumerate() {
        let name = format!("rj_{index}_");
        let element = spelled(param.dtype, param.lanes, cxx);
        match &param.kind {
            ParamKind::Tensor(access) => {
                let qualifier = if *access == Access::In { "const " } else { "" };
                values.push(format!("{qualifier}{element} *{name} = ({qualifier}{element} *)rj_params_[{argument}];"));
                types.push(format!("{qualifier}{element} *"));
            }
            ParamKind::Scalar if param.lanes == 3 => {
                let (dtype, name) = (param.dtype, &param.name);
                return Err(build(format!(
                    "scalar `{param}`: C has no type of three lanes to pass by value; \
                     write `struct tag {{ {dtype}x3 v }} {name}`, or a tensor `in {dtype}x3 {name}`"
                )));
            }
            ParamKind::Scalar if param.lanes == 1 => {
                values.push(format!("{element} {name} = *(const {element} *)rj_params_[{argument}];"));
                types.push(element);
            }
            ParamKind::Scalar => {
                values.push(copied(&element, &name, argument));
                types.push(element);
            }
            ParamKind::Struct(layout) => {
                let Some(tag) = &layout.tag else {
                    return Err(build(format!(
                        "`{param}`: a struct without a tag has no type in C; write `struct tag {{ ... }} {}`",
                        param.name
                    )));
                };
                let element = format!("struct {tag}");
                asserts.push_str(&asserted(&param.name, tag, layout, cxx));
                let text = definition(tag, layout);
                if !defined.contains(&text) {
                    defined.push(text);
                }
                values.push(copied(&element, &name, argument));
                types.push(element);
            }
            ParamKind::Null => {
                values.push(format!("void *{name} = 0;"));
                // C++ has no type that agrees with every pointer.
                types.push(if cxx { "void *" } else { "union rj_null_" }.to_string());
            }
            ParamKind::Local { .. } => {
                values.push(format!("{element} *{name} = ({element} *)(rj_range_->local + {});", offsets[local]));
                types.push(format!("{element} *"));
                local += 1;
            }
        }
        argument += usize::from(!matches!(param.kind, ParamKind::Local { .. }));
    }
    let label = Unit::label(kernel);
    let declared = if types.is_empty() { "void".to_string() } else { types.join(", ") };
    let passed: Vec<String> = (0..types.len()).map(|i| format!("rj_{i}_")).collect();
    let mut body = String::new();
    if matches!(callee, Callee::Address { .. }) {
        // There is no source to define them.
        defined.into_iter().for_each(|text| body.push_str(&text));
    }
    body.push_str(&asserts);
    if !cxx && kernel.params.iter().any(|p| p.kind == ParamKind::Null) {
        body.push_str(&null_type());
    }
    let _ = writeln!(body, "{RANGE}");
    let assert = if cxx { "static_assert" } else { "_Static_assert" };
    let _ = writeln!(body, "{assert}(sizeof(struct rj_range_) == {}, \"struct rj_range_\");", size_of::<Range>());
    for (element, size, align) in layouts(kernel, cxx) {
        let alignof = if cxx { "alignof" } else { "_Alignof" };
        let _ = writeln!(body, "{assert}(sizeof({element}) == {size} && {alignof}({element}) == {align}, \"{element}\");");
    }
    let source = match callee {
        Callee::Source(source) => source.text.as_str(),
        Callee::Address { object, .. } => object,
    };
    let symbol = Unit::symbol(kernel, &[&body, &declared, &format!("{values:?}"), source]);
    let (export, noexcept) = if cxx { ("extern \"C\" ", " noexcept") } else { ("", "") };
    let visible = "__attribute__((visibility(\"default\")))";
    match callee {
        // The address of a function has one type: overloads and templates are chosen by it.
        Callee::Source(_) if cxx => {}
        // Hidden, so that neither a C library's function of that name is called nor another kernel's.
        Callee::Source(_) => {
            let _ = writeln!(body, "#pragma GCC visibility push(hidden)\nextern void {entry}({declared});\n#pragma GCC visibility pop");
        }
        Callee::Address { .. } => {
            let _ = writeln!(body, "{visible} void (*{symbol}{KERNEL_ADDRESS})({declared});");
            let _ = writeln!(body, "{visible} struct rj_at_ *(*{symbol}{HERE_ADDRESS})(void);");
        }
    }
    let _ = writeln!(body, "{export}{visible} void {symbol}(void *const *rj_params_, const struct rj_range_ *rj_range_){noexcept};");
    let _ = writeln!(body, "{export}void {symbol}(void *const *rj_params_, const struct rj_range_ *rj_range_){noexcept} {{");
    let _ = writeln!(body, "  (void)rj_params_;");
    for value in &values {
        let _ = writeln!(body, "  {value}");
    }
    let shared = if kernel.shared > 0 { "rj_range_->local" } else { "0" };
    let (function, here) = match callee {
        Callee::Source(_) if cxx => {
            let _ = writeln!(body, "  void (*const rj_kernel_)({declared}) = &::{entry};");
            ("rj_kernel_".to_string(), "&rj_at_".to_string())
        }
        Callee::Source(_) => (entry.clone(), "&rj_at_".to_string()),
        Callee::Address { .. } => (format!("{symbol}{KERNEL_ADDRESS}"), format!("{symbol}{HERE_ADDRESS}()")),
    };
    let _ = write!(
        body,
        "{}",
        LOOP.replace("HERE", &here).replace("SHARED", shared).replace("CALL", &format!("{function}({})", passed.join(", ")))
    );
    let text = match callee {
        // A source that has not included the header cannot ask where its block is: nothing need be kept for it.
        Callee::Source(source) => format!(
            "#define RJ_SHIM_ 1\n#line {} \"{}\"\n{}\n\n# 1 \"{}\" 3\n#ifdef RUNJOB_H\n#define RJ_AT_ 1\n#else\n#define RJ_AT_ 0\n#endif\n#include <runjob.h>\n{body}",
            source.line,
            escape(&source.shown),
            source.text,
            escape(&label),
        ),
        Callee::Address { asks, .. } => {
            format!("#define RJ_SHIM_ 1\n# 1 \"{}\" 3\n#define RJ_AT_ {}\n#include <runjob.h>\n{body}", escape(&label), u8::from(asks))
        }
    };
    Ok(Unit { files: vec![(if cxx { "kernel.cpp" } else { "kernel.c" }, text)], symbol, label, shown: Vec::new() })
}

/// C type, size and alignment of every element type among the parameters.
fn layouts(kernel: &KernelSource, cxx: bool) -> Vec<(String, usize, usize)> {
    let mut all: Vec<(String, usize, usize)> = Vec::new();
    for param in kernel.params.iter().filter(|p| !matches!(p.kind, ParamKind::Struct(_) | ParamKind::Null)) {
        let (size, align) = layout(param.dtype, param.lanes);
        let one = (spelled(param.dtype, param.lanes, cxx), size, align);
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

/// Size and alignment of an element as kernels see it; of three lanes those of one of them. *Units*: bytes.
pub(super) fn layout(dtype: Dtype, lanes: u32) -> (usize, usize) {
    let size = if lanes == 3 { dtype.size() } else { dtype.size() * lanes as usize };
    (size, size.min(LOCAL_ALIGN as usize))
}

const LOOP: &str = "\
#if RJ_AT_
  uint32_t rj_gx_ = rj_range_->grid[0], rj_gy_ = rj_range_->grid[1];
  struct rj_at_ *rj_here_ = HERE;
  memcpy(rj_here_->grid, rj_range_->grid, sizeof rj_here_->grid);
  memcpy(rj_here_->block_dim, rj_range_->block_dim, sizeof rj_here_->block_dim);
  memcpy(rj_here_->offset, rj_range_->offset, sizeof rj_here_->offset);
  rj_here_->shared = SHARED;
  uint64_t rj_row_ = rj_range_->begin / rj_gx_;
  uint32_t rj_x_ = (uint32_t)(rj_range_->begin % rj_gx_), rj_y_ = (uint32_t)(rj_row_ % rj_gy_), rj_z_ = (uint32_t)(rj_row_ / rj_gy_);
  for (uint64_t rj_i_ = rj_range_->begin, rj_end_ = rj_range_->end; rj_i_ < rj_end_; ++rj_i_) {
    rj_here_->block[0] = rj_x_;
    rj_here_->block[1] = rj_y_;
    rj_here_->block[2] = rj_z_;
    CALL;
    if (++rj_x_ == rj_gx_) {
      rj_x_ = 0;
      if (++rj_y_ == rj_gy_) {
        rj_y_ = 0;
        ++rj_z_;
      }
    }
  }
#else
  for (uint64_t rj_i_ = rj_range_->begin, rj_end_ = rj_range_->end; rj_i_ < rj_end_; ++rj_i_) {
    CALL;
  }
#endif
}
";

/// The C or C++ type of one element; of three lanes it is the type of one of them.
fn spelled(dtype: Dtype, lanes: u32, cxx: bool) -> String {
    match element(dtype, lanes).as_str() {
        "_Bool" if cxx => "bool".to_string(),
        other => other.to_string(),
    }
}

/// The C type of one element; of three lanes it is the type of one of them.
fn element(dtype: Dtype, lanes: u32) -> String {
    if lanes != 1 && lanes != 3 {
        return format!("rj_{dtype}x{lanes}");
    }
    match dtype {
        Dtype::F64 => "double",
        Dtype::F32 => "float",
        Dtype::F16 => "rj_f16",
        Dtype::Bf16 => "rj_bf16",
        Dtype::F8e4m3 => "rj_f8e4m3",
        Dtype::F8e5m2 => "rj_f8e5m2",
        Dtype::I64 => "int64_t",
        Dtype::I32 => "int32_t",
        Dtype::I16 => "int16_t",
        Dtype::I8 => "int8_t",
        Dtype::U64 => "uint64_t",
        Dtype::U32 => "uint32_t",
        Dtype::U16 => "uint16_t",
        Dtype::U8 => "uint8_t",
        Dtype::Bool => "_Bool",
    }
    .to_string()
}

/// A value whose bytes stand where no alignment is promised.
fn copied(ty: &str, name: &str, argument: usize) -> String {
    format!("{ty} {name}; memcpy(&{name}, rj_params_[{argument}], sizeof {name});")
}

/// Static assertions that the source lays out `struct tag` as `params` does, with the types that it names.
fn asserted(param: &str, tag: &str, layout: &Struct, cxx: bool) -> String {
    let mut text = String::new();
    let assert = if cxx { "static_assert" } else { "_Static_assert" };
    for Field { name, dtype, lanes, offset } in &layout.fields {
        let what = format!("parameter `{param}`: field `{name}` of `struct {tag}`");
        let array = if *lanes == 3 { "[3]" } else { "" };
        let element = spelled(*dtype, *lanes, cxx);
        let field = format!("((struct {tag} *)0)->{name}");
        let same = match cxx {
            true => format!("__is_same(decltype({field}), {element}{array})"),
            false => format!("__builtin_types_compatible_p(__typeof__({field}), {element}{array})"),
        };
        let _ = writeln!(
            text,
            "{assert}({same}, \
             \"{what} is not `{element}{array}` in the source, as `{} {name}` in params says\");",
            type_name(*dtype, *lanes)
        );
        // An assertion can say no number that it computes, so there is one for each that is likely.
        for other in (offset.saturating_sub(NEAR)..=offset + NEAR).filter(|other| other != offset) {
            let _ = writeln!(
                text,
                "{assert}(offsetof(struct {tag}, {name}) != {other}, \
                 \"{what} is at byte {other} in the source, at byte {offset} by params\");"
            );
        }
        let _ = writeln!(text, "{assert}(offsetof(struct {tag}, {name}) == {offset}, \"{what} is not at byte {offset} as by params\");");
    }
    let size = layout.size;
    let _ = writeln!(
        text,
        "{assert}(sizeof(struct {tag}) == {size}, \"parameter `{param}`: `struct {tag}` has more fields in the source, or another size, than the {size} bytes by params\");"
    );
    text
}

/// The definition of a struct as `params` has it.
fn definition(tag: &str, layout: &Struct) -> String {
    let fields = layout.fields.iter().map(|Field { name, dtype, lanes, .. }| {
        let array = if *lanes == 3 { "[3]" } else { "" };
        format!("{} {name}{array};", element(*dtype, *lanes))
    });
    format!("struct {tag} {{ {} }};\n", fields.collect::<Vec<_>>().join(" "))
}

/// Offsets that differ by at most this from those of `params` are named in messages. *Units*: bytes.
const NEAR: u64 = 16;

/// A type of parameter that agrees with every pointer that a kernel may have there, as a null pointer is passed.
fn null_type() -> String {
    let mut pointees = vec!["void".to_string(), "char".into()];
    pointees.extend(Dtype::ALL.into_iter().flat_map(|dtype| [1, 2, 4, 8, 16].map(|lanes| element(dtype, lanes))));
    let members = pointees.iter().enumerate().map(|(i, p)| format!("{p} *m{i}_; const {p} *c{i}_;"));
    format!("union rj_null_ {{ {} }} __attribute__((transparent_union));\n", members.collect::<Vec<_>>().join(" "))
}

/// Whether a name is a word of C (GNU C11), which can name no function.
pub fn is_keyword(name: &str) -> bool {
    const WORDS: [&str; 47] = [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "_Alignas",
        "_Alignof",
        "_Atomic",
        "_Bool",
        "_Complex",
        "_Float16",
        "_Generic",
        "_Imaginary",
        "_Noreturn",
        "_Static_assert",
        "_Thread_local",
        "asm",
        "typeof",
    ];
    WORDS.contains(&name)
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// The names that stand before a `(` outside of all braces: functions that a C source defines or declares.
pub(super) fn functions(source: &str) -> Vec<String> {
    const NOT: [&str; 8] = ["__attribute__", "__declspec", "sizeof", "defined", "_Static_assert", "_Alignas", "typeof", "__asm__"];
    let mut names: Vec<String> = Vec::new();
    let mut depth = 0i32;
    let mut word = String::new();
    let mut chars = source.chars().peekable();
    let mut line_start = true;
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|&c| c != '\n').is_some() {},
            '/' if chars.peek() == Some(&'*') => {
                let mut last = ' ';
                for c in chars.by_ref() {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            '#' if line_start => while chars.next_if(|&c| c != '\n').is_some() {},
            '"' => {
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            c if c.is_ascii_alphanumeric() || c == '_' => {
                word.clear();
                word.push(c);
                while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    word.push(c);
                }
                while chars.next_if(|c| *c == ' ').is_some() {}
                if depth == 0 && chars.peek() == Some(&'(') && !NOT.contains(&word.as_str()) && !names.contains(&word) {
                    names.push(word.clone());
                }
            }
            '{' | '(' => depth += 1,
            '}' | ')' => depth -= 1,
            _ => {}
        }
        line_start = c == '\n' || (line_start && c.is_whitespace());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_outside_of_comments_bodies_and_directives() {
        let source = "#define F(x) g(x)\n// c(\nstatic float half(float x) { return f(x); }\n/* d( */\nvoid saxpy(const float *x,\n int n) {\n  h(\"e(\"); }\n";
        assert_eq!(functions(source), ["half", "saxpy"]);
    }
}
