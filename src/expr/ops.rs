//! The operators and functions of the language: their names, and what kinds they take and give.

use super::ast::Span;
use crate::diag::TextError;
use crate::tensor::Dtype;

/// What the elements of a value are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// 0 or 1.
    Bool,
    /// Exact, within i128.
    Int,
    /// f64.
    Float,
}

/// What an operation computes in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Class {
    Int,
    Float,
}

impl Kind {
    pub(super) fn class(self) -> Class {
        if self == Kind::Float { Class::Float } else { Class::Int }
    }
}

/// An operation of one operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unary {
    Neg,
    Not,
    Invert,
    Abs,
    Sign,
    Floor,
    Ceil,
    Rint,
    Sqrt,
    Rsqrt,
    Exp,
    Log,
    Log2,
    Sin,
    Cos,
    Tan,
    Tanh,
    Erf,
    Sigmoid,
    Relu,
    Gelu,
    IsFinite,
    IsNan,
    Square,
    /// Rounds once to a float dtype, wraps to an integer dtype, or asks whether it is not zero.
    Cast(Dtype),
}

/// An operation of two operands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    /// `**`: exact between integers.
    Pow,
    /// `pow(a, b)`: always f64.
    PowFloat,
    BitAnd,
    BitOr,
    BitXor,
    Shl,
    Shr,
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
    And,
    Or,
    Min,
    Max,
    Cdiv,
}

/// How a reduction folds many elements into one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Fold {
    Sum,
    Mean,
    Min,
    Max,
    Prod,
    Any,
    All,
    /// The position of the first smallest or greatest element; of the first NaN, where there is one.
    ArgMin,
    ArgMax,
}

/// What is computed along an axis, and leaves as many elements as there were.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Along {
    Cumsum,
    Sort,
    Softmax,
}

/// What a name before `(` means.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Function {
    Unary(Unary),
    Binary(Binary),
    /// `min` and `max`: of one argument a reduction, of more the elementwise one.
    Extreme(Binary, Fold),
    Reduce(Fold),
    Where,
    Clamp,
    Matmul,
    Transpose,
    Index,
    Norm,
    Along(Along),
    Reshape,
    Repeat,
    Compress,
    Bincount,
    SegmentSum,
    /// The contents of a tensor at the end of the round.
    After,
}

const FUNCTIONS: [(&str, Function); 51] = [
    ("abs", Function::Unary(Unary::Abs)),
    ("after", Function::After),
    ("all", Function::Reduce(Fold::All)),
    ("any", Function::Reduce(Fold::Any)),
    ("argmax", Function::Reduce(Fold::ArgMax)),
    ("argmin", Function::Reduce(Fold::ArgMin)),
    ("bincount", Function::Bincount),
    ("cdiv", Function::Binary(Binary::Cdiv)),
    ("ceil", Function::Unary(Unary::Ceil)),
    ("clamp", Function::Clamp),
    ("compress", Function::Compress),
    ("cos", Function::Unary(Unary::Cos)),
    ("cumsum", Function::Along(Along::Cumsum)),
    ("erf", Function::Unary(Unary::Erf)),
    ("exp", Function::Unary(Unary::Exp)),
    ("floor", Function::Unary(Unary::Floor)),
    ("gelu", Function::Unary(Unary::Gelu)),
    ("index", Function::Index),
    ("isfinite", Function::Unary(Unary::IsFinite)),
    ("isnan", Function::Unary(Unary::IsNan)),
    ("log", Function::Unary(Unary::Log)),
    ("log2", Function::Unary(Unary::Log2)),
    ("matmul", Function::Matmul),
    ("max", Function::Extreme(Binary::Max, Fold::Max)),
    ("mean", Function::Reduce(Fold::Mean)),
    ("min", Function::Extreme(Binary::Min, Fold::Min)),
    ("norm", Function::Norm),
    ("pow", Function::Binary(Binary::PowFloat)),
    ("prod", Function::Reduce(Fold::Prod)),
    ("relu", Function::Unary(Unary::Relu)),
    ("repeat", Function::Repeat),
    ("reshape", Function::Reshape),
    ("rint", Function::Unary(Unary::Rint)),
    ("rsqrt", Function::Unary(Unary::Rsqrt)),
    ("segment_sum", Function::SegmentSum),
    ("sigmoid", Function::Unary(Unary::Sigmoid)),
    ("sign", Function::Unary(Unary::Sign)),
    ("sin", Function::Unary(Unary::Sin)),
    ("softmax", Function::Along(Along::Softmax)),
    ("sort", Function::Along(Along::Sort)),
    ("sqrt", Function::Unary(Unary::Sqrt)),
    ("sum", Function::Reduce(Fold::Sum)),
    ("tan", Function::Unary(Unary::Tan)),
    ("tanh", Function::Unary(Unary::Tanh)),
    ("transpose", Function::Transpose),
    ("where", Function::Where),
    // Casts of the dtypes that are asked for most; `Dtype::from_name` knows all of them.
    ("bf16", Function::Unary(Unary::Cast(Dtype::Bf16))),
    ("bool", Function::Unary(Unary::Cast(Dtype::Bool))),
    ("f16", Function::Unary(Unary::Cast(Dtype::F16))),
    ("f32", Function::Unary(Unary::Cast(Dtype::F32))),
    ("f64", Function::Unary(Unary::Cast(Dtype::F64))),
];

/// The names that may stand before `(`.
pub fn function_names() -> Vec<String> {
    let mut names: Vec<String> = FUNCTIONS.iter().map(|(name, _)| name.to_string()).collect();
    names.extend(Dtype::ALL.iter().map(|dtype| dtype.name().to_string()).filter(|name| !FUNCTIONS.iter().any(|(known, _)| known == name)));
    names
}

/// The function of that name.
///
/// *Errors*: an unknown name, with the names that are known.
pub(super) fn function(name: &str, span: &Span) -> Result<Function, TextError> {
    if let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == name) {
        return Ok(*function);
    }
    if let Some(dtype) = Dtype::from_name(name) {
        return Ok(Function::Unary(Unary::Cast(dtype)));
    }
    let error = TextError::new(span.clone(), format!("`{name}` is not a function"));
    Err(match name {
        "bits" => error.help("`bits(0x7fc00001)` stands alone, as a value; it has no meaning inside a formula"),
        _ => error.unknown(name, function_names()),
    })
}

impl Unary {
    /// The operation as specs write it.
    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg => "-",
            Unary::Not => "not",
            Unary::Invert => "~",
            Unary::Square => "**",
            Unary::Cast(dtype) => dtype.name(),
            _ => FUNCTIONS.iter().find(|(_, f)| *f == Function::Unary(self)).map_or("function", |(name, _)| name),
        }
    }

    /// What an operand of that kind is computed in, and what comes out.
    ///
    /// *Errors*: the operation does not take that kind.
    pub(super) fn types(self, operand: Kind) -> Result<(Class, Kind), Fault> {
        let class = operand.class();
        let number = operand.max(Kind::Int);
        Ok(match self {
            Unary::Neg | Unary::Abs | Unary::Sign | Unary::Square | Unary::Relu | Unary::Floor | Unary::Ceil | Unary::Rint => {
                (class, number)
            }
            Unary::Not => (class, Kind::Bool),
            Unary::Invert if operand == Kind::Float => return Err(Fault::NeedsIntegers("~")),
            Unary::Invert => (class, operand),
            Unary::IsFinite | Unary::IsNan => (Class::Float, Kind::Bool),
            Unary::Cast(Dtype::Bool) => (class, Kind::Bool),
            Unary::Cast(dtype) => (class, if dtype.is_float() { Kind::Float } else { Kind::Int }),
            _ => (Class::Float, Kind::Float),
        })
    }
}

impl Binary {
    /// The operation as specs write it.
    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "+",
            Binary::Sub => "-",
            Binary::Mul => "*",
            Binary::Div => "/",
            Binary::FloorDiv => "//",
            Binary::Mod => "%",
            Binary::Pow => "**",
            Binary::PowFloat => "pow",
            Binary::BitAnd => "&",
            Binary::BitOr => "|",
            Binary::BitXor => "^",
            Binary::Shl => "<<",
            Binary::Shr => ">>",
            Binary::Lt => "<",
            Binary::Le => "<=",
            Binary::Gt => ">",
            Binary::Ge => ">=",
            Binary::Eq => "==",
            Binary::Ne => "!=",
            Binary::And => "and",
            Binary::Or => "or",
            Binary::Min => "min",
            Binary::Max => "max",
            Binary::Cdiv => "cdiv",
        }
    }

    pub(super) fn compares(self) -> bool {
        matches!(self, Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge | Binary::Eq | Binary::Ne)
    }

    /// What operands of these kinds are computed in, and what comes out.
    ///
    /// *Errors*: the operation does not take these kinds.
    pub(super) fn types(self, a: Kind, b: Kind) -> Result<(Class, Kind), Fault> {
        let number = a.max(b).max(Kind::Int);
        Ok(match self {
            Binary::Div | Binary::PowFloat => (Class::Float, Kind::Float),
            Binary::BitAnd | Binary::BitOr | Binary::BitXor | Binary::Shl | Binary::Shr | Binary::Cdiv if number == Kind::Float => {
                return Err(Fault::NeedsIntegers(self.name()));
            }
            Binary::BitAnd | Binary::BitOr | Binary::BitXor => (Class::Int, a.max(b)),
            Binary::And | Binary::Or => (Class::Int, Kind::Bool),
            _ if self.compares() => (number.class(), Kind::Bool),
            _ => (number.class(), number),
        })
    }
}

/// Why an operation on numbers has no result.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Fault {
    Overflow(&'static str),
    DivisionByZero(&'static str),
    Uneven(i128, i128),
    Shift(i128),
    NegativeExponent(i128),
    /// An index, and the extent that it lies outside of.
    Index(i128, u64),
    NeedsIntegers(&'static str),
    /// A result that is a float, in a place for integers.
    Float(&'static str),
}

impl Fault {
    /// The fault as an error at the operation's place in the text.
    pub fn at(self, span: &Span) -> TextError {
        let new = |message: String| TextError::new(span.clone(), message);
        match self {
            Fault::Overflow(op) => new(format!("`{op}` overflows: the result is beyond 127 bits, the most of an exact integer")),
            Fault::DivisionByZero(op) => new(format!("`{op}` divides by zero")),
            Fault::Uneven(a, b) => new(format!("{a} / {b} is not whole")).help("write `//` to round down or `cdiv(a, b)` to round up"),
            Fault::Shift(by) => new(format!("shift by {by} is out of range (0 to 126)")),
            Fault::NegativeExponent(by) => {
                new(format!("integer power with the negative exponent {by}")).help("write `pow(a, b)` or a float base such as `2.0`")
            }
            Fault::Index(at, extent) => {
                let error = new(format!("index {at} is out of range for the extent {extent}"));
                if at < 0 { error.help("negative positions do not count from the end") } else { error }
            }
            Fault::NeedsIntegers("^") => {
                new("`^` is bitwise xor and takes integers, here it has a float".into()).help("write `**` for power, or cast with `i64(x)`")
            }
            Fault::NeedsIntegers(op) => new(format!("`{op}` takes integers, here it has a float")).help("cast with `i64(x)`"),
            Fault::Float(op) => new(format!("`{op}` gives a float, and this place takes an exact integer")),
        }
    }
}
