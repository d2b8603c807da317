//! Turns a Rust kernel and its parameters into a crate: the source as its root, and a generated module with the entry.
//!
//! The module makes the kernel a function pointer of the type that `params` say, so a source that disagrees is a compile
//! error that names both types, and holds the loop over blocks. A file without attributes of its own is included where it
//! lies, so that it may have modules beside it; one with them, or a text, is copied, as they must stand at the root's top.

use std::fmt::Write as _;

use super::compile::unusable;
use super::shim::{Range, SourceText, Unit, is_function_name, layout, local_layout};
use crate::device::{DeviceError, KernelSource};
use crate::tensor::{Access, Dtype, Field, ParamKind, Struct};

/// The module `runjob` of Rust kernels.
const MODULE: &str = include_str!("runjob.rs.in");

/// Writes the crate of a kernel.
///
/// *Errors*: an entry that is no function's name, a scalar of three lanes, or a struct without a tag.
pub(super) fn unit(kernel: &KernelSource, source: &SourceText) -> Result<Unit, DeviceError> {
    let build = |message: String| unusable(kernel, message);
    let entry = &kernel.entry;
    if !is_function_name(entry) {
        return Err(build(format!("entry `{entry}` is not a function name")));
    }
    let (offsets, _) = local_layout(kernel)?;
    let (mut types, mut values) = (Vec::new(), Vec::new());
    let mut asserts = String::new();
    let (mut argument, mut local) = (0, 0);
    for param in &kernel.params {
        let element = element(param.dtype, param.lanes);
        match &param.kind {
            ParamKind::Tensor(access) => {
                let pointer = if *access == Access::In { "*const" } else { "*mut" };
                values.push(format!("(*params.add({argument})).cast::<{element}>()"));
                types.push(format!("{pointer} {element}"));
            }
            ParamKind::Scalar if param.lanes == 3 => {
                let (dtype, name) = (param.dtype, &param.name);
                return Err(build(format!(
                    "scalar `{param}`: there is no type of three lanes to pass by value; \
                     write `struct tag {{ {dtype}x3 v }} {name}`, or a tensor `in {dtype}x3 {name}`"
                )));
            }
            ParamKind::Scalar => {
                values.push(format!("(*params.add({argument})).cast::<{element}>().read_unaligned()"));
                types.push(element);
            }
            ParamKind::Struct(layout) => {
                let Some(tag) = &layout.tag else {
                    return Err(build(format!(
                        "`{param}`: a struct without a tag has no type; write `struct tag {{ ... }} {}`",
                        param.name
                    )));
                };
                asserts.push_str(&asserted(&param.name, tag, layout));
                values.push(format!("(*params.add({argument})).cast::<super::{tag}>().read_unaligned()"));
                types.push(format!("super::{tag}"));
            }
            ParamKind::Null => {
                values.push("std::ptr::null_mut::<std::ffi::c_void>()".to_string());
                types.push("*mut std::ffi::c_void".to_string());
            }
            ParamKind::Local { .. } => {
                values.push(format!("range.local.add({}).cast::<{element}>()", offsets[local]));
                types.push(format!("*mut {element}"));
                local += 1;
            }
        }
        argument += usize::from(!matches!(param.kind, ParamKind::Local { .. }));
    }
    let label = Unit::label(kernel);
    let mut shim = String::from("use super::runjob;\n");
    // In lines of its own, which the compiler's messages show: the types of the spec are there to be read.
    let _ = writeln!(shim, "const KERNEL: unsafe extern \"C\" fn({}) =\n    super::{entry};", types.join(", "));
    shim.push_str(&asserts);
    for param in kernel.params.iter().filter(|p| !matches!(p.kind, ParamKind::Struct(_) | ParamKind::Null)) {
        let (size, align) = layout(param.dtype, param.lanes);
        let element = element(param.dtype, param.lanes);
        let _ = writeln!(shim, "const _: () = assert!(size_of::<{element}>() == {size} && align_of::<{element}>() == {align});");
    }
    let _ = writeln!(shim, "{RANGE}\nconst _: () = assert!(size_of::<Range>() == {});", size_of::<Range>());
    let symbol = Unit::symbol(kernel, &[&shim, &format!("{values:?}"), MODULE, &source.text, &format!("{:?}", kernel.defines)]);
    let _ = writeln!(
        shim,
        "#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn {symbol}(params: *const *mut u8, range: *const Range) {{ unsafe {{"
    );
    let _ = writeln!(shim, "    let range = &*range;");
    for (i, value) in values.iter().enumerate() {
        let _ = writeln!(shim, "    let a{i} = {value};");
    }
    let passed: Vec<String> = (0..values.len()).map(|i| format!("a{i}")).collect();
    let shared = if kernel.shared > 0 { "range.local" } else { "std::ptr::null_mut()" };
    // A source that never names the module cannot ask where its block is; one with other files may.
    let asks = ["runjob", "mod ", "include!"].iter().any(|word| source.text.contains(word));
    let _ = write!(
        shim,
        "{}",
        LOOP.replace("ASKS", &asks.to_string()).replace("SHARED", shared).replace("CALL", &format!("KERNEL({})", passed.join(", ")))
    );
    let macros: String = kernel
        .defines
        .iter()
        .map(|(name, text)| format!("#[allow(unused_macros)] macro_rules! {name} {{ () => {{ {text} }} }} "))
        .collect();
    let modules = "\n#[allow(warnings)]\n#[path = \"runjob.rs\"]\nmod runjob;\n#[allow(warnings, clippy::all)]\n#[path = \"shim.rs\"]\nmod rj_shim_;\n";
    let head = head(&source.text);
    let (root, copied) = match &source.file {
        Some(file) if head == 0 => {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            (format!("{macros}\ninclude!({:?});{modules}", file.display().to_string()), false)
        }
        _ => {
            // As many lines before it as in the file that it stands in.
            let before = if source.text.starts_with("#!") && !source.text.starts_with("#![") { 0 } else { source.line - 1 };
            let (head, body) = source.text.split_at(head);
            (format!("{}{head} {macros}{body}{modules}", "\n".repeat(before)), true)
        }
    };
    let mut shown = vec![("shim.rs", label.clone())];
    if copied {
        shown.push(("root.rs", source.shown.clone()));
    }
    Ok(Unit { files: vec![("root.rs", root), ("runjob.rs", MODULE.to_string()), ("shim.rs", shim)], symbol, label, shown })
}

const RANGE: &str = "\
#[repr(C)]
pub struct Range { begin: u64, end: u64, grid: [u32; 3], block_dim: [u32; 3], offset: [u32; 3], local: *mut u8 }";

const LOOP: &str = "\
    if ASKS {
        runjob::enter(range.grid, range.block_dim, range.offset, SHARED);
        let [gx, gy] = [u64::from(range.grid[0]), u64::from(range.grid[1])];
        let row = range.begin / gx;
        let mut block = [(range.begin % gx) as u32, (row % gy) as u32, (row / gy) as u32];
        for _ in range.begin..range.end {
            runjob::at(block);
            CALL;
            block[0] += 1;
            if block[0] == range.grid[0] {
                block[0] = 0;
                block[1] += 1;
                if block[1] == range.grid[1] {
                    block[1] = 0;
                    block[2] += 1;
                }
            }
        }
    } else {
        for _ in range.begin..range.end {
            CALL;
        }
    }
}}
";

/// Assertions that the source lays out a struct as `params` does, with the types that it names.
fn asserted(param: &str, tag: &str, layout: &Struct) -> String {
    let mut text = String::new();
    for Field { name, dtype, lanes, offset } in &layout.fields {
        let element = element(*dtype, *lanes);
        let element = if *lanes == 3 { format!("[{element}; 3]") } else { element };
        let what = format!("parameter `{param}`: field `{name}` of `{tag}`");
        let _ = writeln!(text, "const _: fn(&super::{tag}) -> &{element} = |value| &value.{name};");
        let _ = writeln!(
            text,
            "const _: () = assert!(std::mem::offset_of!(super::{tag}, {name}) == {offset}, \
             \"{what} is not at byte {offset} as by params: the struct must be #[repr(C)]\");"
        );
    }
    let size = layout.size;
    let _ = writeln!(
        text,
        "const _: () = assert!(size_of::<super::{tag}>() == {size}, \"parameter `{param}`: `{tag}` has not the {size} bytes of params\");"
    );
    text
}

/// The Rust type of one element; of three lanes it is the type of one of them.
fn element(dtype: Dtype, lanes: u32) -> String {
    if lanes != 1 && lanes != 3 {
        return format!("runjob::{dtype}x{lanes}");
    }
    match dtype {
        Dtype::F64 | Dtype::F32 | Dtype::Bool => dtype.to_string(),
        Dtype::I64 | Dtype::I32 | Dtype::I16 | Dtype::I8 | Dtype::U64 | Dtype::U32 | Dtype::U16 | Dtype::U8 => dtype.to_string(),
        // Those that the language does not have.
        narrow => format!("runjob::{narrow}"),
    }
}

/// Where the inner attributes and comments at the top of a source end; 0 where it has none.
fn head(source: &str) -> usize {
    let mut end = 0;
    let mut at = 0;
    if source.starts_with("#!") && !source[2..].trim_start().starts_with('[') {
        at = source.find('\n').unwrap_or(source.len());
        end = at;
    }
    loop {
        let rest = &source[at..];
        let trimmed = rest.trim_start();
        at += rest.len() - trimmed.len();
        if trimmed.starts_with("//") {
            let inner = trimmed.starts_with("//!");
            at += trimmed.find('\n').unwrap_or(trimmed.len());
            end = if inner { at } else { end };
        } else if trimmed.starts_with("/*") {
            let inner = trimmed.starts_with("/*!");
            at += nested_comment(trimmed);
            end = if inner { at } else { end };
        } else if trimmed.starts_with("#![") {
            at += bracketed(&trimmed[2..]) + 2;
            end = at;
        } else {
            break;
        }
    }
    // A comment to the line's end would swallow what is put behind it.
    if source[..end].lines().last().is_some_and(|line| line.trim_start().starts_with("//")) {
        end += source[end..].chars().next().map_or(0, char::len_utf8);
    }
    end
}

/// Bytes of a comment with comments in it.
fn nested_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        match rest {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Bytes of a `[...]` with brackets and strings in it.
fn bracketed(text: &str) -> usize {
    let mut depth = 0;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '[' => depth += 1,
            ']' if depth == 1 => return at + 1,
            ']' => depth -= 1,
            '"' => {
                while let Some((_, c)) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// The functions that a source defines, wherever; names after `fn`.
pub(super) fn functions(source: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in source.lines() {
        let code = line.split("//").next().unwrap_or("");
        let mut rest = code;
        while let Some((before, after)) = rest.split_once("fn ") {
            let word_ends = before.chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
            let name: String = after.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if word_ends && !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
            rest = after;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_of_a_source_ends_after_its_last_inner_attribute() {
        for (source, want) in [
            ("fn k() {}", ""),
            ("// a\n/* b */\n#[inline]\nfn k() {}", ""),
            ("//! a\n//! b\nfn k() {}", "//! a\n//! b\n"),
            ("// a\n#![allow(dead_code)]\nfn k() {}", "// a\n#![allow(dead_code)]"),
            ("#![doc = \"a]\\\"]\"] use x;", "#![doc = \"a]\\\"]\"]"),
            ("/*! a /* b */ c */ fn k() {}", "/*! a /* b */ c */"),
            ("#!/usr/bin/x\nfn k() {}", "#!/usr/bin/x"),
            ("#![a]\n// b\n#![c]\n\nfn k() {}", "#![a]\n// b\n#![c]"),
            ("//! only", "//! only"),
            ("#![open", "#![open"),
        ] {
            assert_eq!(&source[..head(source)], want, "{source}");
        }
    }

    #[test]
    fn functions_are_named_outside_of_comments() {
        assert_eq!(functions("pub extern \"C\" fn a(x: u32) {} // fn no()\nunsafe fn b<T>() { cfn c(); }\nfn a() {}"), ["a", "b"]);
    }
}
