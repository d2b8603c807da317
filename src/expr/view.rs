//! The texts of step arguments and loops: `x[i, a:b]`, `w as u32` and `0:n`.

use super::ast::{Expr, Span, Subscript};
use super::lex::Token;
use super::parse::{Parser, describe, is_reserved};
use crate::diag::TextError;

/// A tensor, or a part of one, as a step's argument names it.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    pub name: String,
    pub name_span: Span,
    /// One entry per leading dimension; empty for the whole tensor.
    pub index: Vec<Subscript>,
    /// The dtype's name after `as`, and where it stands.
    pub cast: Option<(String, Span)>,
}

/// Parses `x`, `x[i]`, `x[a:b]`, `x[i, a:b]`, each with an optional `as TYPE`.
///
/// *Errors*: anything else, with what would be right there.
pub fn parse_view(text: &str) -> Result<View, TextError> {
    const FORM: &str = "write `x`, `x[i]`, `x[a:b]` or `x[i, a:b]`";
    let mut parser = Parser::new(text)?;
    let (token, name_span) = parser.next();
    let name = match token {
        Token::Word(word) if !is_reserved(word) => word.to_string(),
        found => return Err(TextError::new(name_span, format!("expected a tensor's name, found {}", describe(found))).help(FORM)),
    };
    let index = if parser.peek() == Token::Sign("[") { parser.subscripts()?.0 } else { Vec::new() };
    let mut cast = None;
    if parser.peek() == Token::Word("as") {
        parser.next();
        match parser.next() {
            (Token::Word(word), span) if !is_reserved(word) => cast = Some((word.to_string(), span)),
            (found, span) => {
                return Err(
                    TextError::new(span, format!("expected a dtype after `as`, found {}", describe(found))).help("write `w as u32`")
                );
            }
        }
    }
    match parser.peek() {
        Token::End => Ok(View { name, name_span, index, cast }),
        found => Err(TextError::new(parser.span(), format!("expected the end of the view, found {}", describe(found))).help(FORM)),
    }
}

/// Parses the range of a loop, `a:b`: from `a` up to and without `b`.
///
/// *Errors*: anything else, with what would be right there.
pub fn parse_range(text: &str) -> Result<(Expr, Expr), TextError> {
    let mut parser = Parser::new(text)?;
    let low = parser.expr(0)?.expr;
    if !parser.accept(":") {
        return Err(TextError::new(parser.span(), format!("expected `:` after the start of the range, found {}", describe(parser.peek())))
            .help("write `0:n`"));
    }
    let high = parser.expr(0)?.expr;
    match parser.peek() {
        Token::Sign(":") => Err(TextError::new(parser.span(), "a range has no step").help("write `0:n`")),
        _ => parser.end().map(|()| (low, high)),
    }
}
