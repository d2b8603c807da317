//! Turns output bytes and expected blocks into a census: one branch-free pass, and a slow one only where something failed.
//!
//! The fast loops count exactly the elements that [`Tolerance::accepts`] refuses, or more: never fewer.

use super::census::{Census, Mismatch};
use super::tolerance::Tolerance;
use crate::expr::Block;
use crate::tensor::narrow::Narrow;
use crate::tensor::simd::{Level, per_level};
use crate::tensor::{Dtype, Number};

/// Elements of a block at most, and of a pass over converted expectations.
const BLOCK: usize = 1024;

/// Where the elements of a block lie in their tensor; flat, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Places<'a> {
    /// One after the other, from this one on.
    From(u64),
    /// One by one.
    At(&'a [u64]),
}

impl Places<'_> {
    fn of(self, element: usize) -> u64 {
        match self {
            Places::From(first) => first + element as u64,
            Places::At(places) => places[element],
        }
    }
}

/// Compares elements with their expectations and adds what it finds to `census`. Allocates nothing.
///
/// Where the tolerance judges no single element, it only counts what it was given.
///
/// *Shapes*: `got` holds the block's elements, row-major and little-endian.
///
/// *Panics* when `got`, or a list of places, has not as many elements as the block.
pub fn compare(dtype: Dtype, got: &[u8], want: Block<'_>, places: Places<'_>, tolerance: &Tolerance, census: &mut Census) {
    compare_at(Level::detect(), dtype, got, want, places, tolerance, census);
}

fn compare_at(level: Level, dtype: Dtype, got: &[u8], want: Block<'_>, places: Places<'_>, tolerance: &Tolerance, census: &mut Census) {
    let len = match want {
        Block::Int(want) => want.len(),
        Block::Float(want) => want.len(),
    };
    assert_eq!(got.len(), len * dtype.size(), "bytes of {len} elements of {dtype}");
    census.compared += len as u64;
    if !tolerance.is_elementwise() {
        return;
    }
    let clean = match want {
        Block::Float(want) => clean_floats(level, dtype, got, want, tolerance),
        Block::Int(want) => clean_integers(level, dtype, got, want, tolerance),
    };
    if !clean {
        collect(dtype, got, want, places, tolerance, census);
    }
}

/// As [`compare`], with expectations that are elements of the same dtype. Any length.
///
/// *Panics* when the two have different lengths.
pub fn compare_bytes(dtype: Dtype, got: &[u8], want: &[u8], first_index: u64, tolerance: &Tolerance, census: &mut Census) {
    assert_eq!(got.len(), want.len(), "bytes of got and want");
    let (level, size) = (Level::detect(), dtype.size());
    if !dtype.is_float() && got == want {
        census.compared += (got.len() / size) as u64;
        return;
    }
    if tolerance.bitwise {
        return compare_bits(dtype, got, want, first_index, tolerance, census);
    }
    let mut index = first_index;
    for (got, want) in got.chunks(BLOCK * size).zip(want.chunks(BLOCK * size)) {
        let len = got.len() / size;
        if dtype.is_float() {
            let mut values = [0.0; BLOCK];
            widen(level, dtype, want, &mut values);
            compare_at(level, dtype, got, Block::Float(&values[..len]), Places::From(index), tolerance, census);
        } else {
            let mut values = [0; BLOCK];
            for (i, value) in values[..len].iter_mut().enumerate() {
                *value = dtype.decode(dtype.load(want, i)).to_integer().unwrap_or(0);
            }
            compare_at(level, dtype, got, Block::Int(&values[..len]), Places::From(index), tolerance, census);
        }
        index += len as u64;
    }
}

/// As [`compare_bytes`], bit by bit: a payload of NaN need not survive the way to f64.
fn compare_bits(dtype: Dtype, got: &[u8], want: &[u8], first_index: u64, tolerance: &Tolerance, census: &mut Census) {
    let len = got.len() / dtype.size();
    census.compared += len as u64;
    for i in 0..len {
        let (got, want) = (dtype.load(got, i), dtype.load(want, i));
        if !tolerance.accepts_bits(dtype, got, want) {
            census.push(Mismatch::new(dtype, first_index + i as u64, got, dtype.decode(want)), f64::INFINITY);
        }
    }
}

/// Looks at every element of a block in which something may have failed.
#[cold]
fn collect(dtype: Dtype, got: &[u8], want: Block<'_>, places: Places<'_>, tolerance: &Tolerance, census: &mut Census) {
    for i in 0..got.len() / dtype.size() {
        let bits = dtype.load(got, i);
        let want = match want {
            Block::Int(want) => Number::Int(want[i]),
            Block::Float(want) => Number::Float(want[i]),
        };
        let excess = tolerance.excess(dtype, bits, want);
        // What compares with nothing has failed.
        if excess.is_nan() || excess > 1.0 {
            census.push(Mismatch::new(dtype, places.of(i), bits, want), excess);
        }
    }
}

/// Whether every element passes, by the fast loops; `false` also where there is none for the dtype.
fn clean_floats(level: Level, dtype: Dtype, got: &[u8], want: &[f64], tolerance: &Tolerance) -> bool {
    if matches!(dtype, Dtype::I64 | Dtype::U64) {
        // Not every value of theirs is an f64.
        return false;
    }
    let nan = tolerance.nan_equal;
    let mut failed = 0;
    if let Some((rtol, atol)) = tolerance.close()
        && !well_within(level, dtype, got, want, rtol, atol)
    {
        failed += close(level, dtype, got, want, rtol, atol, nan);
    }
    if tolerance.is_exact() {
        failed += exact(level, dtype, got, want, nan);
    }
    if tolerance.bitwise {
        // NaN is judged by its payload, element for element. Integers have one zero.
        failed += if dtype.is_float() { same_bits(level, dtype, got, want) } else { exact(level, dtype, got, want, false) };
    }
    if let Some(ulp) = tolerance.ulp {
        failed += if dtype.is_float() {
            within_ulp(level, dtype, got, want, ulp, nan)
        } else {
            close(level, dtype, got, want, 0.0, ulp as f64, false)
        };
    }
    failed == 0
}

fn clean_integers(level: Level, dtype: Dtype, got: &[u8], want: &[i128], tolerance: &Tolerance) -> bool {
    if !dtype.is_float() {
        // Equal elements pass under every tolerance.
        return equal(level, dtype, got, want) == 0;
    }
    let mut values = [0.0; BLOCK];
    got.chunks(BLOCK * dtype.size()).zip(want.chunks(BLOCK)).all(|(got, want)| {
        let mut exact = true;
        for (value, &want) in values.iter_mut().zip(want) {
            exact &= want.unsigned_abs() <= 1 << 53;
            *value = want as i64 as f64;
        }
        exact && clean_floats(level, dtype, got, &values[..want.len()], tolerance)
    })
}

/// An element type of the fast loops; every value is exact in f64.
trait Element<const SIZE: usize> {
    fn value(bytes: &[u8; SIZE]) -> f64;
    /// A value rounded once to the type.
    fn round(want: f64) -> f64;
    /// A value of the type as its place among the type's values in order, both zeros at 0; NaN and infinities beyond all.
    fn place(value: f64) -> i64;
}

struct F64;
struct F32;
struct Int<T>(std::marker::PhantomData<T>);

#[inline(always)]
fn ordered(magnitude: i64, negative: bool) -> i64 {
    if negative { -magnitude } else { magnitude }
}

impl Element<8> for F64 {
    #[inline(always)]
    fn value(bytes: &[u8; 8]) -> f64 {
        f64::from_le_bytes(*bytes)
    }
    #[inline(always)]
    fn round(want: f64) -> f64 {
        want
    }
    #[inline(always)]
    fn place(value: f64) -> i64 {
        ordered(value.abs().to_bits() as i64, (value.to_bits() as i64) < 0)
    }
}

impl Element<4> for F32 {
    #[inline(always)]
    fn value(bytes: &[u8; 4]) -> f64 {
        f32::from_le_bytes(*bytes).into()
    }
    #[inline(always)]
    fn round(want: f64) -> f64 {
        (want as f32).into()
    }
    #[inline(always)]
    fn place(value: f64) -> i64 {
        ordered((value.abs() as f32).to_bits().into(), value < 0.0)
    }
}

macro_rules! narrow_elements {
    ($($narrow:ident: $size:literal, $bits:ident;)*) => {$(
        struct $narrow;

        impl Element<$size> for $narrow {
            #[inline(always)]
            fn value(bytes: &[u8; $size]) -> f64 {
                Narrow::$narrow.to_f32($bits::from_le_bytes(*bytes).into()).into()
            }
            #[inline(always)]
            fn round(want: f64) -> f64 {
                Narrow::$narrow.round(want)
            }
            #[inline(always)]
            fn place(value: f64) -> i64 {
                ordered(Narrow::$narrow.to_bits(value.abs()).into(), value < 0.0)
            }
        }
    )*};
}
narrow_elements! {
    F16: 2, u16;
    Bf16: 2, u16;
    F8e4m3: 1, u8;
    F8e5m2: 1, u8;
}

macro_rules! integer_elements {
    ($($t:ty: $size:literal),*) => {$(
        impl Element<$size> for Int<$t> {
            #[inline(always)]
            fn value(bytes: &[u8; $size]) -> f64 {
                <$t>::from_le_bytes(*bytes).into()
            }
            #[inline(always)]
            fn round(want: f64) -> f64 {
                want
            }
            #[inline(always)]
            fn place(value: f64) -> i64 {
                value as i64
            }
        }
    )*};
}
integer_elements!(i32: 4, i16: 2, i8: 1, u32: 4, u16: 2, u8: 1);

/// Counts the elements that fail a predicate on (got, want).
#[inline(always)]
fn count<const SIZE: usize, E: Element<SIZE>>(got: &[u8], want: &[f64], passes: impl Fn(f64, f64) -> bool) -> u32 {
    let mut failed = 0;
    for (got, want) in got.as_chunks().0.iter().zip(want) {
        failed += u32::from(!passes(E::value(got), *want));
    }
    failed
}

/// Whether all elements pass a predicate on (got, want).
#[inline(always)]
fn all<const SIZE: usize, E: Element<SIZE>>(got: &[u8], want: &[f64], passes: impl Fn(f64, f64) -> bool) -> bool {
    let mut passed = true;
    for (got, want) in got.as_chunks().0.iter().zip(want) {
        passed &= passes(E::value(got), *want);
    }
    passed
}

/// `count` or `all` with the element type of a dtype.
macro_rules! each_as {
    ($loop:ident, $dtype:expr, $got:expr, $want:expr, $e:ident => $passes:expr, $other:expr) => {
        match $dtype {
            Dtype::F64 => {
                type $e = F64;
                $loop::<8, $e>($got, $want, $passes)
            }
            Dtype::F32 => {
                type $e = F32;
                $loop::<4, $e>($got, $want, $passes)
            }
            Dtype::F16 => {
                type $e = F16;
                $loop::<2, $e>($got, $want, $passes)
            }
            Dtype::Bf16 => {
                type $e = Bf16;
                $loop::<2, $e>($got, $want, $passes)
            }
            Dtype::F8e4m3 => {
                type $e = F8e4m3;
                $loop::<1, $e>($got, $want, $passes)
            }
            Dtype::F8e5m2 => {
                type $e = F8e5m2;
                $loop::<1, $e>($got, $want, $passes)
            }
            Dtype::I32 => {
                type $e = Int<i32>;
                $loop::<4, $e>($got, $want, $passes)
            }
            Dtype::I16 => {
                type $e = Int<i16>;
                $loop::<2, $e>($got, $want, $passes)
            }
            Dtype::I8 => {
                type $e = Int<i8>;
                $loop::<1, $e>($got, $want, $passes)
            }
            Dtype::U32 => {
                type $e = Int<u32>;
                $loop::<4, $e>($got, $want, $passes)
            }
            Dtype::U16 => {
                type $e = Int<u16>;
                $loop::<2, $e>($got, $want, $passes)
            }
            Dtype::U8 | Dtype::Bool => {
                type $e = Int<u8>;
                $loop::<1, $e>($got, $want, $passes)
            }
            // Not exact in f64: `clean_floats` keeps them away, and if it did not, all would be looked at one by one.
            Dtype::I64 | Dtype::U64 => $other,
        }
    };
}

#[inline(always)]
fn both_nan(got: f64, want: f64) -> bool {
    got.is_nan() & want.is_nan()
}

per_level! {
    /// Whether all elements are nearer than their allowance. One that is just as near, or NaN, or infinite, is not:
    /// `close` decides then. What passes here passes there, with half of the work.
    fn well_within(level; dtype: Dtype, got: &[u8], want: &[f64], rtol: f64, atol: f64) -> bool {
        each_as!(all, dtype, got, want, E => |got: f64, want: f64| (got - want).abs() < atol + rtol * want.abs(), false)
    }
}

per_level! {
    fn close(level; dtype: Dtype, got: &[u8], want: &[f64], rtol: f64, atol: f64, nan: bool) -> u32 {
        let passes = |got: f64, want: f64| {
            let allowance = atol + rtol * want.abs();
            // A finite bound refuses an infinite distance also where an infinite expectation made the allowance so.
            // A NaN allowance stays one: nothing is within it.
            let bound = if allowance > f64::MAX { f64::MAX } else { allowance };
            // Equal infinities have a NaN distance.
            ((got - want).abs() <= bound) | (got == want)
        };
        if nan {
            each_as!(count, dtype, got, want, E => |got, want| passes(got, want) | both_nan(got, want), u32::MAX)
        } else {
            each_as!(count, dtype, got, want, E => passes, u32::MAX)
        }
    }
}

per_level! {
    fn exact(level; dtype: Dtype, got: &[u8], want: &[f64], nan: bool) -> u32 {
        each_as!(count, dtype, got, want, E => |got, want| (got == E::round(want)) | (nan & both_nan(got, want)), u32::MAX)
    }
}

per_level! {
    fn same_bits(level; dtype: Dtype, got: &[u8], want: &[f64]) -> u32 {
        each_as!(count, dtype, got, want, E => |got: f64, want: f64| {
            let want = E::round(want);
            // Of numbers that are equal, only the zeros have two patterns of bits.
            let signs_differ = (got.to_bits() ^ want.to_bits()) >> 63 != 0;
            (got == want) & !signs_differ
        }, u32::MAX)
    }
}

per_level! {
    fn within_ulp(level; dtype: Dtype, got: &[u8], want: &[f64], ulp: u64, nan: bool) -> u32 {
        each_as!(count, dtype, got, want, E => |got: f64, want: f64| {
            // f8e4m3 rounds what is too large to NaN, which is not the NaN that was expected.
            let rounded = E::round(want);
            let finite = (got.abs() < f64::INFINITY) & (rounded.abs() < f64::INFINITY);
            let near = E::place(got).abs_diff(E::place(rounded)) <= ulp;
            (finite & near) | (got == rounded) | (nan & both_nan(got, want))
        }, u32::MAX)
    }
}

per_level! {
    /// Turns the elements of a float dtype into f64.
    pub(super) fn widen(level; dtype: Dtype, bytes: &[u8], out: &mut [f64]) {
        #[inline(always)]
        fn go<const SIZE: usize, E: Element<SIZE>>(bytes: &[u8], out: &mut [f64]) {
            out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, bytes)| *out = E::value(bytes));
        }
        match dtype {
            Dtype::F64 => go::<8, F64>(bytes, out),
            Dtype::F32 => go::<4, F32>(bytes, out),
            Dtype::F16 => go::<2, F16>(bytes, out),
            Dtype::Bf16 => go::<2, Bf16>(bytes, out),
            Dtype::F8e4m3 => go::<1, F8e4m3>(bytes, out),
            _ => go::<1, F8e5m2>(bytes, out),
        }
    }
}

per_level! {
    /// Counts the elements of an integer dtype or `bool` that are not their expectation.
    fn equal(level; dtype: Dtype, got: &[u8], want: &[i128]) -> u32 {
        macro_rules! count {
            ($t:ty) => {{
                let mut failed = 0;
                for (got, want) in got.as_chunks().0.iter().zip(want) {
                    let got = <$t>::from_le_bytes(*got) as i128;
                    let differ = (got as u64 ^ *want as u64) | ((got >> 64) as u64 ^ (*want >> 64) as u64);
                    failed += u32::from(differ != 0);
                }
                failed
            }};
        }
        match dtype {
            Dtype::I64 => count!(i64),
            Dtype::I32 => count!(i32),
            Dtype::I16 => count!(i16),
            Dtype::I8 => count!(i8),
            Dtype::U64 => count!(u64),
            Dtype::U32 => count!(u32),
            Dtype::U16 => count!(u16),
            _ => count!(u8),
        }
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
