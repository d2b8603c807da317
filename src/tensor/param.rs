//! Kernel parameters: `in f32 x`, `inout f16x8 y`, `u32 n`, `local f32[256] tmp`, `struct dims { u32 m, u32 n } d`, `null`.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::{Dtype, Struct, type_name};
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
    /// Empty for `null`.
    pub name: String,
    pub kind: ParamKind,
    /// Of one lane; of a struct and of `null` it is `u8`.
    pub dtype: Dtype,
    /// Lanes of one element as the kernel sees it: 1, 2, 3, 4, 8 or 16.
    pub lanes: u32,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    Tensor(Access),
    /// By value; with lanes a vector.
    Scalar,
    /// Block-local scratch of so many elements: an integer expression over dims.
    Local {
        len: String,
        at: Range<usize>,
    },
    /// By value.
    Struct(Struct),
    /// A null pointer.
    Null,
}

/// Dtypes under names of the spec's own.
pub trait NamedTypes {
    /// The dtype of a name: `None` for no such name, `Some(None)` where the name's own mistake is reported.
    fn get(&self, name: &str) -> Option<Option<Dtype>>;
    fn names(&self) -> Vec<String>;
}

/// No names but those of the dtypes.
struct Plain;

impl NamedTypes for Plain {
    fn get(&self, _: &str) -> Option<Option<Dtype>> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

const FORM: &str = "write `in|out|inout TYPE name` for a tensor, `TYPE name` for a scalar, `local TYPE[len] name` for block-local scratch, \
`struct tag { TYPE name, ... } name` for a struct by value, `null` for a null pointer";
const STRUCT_FORM: &str = "write `struct tag { u32 n, f32 alpha } name`";
const NAME_FORM: &str = "a name is a letter or `_`, then letters, digits or `_`";

fn err(span: Range<usize>, message: String, help: &str) -> TextError {
    TextError { span, message, help: (!help.is_empty()).then(|| help.to_string()), unknown: None }
}

impl Param {
    /// Parses one entry of `params`.
    pub fn parse(text: &str) -> Result<Param, TextError> {
        Param::parse_with(text, &Plain)
    }

    /// Parses one entry of `params`, whose types may have these names.
    pub fn parse_with(text: &str, types: &dyn NamedTypes) -> Result<Param, TextError> {
        if text.trim() == "null" {
            return Ok(Param { name: String::new(), kind: ParamKind::Null, dtype: Dtype::U8, lanes: 1 });
        }
        if text.trim_start().strip_prefix("struct").is_some_and(|rest| rest.starts_with(|c: char| c == '{' || c.is_whitespace())) {
            return parse_struct(text, types);
        }
        let words = split(text, 0..text.len());
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
            return Err(err(name.clone(), format!("`{name_text}` is not a name"), NAME_FORM));
        }
        let type_text = &text[type_word.clone()];
        if type_text == "null" {
            return Err(err(
                name.clone(),
                format!("`null` is a null pointer and takes no name, here it has `{name_text}`"),
                "write `null` alone",
            ));
        }
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
        let (dtype, lanes) = parse_type(base, base_span.clone(), types)?;
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
        let ty = type_name(self.dtype, self.lanes);
        match &self.kind {
            ParamKind::Tensor(access) => write!(f, "{} {ty} {}", access.name(), self.name),
            ParamKind::Scalar => write!(f, "{ty} {}", self.name),
            ParamKind::Local { len, .. } => write!(f, "local {ty}[{len}] {}", self.name),
            ParamKind::Struct(layout) => write!(f, "{layout} {}", self.name),
            ParamKind::Null => f.write_str("null"),
        }
    }
}

/// `struct tag { TYPE name, ... } name`; the tag may be left out.
fn parse_struct(text: &str, types: &dyn NamedTypes) -> Result<Param, TextError> {
    let start = text.len() - text.trim_start().len() + "struct".len();
    let Some(open) = text.find('{') else {
        return Err(err(start..text.len(), "a struct without its fields".into(), STRUCT_FORM));
    };
    let Some(close) = text.rfind('}').filter(|&close| close > open) else {
        return Err(err(open..text.len(), "a `{` without its `}`".into(), STRUCT_FORM));
    };
    let tag = match split(text, start..open).as_slice() {
        [] => None,
        [tag] if is_name(&text[tag.clone()]) => Some(text[tag.clone()].to_string()),
        [tag] => return Err(err(tag.clone(), format!("`{}` is not a name", &text[tag.clone()]), NAME_FORM)),
        [first, .., last] => return Err(err(first.start..last.end, "a struct has one tag".into(), STRUCT_FORM)),
    };
    let mut fields: Vec<(String, Dtype, u32)> = Vec::new();
    let mut from = open + 1;
    for part in text[open + 1..close].split(',') {
        let span = from..from + part.len();
        from = span.end + 1;
        let (ty, name) = match split(text, span.clone()).as_slice() {
            [] if text[open + 1..close].trim().is_empty() => {
                return Err(err(open..close + 1, "a struct without fields".into(), STRUCT_FORM));
            }
            [] => return Err(err(span, "a field is empty".into(), "fields are `TYPE name`, with a comma between two of them")),
            [word] => {
                return Err(err(
                    word.clone(),
                    format!("the field `{}` has no type or no name", &text[word.clone()]),
                    "a field is `TYPE name`",
                ));
            }
            [ty, name] => (ty.clone(), name.clone()),
            [first, .., last] => {
                return Err(err(
                    first.start..last.end,
                    format!("`{}` is not a field", text[first.start..last.end].trim()),
                    "a field is `TYPE name`, TYPE a dtype with lanes if need be; fields are separated by commas",
                ));
            }
        };
        let name_text = &text[name.clone()];
        if !is_name(name_text) {
            return Err(err(name, format!("`{name_text}` is not a name"), NAME_FORM));
        }
        if let Some(bracket) = text[ty.clone()].find('[') {
            return Err(err(ty.start + bracket..ty.end, "a field has no length".into(), "up to 16 elements are lanes, such as `f32x4`"));
        }
        if fields.iter().any(|(other, ..)| other == name_text) {
            return Err(err(name, format!("two fields are called `{name_text}`"), ""));
        }
        let (dtype, lanes) = parse_type(&text[ty.clone()], ty, types)?;
        fields.push((name_text.to_string(), dtype, lanes));
    }
    let name = match split(text, close + 1..text.len()).as_slice() {
        [] => return Err(err(close..close + 1, "a struct parameter without a name".into(), STRUCT_FORM)),
        [name] if is_name(&text[name.clone()]) => text[name.clone()].to_string(),
        [name] => return Err(err(name.clone(), format!("`{}` is not a name", &text[name.clone()]), NAME_FORM)),
        [_, extra, ..] => return Err(err(extra.start..text.len(), "too many words in a parameter".into(), STRUCT_FORM)),
    };
    Ok(Param { name, kind: ParamKind::Struct(Struct::new(tag, fields)), dtype: Dtype::U8, lanes: 1 })
}

/// Whether a text is a name: `[A-Za-z_][A-Za-z0-9_]*`.
pub(super) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn parse_type(text: &str, span: Range<usize>, types: &dyn NamedTypes) -> Result<(Dtype, u32), TextError> {
    let known = |name: &str| Dtype::from_name(name).map(Some).or_else(|| types.get(name));
    let reported = |dtype: Option<Dtype>| dtype.ok_or_else(|| TextError::new(span.clone(), String::new()));
    if let Some(dtype) = known(text) {
        return Ok((reported(dtype)?, 1));
    }
    if let Some((base, lanes)) = text.rsplit_once('x')
        && let Some(dtype) = known(base)
    {
        return match lanes {
            "2" | "3" | "4" | "8" | "16" => Ok((reported(dtype)?, lanes.parse().unwrap_or(1))),
            _ => Err(err(span, format!("`{text}`: {base} comes in lanes of 2, 3, 4, 8 and 16"), "")),
        };
    }
    let dtypes = Dtype::ALL.map(|d| d.name().to_string()).to_vec();
    let mut e = err(span, format!("`{text}` is not a dtype"), &format!("dtypes are {}", dtypes.join(" ")));
    e.unknown = Some((text.to_string(), [types.names(), dtypes].concat()));
    Err(e)
}

/// The words of a part of a text; brackets keep their contents together.
fn split(text: &str, part: Range<usize>) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut depth = 0u32;
    for (at, c) in text[part.clone()].char_indices().map(|(at, c)| (part.start + at, c)) {
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
        words.push(s..part.end);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_parameters() {
        for text in [
            "in f32 x",
            "out f16x8 y",
            "inout u8 z",
            "u32 n",
            "f32x3 v",
            "local f32[256] tmp",
            "local f16[bm*32] ta",
            "null",
            "struct dims { u32 m, f32x4 alpha } p",
            "struct { u8 a } p",
        ] {
            assert_eq!(Param::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Param::parse("  in   f32  x ").unwrap().to_string(), "in f32 x");
        assert_eq!(Param::parse(" struct{u32 m , f32 a}p").unwrap().to_string(), "struct { u32 m, f32 a } p");
        let local = Param::parse("local f32[a + b] t").unwrap();
        assert_eq!(local.kind, ParamKind::Local { len: "a + b".into(), at: 10..15 });
    }

    struct OneType;

    impl NamedTypes for OneType {
        fn get(&self, name: &str) -> Option<Option<Dtype>> {
            match name {
                "T" => Some(Some(Dtype::F16)),
                "Broken" => Some(None),
                _ => None,
            }
        }

        fn names(&self) -> Vec<String> {
            vec!["T".into()]
        }
    }

    #[test]
    fn types_have_names_of_their_own() {
        for (text, plain) in [
            ("in T x", "in f16 x"),
            ("Tx4 x", "f16x4 x"),
            ("local T[8] x", "local f16[8] x"),
            ("struct { T a, Tx2 b } p", "struct { f16 a, f16x2 b } p"),
        ] {
            assert_eq!(Param::parse_with(text, &OneType).unwrap().to_string(), plain);
        }
        assert_eq!(Param::parse_with("in Broken x", &OneType).unwrap_err().message, "");
        let unknown = Param::parse_with("in t x", &OneType).unwrap_err().unknown.unwrap();
        assert_eq!((unknown.0.as_str(), unknown.1[0].as_str()), ("t", "T"));
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
            ("null p", 5..6, "no name"),
            ("struct dims p", 6..13, "without its fields"),
            ("struct dims { u32 n p", 12..21, "without its `}`"),
            ("struct a b { u32 n } p", 7..10, "one tag"),
            ("struct 2d { u32 n } p", 7..9, "not a name"),
            ("struct {} p", 7..9, "without fields"),
            ("struct { u32 n, } p", 15..16, "a field is empty"),
            ("struct { n } p", 9..10, "no type or no name"),
            ("struct { u32 n f32 a } p", 9..20, "not a field"),
            ("struct { uint n } p", 9..13, "not a dtype"),
            ("struct { u32 n, f32 n } p", 20..21, "two fields"),
            ("struct { u32 2n } p", 13..15, "not a name"),
            ("struct { f32[4] n } p", 12..15, "no length"),
            ("struct { u32 n }", 15..16, "without a name"),
            ("struct { u32 n } p q", 19..20, "too many"),
        ] {
            let e = Param::parse(text).unwrap_err();
            assert_eq!(e.span, span, "{text}: {}", e.message);
            assert!(e.message.contains(part), "{text}: {}", e.message);
        }
    }
}
