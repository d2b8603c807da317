//! Tokens into a tree, with Python's precedence (a Pratt parser).

use super::ast::{Expr, ExprKind, Span, Subscript};
use super::lex::{Token, lex};
use super::ops::{Binary, Unary};
use crate::diag::TextError;
use crate::tensor::Number;

/// The deepest nesting of parentheses, calls and prefixes.
pub const MAX_NESTING: usize = 64;
/// The greatest height of a tree; a chain such as `a + b + c` is as high as it has operators.
pub const MAX_DEPTH: usize = 256;

const NOT: u8 = 3;
const COMPARISON: u8 = 4;
const UNARY: u8 = 11;

/// Whether a word has a meaning of its own and can name nothing else.
pub fn is_reserved(word: &str) -> bool {
    matches!(word, "round" | "pi" | "inf" | "nan" | "true" | "false" | "and" | "or" | "not" | "as")
}

/// Parses a whole text as one expression.
///
/// *Errors*: what was found, where, and what would be right there.
pub fn parse(text: &str) -> Result<Expr, TextError> {
    let mut parser = Parser::new(text)?;
    let tree = parser.expr(0)?;
    parser.end()?;
    Ok(tree.expr)
}

/// An expression and the height of its tree.
pub(super) struct Tree {
    pub expr: Expr,
    height: usize,
}

pub(super) struct Parser<'t> {
    tokens: Vec<(Token<'t>, Span)>,
    at: usize,
    nesting: usize,
}

impl<'t> Parser<'t> {
    pub fn new(text: &'t str) -> Result<Parser<'t>, TextError> {
        let tokens = lex(text)?;
        if tokens.len() == 1 {
            return Err(TextError::new(0..text.len(), "empty expression").help("write a number, a name or a formula"));
        }
        Ok(Parser { tokens, at: 0, nesting: 0 })
    }

    pub fn peek(&self) -> Token<'t> {
        self.tokens[self.at].0
    }

    /// The span of the next token.
    pub fn span(&self) -> Span {
        self.tokens[self.at].1.clone()
    }

    /// Takes the next token; the last one, [`Token::End`], stays.
    pub fn next(&mut self) -> (Token<'t>, Span) {
        let token = self.tokens[self.at].clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub fn accept(&mut self, sign: &'static str) -> bool {
        let found = self.peek() == Token::Sign(sign);
        if found {
            self.next();
        }
        found
    }

    /// *Errors*: something stands after a complete expression.
    pub fn end(&self) -> Result<(), TextError> {
        let error = |message: String| Err(TextError::new(self.span(), message));
        match self.peek() {
            Token::End => Ok(()),
            Token::Sign("=") => Err(TextError::new(self.span(), "`=` assigns, and an expression cannot").help("write `==` to compare")),
            Token::Sign(sign @ (")" | "]" | "}")) => error(format!("`{sign}` closes nothing")),
            Token::Sign("[" | "(") | Token::Number(_) | Token::Word(_) => {
                error(format!("expected an operator after {}, found {}", self.previous(), describe(self.peek())))
            }
            token => error(format!("expected the end of the expression after {}, found {}", self.previous(), describe(token))),
        }
    }

    fn previous(&self) -> String {
        self.at.checked_sub(1).map_or("the start".to_string(), |at| describe(self.tokens[at].0))
    }

    /// Parses an expression whose operators bind at least as tightly as `least`.
    pub fn expr(&mut self, least: u8) -> Result<Tree, TextError> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(TextError::new(self.span(), format!("nested deeper than {MAX_NESTING} levels, the most of an expression")));
        }
        let mut left = self.prefix(least)?;
        loop {
            if self.peek() == Token::Sign("[") {
                left = self.index(left)?;
                continue;
            }
            let Some((binary, level)) = binary(self.peek()) else { break };
            if level < least {
                break;
            }
            let (_, span) = self.next();
            // `**` binds to the right, and a sign may stand before its exponent: `2 ** -n`.
            let right = self.expr(if binary == Binary::Pow { UNARY } else { level + 1 })?;
            if level == COMPARISON
                && let Some((_, COMPARISON)) = self::binary(self.peek())
            {
                return Err(TextError::new(span.start..self.span().end, "comparisons do not chain").help("write `a < b and b < c`"));
            }
            let whole = left.expr.span.start..right.expr.span.end;
            let height = left.height.max(right.height);
            left = self.tree(whole, ExprKind::Binary(binary, Box::new(left.expr), Box::new(right.expr)), height)?;
        }
        self.nesting -= 1;
        Ok(left)
    }

    fn tree(&self, span: Span, kind: ExprKind, below: usize) -> Result<Tree, TextError> {
        if below >= MAX_DEPTH {
            return Err(TextError::new(span, format!("more than {MAX_DEPTH} operators applied one after the other"))
                .help("split the expression with parentheses, or over several tensors"));
        }
        Ok(Tree { expr: Expr { span, kind }, height: below + 1 })
    }

    fn prefix(&mut self, least: u8) -> Result<Tree, TextError> {
        let before = self.at.checked_sub(1).map(|at| self.tokens[at].clone());
        let (token, span) = self.next();
        let unary = match token {
            Token::Number(number) => return self.tree(span, ExprKind::Number(number), 0),
            Token::Word("not") => {
                if least > NOT {
                    return Err(TextError::new(span, "`not` binds less tightly than the operator before it").help("write `(not x)`"));
                }
                Some((Unary::Not, NOT))
            }
            Token::Word(word) => return self.word(word, span),
            Token::Sign("-") => Some((Unary::Neg, UNARY)),
            Token::Sign("~") => Some((Unary::Invert, UNARY)),
            Token::Sign("+") => None,
            Token::Sign("(") => {
                let inner = self.expr(0)?;
                let close = self.close("(", ")", &span)?;
                return Ok(Tree { expr: Expr { span: span.start..close.end, kind: inner.expr.kind }, height: inner.height });
            }
            found => {
                let wanted = match before {
                    Some((before, _)) => format!("expected an operand after {}", describe(before)),
                    None => "expected an operand".to_string(),
                };
                let error = TextError::new(span, format!("{wanted}, found {}", describe(found)));
                return Err(match found {
                    Token::Sign("[") => error.help("lists are written where values are given, not in expressions"),
                    _ => error,
                });
            }
        };
        let level = unary.map_or(UNARY, |(_, level)| level);
        let operand = self.expr(level)?;
        let whole = span.start..operand.expr.span.end;
        match unary {
            Some((unary, _)) => self.tree(whole, ExprKind::Unary(unary, Box::new(operand.expr)), operand.height),
            None => Ok(Tree { expr: Expr { span: whole, kind: operand.expr.kind }, height: operand.height }),
        }
    }

    fn word(&mut self, word: &'t str, span: Span) -> Result<Tree, TextError> {
        let kind = match word {
            "pi" => ExprKind::Number(Number::Float(std::f64::consts::PI)),
            "inf" => ExprKind::Number(Number::Float(f64::INFINITY)),
            "nan" => ExprKind::Number(Number::Float(f64::NAN)),
            "true" | "false" => ExprKind::Bool(word == "true"),
            "and" | "or" => return Err(TextError::new(span, format!("expected an operand, found `{word}`"))),
            "as" => {
                return Err(TextError::new(span, "`as` has no meaning inside an expression")
                    .help("write `w as u32` as a step's whole argument, `u32(w)` in a formula"));
            }
            name => {
                if self.peek() == Token::Sign("(") && name != "round" {
                    return self.call(name, span);
                }
                ExprKind::Name(name.to_string())
            }
        };
        self.tree(span, kind, 0)
    }

    fn call(&mut self, function: &str, function_span: Span) -> Result<Tree, TextError> {
        let (_, open) = self.next();
        let (mut args, mut axis, mut height) = (Vec::new(), None, 0);
        while self.peek() != Token::Sign(")") {
            let keyword = match (self.peek(), self.tokens.get(self.at + 1)) {
                (Token::Word(word), Some((Token::Sign("="), _))) => Some(word),
                _ => None,
            };
            if let Some(word) = keyword {
                let (_, span) = self.next();
                self.next();
                if word != "axis" || axis.is_some() {
                    let what = if word == "axis" { "is given twice" } else { "is not a keyword" };
                    return Err(
                        TextError::new(span, format!("`{word}=` {what}")).help("the only keyword is `axis=`; write `==` to compare")
                    );
                }
                let tree = self.expr(0)?;
                height = height.max(tree.height);
                axis = Some(Box::new(tree.expr));
            } else {
                if axis.is_some() {
                    return Err(TextError::new(self.span(), "an argument stands after `axis=`").help("`axis=` comes last"));
                }
                let tree = self.expr(0)?;
                height = height.max(tree.height);
                args.push(tree.expr);
            }
            if !self.accept(",") {
                break;
            }
        }
        let close = self.close("(", ")", &open)?;
        let span = function_span.start..close.end;
        self.tree(span, ExprKind::Call { function: function.to_string(), function_span, args, axis }, height)
    }

    fn index(&mut self, base: Tree) -> Result<Tree, TextError> {
        let (index, close, height) = self.subscripts()?;
        let span = base.expr.span.start..close.end;
        self.tree(span, ExprKind::Index { base: Box::new(base.expr), index }, height.max(base.height))
    }

    /// Parses `[i, a:b]`: its entries, the span of the closing bracket, and the greatest height of an entry.
    pub fn subscripts(&mut self) -> Result<(Vec<Subscript>, Span, usize), TextError> {
        let (_, open) = self.next();
        let (mut index, mut height) = (Vec::new(), 0);
        loop {
            let start = self.span().start;
            let mut bound = |parser: &mut Self| -> Result<Option<Expr>, TextError> {
                if matches!(parser.peek(), Token::Sign(":" | "," | "]")) {
                    return Ok(None);
                }
                let tree = parser.expr(0)?;
                height = height.max(tree.height);
                Ok(Some(tree.expr))
            };
            let low = bound(self)?;
            if self.peek() == Token::Sign(":") {
                let mut end = self.next().1.end;
                let high = bound(self)?;
                if let Some(high) = &high {
                    end = high.span.end;
                }
                if self.peek() == Token::Sign(":") {
                    return Err(TextError::new(self.span(), "a slice has no step").help("write `a:b`"));
                }
                index.push(Subscript::Slice(low, high, start..end));
            } else {
                match low {
                    Some(at) => index.push(Subscript::At(at)),
                    None => {
                        return Err(TextError::new(self.span(), format!("expected an index, found {}", describe(self.peek())))
                            .help("write `x[i]`, `x[a:b]` or `x[i, a:b]`"));
                    }
                }
            }
            if !self.accept(",") {
                break;
            }
        }
        let close = self.close("[", "]", &open)?;
        Ok((index, close, height))
    }

    /// Takes the closing bracket of the one at `open`.
    pub fn close(&mut self, opening: &str, closing: &'static str, open: &Span) -> Result<Span, TextError> {
        let span = self.span();
        if self.accept(closing) {
            return Ok(span);
        }
        let at = open.start + 1;
        Err(match self.peek() {
            Token::End => TextError::new(open.clone(), format!("`{opening}` is never closed")).help(format!("add the missing `{closing}`")),
            Token::Sign("=") => TextError::new(span, "`=` assigns, and an expression cannot").help("write `==` to compare"),
            found => TextError::new(span, format!("expected `{closing}` for the `{opening}` at character {at}, found {}", describe(found))),
        })
    }
}

/// A token as a message shows it.
pub(super) fn describe(token: Token<'_>) -> String {
    match token {
        Token::Number(number) => format!("`{number}`"),
        Token::Word(word) => format!("`{word}`"),
        Token::Sign(sign) => format!("`{sign}`"),
        Token::End => "the end".to_string(),
    }
}

/// The operator that a token stands for between two operands, and how tightly it binds.
fn binary(token: Token<'_>) -> Option<(Binary, u8)> {
    Some(match token {
        Token::Word("or") => (Binary::Or, 1),
        Token::Word("and") => (Binary::And, 2),
        Token::Sign("<") => (Binary::Lt, COMPARISON),
        Token::Sign("<=") => (Binary::Le, COMPARISON),
        Token::Sign(">") => (Binary::Gt, COMPARISON),
        Token::Sign(">=") => (Binary::Ge, COMPARISON),
        Token::Sign("==") => (Binary::Eq, COMPARISON),
        Token::Sign("!=") => (Binary::Ne, COMPARISON),
        Token::Sign("|") => (Binary::BitOr, 5),
        Token::Sign("^") => (Binary::BitXor, 6),
        Token::Sign("&") => (Binary::BitAnd, 7),
        Token::Sign("<<") => (Binary::Shl, 8),
        Token::Sign(">>") => (Binary::Shr, 8),
        Token::Sign("+") => (Binary::Add, 9),
        Token::Sign("-") => (Binary::Sub, 9),
        Token::Sign("*") => (Binary::Mul, 10),
        Token::Sign("/") => (Binary::Div, 10),
        Token::Sign("//") => (Binary::FloorDiv, 10),
        Token::Sign("%") => (Binary::Mod, 10),
        Token::Sign("**") => (Binary::Pow, 12),
        _ => return None,
    })
}
