//! Bound steps -> the flat list of one round: loops unrolled, views as byte ranges, values that depend on the round as variables.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::names::{Places, Resolver};
use super::steps::{Arg, Bound, Grid, Kernels, Lowered, Region, Tensors};
use super::{Action, Argument, Contents, Draw, Rounds, Step, Tensor, Var, VarSource, View, repeat_to_32};
use crate::data::{self, Key, Source};
use crate::device::Word;
use crate::diag::{Diagnostic, Place};
use crate::expr::{self, Expr, Scalar, Subscript};
use crate::spec::{Int, Num};
use crate::tensor::{Dtype, Number, Shape};

/// The most steps that a round may have.
const MOST_STEPS: usize = 2_000_000;

/// The most values that may differ from round to round.
const MOST_VARS: usize = 60_000;

pub(super) fn unroll(
    resolver: &Resolver<'_>,
    bound: Vec<Bound>,
    tensors: &mut Tensors,
    kernels: &Kernels,
    rounds: Option<Rounds>,
    lowered: &mut Lowered,
) {
    let mut unroller = Unroller {
        resolver,
        tensors,
        kernels,
        rounds,
        lowered,
        loops: Vec::new(),
        interned: HashMap::new(),
        full: false,
        turns: 0,
        parsed: HashMap::new(),
    };
    unroller.steps(&bound);
}

struct Unroller<'r, 'a> {
    resolver: &'r Resolver<'a>,
    tensors: &'r mut Tensors,
    kernels: &'r Kernels,
    rounds: Option<Rounds>,
    lowered: &'r mut Lowered,
    loops: Vec<(String, i128)>,
    /// Variables by what computes them.
    interned: HashMap<String, u16>,
    /// Too many steps or variables: reported, nothing more is added.
    full: bool,
    /// Turns of all loops so far: a body that adds nothing could turn without end.
    turns: usize,
    /// Expressions of loop bodies, parsed once.
    parsed: HashMap<Place, Expr>,
}

impl Unroller<'_, '_> {
    fn steps(&mut self, steps: &[Bound]) {
        for step in steps {
            if self.full {
                return;
            }
            let (origin, action) = match step {
                Bound::For { var, at, low, high, body } => {
                    self.turns(var, at, low, high, body);
                    continue;
                }
                Bound::Launch { origin, kernel, grid, args } => (origin, self.launch(*kernel, grid, args)),
                Bound::Copy { origin, src, dst } => (origin, self.copy(src, dst)),
                Bound::Fill { origin, dst, at, value } => (origin, self.fill(dst, at, value)),
            };
            let Some(action) = action else {
                self.may_write(step);
                continue;
            };
            if self.lowered.steps.len() >= MOST_STEPS {
                let place = self.lowered.origins[*origin as usize].place.clone();
                self.too_many(&place);
                return;
            }
            self.overlaps(*origin, &action);
            self.lowered.steps.push(Step { action, origin: *origin, turn: self.loops.iter().map(|(_, v)| *v).collect() });
        }
    }

    fn turns(&mut self, var: &str, at: &Place, low: &Expr, high: &Expr, body: &[Bound]) {
        let scope = Places::constant(self.resolver, &self.loops);
        let bounds = self.resolver.eval_int(at, low, &scope).zip(self.resolver.eval_int(at, high, &scope));
        let Some((low, high)) = bounds else { return body.iter().for_each(|step| self.may_write(step)) };
        if high < low {
            self.resolver.report(
                Diagnostic::error("loop", at.clone(), format!("the range {low}:{high} ends before it starts"))
                    .help("a range a:b has the numbers a up to and without b"),
            );
            return body.iter().for_each(|step| self.may_write(step));
        }
        if high.saturating_sub(low) > MOST_STEPS as i128 {
            self.full = true;
            self.resolver.report(
                Diagnostic::error(
                    "too-many-steps",
                    at.clone(),
                    format!("the range {low}:{high} has {} turns, a round has at most {MOST_STEPS} steps", high.saturating_sub(low)),
                )
                .help("move the loop into the kernel"),
            );
            return body.iter().for_each(|step| self.may_write(step));
        }
        let mut turn = low;
        while turn < high && !self.full {
            self.loops.push((var.to_string(), turn));
            self.steps(body);
            self.loops.pop();
            turn += 1;
            self.turns += 1;
            if self.turns > MOST_STEPS && !self.full {
                self.too_many(at);
            }
        }
    }

    /// Notes what a step that is broken may write.
    fn may_write(&mut self, step: &Bound) {
        match step {
            Bound::Launch { args, .. } => {
                for arg in args {
                    if let Arg::Tensor { access, region } = arg
                        && access.writes()
                    {
                        self.lowered.maybe.add(region.tensor);
                    }
                }
            }
            Bound::Copy { dst, .. } | Bound::Fill { dst, .. } => self.lowered.maybe.add(dst.tensor),
            Bound::For { body, .. } => body.iter().for_each(|step| self.may_write(step)),
        }
    }

    fn too_many(&mut self, at: &Place) {
        self.full = true;
        self.resolver.report(
            Diagnostic::error("too-many-steps", at.clone(), format!("a round of more than {MOST_STEPS} steps"))
                .help("move the loop into the kernel"),
        );
    }

    fn tensor(&self, id: usize) -> Option<&Tensor> {
        self.tensors.get_index(id).and_then(|(_, t)| t.as_ref())
    }

    fn launch(&mut self, kernel: usize, grid: &Grid, args: &[Arg]) -> Option<Action> {
        let block = self.kernels.get_index(kernel).and_then(|(_, k)| k.as_ref())?.block;
        let grid = self.grid(grid, block);
        let mut out = Vec::with_capacity(args.len());
        for arg in args {
            out.push(match arg {
                Arg::Tensor { access, region } => self.view(region).map(|view| Argument::Tensor { access: *access, view }),
                Arg::Scalar { at, value, dtype } => self.scalar(at, value, *dtype).map(Argument::Scalar),
                Arg::Element { tensor } => self.element(*tensor).map(Argument::Scalar),
            });
        }
        Some(Action::Launch { kernel, grid: grid?, args: out.into_iter().collect::<Option<_>>()? })
    }

    fn grid(&mut self, grid: &Grid, block: [u32; 3]) -> Option<[Word; 3]> {
        let (dims, threads) = match grid {
            Grid::One => return Some([Word::Const(1); 3]),
            Grid::Blocks(dims) => (dims, false),
            Grid::Threads(dims) => (dims, true),
        };
        let mut out = [Word::Const(1); 3];
        let mut ok = true;
        for (axis, (at, value)) in dims.iter().enumerate() {
            let value = match value {
                Int::Int(i) => Num::Int(*i),
                Int::Text(text) => Num::Text(text.clone()),
            };
            let word = self.bind(at, &value, expr::Place::Integer).and_then(|scalar| {
                let source = if threads { VarSource::Threads { value: scalar, block: block[axis] } } else { VarSource::Blocks(scalar) };
                self.word(at, text_of(&value), source)
            });
            match word {
                Some(word) => out[axis] = word,
                None => ok = false,
            }
        }
        ok.then_some(out)
    }

    fn bind(&mut self, at: &Place, value: &Num, place: expr::Place) -> Option<Scalar> {
        let scope = Places::per_round(self.resolver, &self.loops);
        if let (Num::Text(text), false) = (value, self.loops.is_empty()) {
            if !self.parsed.contains_key(at) {
                let expr = self.resolver.parse(at, text)?;
                self.parsed.insert(at.clone(), expr);
            }
            let expr = &self.parsed[at];
            return Scalar::bind(expr, &scope, place).map_err(|e| self.resolver.report_expr(at, expr, &scope, e)).ok();
        }
        self.resolver.scalar(at, value, &scope, place)
    }

    fn scalar(&mut self, at: &Place, value: &Num, dtype: Dtype) -> Option<Word> {
        let place = if dtype.is_float() { expr::Place::Float } else { expr::Place::Integer };
        let scalar = self.bind(at, value, place)?;
        self.word(at, text_of(value), VarSource::Scalar { value: scalar, dtype })
    }

    /// The word of a value: fixed where it is the same in every round, else a variable. Values are tried in the
    /// first and the last round, so that most mistakes are found before anything runs.
    fn word(&mut self, at: &Place, text: String, source: VarSource) -> Option<Word> {
        let varies = match &source {
            VarSource::Scalar { value, .. }
            | VarSource::Pattern { value, .. }
            | VarSource::Blocks(value)
            | VarSource::Threads { value, .. } => value.uses_round(),
            VarSource::Tensor(_) => true,
        };
        let var = Var { text, source };
        if !matches!(var.source, VarSource::Tensor(_)) {
            let last = self.rounds.map_or(0, |r| r.count.saturating_sub(1));
            for round in [0, last] {
                match var.word(round, &mut |_| 0) {
                    Ok(word) if !varies => return Some(Word::Const(word)),
                    Ok(_) => {}
                    Err(error) => {
                        let when = if varies { format!(" (in round {round})") } else { String::new() };
                        self.resolver.report(Diagnostic::error("out-of-range", at.clone(), format!("{}{when}", error.0)));
                        return None;
                    }
                }
            }
        }
        let mut key = format!("{}|", var.text);
        let kind = match &var.source {
            VarSource::Scalar { dtype, .. } => format!("s{dtype}"),
            VarSource::Pattern { dtype, .. } => format!("p{dtype}"),
            VarSource::Blocks(_) => "b".into(),
            VarSource::Threads { block, .. } => format!("t{block}"),
            VarSource::Tensor(id) => format!("e{id}"),
        };
        let _ = write!(key, "{kind}|");
        for (_, turn) in &self.loops {
            let _ = write!(key, "{turn},");
        }
        if let Some(index) = self.interned.get(&key) {
            return Some(Word::Var(*index));
        }
        if self.lowered.vars.len() >= MOST_VARS {
            self.full = true;
            self.resolver.report(Diagnostic::error(
                "too-many-vars",
                at.clone(),
                format!("more than {MOST_VARS} values differ from round to round"),
            ));
            return None;
        }
        let index = self.lowered.vars.len() as u16;
        self.lowered.vars.push(var);
        self.interned.insert(key, index);
        Some(Word::Var(index))
    }

    /// The element of a tensor that is passed by value.
    fn element(&mut self, id: usize) -> Option<Word> {
        let tensor = self.tensor(id)?;
        if let Contents::Fixed(source) = &tensor.contents {
            let mut bytes = [0u8; 8];
            let key = Key::new(self.rounds.map_or(0, |r| r.seed), &tensor.name);
            data::fill(source, tensor.dtype, key, data::EVERY_ROUND, 0, &mut bytes[..tensor.dtype.size()]);
            return Some(Word::Const(tensor.dtype.load(&bytes, 0)));
        }
        let name = tensor.name.clone();
        // Its place is only needed for a job with too many variables.
        self.word(&Place::root().to("tensors").to(&name), name, VarSource::Tensor(id))
    }

    fn copy(&mut self, src: &Region, dst: &Region) -> Option<Action> {
        let (from, to) = (self.view(src)?, self.view(dst)?);
        let (a, b) = (self.tensor(src.tensor)?, self.tensor(dst.tensor)?);
        if a.dtype != b.dtype {
            self.resolver.report(
                Diagnostic::error(
                    "wrong-dtype",
                    dst.at.clone(),
                    format!("`{}` is {}, `{}` is {}: a copy keeps the dtype", a.name, a.dtype, b.name, b.dtype),
                )
                .also(src.at.clone(), a.dtype.name()),
            );
            return None;
        }
        if from.len != to.len {
            let size = a.dtype.size() as u64;
            self.resolver.report(
                Diagnostic::error(
                    "wrong-size",
                    dst.at.clone(),
                    format!(
                        "{} elements are copied to {} (`{}` has shape {}, `{}` has {})",
                        from.len / size,
                        to.len / size,
                        a.name,
                        a.shape,
                        b.name,
                        b.shape
                    ),
                )
                .also(src.at.clone(), format!("{} elements", from.len / size)),
            );
            return None;
        }
        Some(Action::Copy { src: from, dst: to })
    }

    fn fill(&mut self, dst: &Region, at: &Place, value: &Num) -> Option<Action> {
        let view = self.view(dst)?;
        let dtype = self.tensor(dst.tensor)?.dtype;
        let place = if dtype.is_float() { expr::Place::Float } else { expr::Place::Integer };
        let raw = matches!(value, Num::Text(text) if text.trim().starts_with("bits("));
        let scalar = if raw { None } else { Some(self.bind(at, value, place)?) };
        let varying = scalar.as_ref().filter(|s| s.uses_round());
        if let (Some(scalar), true) = (varying, dtype.size() <= 4) {
            return Some(Action::Fill {
                dst: view,
                pattern: self.word(at, text_of(value), VarSource::Pattern { value: scalar.clone(), dtype })?,
            });
        }
        if let Some(scalar) = varying {
            let zero = Number::Int(0);
            let draw = Draw { source: Source::Range { start: zero, step: zero }, numbers: [Some(scalar.clone()), None] };
            return self.fill_by_copy(view, dtype, Contents::Drawn(draw));
        }
        let bits = match scalar {
            None => self.resolver.bits(at, value, dtype)?,
            Some(scalar) => {
                let number = scalar.eval(0).map_err(|e| self.resolver.report_text("expression", at, e)).ok()?;
                dtype.encode(number).map_err(|e| self.resolver.report(Diagnostic::error("out-of-range", at.clone(), e.to_string()))).ok()?
            }
        };
        if dtype.size() == 8 && bits >> 32 != bits & 0xffff_ffff {
            return self.fill_by_copy(view, dtype, Contents::Fixed(Source::Fill(bits)));
        }
        Some(Action::Fill { dst: view, pattern: Word::Const(repeat_to_32(bits, dtype)) })
    }

    /// Devices fill with 32-bit words; a 64-bit pattern that is none is copied from a tensor of its own.
    fn fill_by_copy(&mut self, dst: View, dtype: Dtype, contents: Contents) -> Option<Action> {
        let shape = Shape::new(vec![dst.len / dtype.size() as u64]).ok()?;
        let name = format!("<fill {}>", self.tensors.len());
        let tensor = self.tensors.len();
        self.tensors.insert(name.clone(), Some(Tensor { name, dtype, shape, contents, carry: false }));
        Some(Action::Copy { src: View { tensor, offset: 0, len: dst.len }, dst })
    }

    /// The byte range of a view, which must be contiguous.
    fn view(&mut self, region: &Region) -> Option<View> {
        let tensor = self.tensor(region.tensor)?;
        let (dims, size) = (tensor.shape.dims(), tensor.dtype.size() as u64);
        let report = |span: std::ops::Range<usize>, message: String, help: &str| {
            let diagnostic = Diagnostic::error("bad-view", region.at.inside(span), message);
            self.resolver.report(if help.is_empty() { diagnostic } else { diagnostic.help(help) });
        };
        if region.view.index.len() > dims.len() {
            let span = region.view.index[dims.len()].span();
            report(
                span,
                format!(
                    "`{}` has {} dimensions (shape {}), {} are indexed",
                    tensor.name,
                    dims.len(),
                    tensor.shape,
                    region.view.index.len()
                ),
                "",
            );
            return None;
        }
        let scope = Places::constant(self.resolver, &self.loops);
        let eval = |expr: &Expr| self.resolver.eval_int(&region.at, expr, &scope);
        let mut offset = 0u64;
        let mut extents = Vec::with_capacity(dims.len());
        for (axis, &dim) in dims.iter().enumerate() {
            let (start, len) = match region.view.index.get(axis) {
                None => (0, dim),
                Some(Subscript::At(expr)) => {
                    let at = eval(expr)?;
                    if at < 0 || at >= i128::from(dim) {
                        report(
                            expr.span.clone(),
                            format!("index {at} is out of range: `{}` has {dim} in dimension {axis}", tensor.name),
                            "indices count from 0",
                        );
                        return None;
                    }
                    (at as u64, 1)
                }
                Some(Subscript::Slice(low, high, span)) => {
                    let low = low.as_ref().map_or(Some(0), eval)?;
                    let high = high.as_ref().map_or(Some(i128::from(dim)), eval)?;
                    if low < 0 || high > i128::from(dim) {
                        report(
                            span.clone(),
                            format!("{low}:{high} is out of range: `{}` has {dim} in dimension {axis}", tensor.name),
                            "a slice a:b has the indices a up to and without b",
                        );
                        return None;
                    }
                    if low >= high {
                        report(span.clone(), format!("{low}:{high} is empty"), "a slice a:b has the indices a up to and without b");
                        return None;
                    }
                    (low as u64, (high - low) as u64)
                }
            };
            offset = offset * dim + start;
            extents.push(len);
        }
        // Contiguous: behind the first dimension that has more than one index, every dimension is whole.
        let first = extents.iter().position(|&n| n > 1).unwrap_or(dims.len());
        if let Some(axis) = (first + 1..dims.len()).find(|&axis| extents[axis] != dims[axis]) {
            let span = region.view.index.get(axis).map_or(0..1, |s| s.span());
            report(
                span,
                format!(
                    "this part of `{}` is not contiguous: dimension {axis} is cut, and dimension {first} has {} indices",
                    tensor.name, extents[first]
                ),
                "a view is one run of bytes: cut the leading dimension, or index it",
            );
            return None;
        }
        Some(View { tensor: region.tensor, offset: offset * size, len: extents.iter().product::<u64>() * size })
    }

    /// One action may not have the same bytes twice where it writes one of them: what it reads then depends on the device.
    fn overlaps(&self, origin: u32, action: &Action) {
        let views: Vec<_> = action.views().collect();
        for (i, (access, view)) in views.iter().enumerate() {
            for (j, (other_access, other)) in views[..i].iter().enumerate() {
                if (access.writes() || other_access.writes()) && view.overlaps(other) {
                    let name = self.tensor(view.tensor).map_or("", |t| t.name.as_str());
                    let label = &self.lowered.origins[origin as usize].label;
                    let (here, there) = (self.lowered.view_place(origin, i), self.lowered.view_place(origin, j));
                    self.resolver.report(
                        Diagnostic::error(
                            "overlap",
                            here,
                            format!(
                                "two arguments of `{label}` overlap: the same bytes of `{name}` are `{}` and `{}`",
                                other_access.name(),
                                access.name()
                            ),
                        )
                        .help("pass tensors or views that do not overlap; what is read and written in place is one `inout` parameter")
                        .also(there, "the other"),
                    );
                    return;
                }
            }
        }
    }
}

fn text_of(value: &Num) -> String {
    match value {
        Num::Int(i) => i.to_string(),
        Num::Float(f) => f.to_string(),
        Num::Bool(b) => b.to_string(),
        Num::Text(text) => text.clone(),
    }
}
