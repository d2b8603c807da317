//! Turns (source, key, time, element index) into element bytes, in any pieces and in any order.

use super::normal;
use super::philox::{Draw, Key};
use super::source::Source;
use crate::tensor::narrow::Narrow;
use crate::tensor::simd::{Level, per_level};
use crate::tensor::{Dtype, Number};

/// Elements per pass over the scratch words on the stack.
const CHUNK: usize = 512;

/// Fills `out` with elements `first..` of a tensor. Allocates nothing; any split into calls gives the same bytes.
///
/// `time` is the round, or [`super::EVERY_ROUND`] for contents that are the same in every round. `source` has passed
/// [`super::validate`] for `dtype` and a tensor of at least `first + out.len() / dtype.size()` elements.
///
/// Of element `i`, `w0` is word `i % 4` of Philox block (i / 4, `time`, draw 0), `w1` that of draw 1, and
/// `d = w0 * 2^32 + w1`. All operations round to nearest, and none are fused.
///
/// - `Uniform`, f32: `min(l + s * k, b)` in f32, with `k = w0 >> 8`, `l = f32(low)`, `s = f32(high - low) * 2^-24`, and
///   `b` the largest f32 below `high`, but at least `l`. f64: the same in f64 with `k = d >> 11` and `2^-53`.
///   Narrower floats: the f32 draw rounded, then at most the largest value of the dtype below `high`, but at least `l` rounded.
/// - `Normal`: `mean + std * q(p)` in f64, `q` the inverse of the distribution function (AS 241), with
///   `p = (w0 + 0.5) * 2^-32`, rounded to f32 and from there to a narrower dtype; f64: `p = ((d >> 12) + 0.5) * 2^-52`.
/// - `Integers`: `low + floor(d * n / 2^64)` with `n = high - low + 1`; any dtype.
///
/// *Panics* when `out` is no whole number of elements.
pub fn fill(source: &Source, dtype: Dtype, key: Key, time: u32, first: u64, out: &mut [u8]) {
    fill_at(Level::detect(), source, dtype, key, time, first, out);
}

pub(super) fn fill_at(level: Level, source: &Source, dtype: Dtype, key: Key, time: u32, first: u64, out: &mut [u8]) {
    let size = dtype.size();
    assert!(out.len().is_multiple_of(size), "{} bytes are no whole number of {dtype}", out.len());
    let random = Random { level, key, time, first };
    match source {
        Source::Fill(bits) => constant(*bits, size, out),
        Source::Values(bytes) => out.copy_from_slice(part(bytes, size, first, out.len())),
        Source::Repeat(bytes) => repeat(bytes, size, first, out),
        Source::Program(_) => debug_assert!(false, "a program is evaluated where the contents that it names are"),
        Source::File(npy) => out.copy_from_slice(part(npy.bytes(), size, first, out.len())),
        Source::Range { start, step } => range(level, *start, *step, dtype, first, out),
        Source::Uniform { low, high } => match dtype {
            Dtype::F32 => {
                let draw = Uniform32::new(*low, *high);
                for (i, chunk) in out.chunks_mut(4 * 1024).enumerate() {
                    random.draw(0).words(level, first + 1024 * i as u64, chunk);
                    uniform_f32(level, draw, draw.fuses(level), chunk);
                }
            }
            Dtype::F64 => {
                let draw = Uniform64::new(*low, *high);
                random.words64(size, out, |w0, w1, out| uniform_f64(level, draw, w0, w1, out));
            }
            _ => {
                let draw = UniformNarrow::new(Narrow::of(dtype).unwrap_or(Narrow::F16), *low, *high);
                random.words32(size, out, |w0, out| uniform_narrow(level, draw, w0, out));
            }
        },
        Source::Normal { mean, std } => match dtype {
            Dtype::F64 => random.words64(size, out, |w0, w1, out| normal_f64(level, *mean, *std, w0, w1, out)),
            _ => random.words32(size, out, |w0, out| normal_narrower(level, *mean, *std, dtype, w0, out)),
        },
        Source::Integers { low, high } => {
            // `n - 1` always fits: it is 2^64 - 1 for a whole 64-bit dtype.
            let (low, span) = (*low as u64, (high - low) as u64);
            match u32::try_from(span) {
                Ok(span) => random.integers(size, out, low, span, dtype),
                Err(_) => random.words64(size, out, |w0, w1, out| integers_wide(level, low, span, dtype, w0, w1, out)),
            }
        }
    }
}

/// A random order of `0..n`, the same for the same seed and epoch: Fisher-Yates from the key of name "sets".
///
/// For `i` from `n - 1` down to 1, elements `i` and `floor(d * (i + 1) / 2^64)` change places, with `d` as in [`fill`] of
/// element `i` at time `epoch`.
///
/// *Panics* when `out` has not `n` elements.
pub fn permutation(seed: u64, epoch: u32, n: u32, out: &mut [u32]) {
    assert_eq!(out.len(), n as usize, "a permutation of {n} into {} places", out.len());
    for (i, slot) in (0..n).zip(out.iter_mut()) {
        *slot = i;
    }
    let key = Key::new(seed, "sets");
    for i in (1..n).rev() {
        let word = |draw| u64::from(Draw { key, time: epoch, draw }.word(i.into()));
        let d = word(0) << 32 | word(1);
        let j = (u128::from(d) * u128::from(i + 1)) >> 64;
        out.swap(i as usize, j as usize);
    }
}

/// The random words of consecutive elements.
#[derive(Clone, Copy)]
struct Random {
    level: Level,
    key: Key,
    time: u32,
    first: u64,
}

impl Random {
    fn draw(self, draw: u32) -> Draw {
        Draw { key: self.key, time: self.time, draw }
    }

    /// Calls `convert` with draw 0 of up to [`CHUNK`] elements and the elements' bytes, until all are done.
    fn words32(self, size: usize, out: &mut [u8], mut convert: impl FnMut(&[u8], &mut [u8])) {
        let mut w0 = [0u8; 4 * CHUNK];
        for (i, out) in out.chunks_mut(size * CHUNK).enumerate() {
            let (first, len) = (self.first + (i * CHUNK) as u64, out.len() / size * 4);
            self.draw(0).words(self.level, first, &mut w0[..len]);
            convert(&w0[..len], out);
        }
    }

    /// As `words32`, with draws 0 and 1.
    fn words64(self, size: usize, out: &mut [u8], mut convert: impl FnMut(&[u8], &[u8], &mut [u8])) {
        let (mut w0, mut w1) = ([0u8; 4 * CHUNK], [0u8; 4 * CHUNK]);
        for (i, out) in out.chunks_mut(size * CHUNK).enumerate() {
            let (first, len) = (self.first + (i * CHUNK) as u64, out.len() / size * 4);
            self.draw(0).words(self.level, first, &mut w0[..len]);
            self.draw(1).words(self.level, first, &mut w1[..len]);
            convert(&w0[..len], &w1[..len], out);
        }
    }

    /// The second word matters to few results or none: it is drawn only for chunks in which it could.
    fn integers(self, size: usize, out: &mut [u8], low: u64, span: u32, dtype: Dtype) {
        let (mut w0, mut w1) = ([0u8; 4 * CHUNK], [0u8; 4 * CHUNK]);
        for (i, out) in out.chunks_mut(size * CHUNK).enumerate() {
            let (first, len) = (self.first + (i * CHUNK) as u64, out.len() / size * 4);
            self.draw(0).words(self.level, first, &mut w0[..len]);
            if !integers_by_one(self.level, low, span, dtype, &w0[..len], out) {
                self.draw(1).words(self.level, first, &mut w1[..len]);
                integers_by_two(self.level, low, span, dtype, &w0[..len], &w1[..len], out);
            }
        }
    }
}

fn part(bytes: &[u8], size: usize, first: u64, len: usize) -> &[u8] {
    let at = first as usize * size;
    &bytes[at..at + len]
}

fn constant(bits: u64, size: usize, out: &mut [u8]) {
    #[inline(always)]
    fn go<const SIZE: usize>(bits: u64, out: &mut [u8]) {
        let mut element = [0; SIZE];
        element.copy_from_slice(&bits.to_le_bytes()[..SIZE]);
        out.as_chunks_mut::<SIZE>().0.fill(element);
    }
    match size {
        1 => out.fill(bits as u8),
        2 => go::<2>(bits, out),
        4 => go::<4>(bits, out),
        _ => go::<8>(bits, out),
    }
}

fn repeat(bytes: &[u8], size: usize, first: u64, out: &mut [u8]) {
    if out.is_empty() {
        return;
    }
    let mut at = (first % (bytes.len() / size) as u64) as usize * size;
    let mut out = out;
    while !out.is_empty() {
        let len = out.len().min(bytes.len() - at);
        let (head, rest) = out.split_at_mut(len);
        head.copy_from_slice(&bytes[at..at + len]);
        (out, at) = (rest, 0);
    }
}

fn range(level: Level, start: Number, step: Number, dtype: Dtype, first: u64, out: &mut [u8]) {
    match (start.to_integer(), step.to_integer()) {
        // The values fit the dtype, so their low 64 bits are all there is to them.
        (Some(start), Some(step)) if !dtype.is_float() => range_integer(level, start as u64, step as u64, dtype, first, out),
        _ => range_float(level, start.to_f64(), step.to_f64(), dtype, first, out),
    }
}

#[inline(always)]
fn word(bytes: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*bytes)
}

/// Writes one element per item: its value as f64, rounded once to a float dtype.
#[inline(always)]
fn store_floats(values: impl Iterator<Item = f64>, dtype: Dtype, out: &mut [u8]) {
    match dtype {
        Dtype::F64 => out.as_chunks_mut().0.iter_mut().zip(values).for_each(|(o, v)| *o = v.to_le_bytes()),
        Dtype::F32 => out.as_chunks_mut().0.iter_mut().zip(values).for_each(|(o, v)| *o = (v as f32).to_le_bytes()),
        Dtype::F16 => store_narrow::<2>(values, Narrow::F16, out),
        Dtype::Bf16 => store_narrow::<2>(values, Narrow::Bf16, out),
        Dtype::F8e4m3 => store_narrow::<1>(values, Narrow::F8e4m3, out),
        _ => store_narrow::<1>(values, Narrow::F8e5m2, out),
    }
}

#[inline(always)]
fn store_narrow<const SIZE: usize>(values: impl Iterator<Item = f64>, narrow: Narrow, out: &mut [u8]) {
    out.as_chunks_mut().0.iter_mut().zip(values).for_each(|(o, v)| *o = low_bytes::<SIZE>(narrow.to_bits(narrow.round(v))));
}

/// The low byte of a pattern, or both.
#[inline(always)]
fn low_bytes<const SIZE: usize>(bits: u16) -> [u8; SIZE] {
    let bytes = bits.to_le_bytes();
    std::array::from_fn(|i| bytes[i])
}

/// Writes one element per item: the low bytes of a word, or for a float dtype the signed number that it is.
#[inline(always)]
fn store_integers(values: impl Iterator<Item = u64>, dtype: Dtype, out: &mut [u8]) {
    match dtype {
        _ if dtype.is_float() => store_floats(values.map(|v| v as i64 as f64), dtype, out),
        _ if dtype.size() == 1 => out.iter_mut().zip(values).for_each(|(o, v)| *o = v as u8),
        _ if dtype.size() == 2 => out.as_chunks_mut().0.iter_mut().zip(values).for_each(|(o, v)| *o = (v as u16).to_le_bytes()),
        _ if dtype.size() == 4 => out.as_chunks_mut().0.iter_mut().zip(values).for_each(|(o, v)| *o = (v as u32).to_le_bytes()),
        _ => out.as_chunks_mut().0.iter_mut().zip(values).for_each(|(o, v)| *o = v.to_le_bytes()),
    }
}

per_level! {
    fn range_integer(level; start: u64, step: u64, dtype: Dtype, first: u64, out: &mut [u8]) {
        let count = (out.len() / dtype.size()) as u64;
        store_integers((0..count).map(|i| start.wrapping_add(step.wrapping_mul(first + i))), dtype, out);
    }
}

per_level! {
    fn range_float(level; start: f64, step: f64, dtype: Dtype, first: u64, out: &mut [u8]) {
        let count = (out.len() / dtype.size()) as u64;
        store_floats((0..count).map(|i| start + step * (first + i) as f64), dtype, out);
    }
}

/// A uniform draw in f32: `min(low + step * k, limit)`.
#[derive(Clone, Copy)]
struct Uniform32 {
    low: f32,
    step: f32,
    limit: f32,
}

impl Uniform32 {
    fn new(low: f64, high: f64) -> Uniform32 {
        let rounded = high as f32;
        let below = if f64::from(rounded) < high { rounded } else { rounded.next_down() };
        let low32 = low as f32;
        Uniform32 { low: low32, step: (high - low) as f32 * 2f32.powi(-24), limit: if below < low32 { low32 } else { below } }
    }

    #[inline(always)]
    fn value(self, word: u32) -> f32 {
        let value = self.unlimited(word);
        if value < self.limit { value } else { self.limit }
    }

    #[inline(always)]
    fn unlimited(self, word: u32) -> f32 {
        self.low + self.step * ((word >> 8) as i32 as f32)
    }

    /// The same number in one operation, where the product is exact.
    #[inline(always)]
    fn fused(self, word: u32) -> f32 {
        self.step.mul_add((word >> 8) as i32 as f32, self.low)
    }

    /// Whether `fused` gives `value`, and in one instruction. A power of two times k is exact: k has 24 bits.
    fn fuses(self, level: Level) -> bool {
        let bits = self.step.to_bits();
        bits & 0x007F_FFFF == 0 && bits != 0 && self.stays_below() && level.fuses()
    }

    /// Whether no draw comes to the limit: draws grow with their word.
    fn stays_below(self) -> bool {
        self.unlimited(u32::MAX) <= self.limit
    }
}

per_level! {
    /// Turns words into uniform f32 in place.
    fn uniform_f32(level; draw: Uniform32, fused: bool, out: &mut [u8]) {
        let words = out.as_chunks_mut().0;
        if fused {
            words.iter_mut().for_each(|bytes| *bytes = draw.fused(word(bytes)).to_le_bytes());
        } else if draw.stays_below() {
            words.iter_mut().for_each(|bytes| *bytes = draw.unlimited(word(bytes)).to_le_bytes());
        } else {
            words.iter_mut().for_each(|bytes| *bytes = draw.value(word(bytes)).to_le_bytes());
        }
    }
}

#[derive(Clone, Copy)]
struct UniformNarrow {
    narrow: Narrow,
    draw: Uniform32,
    limit: f64,
}

impl UniformNarrow {
    fn new(narrow: Narrow, low: f64, high: f64) -> UniformNarrow {
        let draw = Uniform32::new(low, high);
        let rounded = narrow.round(high);
        let below = if rounded < high { rounded } else { next_down(narrow, rounded) };
        UniformNarrow { narrow, draw, limit: below.max(narrow.round(draw.low.into())) }
    }
}

/// The largest value of the format below a finite value of it.
fn next_down(narrow: Narrow, value: f64) -> f64 {
    let bits = narrow.to_bits(value);
    let below = match bits & narrow.sign() != 0 {
        // Below both zeros is the smallest negative subnormal.
        _ if bits & !narrow.sign() == 0 => narrow.sign() | 1,
        true => bits + 1,
        false => bits - 1,
    };
    f64::from(narrow.to_f32(below))
}

per_level! {
    fn uniform_narrow(level; draw: UniformNarrow, w0: &[u8], out: &mut [u8]) {
        macro_rules! draws {
            ($size:literal, $narrow:expr) => {
                for (out, w0) in out.as_chunks_mut::<$size>().0.iter_mut().zip(w0.as_chunks().0) {
                    let value = $narrow.round(draw.draw.value(word(w0)).into());
                    let value = if value < draw.limit { value } else { draw.limit };
                    *out = low_bytes($narrow.to_bits(value));
                }
            };
        }
        match draw.narrow {
            Narrow::F16 => draws!(2, Narrow::F16),
            Narrow::Bf16 => draws!(2, Narrow::Bf16),
            Narrow::F8e4m3 => draws!(1, Narrow::F8e4m3),
            Narrow::F8e5m2 => draws!(1, Narrow::F8e5m2),
        }
    }
}

/// A uniform draw in f64: `min(low + step * k, limit)`.
#[derive(Clone, Copy)]
struct Uniform64 {
    low: f64,
    step: f64,
    limit: f64,
}

impl Uniform64 {
    fn new(low: f64, high: f64) -> Uniform64 {
        Uniform64 { low, step: (high - low) * 2f64.powi(-53), limit: high.next_down().max(low) }
    }
}

#[inline(always)]
fn word64(w0: &[u8; 4], w1: &[u8; 4]) -> u64 {
    u64::from(word(w0)) << 32 | u64::from(word(w1))
}

per_level! {
    fn uniform_f64(level; draw: Uniform64, w0: &[u8], w1: &[u8], out: &mut [u8]) {
        for ((out, w0), w1) in out.as_chunks_mut().0.iter_mut().zip(w0.as_chunks().0).zip(w1.as_chunks().0) {
            let value = draw.low + draw.step * ((word64(w0, w1) >> 11) as i64 as f64);
            *out = (if value < draw.limit { value } else { draw.limit }).to_le_bytes();
        }
    }
}

per_level! {
    fn normal_f64(level; mean: f64, std: f64, w0: &[u8], w1: &[u8], out: &mut [u8]) {
        for ((out, w0), w1) in out.as_chunks_mut().0.iter_mut().zip(w0.as_chunks().0).zip(w1.as_chunks().0) {
            let p = ((word64(w0, w1) >> 12) as i64 as f64 + 0.5) * (1.0 / 4_503_599_627_370_496.0);
            *out = (mean + std * normal::inverse::<true>(p)).to_le_bytes();
        }
    }
}

per_level! {
    fn normal_narrower(level; mean: f64, std: f64, dtype: Dtype, w0: &[u8], out: &mut [u8]) {
        // In passes over a few values: one loop with formula and conversion is too long to be vectorised.
        const PASS: usize = 64;
        let mut values = [0f64; PASS];
        for (w0, out) in w0.chunks(4 * PASS).zip(out.chunks_mut(dtype.size() * PASS)) {
            for (value, w0) in values.iter_mut().zip(w0.as_chunks().0) {
                let p = (f64::from(word(w0)) + 0.5) * (1.0 / 4_294_967_296.0);
                // Narrower dtypes get the rounded f32 draw.
                *value = f64::from((mean + std * normal::inverse::<false>(p)) as f32);
            }
            store_floats(values.into_iter(), dtype, out);
        }
    }
}

per_level! {
    /// Draws from at most 2^32 whole numbers by the first word alone; `false` when a second one could carry into a result.
    fn integers_by_one(level; low: u64, span: u32, dtype: Dtype, w0: &[u8], out: &mut [u8]) -> bool {
        // n = span + 1; what the second word adds to a product's low half is below n.
        let product = |w0: &[u8; 4]| u64::from(word(w0)) * u64::from(span) + u64::from(word(w0));
        let mut open = 0;
        for w0 in w0.as_chunks().0 {
            open += u32::from(product(w0) as u32 > !span);
        }
        store_integers(w0.as_chunks().0.iter().map(|w0| low.wrapping_add(product(w0) >> 32)), dtype, out);
        open == 0
    }
}

per_level! {
    /// Draws from at most 2^32 whole numbers.
    fn integers_by_two(level; low: u64, span: u32, dtype: Dtype, w0: &[u8], w1: &[u8], out: &mut [u8]) {
        let product = |w: &[u8; 4]| u64::from(word(w)) * u64::from(span) + u64::from(word(w));
        // No sum overflows: the first product is at most (2^32 - 1) * 2^32, the second addend below 2^32.
        let offset = |(w0, w1)| (product(w0) + (product(w1) >> 32)) >> 32;
        store_integers(w0.as_chunks().0.iter().zip(w1.as_chunks().0).map(|w| low.wrapping_add(offset(w))), dtype, out);
    }
}

per_level! {
    /// Draws from `span + 1` whole numbers.
    fn integers_wide(level; low: u64, span: u64, dtype: Dtype, w0: &[u8], w1: &[u8], out: &mut [u8]) {
        let n = u128::from(span) + 1;
        let offset = |(w0, w1)| ((u128::from(word64(w0, w1)) * n) >> 64) as u64;
        store_integers(w0.as_chunks().0.iter().zip(w1.as_chunks().0).map(|w| low.wrapping_add(offset(w))), dtype, out);
    }
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
