//! Contents that are expressions over other contents: each becomes a program, when all tensors are known; none may come
//! back to itself.

use std::sync::Arc;

use indexmap::IndexMap;

use super::names::Resolver;
use super::places::Places;
use super::{Contents, Tensor};
use crate::data::Source;
use crate::diag::{Diagnostic, Place};
use crate::expr::{self, Kind, Program};
use crate::spec::Data;

/// Which of a tensor's contents an expression gives.
#[derive(Clone, Copy, PartialEq)]
enum Which {
    /// `data`: those of all sets of the job that give none of their own.
    Data,
    EachRound,
    Set(usize),
}

/// One `expr`.
struct Computed {
    tensor: usize,
    which: Which,
    at: Place,
    program: Option<Arc<Program>>,
}

impl Computed {
    /// The tensors that it names.
    fn names(&self) -> &[usize] {
        self.program.as_ref().map_or(&[], |program| program.tensors())
    }
}

type Tensors = IndexMap<String, Option<Tensor>>;

impl Resolver<'_> {
    /// Puts programs where tensors have an `expr` as contents.
    pub(super) fn computed(&self, tensors: &mut Tensors) {
        let mut all = self.computed_texts(tensors);
        if all.is_empty() {
            return;
        }
        let cyclic = self.cycles(tensors, &all);
        for one in &mut all {
            if one.program.is_none() || cyclic.contains(&one.tensor) || !self.fits_its_round(tensors, one) {
                tensors[one.tensor] = None;
                one.program = None;
            }
        }
        for one in &all {
            let (Some(program), Some(tensor)) = (&one.program, &mut tensors[one.tensor]) else { continue };
            let source = Source::Program(Arc::clone(program));
            match (&mut tensor.contents, one.which) {
                (Contents::Fixed(slot), _) => *slot = source,
                (Contents::Drawn(draw), _) => draw.source = source,
                (Contents::Sets(slots), Which::Set(set)) => slots[set] = source,
                (Contents::Sets(slots), _) => {
                    let rows = self.rows();
                    let own = |set: usize| rows.get(set).is_some_and(|row| self.spec.sets[row.index].data.contains_key(&tensor.name));
                    slots.iter_mut().enumerate().filter(|(set, _)| !own(*set)).for_each(|(_, slot)| *slot = source.clone());
                }
                (Contents::None, _) => {}
            }
        }
        self.follow_sets(tensors, &all);
    }

    /// All `expr` of the spec, compiled where they can be.
    fn computed_texts(&self, tensors: &Tensors) -> Vec<Computed> {
        let mut texts = Vec::new();
        let root = Place::root();
        for (name, tensor) in &self.spec.tensors {
            let at = root.to("tensors").to(name);
            for (key, which, data) in [("data", Which::Data, &tensor.data), ("each_round", Which::EachRound, &tensor.each_round)] {
                texts.extend(data.iter().map(|data| (name, which, at.to(key), data)));
            }
        }
        for (set, row) in self.rows().iter().enumerate() {
            let at = root.to("sets").to(row.index).to("data");
            texts.extend(self.spec.sets[row.index].data.iter().map(|(name, data)| (name, Which::Set(set), at.to(name), data)));
        }
        let mut all = Vec::new();
        for (name, which, at, data) in texts {
            let Data::Expr(text) = data else { continue };
            let Some((id, _, Some(tensor))) = tensors.get_full(name) else { continue };
            let at = at.to("expr");
            let program = self.content_program(&at, text, tensor, tensors, which == Which::EachRound);
            all.push(Computed { tensor: id, which, at, program });
        }
        all
    }

    fn content_program(&self, at: &Place, text: &str, tensor: &Tensor, tensors: &Tensors, drawn: bool) -> Option<Arc<Program>> {
        let expr = self.parse(at, text)?;
        let scope = Places::contents(self, tensors, drawn);
        let program = expr::compile(&expr, &scope, &tensor.shape)
            .and_then(|p| p.broadcast_to(&tensor.shape))
            .map_err(|e| self.report_expr(at, &expr, &scope, e))
            .ok()?;
        if program.kind() == Kind::Float && !tensor.dtype.is_float() {
            self.report(
                Diagnostic::error("wrong-dtype", at.clone(), format!("these contents are floats, `{}` is {}", tensor.name, tensor.dtype))
                    .help(format!(
                        "say how they become whole: `{0}(x)` cuts the fraction off, `{0}(rint(x))` rounds, `//` divides whole numbers",
                        tensor.dtype
                    )),
            );
            return None;
        }
        Some(Arc::new(program))
    }

    /// Contents of all rounds name none that are drawn, and drawn ones something that differs.
    fn fits_its_round(&self, tensors: &Tensors, one: &Computed) -> bool {
        let name = |id: usize| tensors.get_index(id).map_or("", |(name, _)| name.as_str());
        let contents = |id: usize| tensors.get_index(id).and_then(|(_, t)| t.as_ref()).map(|t| &t.contents);
        let drawn = one.names().iter().copied().find(|&id| contents(id).is_some_and(Contents::is_drawn));
        let Some(program) = &one.program else { return true };
        match (one.which, drawn) {
            (Which::EachRound, None) => {
                let sets = one.names().iter().any(|&id| matches!(contents(id), None | Some(Contents::Sets(_))));
                if !program.uses_round() && !sets {
                    self.report(
                        Diagnostic::error("not-drawn", one.at.clone(), "this expression gives every round the same contents")
                            .help("write it as `data`, which is copied once, or let it name `round` or a tensor with `each_round`"),
                    );
                    return false;
                }
                true
            }
            (Which::Data | Which::Set(_), Some(drawn)) => {
                let message = format!("`{}` has `each_round`, and `{}` is to be the same in every round", name(drawn), name(one.tensor));
                let also = Place::root().to("tensors").to(name(drawn)).to("each_round").key();
                self.report(
                    Diagnostic::error("not-fixed", one.at.clone(), message)
                        .help("what is computed from drawn contents is drawn: write it as `each_round = { expr = \"...\" }`")
                        .also(also, "drawn here"),
                );
                false
            }
            _ => true,
        }
    }

    /// Reports contents that are computed from themselves; the tensors of such cycles.
    fn cycles(&self, tensors: &Tensors, all: &[Computed]) -> Vec<usize> {
        let names = |id: usize| all.iter().filter(move |one| one.tensor == id).flat_map(|one| one.names().iter().copied());
        let mut cyclic: Vec<usize> = Vec::new();
        let mut done = vec![false; tensors.len()];
        for one in all {
            // The way from this tensor on, each with what it names and was not followed yet.
            let mut way: Vec<(usize, Vec<usize>)> = Vec::new();
            let mut next = Some(one.tensor);
            while let Some(id) = next.take().or_else(|| {
                loop {
                    match way.last_mut() {
                        None => break None,
                        Some((id, rest)) => match rest.pop() {
                            Some(id) => break Some(id),
                            None => {
                                done[*id] = true;
                                way.pop();
                            }
                        },
                    }
                }
            }) {
                if let Some(from) = way.iter().position(|(on, _)| *on == id) {
                    let circle: Vec<usize> = way[from..].iter().map(|(id, _)| *id).collect();
                    if !circle.iter().any(|id| cyclic.contains(id)) {
                        self.report_cycle(tensors, all, &circle);
                    }
                    cyclic.extend(circle);
                } else if !done[id] {
                    let mut rest: Vec<usize> = names(id).collect();
                    rest.reverse();
                    way.push((id, rest));
                }
            }
        }
        cyclic
    }

    fn report_cycle(&self, tensors: &Tensors, all: &[Computed], circle: &[usize]) {
        let name = |id: &usize| tensors.get_index(*id).map_or(String::new(), |(name, _)| format!("`{name}`"));
        let Some(first) = circle.first() else { return };
        let Some(one) = all.iter().find(|one| one.tensor == *first) else { return };
        let way: Vec<String> = circle.iter().chain([first]).map(name).collect();
        self.report(
            Diagnostic::error(
                "cycle",
                one.at.clone(),
                format!("the contents of {} are computed from themselves: {}", name(first), way.join(" -> ")),
            )
            .help("one of them needs a source of its own, such as { uniform = {} }"),
        );
    }

    /// What is computed from contents that sets give has contents for every set.
    fn follow_sets(&self, tensors: &mut Tensors, all: &[Computed]) {
        let sets = self.rows().len();
        // So often that the last of a chain has learnt of the first.
        for _ in 0..all.len() {
            for one in all {
                let of_set = |&id: &usize| tensors[id].as_ref().is_some_and(|t| matches!(t.contents, Contents::Sets(_)));
                if !one.names().iter().any(of_set) {
                    continue;
                }
                let Some(tensor) = &mut tensors[one.tensor] else { continue };
                if let Contents::Fixed(source) = &tensor.contents {
                    tensor.contents = Contents::Sets(vec![source.clone(); sets]);
                    if tensor.carry {
                        self.report(
                            Diagnostic::error(
                                "two-sources",
                                one.at.clone(),
                                format!("carried `{}` starts once, and this depends on the set", tensor.name),
                            )
                            .help("name only tensors that all sets share"),
                        );
                    }
                }
            }
        }
    }
}
