//! Leaves: where the elements that a body starts from lie in memory, and loading them in runs.

use super::dims::MAX_RANK;
use super::{Buffer, Inputs};
use crate::expr::number::to_f64;
use crate::tensor::Dtype;
use crate::tensor::narrow::Narrow;

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

    /// Loads elements `start..start + dst.len()` as floats.
    #[inline(always)]
    pub fn load_float(&self, dst: &mut [f64], start: u64, inputs: &dyn Inputs, buffers: &[Buffer]) {
        let len = dst.len();
        macro_rules! bytes {
            ($bytes:expr, $convert:expr) => {{
                let bytes = $bytes;
                for run in self.runs(start, len) {
                    from_bytes(&mut dst[run.at..run.at + run.count], bytes, run.position, run.stride, $convert);
                }
            }};
        }
        macro_rules! values {
            ($values:expr, $convert:expr) => {{
                for run in self.runs(start, len) {
                    from_values(&mut dst[run.at..run.at + run.count], $values, run.position, run.stride, $convert);
                }
            }};
        }
        match self.source {
            Source::Tensor { id, dtype, after } => match dtype {
                Dtype::F64 => bytes!(bytes_of(inputs, id, after), f64::from_le_bytes),
                Dtype::F32 => bytes!(bytes_of(inputs, id, after), |b| f64::from(f32::from_le_bytes(b))),
                Dtype::F16 => bytes!(bytes_of(inputs, id, after), |b| f64::from(Narrow::F16.to_f32(u16::from_le_bytes(b)))),
                Dtype::Bf16 => bytes!(bytes_of(inputs, id, after), |b| f64::from(Narrow::Bf16.to_f32(u16::from_le_bytes(b)))),
                Dtype::I64 => bytes!(bytes_of(inputs, id, after), |b| i64::from_le_bytes(b) as f64),
                Dtype::I32 => bytes!(bytes_of(inputs, id, after), |b| f64::from(i32::from_le_bytes(b))),
                Dtype::I16 => bytes!(bytes_of(inputs, id, after), |b| f64::from(i16::from_le_bytes(b))),
                Dtype::I8 => bytes!(bytes_of(inputs, id, after), |b| f64::from(i8::from_le_bytes(b))),
                Dtype::U64 => bytes!(bytes_of(inputs, id, after), |b| u64::from_le_bytes(b) as f64),
                Dtype::U32 => bytes!(bytes_of(inputs, id, after), |b| f64::from(u32::from_le_bytes(b))),
                Dtype::U16 => bytes!(bytes_of(inputs, id, after), |b| f64::from(u16::from_le_bytes(b))),
                Dtype::U8 => bytes!(bytes_of(inputs, id, after), |b| f64::from(u8::from_le_bytes(b))),
                Dtype::Bool => bytes!(bytes_of(inputs, id, after), |b| f64::from(u8::from(u8::from_le_bytes(b) != 0))),
            },
            Source::Buffer(buffer) => match &buffers[buffer] {
                Buffer::Float(values) => values!(values, |x| x),
                Buffer::Int(values) => values!(values, to_f64),
            },
            Source::Iota => {
                for run in self.runs(start, len) {
                    for (i, d) in dst[run.at..run.at + run.count].iter_mut().enumerate() {
                        *d = (run.position + i * run.stride) as i64 as f64;
                    }
                }
            }
        }
    }

    /// Loads elements `start..start + dst.len()` as exact integers. The source holds integers.
    #[inline(always)]
    pub fn load_int(&self, dst: &mut [i128], start: u64, inputs: &dyn Inputs, buffers: &[Buffer]) {
        let len = dst.len();
        macro_rules! bytes {
            ($bytes:expr, $convert:expr) => {{
                let bytes = $bytes;
                for run in self.runs(start, len) {
                    from_bytes(&mut dst[run.at..run.at + run.count], bytes, run.position, run.stride, $convert);
                }
            }};
        }
        macro_rules! values {
            ($values:expr, $convert:expr) => {{
                for run in self.runs(start, len) {
                    from_values(&mut dst[run.at..run.at + run.count], $values, run.position, run.stride, $convert);
                }
            }};
        }
        match self.source {
            Source::Tensor { id, dtype, after } => match dtype {
                Dtype::I64 => bytes!(bytes_of(inputs, id, after), |b| i64::from_le_bytes(b).into()),
                Dtype::I32 => bytes!(bytes_of(inputs, id, after), |b| i32::from_le_bytes(b).into()),
                Dtype::I16 => bytes!(bytes_of(inputs, id, after), |b| i16::from_le_bytes(b).into()),
                Dtype::I8 => bytes!(bytes_of(inputs, id, after), |b| i8::from_le_bytes(b).into()),
                Dtype::U64 => bytes!(bytes_of(inputs, id, after), |b| u64::from_le_bytes(b).into()),
                Dtype::U32 => bytes!(bytes_of(inputs, id, after), |b| u32::from_le_bytes(b).into()),
                Dtype::U16 => bytes!(bytes_of(inputs, id, after), |b| u16::from_le_bytes(b).into()),
                Dtype::Bool => bytes!(bytes_of(inputs, id, after), |b| i128::from(u8::from_le_bytes(b) != 0)),
                // Float tensors are loaded as floats.
                Dtype::U8 | Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16 => {
                    bytes!(bytes_of(inputs, id, after), |b| u8::from_le_bytes(b).into())
                }
            },
            Source::Buffer(buffer) => match &buffers[buffer] {
                Buffer::Float(values) => values!(values, |x| i128::from(x as i64)),
                Buffer::Int(values) => values!(values, |x| x),
            },
            Source::Iota => {
                for run in self.runs(start, len) {
                    for (i, d) in dst[run.at..run.at + run.count].iter_mut().enumerate() {
                        *d = (run.position + i * run.stride) as i128;
                    }
                }
            }
        }
    }

    pub fn is_f32(&self) -> bool {
        matches!(self.source, Source::Tensor { dtype: Dtype::F32, .. })
    }
}

/// The bytes of a tensor at the start of the round, or at its end.
pub(super) fn bytes_of(inputs: &dyn Inputs, id: usize, after: bool) -> &[u8] {
    if after { inputs.after(id) } else { inputs.bytes(id) }
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
fn from_bytes<const N: usize, T: Copy>(dst: &mut [T], bytes: &[u8], position: usize, stride: usize, convert: impl Fn([u8; N]) -> T) {
    let elements = &bytes.as_chunks::<N>().0[position..];
    from_values(dst, elements, 0, stride, convert);
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
