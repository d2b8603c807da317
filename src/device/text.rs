//! Turns commands into lines of text, for logs and snapshots.

use std::fmt::Write as _;

use super::{Arg, Cmd, NO_OFFSET, Node, Point, Slice, Word};

/// Points that are waited for, as text: ` after p1 p2`.
pub(super) fn text_of_points(after: &[Point]) -> String {
    after.iter().enumerate().fold(String::new(), |mut text, (i, point)| {
        let _ = write!(text, "{}p{}", if i == 0 { " after " } else { " " }, point.0);
        text
    })
}

/// A list as text, one line per node: `2: launch k0 [4, 1, 1] (in m0[0..64], v1) after 0 1`.
pub fn text_of(nodes: &[Node]) -> String {
    let mut text = String::new();
    for (index, node) in nodes.iter().enumerate() {
        let command = match &node.cmd {
            Cmd::Copy { src, dst } => format!("copy {} -> {}", slice(src), slice(dst)),
            Cmd::Fill { dst, pattern } => format!("fill {} with {}", slice(dst), word(pattern, true)),
            Cmd::Launch { kernel, grid, offset, args } => {
                let args: Vec<String> = args
                    .iter()
                    .map(|arg| match arg {
                        Arg::In(s) => format!("in {}", slice(s)),
                        Arg::Out(s) => format!("out {}", slice(s)),
                        Arg::Inout(s) => format!("inout {}", slice(s)),
                        Arg::Scalar(w) => word(w, true),
                        Arg::Struct(words) => {
                            format!("{{{}}}", words.iter().map(|w| word(w, true)).collect::<Vec<_>>().join(", "))
                        }
                        Arg::Null => "null".to_string(),
                    })
                    .collect();
                let list = |words: &[Word; 3]| words.iter().map(|w| word(w, false)).collect::<Vec<_>>().join(", ");
                let from = if *offset == NO_OFFSET { String::new() } else { format!(" from [{}]", list(offset)) };
                format!("launch k{} [{}]{from} ({})", kernel.0, list(grid), args.join(", "))
            }
        };
        let after = node.after.iter().fold(String::new(), |mut text, after| {
            let _ = write!(text, "{}{after}", if text.is_empty() { " after " } else { " " });
            text
        });
        let _ = writeln!(text, "  {index}: {command}{after}");
    }
    text
}

fn slice(slice: &Slice) -> String {
    format!("m{}[{}..{}]", slice.mem.0, slice.offset, slice.offset.saturating_add(slice.len))
}

fn word(word: &Word, bits: bool) -> String {
    match word {
        Word::Const(value) if bits => format!("{value:#x}"),
        Word::Const(value) => value.to_string(),
        Word::Var(var) => format!("v{var}"),
    }
}
