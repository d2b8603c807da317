//! Expressions of one number: a tree with its names bound, evaluated per round without allocation.

use super::ast::{Expr, ExprKind, Span};
use super::number::{float_binary, float_compare, float_test, float_unary, gives_int, int_binary, int_to_float, int_unary, to_f64};
use super::ops::{Binary, Class, Fault, Function, Kind, Unary, function};
use super::scope::{Name, Scope, look_up};
use crate::diag::TextError;
use crate::tensor::Number;

/// What a place in a spec takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Exact integers; `/` must come out even.
    Integer,
    /// f64; integers stay exact until they meet a float, `/` or a function.
    Float,
}

/// An expression of one number whose names are bound.
#[derive(Clone, PartialEq, Debug)]
pub struct Scalar {
    node: Node,
    place: Place,
    round: Option<Span>,
}

#[derive(Clone, PartialEq, Debug)]
struct Node {
    span: Span,
    op: Op,
}

#[derive(Clone, PartialEq, Debug)]
enum Op {
    Number(Number),
    Round,
    Unary(Unary, Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
    Where(Box<[Node; 3]>),
}

impl Scalar {
    /// Binds the names of an expression, and computes what no round changes.
    ///
    /// *Errors*: names that are unknown or tensors, functions of tensors, floats in an integer place, and what cannot be computed.
    pub fn bind(expr: &Expr, scope: &dyn Scope, place: Place) -> Result<Scalar, TextError> {
        let mut scalar = Scalar { node: Node { span: 0..0, op: Op::Number(Number::Int(0)) }, place, round: None };
        scalar.node = scalar.node(expr, scope)?;
        match scalar.round {
            None => scalar.node.op = Op::Number(scalar.eval(0)?),
            Some(_) => {
                scalar.node.fold(place);
            }
        }
        Ok(scalar)
    }

    /// Whether the value depends on the round.
    pub fn uses_round(&self) -> bool {
        self.round.is_some()
    }

    /// The value in a round. In an integer place it is a [`Number::Int`].
    ///
    /// *Errors*: overflow, division by zero, `/` that does not come out even.
    pub fn eval(&self, round: u64) -> Result<Number, TextError> {
        self.node.eval(round, self.place)
    }

    fn node(&mut self, expr: &Expr, scope: &dyn Scope) -> Result<Node, TextError> {
        let op = match &expr.kind {
            ExprKind::Number(number) => self.number(*number, &expr.span)?,
            ExprKind::Bool(value) => Op::Number(Number::Int((*value).into())),
            ExprKind::Name(name) => match look_up(scope, name, false, &expr.span)? {
                Name::Number(number) => self.number(number, &expr.span)?,
                Name::Round => {
                    self.round.get_or_insert(expr.span.clone());
                    Op::Round
                }
                Name::Tensor { shape, .. } => {
                    return Err(TextError::new(
                        expr.span.clone(),
                        format!("`{name}` is a tensor of shape {shape}, and this place takes one number"),
                    ));
                }
                Name::Refused(why) => return Err(TextError::new(expr.span.clone(), why)),
            },
            ExprKind::Unary(op, operand) => self.unary(*op, operand, scope)?,
            ExprKind::Binary(op, a, b) => Op::Binary(*op, Box::new(self.node(a, scope)?), Box::new(self.node(b, scope)?)),
            ExprKind::Call { function: name, function_span, args, axis } => {
                self.call(name, function_span, args, axis.as_deref(), scope, &expr.span)?
            }
            ExprKind::Index { .. } => {
                return Err(TextError::new(expr.span.clone(), "an element of a tensor cannot stand here: this place takes one number"));
            }
        };
        Ok(Node { span: expr.span.clone(), op })
    }

    fn number(&self, number: Number, span: &Span) -> Result<Op, TextError> {
        match (self.place, number) {
            (Place::Integer, Number::Float(_)) => {
                let error = TextError::new(span.clone(), format!("{number} is a float, and this place takes an exact integer"));
                Err(match number.to_integer() {
                    Some(whole) => error.help(format!("write `{whole}`")),
                    None => error,
                })
            }
            _ => Ok(Op::Number(number)),
        }
    }

    fn unary(&mut self, op: Unary, operand: &Expr, scope: &dyn Scope) -> Result<Op, TextError> {
        Ok(Op::Unary(op, Box::new(self.node(operand, scope)?)))
    }

    fn call(
        &mut self,
        name: &str,
        name_span: &Span,
        args: &[Expr],
        axis: Option<&Expr>,
        scope: &dyn Scope,
        span: &Span,
    ) -> Result<Op, TextError> {
        let found = function(name, name_span)?;
        if let Some(axis) = axis {
            return Err(TextError::new(axis.span.clone(), format!("`{name}` has no axis here: this place takes one number")));
        }
        let count = |wanted: usize| match args.len() {
            n if n == wanted => Ok(()),
            n => Err(wrong_count(name, &wanted.to_string(), n, span)),
        };
        let op = match found {
            Function::Unary(op) => {
                count(1)?;
                self.unary(op, &args[0], scope)?
            }
            Function::Binary(op) => {
                count(2)?;
                Op::Binary(op, Box::new(self.node(&args[0], scope)?), Box::new(self.node(&args[1], scope)?))
            }
            Function::Extreme(op, _) => {
                let [first, second, rest @ ..] = args else { return Err(wrong_count(name, "at least 2", args.len(), span)) };
                let mut left = Op::Binary(op, Box::new(self.node(first, scope)?), Box::new(self.node(second, scope)?));
                if rest.len() > super::MAX_NESTING {
                    return Err(TextError::new(
                        span.clone(),
                        format!("`{name}` has {} arguments, the most are {}", args.len(), super::MAX_NESTING),
                    ));
                }
                for arg in rest {
                    left = Op::Binary(op, Box::new(Node { span: span.clone(), op: left }), Box::new(self.node(arg, scope)?));
                }
                left
            }
            Function::Clamp => {
                count(3)?;
                let low = Op::Binary(Binary::Max, Box::new(self.node(&args[0], scope)?), Box::new(self.node(&args[1], scope)?));
                Op::Binary(Binary::Min, Box::new(Node { span: span.clone(), op: low }), Box::new(self.node(&args[2], scope)?))
            }
            Function::Where => {
                count(3)?;
                Op::Where(Box::new([self.node(&args[0], scope)?, self.node(&args[1], scope)?, self.node(&args[2], scope)?]))
            }
            Function::Reduce(_)
            | Function::Norm
            | Function::Along(_)
            | Function::Matmul
            | Function::Transpose
            | Function::Reshape
            | Function::Repeat
            | Function::Compress
            | Function::Bincount
            | Function::SegmentSum
            | Function::Index
            | Function::After => {
                return Err(TextError::new(span.clone(), format!("`{name}` is a function of tensors, and this place takes one number")));
            }
        };
        Ok(op)
    }
}

/// The error for a call with the wrong number of arguments.
pub(super) fn wrong_count(name: &str, wanted: &str, got: usize, span: &Span) -> TextError {
    let plural = if wanted == "1" { "" } else { "s" };
    TextError::new(span.clone(), format!("`{name}` takes {wanted} argument{plural}, here it has {got}"))
}

impl Node {
    fn eval(&self, round: u64, place: Place) -> Result<Number, TextError> {
        let fault = |fault: Fault| fault.at(&self.span);
        match &self.op {
            Op::Number(number) => Ok(*number),
            Op::Round => Ok(Number::Int(round.into())),
            Op::Unary(op, operand) => unary(*op, operand.eval(round, place)?, place).map_err(fault),
            Op::Binary(op @ (Binary::And | Binary::Or), a, b) => {
                let stop = *op == Binary::Or;
                if truth(a.eval(round, place)?) == stop {
                    return Ok(Number::Int(stop.into()));
                }
                Ok(Number::Int(truth(b.eval(round, place)?).into()))
            }
            Op::Binary(op, a, b) => binary(*op, a.eval(round, place)?, b.eval(round, place)?, place).map_err(fault),
            Op::Where(parts) => parts[if truth(parts[0].eval(round, place)?) { 1 } else { 2 }].eval(round, place),
        }
    }

    /// Replaces what no round changes by its value; what cannot be computed stays, for it may never be asked for.
    fn fold(&mut self, place: Place) -> bool {
        let constant = match &mut self.op {
            Op::Number(_) => return true,
            Op::Round => false,
            Op::Unary(_, operand) => operand.fold(place),
            Op::Binary(_, a, b) => a.fold(place) & b.fold(place),
            Op::Where(parts) => parts.iter_mut().fold(true, |all, part| part.fold(place) & all),
        };
        let value = constant.then(|| self.eval(0, place).ok()).flatten();
        if let Some(number) = value {
            self.op = Op::Number(number);
        }
        value.is_some()
    }
}

/// The value of an expression in a place that takes an exact integer, the same in every round.
///
/// *Errors*: names that are unknown or tensors, `round`, floats, overflow, division by zero, `/` that does not come out even.
pub fn integer(expr: &Expr, scope: &dyn Scope) -> Result<i128, TextError> {
    let scalar = Scalar::bind(expr, scope, Place::Integer)?;
    if let Some(span) = scalar.round {
        return Err(TextError::new(span, "`round` may not stand here: this place is the same in every round"));
    }
    match scalar.eval(0)? {
        Number::Int(value) => Ok(value),
        Number::Float(value) => Err(TextError::new(expr.span.clone(), format!("{value} is not an exact integer"))),
    }
}

fn truth(number: Number) -> bool {
    match number {
        Number::Int(i) => i != 0,
        Number::Float(f) => f != 0.0,
    }
}

fn kind(number: Number) -> Kind {
    match number {
        Number::Int(_) => Kind::Int,
        Number::Float(_) => Kind::Float,
    }
}

/// One operation on one number.
pub(super) fn unary(op: Unary, x: Number, place: Place) -> Result<Number, Fault> {
    let (class, result) = op.types(kind(x))?;
    if place == Place::Integer && (result == Kind::Float || class == Class::Float) {
        return Err(Fault::Float(op.name()));
    }
    Ok(match (x, op) {
        (Number::Int(i), Unary::Cast(dtype)) if dtype.is_float() => Number::Float(int_to_float(dtype, i)),
        (Number::Int(i), _) if class == Class::Int => Number::Int(int_unary(op, i)?),
        _ if gives_int(op, Class::Float) => Number::Int(float_test(op, number_to_f64(x))),
        _ => Number::Float(float_unary(op, number_to_f64(x))),
    })
}

/// One operation on two numbers.
pub(super) fn binary(op: Binary, a: Number, b: Number, place: Place) -> Result<Number, Fault> {
    if let (Place::Integer, Number::Int(a), Number::Int(b)) = (place, a, b) {
        if op == Binary::PowFloat {
            return Err(Fault::Float("pow"));
        }
        return int_binary(op, a, b).map(Number::Int);
    }
    let (class, result) = op.types(kind(a), kind(b))?;
    if let (Class::Int, Number::Int(a), Number::Int(b)) = (class, a, b) {
        return int_binary(op, a, b).map(Number::Int);
    }
    let (a, b) = (number_to_f64(a), number_to_f64(b));
    Ok(match result {
        Kind::Bool => Number::Int(float_compare(op, a, b).into()),
        // The square is rounded once, in tensors too.
        _ if op == Binary::Pow && b == 2.0 => Number::Float(a * a),
        _ => Number::Float(float_binary(op, a, b)),
    })
}

fn number_to_f64(number: Number) -> f64 {
    match number {
        Number::Int(i) => to_f64(i),
        Number::Float(f) => f,
    }
}
