//! What can be said of texts whose place is broken in another way: unknown names in them are reported all the same,
//! and what a broken step may have written is not missed later.

use std::collections::HashSet;

use super::names::Resolver;
use super::places::Places;
use super::steps::{Kernels, Tensors};
use crate::diag::{Place, TextError};
use crate::expr::{self, Expr, Name, Scope, Subscript};
use crate::spec::{Args, Data, Expect, Int, Num, Step};

/// Tensors that steps may write of which nothing more is known.
#[derive(Default)]
pub(super) struct Maybe {
    tensors: HashSet<usize>,
    all: bool,
}

impl Maybe {
    pub fn add(&mut self, tensor: usize) {
        self.tensors.insert(tensor);
    }

    pub fn contains(&self, tensor: usize) -> bool {
        self.all || self.tensors.contains(&tensor)
    }
}

impl Resolver<'_> {
    fn loose_word(&self, at: &Place, word: &str, span: &expr::Span, is_function: bool, scope: &dyn Scope) {
        if word == "round"
            && let Some(Name::Refused(why)) = scope.get(word)
        {
            return self.report_text("expression", at, TextError::new(span.clone(), why));
        }
        let (known, candidates) = match is_function {
            true => (expr::function_names().iter().any(|f| f == word) || word == "bits", expr::function_names()),
            false => (scope.get(word).is_some(), scope.names()),
        };
        if !known {
            let message = if is_function { format!("`{word}` is not a function") } else { format!("`{word}` is not known") };
            self.report_text("unknown-name", at, TextError::new(span.clone(), message).unknown(word, candidates));
        }
    }

    /// Reports the unknown names of an expression that cannot be evaluated.
    pub fn loose_expr(&self, at: &Place, expr: &Expr, scope: &dyn Scope) {
        expr.words(&mut |word, span, is_function| self.loose_word(at, word, span, is_function, scope));
    }

    pub fn loose_subscripts(&self, at: &Place, index: &[Subscript], scope: &dyn Scope) {
        for entry in index {
            entry.words(&mut |word, span, is_function| self.loose_word(at, word, span, is_function, scope));
        }
    }

    /// A tensor, a view or an expression whose use is not known.
    fn loose_text(&self, at: &Place, text: &str, scope: &dyn Scope) {
        if let Ok(view) = expr::parse_view(text) {
            self.loose_word(at, &view.name, &view.name_span, false, scope);
            self.loose_subscripts(at, &view.index, scope);
        } else if let Ok(expr) = expr::parse(text) {
            self.loose_expr(at, &expr, scope);
        }
    }

    pub fn loose_num(&self, at: &Place, value: &Num, scope: &dyn Scope) {
        if let Num::Text(text) = value {
            self.loose_text(at, text, scope);
        }
    }

    /// The expectation of a tensor that is not known.
    pub fn loose_expect(&self, at: &Place, expect: &Expect, tensors: &Tensors) {
        let scope = Places::anything(self, &[], tensors);
        match expect {
            Expect::Expr(text) => {
                if let Some(expr) = self.parse(at, text) {
                    self.loose_expr(at, &expr, &scope);
                }
            }
            Expect::Table(table) => {
                for (key, value) in [("fill", &table.fill), ("at", &table.at)] {
                    if let Some(value) = value {
                        self.loose_num(&at.to(key), value, &scope);
                    }
                }
            }
        }
    }

    /// The contents of a tensor whose shape is not known.
    pub fn loose_data(&self, at: &Place, data: &Data) {
        let scope = Places::per_round(self, &[]);
        let at = at.to(data.name());
        let named = |list: [(&str, &Option<Num>); 2]| {
            for (key, value) in list {
                if let Some(value) = value {
                    self.loose_num(&at.to(key), value, &scope);
                }
            }
        };
        match data {
            Data::Fill(value) => self.loose_num(&at, value, &scope),
            Data::Range(r) => named([("start", &r.start), ("step", &r.step)]),
            Data::Uniform(u) => named([("low", &u.low), ("high", &u.high)]),
            Data::Normal(n) => named([("mean", &n.mean), ("std", &n.std)]),
            Data::Integers(i) => named([("low", &i.low), ("high", &i.high)]),
            Data::Expr(text) => self.loose_text(&at, text, &scope),
            Data::Repeat(values) => values.iter().enumerate().for_each(|(index, value)| self.loose_num(&at.to(index), value, &scope)),
            Data::Zeros | Data::Ones | Data::Values(_) | Data::File(_) => {}
        }
    }

    /// The arguments and the grid of a launch whose kernel is not known.
    pub fn loose_launch(&self, at: &Place, step: &Step, loops: &[String], tensors: &Tensors) {
        let loops: Vec<(String, i128)> = loops.iter().map(|name| (name.clone(), 0)).collect();
        let scope = Places::anything(self, &loops, tensors);
        let args_at = at.to("args");
        match &step.args {
            Some(Args::Positional(args)) => {
                for (index, arg) in args.iter().enumerate() {
                    self.loose_num(&args_at.to(index), arg, &scope);
                }
            }
            Some(Args::Named(args)) => {
                for (name, arg) in args {
                    self.loose_num(&args_at.to(name), arg, &scope);
                }
            }
            None => {}
        }
        for (key, extents) in [("threads", &step.threads), ("grid", &step.grid)] {
            for (axis, extent) in extents.iter().flatten().enumerate() {
                if let Int::Text(text) = extent {
                    self.loose_text(&at.to(key).to(axis), text, &scope);
                }
            }
        }
    }

    /// Notes which tensors a step that is broken may write.
    pub fn may_write(&self, at: &Place, step: &Step, tensors: &Tensors, kernels: &Kernels, maybe: &mut Maybe) {
        let mut name = |word: &str| {
            if let Some(id) = tensors.get_index_of(word) {
                maybe.add(id);
                self.use_name(word);
            }
        };
        let mut text = |text: &str| {
            if let Ok(view) = expr::parse_view(text) {
                name(&view.name);
            }
        };
        for target in [&step.to, &step.fill].into_iter().flatten() {
            text(target);
        }
        let known = step.kernel.as_deref().and_then(|kernel| kernels.get(kernel)).and_then(|kernel| kernel.as_ref());
        match &step.args {
            Some(Args::Positional(args)) => {
                for arg in args {
                    if let Num::Text(arg) = arg {
                        text(arg);
                    }
                }
            }
            Some(Args::Named(args)) => {
                for arg in args.values() {
                    if let Num::Text(arg) = arg {
                        text(arg);
                    }
                }
            }
            None => {}
        }
        for param in known.iter().flat_map(|kernel| &kernel.params) {
            name(&param.name);
        }
        let by_name = step.kernel.is_some() && known.is_none() && !matches!(step.args, Some(Args::Positional(_)));
        let lost = ["kernel", "args", "to", "fill", "for", "do"].iter().any(|key| self.loaded.lacks(&at.to(*key)));
        maybe.all |= by_name || lost || self.loaded.lacks(at);
        for (index, inner) in step.body.iter().flatten().enumerate() {
            self.may_write(&at.to("do").to(index), inner, tensors, kernels, maybe);
        }
    }

    /// Notes that nothing is known of any step.
    pub fn lost_steps(&self, maybe: &mut Maybe) {
        maybe.all |= self.loaded.lacks(&Place::root().to("steps"));
    }
}
