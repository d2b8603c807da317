//! Kernel parameters: `in f32 x`, `inout f16x8 y`, `u32 n`, `local f32[256] tmp`.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::Dtype;
use crate::diag::TextError;

/// What a kernel may do with a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Not written.
    In,
    /// Nothing of the earlier contents is read.
    Out,
    /// Everything else.
    Inout,
}

impl Access {
    pub fn reads(self) -> bool {
        self != Access::Out
    }

    pub fn writes(self) -> bool {
        self != Access::In
    }

    pub fn name(self) -> &'static str {
        match self {
            Access::In => "in",
            Access::Out => "out",
            Access::Inout => "inout",
        }
    }
}

/// One parameter of a kernel, in launch order.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Param {
    pub name: String,
    pub kind: ParamKind,
    pub dtype: Dtype,
    /// Lanes of one element as the kernel sees it: 1, 2, 3, 4, 8 or 16.
    pub lanes: u32,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    Tensor(Access),
    Scalar,
    /// Block-local scratch of so many elements: an integer expression over dims.
    Local {
        len: String,
        at: Range<usize>,
    },
}

impl Param {
    /// Parses one entry of `params`.
    pub fn parse(text: &str) -> Result<Param, TextError> {
        let err = |span: Range<usize>, message: String, help: &str| TextError {
            span,
            message,
            help: (!help.is_empty()).then(|| help.to_string()),
            unknown: None,
        };
        const FORM: &str =
            "write `in|out|inout TYPE name` for a tensor, `TYPE name` for a scalar, `local TYPE[len] name` for block-local scratch";
        let words = split(text);
        let Some((name, rest)) = words.split_last() else {
            return Err(err(0..text.len(), "empty parameter".into(), FORM));
        };
        let (qualifier, type_word) = match rest {
            [] => return Err(err(name.clone(), format!("`{}` has no type or no name", &text[name.clone()]), FORM)),
            [t] => (None, t.clone()),
            [q, t] => (Some(q.clone()), t.clone()),
            [_, _, extra, ..] => return Err(err(extra.start..name.end, "too many words in a parameter".into(), FORM)),
        };
        let name_text = &text[name.clone()];
        if !is_name(name_text) {
            return Err(err(
                name.clone(),
                format!("`{name_text}` is not a name"),
                "a name is a letter or `_`, then letters, digits or `_`",
            ));
        }
        let type_text = &text[type_word.clone()];
        let (base, len) = match type_text.find('[') {
            Some(open) => {
                if !type_text.ends_with(']') {
                    return Err(err(type_word, format!("`{type_text}` lacks its `]`"), FORM));
                }
                let at = type_word.start + open + 1..type_word.end - 1;
                (&type_text[..open], Some(at))
            }
            None => (type_text, None),
        };
        let base_span = type_word.start..type_word.start + base.len();
        let (dtype, lanes) = parse_type(base, base_span.clone())?;
        let kind = match (qualifier.clone().map(|q| &text[q]), len) {
            (Some("local"), Some(at)) => ParamKind::Local { len: text[at.clone()].to_string(), at },
            (Some("local"), None) => {
                return Err(err(
                    type_word,
                    format!("`local {type_text}` has no length"),
                    &format!("write `local {type_text}[len] {name_text}`"),
                ));
            }
            (_, Some(at)) => {
                return Err(err(
                    at.start - 1..at.end + 1,
                    "only `local` parameters have a length".into(),
                    "a tensor's size is its `shape` under [tensors]",
                ));
            }
            (None, None) => ParamKind::Scalar,
            (Some("in"), None) => ParamKind::Tensor(Access::In),
            (Some("out"), None) => ParamKind::Tensor(Access::Out),
            (Some("inout"), None) => ParamKind::Tensor(Access::Inout),
            (Some(other), None) => {
                let mut e = err(qualifier.unwrap_or(0..0), format!("`{other}` is not an access"), FORM);
                e.unknown = Some((other.to_string(), ["in", "out", "inout", "local"].map(String::from).to_vec()));
                return Err(e);
            }
        };
        Ok(Param { name: name_text.to_string(), kind, dtype, lanes })
    }

    /// Bytes of one element as the kernel sees it, all lanes together.
    pub fn element_bytes(&self) -> u64 {
        self.dtype.size() as u64 * u64::from(self.lanes)
    }
}

impl fmt::Display for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lanes = if self.lanes > 1 { format!("x{}", self.lanes) } else { String::new() };
        match &self.kind {
            ParamKind::Tensor(access) => write!(f, "{} {}{lanes} {}", access.name(), self.dtype, self.name),
            ParamKind::Scalar => write!(f, "{}{lanes} {}", self.dtype, self.name),
            ParamKind::Local { len, .. } => write!(f, "local {}{lanes}[{len}] {}", self.dtype, self.name),
        }
    }
}

/// Whether a text is a name: `[A-Za-z_][A-Za-z0-9_]*`.
pub(super) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn parse_type(text: &str, span: Range<usize>) -> Result<(Dtype, u32), TextError> {
    if let Some(dtype) = Dtype::from_name(text) {
        return Ok((dtype, 1));
    }
    if let Some((base, lanes)) = text.rsplit_once('x')
        && let Some(dtype) = Dtype::from_name(base)
    {
        return match lanes {
            "2" | "3" | "4" | "8" | "16" => Ok((dtype, lanes.parse().unwrap_or(1))),
            _ => Err(TextError {
                span,
                message: format!("`{text}`: {dtype} comes in lanes of 2, 3, 4, 8 and 16"),
                help: None,
                unknown: None,
            }),
        };
    }
    Err(TextError {
        span,
        message: format!("`{text}` is not a dtype"),
        help: Some(format!("dtypes are {}", Dtype::ALL.map(Dtype::name).join(" "))),
        unknown: Some((text.to_string(), Dtype::ALL.map(|d| d.name().to_string()).to_vec())),
    })
}

/// The words of a text; brackets keep their contents together.
fn split(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut depth = 0u32;
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c.is_whitespace() && depth == 0 {
            if let Some(s) = start.take() {
                words.push(s..at);
            }
        } else if start.is_none() {
            start = Some(at);
        }
    }
    if let Some(s) = start {
        words.push(s..text.len());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_parameters() {
        for text in ["in f32 x", "out f16x8 y", "inout u8 z", "u32 n", "f32x3 v", "local f32[256] tmp", "local f16[bm*32] ta"] {
            assert_eq!(Param::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Param::parse("  in   f32  x ").unwrap().to_string(), "in f32 x");
        let local = Param::parse("local f32[a + b] t").unwrap();
        assert_eq!(local.kind, ParamKind::Local { len: "a + b".into(), at: 10..15 });
    }

    #[test]
    fn bad_parameters_name_the_place() {
        for (text, span, part) in [
            ("", 0..0, "empty"),
            ("x", 0..1, "no type"),
            ("in float x", 3..8, "not a dtype"),
            ("inn f32 x", 0..3, "not an access"),
            ("in f32x5 x", 3..8, "lanes of 2"),
            ("in f32 2x", 7..9, "not a name"),
            ("in f32[4] x", 6..9, "only `local`"),
            ("local f32 t", 6..9, "no length"),
            ("in f32 x y", 7..10, "too many"),
        ] {
            let e = Param::parse(text).unwrap_err();
            assert_eq!(e.span, span, "{text}: {}", e.message);
            assert!(e.message.contains(part), "{text}: {}", e.message);
        }
    }
}
