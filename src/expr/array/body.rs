//! Bodies: the elementwise part of a program as steps over registers of 1,024 elements.

use super::leaf::{Leaf, Source};
use crate::expr::ast::Span;
use crate::expr::ops::{Binary, Class, Unary};
use crate::tensor::Dtype;

/// What one step computes. The letters are the classes of its operands, then of its result.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Code {
    /// Loads a leaf as floats, or as integers.
    LoadFloat(usize),
    LoadInt(usize),
    /// The elements of a source at positions that are integers.
    GatherFloat(Source),
    GatherInt(Source),
    /// An index as it is, which must be below the extent.
    Within(u64),
    /// An integer as the nearest double.
    ToFloat,
    FloatToFloat(Unary),
    FloatToInt(Unary),
    IntToInt(Unary),
    /// An integer rounded once to a float dtype.
    IntToFloat(Dtype),
    Float(Binary),
    FloatCompare(Binary),
    Int(Binary),
    /// The first operand chooses between the other two.
    WhereFloat,
    WhereInt,
}

impl Code {
    /// The class of what comes out.
    pub fn result(self) -> Class {
        match self {
            Code::LoadFloat(_)
            | Code::GatherFloat(_)
            | Code::ToFloat
            | Code::FloatToFloat(_)
            | Code::IntToFloat(_)
            | Code::Float(_)
            | Code::WhereFloat => Class::Float,
            Code::LoadInt(_)
            | Code::GatherInt(_)
            | Code::Within(_)
            | Code::FloatToInt(_)
            | Code::IntToInt(_)
            | Code::FloatCompare(_)
            | Code::Int(_)
            | Code::WhereInt => Class::Int,
        }
    }

    /// The class of operand `at`.
    pub fn operand(self, at: usize) -> Class {
        match self {
            Code::FloatToFloat(_) | Code::FloatToInt(_) | Code::Float(_) | Code::FloatCompare(_) => Class::Float,
            Code::WhereFloat if at > 0 => Class::Float,
            _ => Class::Int,
        }
    }
}

/// An operand of a step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Arg {
    None,
    /// One number for all elements.
    Slot(usize),
    /// While lowering: the step that gives it. In a finished body: the register of its class.
    Register(usize),
    /// A contiguous f32 leaf, converted as it is read.
    Leaf(usize),
}

#[derive(Clone, PartialEq, Debug)]
pub(super) struct Step {
    pub code: Code,
    pub args: [Arg; 3],
    /// The register of the result.
    pub into: usize,
    pub span: Span,
}

/// Steps that compute blocks of an elementwise expression.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Body {
    pub extents: Vec<u64>,
    pub leaves: Vec<Leaf>,
    pub steps: Vec<Step>,
    /// A register or a slot.
    pub result: Arg,
    pub class: Class,
    /// Registers of floats and of integers.
    pub registers: [usize; 2],
}

impl Body {
    /// Turns the steps of a lowered expression, whose operands name steps, into a body, whose operands name registers.
    pub fn new(extents: Vec<u64>, leaves: Vec<Leaf>, mut steps: Vec<Step>, result: Arg, class: Class) -> Body {
        let mut uses = count_uses(&steps, result);
        fuse_loads(&leaves, &mut steps, &uses);
        uses = count_uses(&steps, result);
        let mut body = Body { extents, leaves, steps: Vec::new(), result, class, registers: [0, 0] };
        let mut free: [Vec<usize>; 2] = [Vec::new(), Vec::new()];
        let mut place = vec![0; steps.len()];
        let classes: Vec<usize> = steps.iter().map(|step| side(step.code.result())).collect();
        for (at, mut step) in steps.into_iter().enumerate() {
            if uses[at] == 0 {
                continue;
            }
            // A result never shares a register with an operand of its step.
            let kind = classes[at];
            let into = free[kind].pop().unwrap_or_else(|| {
                body.registers[kind] += 1;
                body.registers[kind] - 1
            });
            (place[at], step.into) = (into, into);
            for arg in &mut step.args {
                if let Arg::Register(from) = *arg {
                    *arg = Arg::Register(place[from]);
                    uses[from] -= 1;
                    if uses[from] == 0 {
                        free[classes[from]].push(place[from]);
                    }
                }
            }
            body.steps.push(step);
        }
        if let Arg::Register(from) = result {
            body.result = Arg::Register(place[from]);
        }
        body
    }

    /// Registers of floats and of integers, with one for a result that is one number.
    pub fn registers(&self) -> [usize; 2] {
        let [float, int] = self.registers;
        match self.class {
            Class::Float => [float.max(1), int],
            Class::Int => [float, int.max(1)],
        }
    }

    /// The same body over more elements, with extents aligned at the last one.
    pub fn broadcast(mut self, extents: Vec<u64>) -> Body {
        for leaf in &mut self.leaves {
            *leaf = leaf.broadcast(&self.extents, &extents);
        }
        // A fused leaf must stay contiguous; one that no longer is gets a step of its own again.
        let mut at = 0;
        while at < self.steps.len() {
            for arg in 0..3 {
                if let Arg::Leaf(leaf) = self.steps[at].args[arg]
                    && !self.leaves[leaf].is_contiguous()
                {
                    let into = self.registers[side(Class::Float)];
                    self.registers[side(Class::Float)] += 1;
                    self.steps[at].args[arg] = Arg::Register(into);
                    let span = self.steps[at].span.clone();
                    self.steps.insert(at, Step { code: Code::LoadFloat(leaf), args: [Arg::None; 3], into, span });
                    at += 1;
                }
            }
            at += 1;
        }
        self.extents = extents;
        self
    }
}

/// The index of a class among the two kinds of registers.
pub(super) fn side(class: Class) -> usize {
    match class {
        Class::Float => 0,
        Class::Int => 1,
    }
}

fn count_uses(steps: &[Step], result: Arg) -> Vec<usize> {
    let mut uses = vec![0; steps.len()];
    if let Arg::Register(at) = result {
        uses[at] += 1;
    }
    for at in (0..steps.len()).rev() {
        if uses[at] > 0 {
            for arg in steps[at].args {
                if let Arg::Register(from) = arg {
                    uses[from] += 1;
                }
            }
        }
    }
    uses
}

/// Lets sums, differences and products read a contiguous f32 leaf themselves where nothing else reads it.
fn fuse_loads(leaves: &[Leaf], steps: &mut [Step], uses: &[usize]) {
    for at in 0..steps.len() {
        if !matches!(steps[at].code, Code::Float(Binary::Add | Binary::Sub | Binary::Mul)) {
            continue;
        }
        for arg in 0..2 {
            if let Arg::Register(from) = steps[at].args[arg]
                && uses[from] == 1
                && let Code::LoadFloat(leaf) = steps[from].code
                && leaves[leaf].is_contiguous()
                && leaves[leaf].is_f32()
            {
                steps[at].args[arg] = Arg::Leaf(leaf);
            }
        }
    }
}
