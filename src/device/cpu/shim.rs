//! Turns a kernel's source and its parameters into one C file: the source as it is, then a generated entry.
//!
//! The entry declares the kernel from `params`, so a source that disagrees is a compile error that names both types, and
//! holds the loop over blocks, so the compiler can inline the kernel into it. It is
//!
//! ```c
//! void rj_shim_<hash>(void *const *params, const struct rj_range_ *range);
//! ```
//!
//! with one pointer per parameter that is not `local`: to a tensor's first byte, or to a scalar's bits.

use std::fmt::Write as _;
use std::path::Path;

use crate::device::{DeviceError, KernelSource};
use crate::tensor::{Access, Dtype, Param, ParamKind};

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
    /// The scratch of all `local` parameters of the thread that runs these blocks.
    pub local: *mut u8,
}

const RANGE: &str = "struct rj_range_ { uint64_t begin, end; uint32_t grid[3], block_dim[3]; char *local; };";

/// A kernel's entry as it is called.
pub(super) type Entry = unsafe extern "C" fn(params: *const *mut u8, range: *const Range);

/// A C file and the symbol to look up in what it compiles to.
pub(super) struct Unit {
    pub text: String,
    pub symbol: String,
    /// What compiler messages about the generated part call its file.
    pub label: String,
}

/// Byte offset of each `local` parameter in a thread's scratch, and the size of the whole.
pub(super) fn local_layout(kernel: &KernelSource) -> Result<(Vec<u64>, u64), DeviceError> {
    let locals: Vec<&Param> = kernel.params.iter().filter(|p| matches!(p.kind, ParamKind::Local { .. })).collect();
    let build = |message: String| DeviceError::Build { kernel: kernel.name.clone(), message, log: String::new() };
    if locals.len() != kernel.local_lens.len() {
        return Err(build(format!("{} `local` parameters have {} lengths", locals.len(), kernel.local_lens.len())));
    }
    let mut offsets = Vec::new();
    let mut end = 0u64;
    for (param, &len) in locals.iter().zip(&kernel.local_lens) {
        offsets.push(end);
        end = len
            .checked_mul(param.element_bytes())
            .and_then(|bytes| end.checked_add(bytes)?.checked_next_multiple_of(LOCAL_ALIGN))
            .filter(|&end| end <= 1 << 32)
            .ok_or_else(|| build(format!("`local` parameter `{}` of {len} elements is larger than 4 GiB", param.name)))?;
    }
    Ok((offsets, end))
}

/// Writes the C file of a kernel whose source is `source`, read from `path`.
///
/// *Errors*: an entry that is no C name, or a scalar that does not fit the 8 bytes of a launch argument.
pub(super) fn unit(kernel: &KernelSource, path: &Path, source: &str) -> Result<Unit, DeviceError> {
    let build = |message: String| DeviceError::Build { kernel: kernel.name.clone(), message, log: String::new() };
    let entry = &kernel.entry;
    let is_name = entry.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !entry.starts_with(|c: char| c.is_ascii_digit());
    if entry.is_empty() || !is_name {
        return Err(build(format!("entry `{entry}` is not a C function name")));
    }
    let (offsets, _) = local_layout(kernel)?;
    let mut types = Vec::new();
    let mut values = Vec::new();
    let (mut argument, mut local) = (0, 0);
    for param in &kernel.params {
        let element = element(param.dtype, param.lanes);
        match param.kind {
            ParamKind::Tensor(access) => {
                let qualifier = if access == Access::In { "const " } else { "" };
                types.push(format!("{qualifier}{element} *"));
                values.push(format!("({qualifier}{element} *)rj_params_[{argument}]"));
                argument += 1;
            }
            ParamKind::Scalar => {
                if param.lanes == 3 || param.element_bytes() > 8 {
                    return Err(build(format!("scalar `{param}` does not fit 8 bytes; pass it as a tensor, `in {}`", type_of(param))));
                }
                values.push(format!("*(const {element} *)rj_params_[{argument}]"));
                types.push(element);
                argument += 1;
            }
            ParamKind::Local { .. } => {
                types.push(format!("{element} *"));
                values.push(format!("({element} *)(rj_range_->local + {})", offsets[local]));
                local += 1;
            }
        }
    }
    let label = format!("params of kernel `{}`", kernel.name);
    let mut body = String::new();
    let declared = if types.is_empty() { "void".to_string() } else { types.join(", ") };
    // Hidden, so that neither a C library's function of that name is called nor another kernel's.
    let _ = writeln!(body, "#pragma GCC visibility push(hidden)\nextern void {entry}({declared});\n#pragma GCC visibility pop");
    let _ = writeln!(body, "{RANGE}");
    let hash = blake3::hash(format!("{}\0{body}\0{values:?}\0{source}", kernel.name).as_bytes()).to_hex();
    let symbol = format!("rj_shim_{}", &hash[..16]);
    let _ = writeln!(
        body,
        "__attribute__((visibility(\"default\"))) void {symbol}(void *const *rj_params_, const struct rj_range_ *rj_range_);"
    );
    let _ = writeln!(body, "void {symbol}(void *const *rj_params_, const struct rj_range_ *rj_range_) {{");
    let _ = writeln!(body, "  (void)rj_params_;");
    for (i, (ty, value)) in types.iter().zip(&values).enumerate() {
        let _ = writeln!(body, "  {ty} rj_{i}_ = {value};");
    }
    let passed: Vec<String> = (0..types.len()).map(|i| format!("rj_{i}_")).collect();
    let _ = write!(body, "{}", LOOP.replace("CALL", &format!("{entry}({})", passed.join(", "))));
    // A source that has not included the header cannot ask where its block is: nothing need be kept for it.
    let text = format!(
        "#line 1 \"{}\"\n{source}\n\n# 1 \"{}\" 3\n#ifdef RUNJOB_H\n#define RJ_AT_ 1\n#else\n#define RJ_AT_ 0\n#endif\n#include <runjob.h>\n{body}",
        escape(&path.display().to_string()),
        escape(&label),
    );
    Ok(Unit { text, symbol, label })
}

const LOOP: &str = "\
#if RJ_AT_
  uint32_t rj_gx_ = rj_range_->grid[0], rj_gy_ = rj_range_->grid[1];
  struct rj_at_ *rj_here_ = &rj_at_;
  memcpy(rj_here_->grid, rj_range_->grid, sizeof rj_here_->grid);
  memcpy(rj_here_->block_dim, rj_range_->block_dim, sizeof rj_here_->block_dim);
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

fn type_of(param: &Param) -> String {
    if param.lanes == 1 { param.dtype.to_string() } else { format!("{}x{}", param.dtype, param.lanes) }
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
