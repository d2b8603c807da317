//! A spec's text, and where in it a place lies.

use std::ops::Range;

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::{Key, Part, Place};

/// A spec's text with the name that messages call it.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// A place as people and editors count it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Located {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Source {
    /// The byte range of a place. The longest part of its path that exists is taken; the whole file has an empty range at 0.
    pub fn span(&self, place: &Place) -> Range<usize> {
        if let Part::Bytes(span) = &place.part {
            return span.clone();
        }
        // A text that has reached semantic checks parses; one that does not has its own spans.
        let Ok(root) = DeTable::parse(&self.text) else { return 0..0 };
        self.span_in(root.get_ref(), place)
    }

    fn span_in(&self, root: &DeTable<'_>, place: &Place) -> Range<usize> {
        let mut span = 0..0;
        let mut key_span = 0..0;
        let mut whole = !place.path.is_empty();
        let mut table = Some(root);
        let mut value: Option<&DeValue<'_>> = None;
        for key in &place.path {
            let next = match (key, table, value) {
                (Key::Name(name), Some(table), _) => table.get_key_value(name.as_str()).map(|(k, v)| (k.span(), v)),
                (Key::Index(index), None, Some(DeValue::Array(items))) => items.get(*index).map(|v| (v.span(), v)),
                _ => None,
            };
            let Some((at, found)) = next else {
                whole = false;
                break;
            };
            key_span = at;
            span = found.span();
            value = Some(found.get_ref());
            table = match found.get_ref() {
                DeValue::Table(inner) => Some(inner),
                _ => None,
            };
        }
        match &place.part {
            // A table's own span covers its header alone; its key is as good a place.
            Part::Key => key_span,
            Part::Inside(inner) if whole => self.inside(span, inner.clone()),
            _ => span,
        }
    }

    /// Maps a range of a string's content to the text, past its quotes and escapes.
    fn inside(&self, span: Range<usize>, inner: Range<usize>) -> Range<usize> {
        let Some(raw) = self.text.get(span.clone()) else { return span };
        let quote = match raw.as_bytes().first() {
            Some(b'"') if raw.starts_with("\"\"\"") && raw.len() >= 6 => 3,
            Some(b'\'') if raw.starts_with("'''") && raw.len() >= 6 => 3,
            Some(b'"' | b'\'') => 1,
            _ => return span,
        };
        if raw.contains('\\') && raw.starts_with('"') {
            return span;
        }
        // TOML drops a newline right after three opening quotes.
        let newline = match &raw[quote..] {
            rest if quote == 3 && rest.starts_with("\r\n") => 2,
            rest if quote == 3 && rest.starts_with('\n') => 1,
            _ => 0,
        };
        let base = span.start + quote + newline;
        let last = span.end.saturating_sub(quote).max(base);
        let clamp = |at: usize| {
            let mut at = (base + at).min(last);
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        clamp(inner.start)..clamp(inner.end)
    }

    /// Line and column of a byte position.
    pub fn locate(&self, at: usize) -> Located {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        Located { file: self.name.clone(), line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, path: &[Key], part: Part) -> String {
        let source = Source { name: "t".into(), text: text.into() };
        let span = source.span(&Place { path: path.to_vec(), part });
        source.text[span].to_string()
    }

    #[test]
    fn places_are_found_by_key_path() {
        let text = "a = 1\n[t.x]\nshape = [\"n\", 'm + 1']\n[[s]]\nk = '''\nab'''\n[[s]]\ne = \"a\\tb\"\n";
        assert_eq!(at(text, &["a".into()], Part::Key), "a");
        assert_eq!(at(text, &["a".into()], Part::Value), "1");
        let shape: &[Key] = &["t".into(), "x".into(), "shape".into(), 1.into()];
        assert_eq!(at(text, shape, Part::Value), "'m + 1'");
        assert_eq!(at(text, shape, Part::Inside(4..5)), "1");
        assert_eq!(at(text, shape, Part::Inside(4..500)), "1");
        assert_eq!(at(text, &["s".into(), 0.into(), "k".into()], Part::Inside(1..2)), "b");
        assert_eq!(at(text, &["s".into(), 1.into(), "e".into()], Part::Inside(1..2)), "\"a\\tb\"");
        assert_eq!(at(text, &["t".into(), "x".into(), "none".into()], Part::Value), "[t.x]");
        assert_eq!(at(text, &["none".into()], Part::Key), "");
    }
}
