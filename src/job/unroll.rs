//! Bound steps -> the flat list of one round: loops unrolled, views as byte ranges, values that depend on the round as variables.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::names::Resolver;
use super::places::Places;
use super::steps::{Arg, Bound, Grid, Kernels, Lowered, Region, Tensors, Value};
use super::{Action, Argument, Contents, Draw, Rounds, Step, Tensor, Var, VarSource, View, repeat_to_32};
use crate::data::{self, Key, Source};
use crate::device::Word;
use crate::diag::{Diagnostic, Place};
use crate::expr::{self, Expr, Scalar};
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
        last: HashMap::new(),
        parsed: HashMap::new(),
    };
    unroller.steps(&bound);
}

pub(super) struct Unroller<'r, 'a> {
    pub(super) resolver: &'r Resolver<'a>,
    tensors: &'r mut Tensors,
    kernels: &'r Kernels,
    rounds: Option<Rounds>,
    pub(super) lowered: &'r mut Lowered,
    pub(super) loops: Vec<(String, i128)>,
    /// Variables by what computes them.
    interned: HashMap<String, u16>,
    /// Too many steps or variables: reported, nothing more is added.
    full: bool,
    /// Turns of all loops so far: a body that adds nothing could turn without end.
    turns: usize,
    /// By origin: the last step that it has become.
    last: HashMap<u32, u32>,
    /// Expressions of loop bodies by their text, parsed once. Several may share a place: arguments that are left out.
    parsed: HashMap<String, Expr>,
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
                Bound::When { at, condition, step } => {
                    match self.holds(at, condition) {
                        Some(true) => self.steps(std::slice::from_ref(&**step)),
                        Some(false) => {}
                        None => self.may_write(step),
                    }
                    continue;
                }
                Bound::Launch { origin, kernel, grid, offset, args } => (origin, self.launch(*kernel, grid, offset, args)),
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
            let mut after: Vec<u32> =
                self.lowered.notes[*origin as usize].after.iter().filter_map(|origin| self.last.get(origin).copied()).collect();
            after.sort_unstable();
            after.dedup();
            self.last.insert(*origin, self.lowered.steps.len() as u32);
            self.lowered.steps.push(Step { action, origin: *origin, turn: self.loops.iter().map(|(_, v)| *v).collect(), after });
        }
    }

    /// Whether a condition is 1; `None` where a mistake is reported.
    fn holds(&self, at: &Place, condition: &Expr) -> Option<bool> {
        let scope = Places::presence(self.resolver, &self.loops);
        match self.resolver.eval_int(at, condition, &scope)? {
            0 => Some(false),
            1 => Some(true),
            other => {
                self.resolver.report(
                    Diagnostic::error("not-a-condition", at.clone(), format!("`when` is {other}, a condition is true or false"))
                        .help("write a comparison, such as \"splits > 1\""),
                );
                None
            }
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
                    if let Arg::Tensor { access, region, .. } = arg
                        && access.writes()
                    {
                        self.lowered.maybe.add(region.tensor);
                    }
                }
            }
            Bound::Copy { dst, .. } | Bound::Fill { dst, .. } => self.lowered.maybe.add(dst.tensor),
            Bound::For { body, .. } => body.iter().for_each(|step| self.may_write(step)),
            Bound::When { step, .. } => self.may_write(step),
        }
    }

    fn too_many(&mut self, at: &Place) {
        self.full = true;
        self.resolver.report(
            Diagnostic::error("too-many-steps", at.clone(), format!("a round of more than {MOST_STEPS} steps"))
                .help("move the loop into the kernel"),
        );
    }

    pub(super) fn tensor(&self, id: usize) -> Option<&Tensor> {
        self.tensors.get_index(id).and_then(|(_, t)| t.as_ref())
    }

    fn launch(&mut self, kernel: usize, grid: &Grid, offset: &[(Place, Int)], args: &[Arg]) -> Option<Action> {
        let block = self.kernels.get_index(kernel).and_then(|(_, k)| k.as_ref())?.block;
        let grid = self.grid(grid, block);
        let offset = self.sizes(offset, Word::Const(0), |_, value| VarSource::Offset(value));
        let mut out = Vec::with_capacity(args.len());
        for arg in args {
            out.push(match arg {
                Arg::Tensor { access, region, lanes } => {
                    self.view_in_lanes(region, *lanes).map(|view| Argument::Tensor { access: *access, view })
                }
                Arg::Scalar(value) => self.value(value).map(Argument::Scalar),
                Arg::Struct(values) => {
                    // Every value is looked at, so that one mistake hides no other.
                    let words: Vec<Option<Word>> = values.iter().map(|value| self.value(value)).collect();
                    words.into_iter().collect::<Option<_>>().map(Argument::Struct)
                }
                Arg::Null => Some(Argument::Null),
            });
        }
        Some(Action::Launch { kernel, grid: grid?, offset: offset?, args: out.into_iter().collect::<Option<_>>()? })
    }

    fn grid(&mut self, grid: &Grid, block: [u32; 3]) -> Option<[Word; 3]> {
        match grid {
            Grid::One => Some([Word::Const(1); 3]),
            Grid::Blocks(dims) => self.sizes(dims, Word::Const(1), |_, value| VarSource::Blocks(value)),
            Grid::Threads(dims) => self.sizes(dims, Word::Const(1), |axis, value| VarSource::Threads { value, block: block[axis] }),
        }
    }

    /// Numbers by axis, and what stands for those that are not given.
    fn sizes(&mut self, dims: &[(Place, Int)], rest: Word, source: impl Fn(usize, Scalar) -> VarSource) -> Option<[Word; 3]> {
        let mut out = [rest; 3];
        let mut ok = true;
        for (axis, (at, value)) in dims.iter().enumerate() {
            let value = match value {
                Int::Int(i) => Num::Int(*i),
                Int::Text(text) => Num::Text(text.clone()),
            };
            let word = self.bind(at, &value, expr::Place::Integer).and_then(|scalar| self.word(at, text_of(&value), source(axis, scalar)));
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
            if !self.parsed.contains_key(text) {
                let expr = self.resolver.parse(at, text)?;
                self.parsed.insert(text.clone(), expr);
            }
            let expr = &self.parsed[text];
            return Scalar::bind(expr, &scope, place).map_err(|e| self.resolver.report_expr(at, expr, &scope, e)).ok();
        }
        self.resolver.scalar(at, value, &scope, place)
    }

    fn value(&mut self, value: &Value) -> Option<Word> {
        match value {
            Value::Number { at, value, dtype } => self.scalar(at, value, *dtype),
            Value::Element { tensor } => self.element(*tensor),
        }
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
            | VarSource::Offset(value)
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
            VarSource::Offset(_) => "o".into(),
            VarSource::Threads { block, .. } => format!("t{block}"),
            VarSource::Tensor(id) => format!("e{id}"),
        };
        let _ = write!(key, "{kind}|");
        for (name, turn) in &self.loops {
            let _ = write!(key, "{name}={turn},");
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
        if let Contents::Fixed(source) = &tensor.contents
            && !matches!(source, Source::Program(_))
        {
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
        self.tensors.insert(name.clone(), Some(Tensor { name, dtype, shape, contents, carry: false, spaced: false }));
        Some(Action::Copy { src: View { tensor, offset: 0, len: dst.len }, dst })
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
