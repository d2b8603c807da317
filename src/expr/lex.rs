//! Text into tokens: numbers, words and signs, each with its bytes.

use super::ast::Span;
use crate::diag::TextError;
use crate::tensor::Number;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Token<'t> {
    Number(Number),
    Word(&'t str),
    Sign(&'static str),
    End,
}

/// Longer signs stand before their prefixes.
const SIGNS: [&str; 28] = [
    "**", "//", "<<", ">>", "<=", ">=", "==", "!=", "+", "-", "*", "/", "%", "&", "|", "^", "~", "<", ">", "(", ")", "[", "]", ",", ":",
    "=", "{", "}",
];

/// Signs of other languages, and what stands for them here.
const FOREIGN: [(&str, &str); 9] = [
    ("&&", "write `and`"),
    ("||", "write `or`"),
    ("===", "write `==`"),
    ("<>", "write `!=`"),
    ("+=", "an expression assigns nothing"),
    ("->", "an expression has no arrows"),
    ("!", "write `not`, or `!=` for unequal"),
    ("?", "write `where(condition, a, b)`"),
    ("@", "write `matmul(a, b)`"),
];

/// The tokens of a text; the last one is [`Token::End`].
///
/// *Errors*: a character that begins nothing, a sign of another language, a number out of range.
pub(super) fn lex(text: &str) -> Result<Vec<(Token<'_>, Span)>, TextError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let starts_number = first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()));
        let (token, len) = if starts_number {
            let len = number_len(rest);
            (Token::Number(number(&rest[..len], at)?), len)
        } else if first.is_ascii_alphabetic() || first == '_' {
            let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            (Token::Word(&rest[..len]), len)
        } else if let Some((sign, help)) = FOREIGN.iter().find(|(sign, _)| rest.starts_with(sign) && !rest.starts_with("!=")) {
            return Err(TextError::new(at..at + sign.len(), format!("`{sign}` is not an operator")).help(*help));
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            let span = at..at + first.len_utf8();
            let help = if first.is_alphabetic() {
                "names are ASCII letters, digits and `_`"
            } else {
                "an expression has numbers, names and operators"
            };
            return Err(TextError::new(span, format!("unexpected character {first:?}")).help(help));
        };
        tokens.push((token, at..at + len));
        at += len;
    }
    tokens.push((Token::End, text.len()..text.len()));
    Ok(tokens)
}

/// Length of what looks like a number: letters and digits, points, and a sign after an exponent's letter.
fn number_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let hex = text.starts_with("0x") || text.starts_with("0X");
    let mut len = 0;
    while len < bytes.len() {
        let c = bytes[len];
        let exponent = len > 0 && matches!((hex, bytes[len - 1]), (true, b'p' | b'P') | (false, b'e' | b'E'));
        let sign = exponent && matches!(c, b'+' | b'-') && bytes.get(len + 1).is_some_and(u8::is_ascii_digit);
        if !(c.is_ascii_alphanumeric() || c == b'_' || c == b'.' || sign) {
            break;
        }
        len += 1;
    }
    len
}

fn number(word: &str, at: usize) -> Result<Number, TextError> {
    let span = at..at + word.len();
    let malformed = || {
        let error = TextError::new(span.clone(), format!("`{word}` is not a number"));
        let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        match &word[digits..] {
            name if name.starts_with(|c: char| c.is_ascii_alphabetic()) && !word.starts_with("0x") => {
                error.help(format!("write `{} * {name}` for a product", &word[..digits]))
            }
            _ => error.help("numbers look like `12`, `1_000`, `0.5`, `1e-3`, `0xFF` or `0x1.8p-3`"),
        }
    };
    let too_large = || TextError::new(span.clone(), format!("`{word}` is beyond 2^127 - 1, the largest integer"));
    let plain: String = word.chars().filter(|&c| c != '_').collect();
    if word.ends_with('_') || word.contains("__") {
        return Err(malformed());
    }
    if let Some(hex) = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        if hex.contains(['.', 'p', 'P']) {
            return hex_float(hex).map(Number::Float).map_err(|why| match why {
                Some(why) => TextError::new(span.clone(), format!("`{word}` {why}")),
                None => malformed(),
            });
        }
        if hex.is_empty() || !hex.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        return i128::from_str_radix(hex, 16).map(Number::Int).map_err(|_| too_large());
    }
    if plain.bytes().all(|c| c.is_ascii_digit()) {
        return plain.parse().map(Number::Int).map_err(|_| too_large());
    }
    let shaped = plain.bytes().all(|c| matches!(c, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    match plain.parse::<f64>() {
        Ok(value) if shaped && value.is_finite() => Ok(Number::Float(value)),
        Ok(_) if shaped => {
            Err(TextError::new(span, format!("`{word}` is beyond 1.8e308, the largest f64")).help("write `inf` for infinity"))
        }
        _ => Err(malformed()),
    }
}

/// The value of a hexadecimal float without its `0x`: digits, optional point, optional `p` and exponent.
///
/// *Errors*: `None` when it is malformed, else why no f64 is exactly that.
fn hex_float(text: &str) -> Result<f64, Option<String>> {
    let (digits, exponent) = match text.split_once(['p', 'P']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().map_err(|_| None)?),
        None => (text, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all: String = [whole, fraction].concat();
    if all.is_empty() || !all.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(None);
    }
    let trimmed = all.trim_start_matches('0').trim_end_matches('0');
    if trimmed.is_empty() {
        return Ok(0.0);
    }
    let mantissa =
        u128::from_str_radix(trimmed, 16).map_err(|_| Some("has more than 53 significant bits, the most of an f64".to_string()))?;
    let bits = 128 - mantissa.leading_zeros() - mantissa.trailing_zeros();
    if bits > 53 {
        return Err(Some(format!("has {bits} significant bits, an f64 has 53")));
    }
    // Zeros that were trimmed at the end are worth four bits each.
    let trailing = all.len() - all.trim_end_matches('0').len();
    let scale = i64::from(exponent) + 4 * (trailing as i64 - fraction.len() as i64);
    let value = libm::scalbn(mantissa as f64, scale.clamp(-4096, 4096) as i32);
    if value.is_finite() { Ok(value) } else { Err(Some("is beyond 1.8e308, the largest f64".to_string())) }
}
