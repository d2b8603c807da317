//! `[tensors]` and the contents in `[[sets]]` -> tensors with shapes, sizes and sources.

use indexmap::IndexMap;

use super::names::Resolver;
use super::places::Places;
use super::values::raw_bits;
use super::{Contents, Draw, Tensor};
use crate::data::{self, Source};
use crate::diag::{Diagnostic, Place};
use crate::expr;
use crate::spec::{self, Data, Num};
use crate::tensor::{Dtype, Number, Shape};

impl Resolver<'_> {
    /// All tensors in the order of the spec; `None` where one's own mistake is reported.
    pub(super) fn tensors(&self) -> IndexMap<String, Option<Tensor>> {
        let root = Place::root().to("tensors");
        let mut tensors: IndexMap<String, Option<Tensor>> =
            self.spec.tensors.iter().map(|(name, tensor)| (name.clone(), self.tensor(&root.to(name), name, tensor))).collect();
        for (set_index, set) in self.spec.sets.iter().enumerate() {
            let at = Place::root().to("sets").to(set_index).to("data");
            for name in set.data.keys() {
                if !tensors.contains_key(name) && !self.loaded.lost("tensors", name) {
                    let names: Vec<_> = tensors.keys().collect();
                    self.report(
                        Diagnostic::error("unknown-name", at.to(name).key(), format!("there is no tensor `{name}`"))
                            .did_you_mean(name, &names, "tensors"),
                    );
                }
            }
        }
        for (name, slot) in &mut tensors {
            if let Some(tensor) = slot
                && self.rows().iter().any(|row| self.spec.sets[row.index].data.contains_key(name))
            {
                match self.set_contents(&root.to(name), name, tensor) {
                    Some(sources) => tensor.contents = Contents::Sets(sources),
                    None => *slot = None,
                }
            }
        }
        // Contents that a set would have given are not missing, they could not be read.
        for (name, slot) in &mut tensors {
            let lost = |index| self.loaded.is_damaged(&Place::root().to("sets").to(index).to("data").to(name));
            if slot.as_ref().is_some_and(|t| matches!(t.contents, Contents::None)) && (0..self.spec.sets.len()).any(lost) {
                *slot = None;
            }
        }
        if self.loaded.lacks(&Place::root().to("sets")) {
            for slot in tensors.values_mut() {
                slot.take_if(|t| matches!(t.contents, Contents::None));
            }
        }
        self.set_names_differ();
        self.computed(&mut tensors);
        tensors
    }

    fn set_names_differ(&self) {
        let at = |index: usize| Place::root().to("sets").to(index).to("name");
        let names: Vec<_> = self.spec.sets.iter().map(|set| set.name.as_deref()).collect();
        for (index, name) in names.iter().enumerate() {
            let Some(name) = name else { continue };
            if name.trim().is_empty() {
                self.report(Diagnostic::error("empty", at(index), "the name of a set is empty").help("leave it out, or write one"));
            } else if let Some(first) = names[..index].iter().position(|n| *n == Some(*name)) {
                self.report(
                    Diagnostic::error("name-clash", at(index), format!("two sets are called `{name}`"))
                        .help("reports name sets: rename one of them")
                        .also(at(first), "the first"),
                );
            }
        }
    }

    pub(super) fn set_names(&self) -> Vec<String> {
        self.rows().into_iter().map(|row| row.name).collect()
    }

    fn tensor(&self, at: &Place, name: &str, tensor: &spec::Tensor) -> Option<Tensor> {
        let dims: Vec<Option<u64>> =
            tensor.shape.iter().enumerate().map(|(axis, extent)| self.extent(&at.to("shape").to(axis), extent)).collect();
        if self.loaded.is_damaged(at) {
            return None;
        }
        let dtype = self.dtype(&at.to("dtype"), &tensor.dtype);
        let shape = dims.into_iter().collect::<Option<Vec<u64>>>().and_then(|dims| {
            let error = |e| self.report(Diagnostic::error("too-large", at.to("shape"), format!("tensor `{name}`: {e}")));
            Shape::new(dims).map_err(error).ok()
        });
        let (Some(shape), Some(dtype)) = (shape, dtype) else {
            for (key, data) in [("data", &tensor.data), ("each_round", &tensor.each_round)] {
                if let Some(data) = data {
                    self.loose_data(&at.to(key), data);
                }
            }
            return None;
        };
        let mut contents = Contents::None;
        if let Some(data) = &tensor.data {
            if tensor.each_round.is_some() {
                self.report(
                    Diagnostic::error("two-sources", at.to("each_round").key(), format!("`{name}` has `data` and `each_round`"))
                        .help("`data` is the same in every round, `each_round` is drawn anew: keep one")
                        .also(at.to("data").key(), "the other"),
                );
                return None;
            }
            contents = Contents::Fixed(self.contents(&at.to("data"), data, dtype, &shape, false)?.source);
        }
        if let Some(data) = &tensor.each_round {
            let draw = self.contents(&at.to("each_round"), data, dtype, &shape, true)?;
            let constant =
                matches!(draw.source, Source::Fill(_) | Source::Values(_) | Source::Repeat(_) | Source::Range { .. } | Source::File(_))
                    && !draw.varies()
                    && !matches!(data, Data::Expr(_));
            if constant {
                self.report(
                    Diagnostic::error("not-drawn", at.to("each_round"), format!("`{}` gives every round the same contents", data.name()))
                        .help("write it as `data`, which is copied once, or let a number depend on `round`"),
                );
            }
            contents = Contents::Drawn(draw);
        }
        if tensor.carry {
            let (code, message) = match &contents {
                Contents::None => ("no-start", format!("carried `{name}` has nothing to start from")),
                Contents::Drawn(_) => {
                    ("carry-drawn", format!("`{name}` has `carry` and `each_round`: it keeps what the last round left, or is drawn anew"))
                }
                _ => ("", String::new()),
            };
            if !code.is_empty() {
                self.report(
                    Diagnostic::error(code, at.to("carry").key(), message)
                        .help("a carried tensor starts from its `data`, such as `data = \"zeros\"`"),
                );
                return None;
            }
        }
        Some(Tensor { name: name.to_string(), dtype, shape, contents, carry: tensor.carry, spaced: false })
    }

    fn extent(&self, at: &Place, extent: &spec::Int) -> Option<u64> {
        let value = self.int(at, extent, &Places::constant(self, &[]))?;
        match u64::try_from(value) {
            Ok(extent) if extent > 0 => Some(extent),
            _ => {
                self.report(
                    Diagnostic::error("bad-extent", at.clone(), format!("an extent of {value}: it must be at least 1"))
                        .help("a tensor without elements could not be checked"),
                );
                None
            }
        }
    }

    /// The contents of a tensor in every set, where at least one set names it.
    fn set_contents(&self, at: &Place, name: &str, tensor: &Tensor) -> Option<Vec<Source>> {
        let base = match &tensor.contents {
            Contents::Fixed(source) => Some(source.clone()),
            _ => None,
        };
        let mut sources = Vec::new();
        let mut ok = true;
        for row in self.rows() {
            let set_at = Place::root().to("sets").to(row.index);
            let Some(data) = self.spec.sets[row.index].data.get(name) else {
                match &base {
                    Some(source) => sources.push(source.clone()),
                    None if self.loaded.is_damaged(&set_at) => ok = false,
                    None => {
                        ok = false;
                        self.report(
                            Diagnostic::error("no-contents", set_at, format!("this set has no contents for `{name}`, others have"))
                                .help(format!("add `data.{name} = ...` here, or `data` to `{at}` for the sets that give none")),
                        );
                    }
                }
                continue;
            };
            let here = set_at.to("data").to(name);
            let refused = match (&tensor.contents, tensor.carry) {
                (Contents::Drawn(_), _) => Some(("has `each_round`: it is drawn anew every round", "each_round")),
                (_, true) => Some(("has `carry`: it starts from its `data` once", "carry")),
                _ => None,
            };
            if let Some((why, key)) = refused {
                ok = false;
                self.report(
                    Diagnostic::error("two-sources", here.key(), format!("a set gives contents to `{name}`, which {why}"))
                        .also(at.to(key).key(), "here"),
                );
                continue;
            }
            match self.of_row(&row, || self.contents(&here, data, tensor.dtype, &tensor.shape, false)) {
                Some(draw) => sources.push(draw.source),
                None => ok = false,
            }
        }
        ok.then_some(sources)
    }

    /// A source of the spec with its numbers.
    pub(super) fn contents(&self, at: &Place, data: &Data, dtype: Dtype, shape: &Shape, drawn: bool) -> Option<Draw> {
        let two = |list: &str, names: [&str; 2], values: [&Option<Num>; 2], defaults: [Number; 2]| {
            let at = at.to(list);
            let [a, b] = [0, 1].map(|i| self.number(&at.to(names[i]), values[i], defaults[i], dtype, drawn));
            let (a, b) = (a?, b?);
            Some(([a.0, b.0], [a.1, b.1]))
        };
        let (zero, one) = (Number::Int(0), Number::Int(1));
        let fixed = |source| Some(Draw { source, numbers: [None, None] });
        let draw = match data {
            Data::Zeros => fixed(Source::Fill(0)),
            Data::Ones => fixed(Source::Fill(dtype.encode(one).ok()?)),
            Data::Fill(value) => {
                let at = at.to("fill");
                match self.number(&at, &Some(value.clone()), zero, dtype, drawn) {
                    _ if raw_bits(value).is_some() => fixed(Source::Fill(self.bits(&at, value, dtype)?)),
                    // A fill that depends on the round is a range that does not step: one evaluation serves all elements.
                    Some((_, Some(scalar))) => {
                        Some(Draw { source: Source::Range { start: zero, step: zero }, numbers: [Some(scalar), None] })
                    }
                    Some((_, None)) => fixed(Source::Fill(self.bits(&at, value, dtype)?)),
                    None => None,
                }
            }
            // Tensors that it names may stand behind this one: `computed` puts the program here when all are known.
            Data::Expr(_) => fixed(Source::Fill(0)),
            Data::Repeat(values) => fixed(Source::Repeat(self.repeated(&at.to("repeat"), values, dtype, shape)?)),
            Data::Values(values) => fixed(Source::Values(self.values(&at.to("values"), values, dtype, shape)?)),
            Data::Range(r) => {
                let ([start, step], numbers) = two("range", ["start", "step"], [&r.start, &r.step], [zero, one])?;
                Some(Draw { source: Source::Range { start, step }, numbers })
            }
            Data::Uniform(u) => {
                let ([low, high], numbers) = two("uniform", ["low", "high"], [&u.low, &u.high], [zero, one])?;
                Some(Draw { source: Source::Uniform { low: low.to_f64(), high: high.to_f64() }, numbers })
            }
            Data::Normal(n) => {
                let ([mean, std], numbers) = two("normal", ["mean", "std"], [&n.mean, &n.std], [zero, one])?;
                Some(Draw { source: Source::Normal { mean: mean.to_f64(), std: std.to_f64() }, numbers })
            }
            Data::Integers(i) => {
                let (low, high) = match dtype.integer_range() {
                    Some(range) => range,
                    None if i.low.is_some() && i.high.is_some() => (0, 0),
                    None => {
                        self.report(
                            Diagnostic::error(
                                "no-range",
                                at.clone(),
                                format!("`integers` without `low` and `high` means every value of the dtype, {dtype} is a float"),
                            )
                            .help("write { integers = { low = -8, high = 8 } }"),
                        );
                        return None;
                    }
                };
                let ([low, high], numbers) = two("integers", ["low", "high"], [&i.low, &i.high], [Number::Int(low), Number::Int(high)])?;
                let whole = |n: Number, key: &str| {
                    let whole = n.to_integer();
                    if whole.is_none() {
                        self.report(Diagnostic::error("not-whole", at.to("integers").to(key), format!("{n} is not a whole number")));
                    }
                    whole
                };
                Some(Draw { source: Source::Integers { low: whole(low, "low")?, high: whole(high, "high")? }, numbers })
            }
            Data::File(path) => fixed(Source::File(self.npy(&at.to("file"), path, dtype, Some(shape))?)),
        }?;
        let last = if draw.varies() { self.last_round.get() } else { 0 };
        for round in [0, last] {
            let when = if draw.varies() { format!(" (in round {round})") } else { String::new() };
            let source = draw.at(round).map_err(|e| self.report_text("expression", at, e)).ok()?;
            if let Err(data::Refusal { part, message }) = data::validate(&source, dtype, shape.elements()) {
                // A number that the spec leaves out has no place.
                let number = part.filter(|part| data.gives(part)).map(|part| at.to(data.name()).to(part));
                self.report(Diagnostic::error("bad-contents", number.unwrap_or(at.clone()), format!("{message}{when}")));
                return None;
            }
        }
        Some(draw)
    }

    /// A number of a source: its value, or what computes it every round.
    fn number(
        &self,
        at: &Place,
        value: &Option<Num>,
        default: Number,
        dtype: Dtype,
        drawn: bool,
    ) -> Option<(Number, Option<expr::Scalar>)> {
        let Some(value) = value else { return Some((default, None)) };
        if raw_bits(value).is_some() {
            return Some((default, None));
        }
        let place = if dtype.is_float() { expr::Place::Float } else { expr::Place::Integer };
        let scope = if drawn { Places::per_round(self, &[]) } else { Places::constant(self, &[]) };
        let scalar = self.scalar(at, value, &scope, place)?;
        if scalar.uses_round() {
            return Some((default, Some(scalar)));
        }
        let number = scalar.eval(0).map_err(|e| self.report_text("expression", at, e)).ok()?;
        Some((number, None))
    }
}
