//! Where the nodes lie that must be whole before any element of the result is known: the stages that compute them, and
//! the layout of their elements.

use super::body::Body;
use super::dims::{Dim, identity, row_major, split};
use super::graph::{NodeId, Op};
use super::leaf::Source;
use super::lower::Lowering;
use super::stage::{BufferSize, Choice, Home, Product, Segments, Slot, Stage};
use crate::diag::TextError;
use crate::expr::ast::Span;
use crate::expr::ops::{Along, Class, Fold, Unary};

/// The most bytes of buffers beside the tensors: 64 GiB.
const MOST_BYTES: u64 = 64 << 30;

/// How the elements of a node lie in a source. *Units*: elements.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Lie {
    pub source: Source,
    pub offset: u64,
    /// One for each dimension of the node.
    pub strides: Vec<u64>,
}

/// The shape with one axis last, and where each dimension is then.
fn axis_last(shape: &[u64], axis: usize) -> (Vec<Dim>, Vec<u64>) {
    let last = shape.len() - 1;
    let place = |at: usize| if at == axis { last } else { at - usize::from(at > axis) };
    let map = shape.iter().enumerate().map(|(at, &extent)| Dim { offset: 0, axis: (extent != 1).then(|| place(at)) }).collect();
    let mut extents: Vec<u64> = shape.to_vec();
    let extent = extents.remove(axis);
    extents.push(extent);
    (map, extents)
}

/// Row-major strides of a value that is stored with one axis last.
fn strides_with_last(shape: &[u64], axis: usize) -> Vec<u64> {
    let (_, extents) = axis_last(shape, axis);
    let mut strides = row_major(&extents);
    if let Some(last) = strides.pop() {
        strides.insert(axis, last);
    }
    strides
}

/// Whether the elements lie one after the other in row-major order.
fn is_row_major(strides: &[u64], shape: &[u64]) -> bool {
    strides.iter().zip(row_major(shape)).zip(shape).all(|((&stride, wanted), &extent)| extent == 1 || stride == wanted)
}

impl Op {
    /// Whether a stage of its own computes the node.
    pub(super) fn is_stage(&self) -> bool {
        matches!(self, Op::Reduce(..) | Op::Matmul(..) | Op::Along(..) | Op::Compress(..) | Op::Bincount(_) | Op::SegmentSum(..))
    }
}

impl Lowering<'_, '_> {
    /// Where what a stage computes lies, once the stage is there.
    pub(super) fn home(&mut self, id: NodeId) -> Result<Home, TextError> {
        if let Some(&home) = self.homes.get(&id) {
            return Ok(home);
        }
        let home = match self.node(id).op {
            Op::Reduce(fold, from, axis) => self.reduce(id, fold, from, axis)?,
            Op::Matmul(left, right) => Home::Buffer(self.product(id, left, right)?),
            Op::Along(along, from, axis) => Home::Buffer(self.along(id, along, from, axis)?),
            Op::Compress(from, mask) => Home::Buffer(self.compress(id, from, mask)?),
            Op::Bincount(from) => Home::Buffer(self.bincount(id, from)?),
            Op::SegmentSum(from, indptr) => Home::Buffer(self.segment_sum(id, from, indptr)?),
            _ => Home::Buffer(self.fill(id, self.node(id).kind.class())?),
        };
        self.homes.insert(id, home);
        Ok(home)
    }

    /// How a node lies in memory, where it is written if it does not lie there yet.
    pub(super) fn lie(&mut self, id: NodeId) -> Result<Lie, TextError> {
        let node = self.node(id);
        let straight = |source: Source| Lie { source, offset: 0, strides: row_major(&node.shape) };
        match &node.op {
            Op::Tensor { id, dtype, after } => return Ok(straight(Source::Tensor { id: *id, dtype: *dtype, after: *after })),
            Op::View(from, dims) if self.lies(*from) => {
                let inner = self.lie(*from)?;
                let (mut offset, mut strides) = (inner.offset, vec![0; node.shape.len()]);
                for (dim, stride) in dims.iter().zip(inner.strides) {
                    offset += dim.offset * stride;
                    if let Some(axis) = dim.axis {
                        strides[axis] += stride;
                    }
                }
                return Ok(Lie { source: inner.source, offset, strides });
            }
            Op::Reshape(from) => {
                let inner = if self.lies(*from) { Some(self.lie(*from)?) } else { None };
                return match inner {
                    Some(inner) if is_row_major(&inner.strides, &self.node(*from).shape) => {
                        Ok(Lie { offset: inner.offset, ..straight(inner.source) })
                    }
                    _ => Ok(straight(Source::Buffer(self.whole(*from)?))),
                };
            }
            op if op.is_stage() => {
                if let Home::Buffer(buffer) = self.home(id)? {
                    let strides = match op {
                        Op::Along(_, _, axis) => strides_with_last(&node.shape, *axis),
                        Op::SegmentSum(..) => strides_with_last(&node.shape, 0),
                        _ => row_major(&node.shape),
                    };
                    return Ok(Lie { source: Source::Buffer(buffer), offset: 0, strides });
                }
            }
            _ => {}
        }
        Ok(straight(Source::Buffer(self.whole(id)?)))
    }

    /// Whether the node lies in memory as it is.
    fn lies(&self, id: NodeId) -> bool {
        match &self.node(id).op {
            Op::Tensor { .. } | Op::Reshape(_) => true,
            Op::View(from, _) => self.lies(*from),
            // A reduction to one number is none.
            op => op.is_stage() && !self.node(id).shape.is_empty(),
        }
    }

    /// The buffer that has all elements of a node in row-major order.
    fn whole(&mut self, id: NodeId) -> Result<usize, TextError> {
        if let Some(&buffer) = self.filled.get(&id) {
            return Ok(buffer);
        }
        let buffer = self.fill(id, self.node(id).kind.class())?;
        self.filled.insert(id, buffer);
        Ok(buffer)
    }

    fn buffer(&mut self, class: Class, shape: &[u64], span: &Span) -> Result<usize, TextError> {
        let size = BufferSize { class, elements: shape.iter().product() };
        self.bytes = self.bytes.saturating_add(size.bytes());
        if self.bytes > MOST_BYTES {
            let gib = |bytes: u64| bytes.div_ceil(1 << 30);
            let message = format!("the expression needs {} GiB beside its tensors, the most is {}", gib(self.bytes), gib(MOST_BYTES));
            return Err(TextError::new(span.clone(), message));
        }
        self.buffers.push(size);
        Ok(self.buffers.len() - 1)
    }

    /// A buffer that gets all elements of a node.
    fn fill(&mut self, id: NodeId, class: Class) -> Result<usize, TextError> {
        let shape = &self.node(id).shape;
        let body = self.body_of(id, identity(shape), shape.clone(), class)?;
        let into = self.buffer(class, shape, &self.graph.spans[id])?;
        self.stages.push(Stage::Fill { body, into });
        Ok(into)
    }

    /// The body of a node with one axis last, so that what is computed along it is one run.
    fn body_along(&mut self, id: NodeId, axis: usize, class: Class) -> Result<Body, TextError> {
        let (map, extents) = axis_last(&self.node(id).shape, axis);
        self.body_of(id, map, extents, class)
    }

    fn reduce(&mut self, id: NodeId, fold: Fold, from: NodeId, axis: Option<usize>) -> Result<Home, TextError> {
        let (node, source) = (self.node(id), self.node(from));
        let class = source.kind.class();
        let (body, run) = match axis {
            None => (self.body_of(from, identity(&source.shape), source.shape.clone(), class)?, source.shape.iter().product()),
            Some(axis) => (self.body_along(from, axis, class)?, source.shape[axis]),
        };
        let results = node.shape.iter().product();
        let span = self.graph.spans[id].clone();
        let into = if node.shape.is_empty() {
            Home::Slot(self.slot(Slot::default()))
        } else {
            Home::Buffer(self.buffer(node.kind.class(), &node.shape, &span)?)
        };
        self.stages.push(Stage::Reduce { fold, body, run, results, into, span });
        Ok(into)
    }

    fn along(&mut self, id: NodeId, along: Along, from: NodeId, axis: usize) -> Result<usize, TextError> {
        let node = self.node(id);
        let class = node.kind.class();
        let body = self.body_along(from, axis, class)?;
        let span = self.graph.spans[id].clone();
        let into = self.buffer(class, &node.shape, &span)?;
        self.stages.push(Stage::Along { along, body, run: node.shape[axis], into, span });
        Ok(into)
    }

    fn compress(&mut self, id: NodeId, from: NodeId, mask: NodeId) -> Result<usize, TextError> {
        let (node, span) = (self.node(id), self.graph.spans[id].clone());
        let class = node.kind.class();
        let shape = &self.node(from).shape;
        let body = self.body_of(from, identity(shape), shape.clone(), class)?;
        let rows = &self.node(mask).shape;
        let mask = self.body_of(mask, identity(rows), rows.clone(), Class::Int)?;
        let into = self.buffer(class, &node.shape, &span)?;
        let (rows, width) = (rows.iter().product(), node.shape[1..].iter().product());
        self.stages.push(Stage::Compress(Choice { body, mask, rows, width, wanted: node.shape[0], into, span }));
        Ok(into)
    }

    fn bincount(&mut self, id: NodeId, from: NodeId) -> Result<usize, TextError> {
        let (node, span) = (self.node(id), self.graph.spans[id].clone());
        let shape = &self.node(from).shape;
        let body = self.body_of(from, identity(shape), shape.clone(), Class::Int)?;
        let into = self.buffer(Class::Int, &node.shape, &span)?;
        self.stages.push(Stage::Bincount { body, bins: node.shape[0], into, span });
        Ok(into)
    }

    fn segment_sum(&mut self, id: NodeId, from: NodeId, indptr: NodeId) -> Result<usize, TextError> {
        let (node, span) = (self.node(id), self.graph.spans[id].clone());
        let class = node.kind.class();
        let body = self.body_along(from, 0, class)?;
        let bounds = self.operand(indptr, Class::Int)?;
        let into = self.buffer(class, &node.shape, &span)?;
        let (run, segments) = (self.node(from).shape[0], node.shape[0]);
        let bounds_span = self.graph.spans[indptr].clone();
        self.stages.push(Stage::Segments(Segments { body, run, bounds, segments, into, span, bounds_span }));
        Ok(into)
    }

    fn product(&mut self, id: NodeId, left: NodeId, right: NodeId) -> Result<usize, TextError> {
        let (node, a, b) = (self.node(id), self.node(left), self.node(right));
        let ((batch_a, [rows, inner]), (batch_b, [_, columns])) = (split(&a.shape), split(&b.shape));
        // Sums of products below 2^53 are exact in f64, whose product is the fast one.
        let exact = match (self.bound(left), self.bound(right)) {
            (Some(x), Some(y)) => x.checked_mul(y).and_then(|xy| xy.checked_mul(inner.max(1).into())).is_some_and(|sum| sum <= 1 << 53),
            _ => false,
        };
        let class = if exact { Class::Float } else { node.kind.class() };
        let operands = (self.operand(left, class)?, self.operand(right, class)?);
        let (shape_batch, _) = split(&node.shape);
        let steps = |batch: &[u64]| {
            let strides = row_major(batch);
            let skip = shape_batch.len() - batch.len();
            let step = move |at: usize| if at < skip || batch[at - skip] == 1 { 0 } else { strides[at - skip] };
            (0..shape_batch.len()).map(step).collect::<Vec<u64>>()
        };
        let batch =
            shape_batch.iter().zip(steps(batch_a).into_iter().zip(steps(batch_b))).map(|(&extent, (a, b))| (extent, a, b)).collect();
        let span = self.graph.spans[id].clone();
        let into = self.buffer(class, &node.shape, &span)?;
        let [rows, inner, columns] = [rows, inner, columns].map(|extent| extent as usize);
        self.stages.push(Stage::Product(Product { class, left: operands.0, right: operands.1, into, rows, inner, columns, batch, span }));
        Ok(into)
    }

    /// The buffer of an operand that a stage reads as a whole, in row-major order.
    fn operand(&mut self, id: NodeId, class: Class) -> Result<usize, TextError> {
        let node = self.node(id);
        if node.op.is_stage()
            && let Home::Buffer(buffer) = self.home(id)?
            && self.buffers[buffer].class == class
            && is_row_major(&self.lie(id)?.strides, &node.shape)
        {
            return Ok(buffer);
        }
        if class == node.kind.class() { self.whole(id) } else { self.fill(id, class) }
    }

    /// The largest magnitude of a node's elements, where the dtype it is read from tells.
    fn bound(&self, id: NodeId) -> Option<i128> {
        let range = match &self.node(id).op {
            Op::Int(i) => return i.checked_abs(),
            Op::Tensor { dtype, .. } | Op::Unary(Unary::Cast(dtype), ..) => dtype.integer_range()?,
            Op::View(from, _) => return self.bound(*from),
            _ => return None,
        };
        Some(range.0.abs().max(range.1.abs()))
    }
}
