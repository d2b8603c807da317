//! Running a body: each step over a block, compiled once per set of vector instructions.
//!
//! Products and sums are never contracted, so that every machine gives the same values.

use super::body::{Arg, Body, Code, Step};
use super::leaf::{Element, Pick, Source};
use super::stage::Slot;
use super::{Buffer, Inputs};
use crate::diag::TextError;
use crate::expr::number::{
    float_binary, float_compare, float_test, float_to_int, float_unary, int_binary, int_to_float, int_unary, to_f64,
};
use crate::expr::ops::{Binary, Class, Fault, Unary};
use crate::expr::{BLOCK, Block};
use crate::tensor::Dtype;
use crate::tensor::simd::{Level, per_level};

/// A register: one block, on cache lines of its own.
#[repr(align(64))]
#[derive(Clone)]
struct Lane<T>([T; BLOCK]);

/// The block storage of one thread.
#[derive(Clone)]
pub struct Registers {
    // A register is away while a step writes it.
    float: Vec<Option<Box<Lane<f64>>>>,
    int: Vec<Option<Box<Lane<i128>>>>,
}

impl Registers {
    /// So many registers of floats and of integers.
    pub(super) fn new([float, int]: [usize; 2]) -> Registers {
        Registers { float: vec![Some(Box::new(Lane([0.0; BLOCK]))); float], int: vec![Some(Box::new(Lane([0; BLOCK]))); int] }
    }

    /// *Units*: bytes.
    pub(super) fn bytes([float, int]: [usize; 2]) -> u64 {
        (BLOCK * (float * 8 + int * 16)) as u64
    }

    #[inline(always)]
    pub(super) fn float(&self, at: usize) -> &[f64] {
        self.float[at].as_deref().map_or(&[], |lane| &lane.0)
    }

    #[inline(always)]
    pub(super) fn int(&self, at: usize) -> &[i128] {
        self.int[at].as_deref().map_or(&[], |lane| &lane.0)
    }

    /// The result of the block of a body that was computed last.
    #[inline(always)]
    pub(super) fn last(&self, body: &Body, len: usize) -> Block<'_> {
        let result = if let Arg::Register(at) = body.result { at } else { 0 };
        match body.class {
            Class::Float => Block::Float(&self.float(result)[..len]),
            Class::Int => Block::Int(&self.int(result)[..len]),
        }
    }

    /// The first register of a class, filled with one number.
    fn filled(&mut self, class: Class, value: Slot, len: usize) {
        match class {
            Class::Float => self.float.iter_mut().take(1).flatten().for_each(|lane| lane.0[..len].fill(value.float)),
            Class::Int => self.int.iter_mut().take(1).flatten().for_each(|lane| lane.0[..len].fill(value.int)),
        }
    }
}

/// What all blocks of a round read.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub slots: &'a [Slot],
    pub buffers: &'a [Buffer],
    pub inputs: &'a dyn Inputs,
}

/// A float operand of a step.
#[derive(Clone, Copy)]
enum Floats<'a> {
    Block(&'a [f64]),
    One(f64),
    /// Little-endian f32.
    Raw(&'a [[u8; 4]]),
}

/// An integer operand of a step.
#[derive(Clone, Copy)]
enum Ints<'a> {
    Block(&'a [i128]),
    One(i128),
}

/// Runs the steps of a body on elements `start..start + len` (at most 1,024).
///
/// *Errors*: overflow and division by zero of exact integers.
pub(super) fn run(body: &Body, registers: &mut Registers, context: Context<'_>, start: u64, len: usize) -> Result<(), TextError> {
    run_at(Level::detect(), body, registers, context, start, len)
}

/// Elements `start..start + len` (at most 1,024) of a body.
///
/// *Errors*: as [`run`].
pub(super) fn block<'r>(
    body: &Body,
    registers: &'r mut Registers,
    context: Context<'_>,
    start: u64,
    len: usize,
) -> Result<Block<'r>, TextError> {
    if len > 0 {
        run(body, registers, context, start, len)?;
        if let Arg::Slot(slot) = body.result {
            registers.filled(body.class, context.slots[slot], len);
        }
    }
    Ok(registers.last(body, len))
}

per_level! {
    fn run_at(level; of: &Body, registers: &mut Registers, context: Context<'_>, start: u64, len: usize) -> Result<(), TextError> {
        run_steps(of, registers, context, start, len)
    }
}

#[inline(always)]
fn run_steps(body: &Body, registers: &mut Registers, context: Context<'_>, start: u64, len: usize) -> Result<(), TextError> {
    for step in &body.steps {
        match step.code.result() {
            Class::Float => {
                let Some(mut lane) = registers.float[step.into].take() else { continue };
                float_step(step, &mut lane.0[..len], body, registers, context, start);
                registers.float[step.into] = Some(lane);
            }
            Class::Int => {
                let Some(mut lane) = registers.int[step.into].take() else { continue };
                let done = int_step(step, &mut lane.0[..len], body, registers, context, start);
                registers.int[step.into] = Some(lane);
                done.map_err(|fault| fault.at(&step.span))?;
            }
        }
    }
    Ok(())
}

#[inline(always)]
fn float_step(step: &Step, dst: &mut [f64], body: &Body, registers: &Registers, context: Context<'_>, start: u64) {
    let len = dst.len();
    let float = |at: usize| floats(step.args[at], body, registers, context, start, len);
    let int = |at: usize| ints(step.args[at], registers, context, len);
    macro_rules! unary {
        ($op:expr; $($known:pat => $value:expr),*) => {
            match $op {
                $($known => map(dst, float(0), |x| float_unary($value, x)),)*
                other => map(dst, float(0), |x| float_unary(other, x)),
            }
        };
    }
    match step.code {
        Code::LoadFloat(leaf) => body.leaves[leaf].load(dst, start, context.inputs, context.buffers),
        Code::GatherFloat(source) => pick(dst, source, int(0), context),
        Code::ToFloat => map_ints(dst, int(0), to_f64),
        Code::IntToFloat(dtype) => map_ints(dst, int(0), |x| int_to_float(dtype, x)),
        Code::FloatToFloat(op) => unary!(op;
            Unary::Neg => Unary::Neg, Unary::Abs => Unary::Abs, Unary::Sign => Unary::Sign, Unary::Square => Unary::Square,
            Unary::Floor => Unary::Floor, Unary::Ceil => Unary::Ceil, Unary::Rint => Unary::Rint, Unary::Sqrt => Unary::Sqrt,
            Unary::Rsqrt => Unary::Rsqrt, Unary::Relu => Unary::Relu, Unary::Cast(Dtype::F32) => Unary::Cast(Dtype::F32),
            Unary::Cast(Dtype::F16) => Unary::Cast(Dtype::F16), Unary::Cast(Dtype::Bf16) => Unary::Cast(Dtype::Bf16),
            Unary::Cast(Dtype::F8e4m3) => Unary::Cast(Dtype::F8e4m3), Unary::Cast(Dtype::F8e5m2) => Unary::Cast(Dtype::F8e5m2)),
        Code::Float(op) => match op {
            Binary::Add => zip_raw(dst, float(0), float(1), |a, b| a + b),
            Binary::Sub => zip_raw(dst, float(0), float(1), |a, b| a - b),
            Binary::Mul => zip_raw(dst, float(0), float(1), |a, b| a * b),
            Binary::Div => zip(dst, float(0), float(1), |a, b| a / b),
            Binary::Min => zip(dst, float(0), float(1), |a, b| float_binary(Binary::Min, a, b)),
            Binary::Max => zip(dst, float(0), float(1), |a, b| float_binary(Binary::Max, a, b)),
            other => zip(dst, float(0), float(1), |a, b| float_binary(other, a, b)),
        },
        _ => choose_floats(dst, int(0), float(1), float(2)),
    }
}

#[inline(always)]
fn int_step(step: &Step, dst: &mut [i128], body: &Body, registers: &Registers, context: Context<'_>, start: u64) -> Result<(), Fault> {
    let len = dst.len();
    let float = |at: usize| floats(step.args[at], body, registers, context, start, len);
    let int = |at: usize| ints(step.args[at], registers, context, len);
    macro_rules! checked {
        ($op:expr; $($known:ident)*) => {
            match $op {
                $(Binary::$known => try_zip(dst, int(0), int(1), |a, b| int_binary(Binary::$known, a, b))?,)*
                other => try_zip(dst, int(0), int(1), |a, b| int_binary(other, a, b))?,
            }
        };
    }
    macro_rules! compared {
        ($op:expr; $($known:ident)*) => {
            match $op {
                $(Binary::$known => zip(dst, float(0), float(1), |a, b| float_compare(Binary::$known, a, b).into()),)*
                other => zip(dst, float(0), float(1), |a, b| float_compare(other, a, b).into()),
            }
        };
    }
    match step.code {
        Code::LoadInt(leaf) => body.leaves[leaf].load(dst, start, context.inputs, context.buffers),
        Code::GatherInt(source) => pick(dst, source, int(0), context),
        Code::Within(extent) => {
            let inside = |x: i128| if (0..i128::from(extent)).contains(&x) { Ok(x) } else { Err(Fault::Index(x, extent)) };
            match int(0) {
                Ints::Block(xs) => {
                    for (d, &x) in dst.iter_mut().zip(xs) {
                        *d = inside(x)?;
                    }
                }
                Ints::One(x) => dst.fill(inside(x)?),
            }
        }
        Code::FloatToInt(Unary::Cast(dtype)) => map(dst, float(0), |x| float_to_int(dtype, x)),
        Code::FloatToInt(Unary::IsFinite) => map(dst, float(0), |x| x.is_finite().into()),
        Code::FloatToInt(op) => map(dst, float(0), |x| float_test(op, x)),
        Code::IntToInt(op) => match int(0) {
            Ints::Block(xs) => {
                for (d, &x) in dst.iter_mut().zip(xs) {
                    *d = int_unary(op, x)?;
                }
            }
            Ints::One(x) => dst.fill(int_unary(op, x)?),
        },
        Code::Int(op) => checked!(op; Add Sub Mul FloorDiv Mod BitAnd BitOr BitXor Shl Shr Lt Le Gt Ge Eq Ne And Or Min Max),
        Code::FloatCompare(op) => compared!(op; Lt Le Gt Ge Eq Ne),
        _ => choose_ints(dst, int(0), int(1), int(2)),
    }
    Ok(())
}

/// The elements of a source at positions within it.
#[inline(always)]
fn pick<T: Element>(dst: &mut [T], source: Source, at: Ints<'_>, context: Context<'_>) {
    match at {
        Ints::Block(positions) => source.elements(context.inputs, context.buffers, Pick { dst, positions }),
        Ints::One(position) => {
            if let Some((first, rest)) = dst.split_first_mut() {
                let one = std::slice::from_mut(first);
                source.elements(context.inputs, context.buffers, Pick { dst: one, positions: &[position] });
                rest.fill(*first);
            }
        }
    }
}

#[inline(always)]
fn floats<'a>(arg: Arg, body: &Body, registers: &'a Registers, context: Context<'a>, start: u64, len: usize) -> Floats<'a> {
    match arg {
        Arg::Register(at) => Floats::Block(&registers.float(at)[..len]),
        Arg::Slot(at) => Floats::One(context.slots[at].float),
        Arg::Leaf(leaf) => {
            let (bytes, position) = body.leaves[leaf].raw(start, context.inputs);
            Floats::Raw(&bytes.as_chunks().0[position..position + len])
        }
        Arg::None => Floats::One(0.0),
    }
}

#[inline(always)]
fn ints<'a>(arg: Arg, registers: &'a Registers, context: Context<'a>, len: usize) -> Ints<'a> {
    match arg {
        Arg::Register(at) => Ints::Block(&registers.int(at)[..len]),
        Arg::Slot(at) => Ints::One(context.slots[at].int),
        Arg::Leaf(_) | Arg::None => Ints::One(0),
    }
}

#[inline(always)]
fn widen(raw: [u8; 4]) -> f64 {
    f32::from_le_bytes(raw).into()
}

#[inline(always)]
fn map<T: Copy>(dst: &mut [T], x: Floats<'_>, f: impl Fn(f64) -> T) {
    match x {
        Floats::Block(xs) => dst.iter_mut().zip(xs).for_each(|(d, &x)| *d = f(x)),
        Floats::Raw(xs) => dst.iter_mut().zip(xs).for_each(|(d, &x)| *d = f(widen(x))),
        Floats::One(x) => dst.fill(f(x)),
    }
}

#[inline(always)]
fn map_ints(dst: &mut [f64], x: Ints<'_>, f: impl Fn(i128) -> f64) {
    match x {
        Ints::Block(xs) => dst.iter_mut().zip(xs).for_each(|(d, &x)| *d = f(x)),
        Ints::One(x) => dst.fill(f(x)),
    }
}

#[inline(always)]
fn zip<T: Copy>(dst: &mut [T], a: Floats<'_>, b: Floats<'_>, f: impl Fn(f64, f64) -> T) {
    match (a, b) {
        (Floats::Block(a), Floats::Block(b)) => dst.iter_mut().zip(a.iter().zip(b)).for_each(|(d, (&a, &b))| *d = f(a, b)),
        (Floats::Block(a), Floats::One(b)) => dst.iter_mut().zip(a).for_each(|(d, &a)| *d = f(a, b)),
        (Floats::One(a), Floats::Block(b)) => dst.iter_mut().zip(b).for_each(|(d, &b)| *d = f(a, b)),
        (Floats::One(a), Floats::One(b)) => dst.fill(f(a, b)),
        // Only sums, differences and products read leaves; they go through `zip_raw`.
        (Floats::Raw(_), _) | (_, Floats::Raw(_)) => {}
    }
}

#[inline(always)]
fn zip_raw(dst: &mut [f64], a: Floats<'_>, b: Floats<'_>, f: impl Fn(f64, f64) -> f64 + Copy) {
    match (a, b) {
        (Floats::Raw(a), Floats::Raw(b)) => dst.iter_mut().zip(a.iter().zip(b)).for_each(|(d, (&a, &b))| *d = f(widen(a), widen(b))),
        (Floats::Raw(a), Floats::Block(b)) => dst.iter_mut().zip(a.iter().zip(b)).for_each(|(d, (&a, &b))| *d = f(widen(a), b)),
        (Floats::Block(a), Floats::Raw(b)) => dst.iter_mut().zip(a.iter().zip(b)).for_each(|(d, (&a, &b))| *d = f(a, widen(b))),
        (Floats::Raw(a), Floats::One(b)) => dst.iter_mut().zip(a).for_each(|(d, &a)| *d = f(widen(a), b)),
        (Floats::One(a), Floats::Raw(b)) => dst.iter_mut().zip(b).for_each(|(d, &b)| *d = f(a, widen(b))),
        _ => zip(dst, a, b, f),
    }
}

#[inline(always)]
fn try_zip(dst: &mut [i128], a: Ints<'_>, b: Ints<'_>, f: impl Fn(i128, i128) -> Result<i128, Fault>) -> Result<(), Fault> {
    match (a, b) {
        (Ints::Block(a), Ints::Block(b)) => dst.iter_mut().zip(a.iter().zip(b)).try_for_each(|(d, (&a, &b))| f(a, b).map(|x| *d = x)),
        (Ints::Block(a), Ints::One(b)) => dst.iter_mut().zip(a).try_for_each(|(d, &a)| f(a, b).map(|x| *d = x)),
        (Ints::One(a), Ints::Block(b)) => dst.iter_mut().zip(b).try_for_each(|(d, &b)| f(a, b).map(|x| *d = x)),
        (Ints::One(a), Ints::One(b)) => f(a, b).map(|x| dst.fill(x)),
    }
}

#[inline(always)]
fn choose_floats(dst: &mut [f64], c: Ints<'_>, a: Floats<'_>, b: Floats<'_>) {
    let value = |x: Floats<'_>, at: usize| match x {
        Floats::Block(xs) => xs[at],
        Floats::One(x) => x,
        Floats::Raw(xs) => widen(xs[at]),
    };
    match (c, a, b) {
        (Ints::One(c), ..) => map(dst, if c != 0 { a } else { b }, |x| x),
        (Ints::Block(c), Floats::Block(a), Floats::Block(b)) => {
            dst.iter_mut().zip(c.iter().zip(a.iter().zip(b))).for_each(|(d, (&c, (&a, &b)))| *d = if c != 0 { a } else { b });
        }
        (Ints::Block(c), a, b) => {
            for (at, (d, &c)) in dst.iter_mut().zip(c).enumerate() {
                *d = if c != 0 { value(a, at) } else { value(b, at) };
            }
        }
    }
}

#[inline(always)]
fn choose_ints(dst: &mut [i128], c: Ints<'_>, a: Ints<'_>, b: Ints<'_>) {
    let value = |x: Ints<'_>, at: usize| match x {
        Ints::Block(xs) => xs[at],
        Ints::One(x) => x,
    };
    for (at, d) in dst.iter_mut().enumerate() {
        *d = if value(c, at) != 0 { value(a, at) } else { value(b, at) };
    }
}

/// One step on single numbers.
///
/// *Errors*: as the step's.
pub(super) fn one(code: Code, args: [Arg; 3], slots: &[Slot]) -> Result<Slot, Fault> {
    let arg = |at: usize| match args[at] {
        Arg::Slot(slot) => slots[slot],
        _ => Slot::default(),
    };
    let [a, b, c] = [arg(0), arg(1), arg(2)];
    Ok(match code {
        // These are steps of blocks only.
        Code::LoadFloat(_) | Code::LoadInt(_) | Code::GatherFloat(_) | Code::GatherInt(_) => Slot::default(),
        Code::Within(extent) if !(0..i128::from(extent)).contains(&a.int) => return Err(Fault::Index(a.int, extent)),
        Code::Within(_) => a,
        Code::ToFloat => Slot::float(a.float),
        Code::FloatToFloat(op) => Slot::float(float_unary(op, a.float)),
        Code::FloatToInt(op) => Slot::int(float_test(op, a.float)),
        Code::IntToInt(op) => Slot::int(int_unary(op, a.int)?),
        Code::IntToFloat(dtype) => Slot::float(int_to_float(dtype, a.int)),
        Code::Float(op) => Slot::float(float_binary(op, a.float, b.float)),
        Code::FloatCompare(op) => Slot::int(float_compare(op, a.float, b.float).into()),
        Code::Int(op) => Slot::int(int_binary(op, a.int, b.int)?),
        Code::WhereFloat => Slot::float(if a.int != 0 { b.float } else { c.float }),
        Code::WhereInt => Slot::int(if a.int != 0 { b.int } else { c.int }),
    })
}
