//! Leaves: where the elements that a body starts from lie in memory, and loading them in runs or one by one.

use super::dims::MAX_RANK;
use super::{Buffer, Inputs};
use crate::expr::number::to_f64;
use crate::tensor::Dtype;
use crate::tensor::narrow::Narrow;

/// What registers hold: floats, or exact integers.
pub(super) trait Element: Copy + From<i32> + From<u32> + From<i16> + From<u16> + From<i8> + From<u8> {
    /// A float is loaded as an integer only where it is whole and below 2^53: from a buffer of such products.
    fn of_f64(x: f64) -> Self;
    fn of_i64(x: i64) -> Self;
    fn of_u64(x: u64) -> Self;
    fn of_i128(x: i128) -> Self;
}

impl Element for f64 {
    #[inline(always)]
    fn of_f64(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn of_i64(x: i64) -> f64 {
        x as f64
    }
    #[inline(always)]
    fn of_u64(x: u64) -> f64 {
        x as f64
    }
    #[inline(always)]
    fn of_i128(x: i128) -> f64 {
        to_f64(x)
    }
}

impl Element for i128 {
    #[inline(always)]
    fn of_f64(x: f64) -> i128 {
        (x as i64).into()
    }
    #[inline(always)]
    fn of_i64(x: i64) -> i128 {
        x.into()
    }
    #[inline(always)]
    fn of_u64(x: u64) -> i128 {
        x.into()
    }
    #[inline(always)]
    fn of_i128(x: i128) -> i128 {
        x
    }
}

/// What a leaf reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Tensor {
        id: usize,
        dtype: Dtype,
        after: bool,
    },
    /// A buffer of the scratch.
    Buffer(usize),
    /// Memory in which element k has the value k.
    Iota,
}

/// Elements of a source, laid out over the elements of a body.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Leaf {
    pub source: Source,
    offset: u64,
    /// How far one step along each axis of the body moves, in elements.
    strides: Vec<u64>,
    /// Extent and stride, innermost first, neighbours that continue each other merged.
    dims: Vec<(u64, u64)>,
}

impl Leaf {
    /// *Shapes*: one stride per extent.
    pub fn new(source: Source, offset: u64, strides: Vec<u64>, extents: &[u64]) -> Leaf {
        let mut dims: Vec<(u64, u64)> = Vec::new();
        for (&extent, &stride) in extents.iter().zip(&strides).rev() {
            match dims.last_mut() {
                _ if extent == 1 => {}
                Some((inner, inner_stride)) if stride == *inner * *inner_stride => *inner *= extent,
                _ => dims.push((extent, stride)),
            }
        }
        Leaf { source, offset, strides, dims }
    }

    /// The same leaf over more elements: `extents` are those of the new body, aligned at the last one.
    pub fn broadcast(&self, from: &[u64], extents: &[u64]) -> Leaf {
        let skip = extents.len() - from.len();
        let strides = (0..extents.len()).map(|at| if at < skip || from[at - skip] != extents[at] { 0 } else { self.strides[at - skip] });
        Leaf::new(self.source, self.offset, strides.collect(), extents)
    }

    /// Whether every element of the body sees the same one of the source.
    pub fn is_uniform(&self) -> bool {
        self.dims.iter().all(|&(_, stride)| stride == 0)
    }

    /// Whether consecutive elements of the body are consecutive in the source.
    pub fn is_contiguous(&self) -> bool {
        matches!(self.dims[..], [(_, 1)])
    }

    /// The bytes of a tensor, and the position in it of element `start` of a contiguous leaf.
    #[inline(always)]
    pub fn raw<'a>(&self, start: u64, inputs: &'a dyn Inputs) -> (&'a [u8], usize) {
        let bytes = match self.source {
            Source::Tensor { id, after, .. } => bytes_of(inputs, id, after),
            Source::Buffer(_) | Source::Iota => &[],
        };
        (bytes, (self.offset + start) as usize)
    }

    /// The runs of `len` elements from `start` on that have one stride.
    #[inline(always)]
    fn runs(&self, start: u64, len: usize) -> Runs<'_> {
        let (extent, stride, outer) = match &self.dims[..] {
            [] => (u64::MAX, 0, &[][..]),
            // One run, however long it is.
            &[(_, stride)] => (u64::MAX, stride, &[][..]),
            &[(extent, stride), ref outer @ ..] => (extent, stride, outer),
        };
        let (first, mut rest) = if outer.is_empty() { (start, 0) } else { (start % extent, start / extent) };
        let mut runs = Runs { extent, stride, outer, index: [0; MAX_RANK], base: self.offset, first, at: 0, len };
        for (slot, &(extent, stride)) in runs.index.iter_mut().zip(outer) {
            *slot = rest % extent;
            rest /= extent;
            runs.base += *slot * stride;
        }
        runs
    }

    /// Loads elements `start..start + dst.len()` of the body. Integers are loaded only from sources of integers.
    #[inline(always)]
    pub fn load<T: Element>(&self, dst: &mut [T], start: u64, inputs: &dyn Inputs, buffers: &[Buffer]) {
        if self.source == Source::Iota {
            for run in self.runs(start, dst.len()) {
                for (i, d) in dst[run.at..run.at + run.count].iter_mut().enumerate() {
                    *d = T::of_i64((run.position + i * run.stride) as i64);
                }
            }
            return;
        }
        self.source.elements(inputs, buffers, Load { leaf: self, dst, start });
    }

    pub fn is_f32(&self) -> bool {
        matches!(self.source, Source::Tensor { dtype: Dtype::F32, .. })
    }
}

/// The bytes of a tensor at the start of the round, or at its end.
pub(super) fn bytes_of(inputs: &dyn Inputs, id: usize, after: bool) -> &[u8] {
    if after { inputs.after(id) } else { inputs.bytes(id) }
}

/// What is done with the elements of a source, of whatever type they are there.
pub(super) trait Visit<T> {
    fn visit<S: Copy>(self, values: &[S], convert: impl Fn(S) -> T);
}

impl Source {
    /// Hands over all elements of a tensor or a buffer, and what makes values of them.
    #[inline(always)]
    pub fn elements<T: Element>(self, inputs: &dyn Inputs, buffers: &[Buffer], visit: impl Visit<T>) {
        match self {
            Source::Tensor { id, dtype, after } => {
                let bytes = bytes_of(inputs, id, after);
                macro_rules! chunks {
                    ($convert:expr) => {
                        visit.visit(bytes.as_chunks().0, $convert)
                    };
                }
                match dtype {
                    Dtype::F64 => chunks!(|b| T::of_f64(f64::from_le_bytes(b))),
                    Dtype::F32 => chunks!(|b| T::of_f64(f32::from_le_bytes(b).into())),
                    Dtype::F16 => chunks!(|b| T::of_f64(Narrow::F16.to_f32(u16::from_le_bytes(b)).into())),
                    Dtype::Bf16 => chunks!(|b| T::of_f64(Narrow::Bf16.to_f32(u16::from_le_bytes(b)).into())),
                    Dtype::F8e4m3 => chunks!(|b| T::of_f64(Narrow::F8e4m3.to_f32(u8::from_le_bytes(b).into()).into())),
                    Dtype::F8e5m2 => chunks!(|b| T::of_f64(Narrow::F8e5m2.to_f32(u8::from_le_bytes(b).into()).into())),
                    Dtype::I64 => chunks!(|b| T::of_i64(i64::from_le_bytes(b))),
                    Dtype::I32 => chunks!(|b| T::from(i32::from_le_bytes(b))),
                    Dtype::I16 => chunks!(|b| T::from(i16::from_le_bytes(b))),
                    Dtype::I8 => chunks!(|b| T::from(i8::from_le_bytes(b))),
                    Dtype::U64 => chunks!(|b| T::of_u64(u64::from_le_bytes(b))),
                    Dtype::U32 => chunks!(|b| T::from(u32::from_le_bytes(b))),
                    Dtype::U16 => chunks!(|b| T::from(u16::from_le_bytes(b))),
                    Dtype::U8 => chunks!(|b| T::from(u8::from_le_bytes(b))),
                    Dtype::Bool => chunks!(|b| T::from(u8::from(u8::from_le_bytes(b) != 0))),
                }
            }
            Source::Buffer(buffer) => match &buffers[buffer] {
                Buffer::Float(values) => visit.visit(values, T::of_f64),
                Buffer::Int(values) => visit.visit(values, T::of_i128),
            },
            Source::Iota => {}
        }
    }
}

/// Copies the runs of a leaf.
struct Load<'a, T> {
    leaf: &'a Leaf,
    dst: &'a mut [T],
    start: u64,
}

impl<T: Copy> Visit<T> for Load<'_, T> {
    #[inline(always)]
    fn visit<S: Copy>(self, values: &[S], convert: impl Fn(S) -> T) {
        for run in self.leaf.runs(self.start, self.dst.len()) {
            from_values(&mut self.dst[run.at..run.at + run.count], values, run.position, run.stride, &convert);
        }
    }
}

/// Copies the elements at positions that were computed and are within the source.
pub(super) struct Pick<'a, T> {
    pub dst: &'a mut [T],
    pub positions: &'a [i128],
}

impl<T: Copy> Visit<T> for Pick<'_, T> {
    #[inline(always)]
    fn visit<S: Copy>(self, values: &[S], convert: impl Fn(S) -> T) {
        for (d, &position) in self.dst.iter_mut().zip(self.positions) {
            *d = convert(values[position as usize]);
        }
    }
}

/// Consecutive elements of a body whose elements of the source are `stride` apart.
struct Run {
    at: usize,
    position: usize,
    count: usize,
    stride: usize,
}

struct Runs<'a> {
    extent: u64,
    stride: u64,
    outer: &'a [(u64, u64)],
    index: [u64; MAX_RANK],
    base: u64,
    first: u64,
    at: usize,
    len: usize,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    #[inline(always)]
    fn next(&mut self) -> Option<Run> {
        if self.at >= self.len {
            return None;
        }
        let count = usize::try_from(self.extent - self.first).unwrap_or(usize::MAX).min(self.len - self.at);
        let position = (self.base + self.first * self.stride) as usize;
        let run = Run { at: self.at, position, count, stride: self.stride as usize };
        self.at += count;
        self.first = 0;
        for (slot, &(extent, stride)) in self.index.iter_mut().zip(self.outer) {
            *slot += 1;
            self.base += stride;
            if *slot < extent {
                break;
            }
            self.base -= *slot * stride;
            *slot = 0;
        }
        Some(run)
    }
}

#[inline(always)]
fn from_values<S: Copy, T: Copy>(dst: &mut [T], values: &[S], position: usize, stride: usize, convert: impl Fn(S) -> T) {
    match stride {
        0 => dst.fill(convert(values[position])),
        1 => {
            let values = &values[position..position + dst.len()];
            for (d, &s) in dst.iter_mut().zip(values) {
                *d = convert(s);
            }
        }
        _ => {
            for (d, &s) in dst.iter_mut().zip(values[position..].iter().step_by(stride)) {
                *d = convert(s);
            }
        }
    }
}
