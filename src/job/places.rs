//! The scopes of the places where expressions stand: what a name means there, and whether it may.

use indexmap::IndexMap;

use super::Tensor;
use super::names::Resolver;
use crate::expr::{Name, Scope};
use crate::tensor::Number;

/// What names mean at a kind of place.
pub(super) struct Places<'a> {
    resolver: &'a Resolver<'a>,
    /// `None`: allowed.
    round: Option<&'static str>,
    loops: &'a [(String, i128)],
    tensors: Option<&'a IndexMap<String, Option<Tensor>>>,
    /// By tensor, whether a step writes it; `None` where nothing may be said of the end of a round.
    written: Option<&'a [bool]>,
}

impl<'a> Places<'a> {
    /// Dims and loop variables.
    pub fn constant(resolver: &'a Resolver<'a>, loops: &'a [(String, i128)]) -> Places<'a> {
        const WHY: &str =
            "`round` may stand in scalars, grids, `each_round` and expectations, not here: this is fixed when the job is planned";
        Places { resolver, round: Some(WHY), loops, tensors: None, written: None }
    }

    /// Dims, loop variables and `round`.
    pub fn per_round(resolver: &'a Resolver<'a>, loops: &'a [(String, i128)]) -> Places<'a> {
        Places { resolver, round: None, loops, tensors: None, written: None }
    }

    /// All that may be named anywhere, where only names are looked up.
    pub fn anything(resolver: &'a Resolver<'a>, loops: &'a [(String, i128)], tensors: &'a IndexMap<String, Option<Tensor>>) -> Places<'a> {
        Places { resolver, round: None, loops, tensors: Some(tensors), written: None }
    }

    /// Dims and the contents of other tensors; `round` where they are drawn in every one.
    pub fn contents(resolver: &'a Resolver<'a>, tensors: &'a IndexMap<String, Option<Tensor>>, drawn: bool) -> Places<'a> {
        const WHY: &str = "`data` is the same in every round: contents that depend on `round` are `each_round = { expr = \"...\" }`";
        Places { resolver, round: (!drawn).then_some(WHY), loops: &[], tensors: Some(tensors), written: None }
    }

    /// Dims, `round` and the contents of tensors at the start of the round.
    pub fn expectation(resolver: &'a Resolver<'a>, tensors: &'a IndexMap<String, Option<Tensor>>) -> Places<'a> {
        Places { resolver, round: None, loops: &[], tensors: Some(tensors), written: None }
    }

    /// As an expectation, and what tensors hold at the end of the round.
    pub fn condition(resolver: &'a Resolver<'a>, tensors: &'a IndexMap<String, Option<Tensor>>, written: &'a [bool]) -> Places<'a> {
        Places { written: Some(written), ..Places::expectation(resolver, tensors) }
    }
}

impl Scope for Places<'_> {
    fn get(&self, name: &str) -> Option<Name<'_>> {
        if name == "round" {
            return Some(self.round.map_or(Name::Round, |why| Name::Refused(why.to_string())));
        }
        if let Some((_, value)) = self.loops.iter().find(|(n, _)| n == name) {
            return Some(Name::Number(Number::Int(*value)));
        }
        let resolver = self.resolver;
        let silent = || Some(Name::Refused(String::new()));
        if resolver.spec.dims.contains_key(name) {
            resolver.use_name(name);
            return match resolver.dim(name) {
                Some(value) => Some(Name::Number(Number::Int(value))),
                None => silent(),
            };
        }
        if resolver.loaded.lost("dims", name) || resolver.loaded.lost("tensors", name) {
            return silent();
        }
        let Some(tensors) = self.tensors else {
            return resolver
                .spec
                .tensors
                .contains_key(name)
                .then(|| Name::Refused(format!("`{name}` is a tensor, only dims and numbers may stand here")));
        };
        let (id, _, tensor) = tensors.get_full(name)?;
        resolver.use_name(name);
        let Some(tensor) = tensor else { return silent() };
        if matches!(tensor.contents, super::Contents::None) {
            return Some(Name::Refused(format!(
                "`{name}` has no contents at the start of a round: give it `data` or `each_round`, or write its expectation out"
            )));
        }
        Some(Name::Tensor { id, dtype: tensor.dtype, shape: &tensor.shape })
    }

    fn after(&self, name: &str) -> Option<Name<'_>> {
        let resolver = self.resolver;
        let (Some(tensors), Some(written)) = (self.tensors, self.written) else {
            let why = format!("`after({name})` may not stand here: the end of the round belongs to `holds`");
            return self.get(name).map(|_| Name::Refused(why));
        };
        let Some((id, _, tensor)) = tensors.get_full(name) else { return self.get(name) };
        resolver.use_name(name);
        let Some(tensor) = tensor else { return Some(Name::Refused(String::new())) };
        if !written.get(id).copied().unwrap_or(false) {
            return Some(Name::Refused(format!("no step writes `{name}`: `after({name})` is what was put there")));
        }
        Some(Name::Tensor { id, dtype: tensor.dtype, shape: &tensor.shape })
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.resolver.spec.dims.keys().cloned().collect();
        names.extend(self.loops.iter().map(|(name, _)| name.clone()));
        if let Some(tensors) = self.tensors {
            names.extend(tensors.keys().filter(|n| !n.starts_with('<')).cloned());
        }
        if self.round.is_none() {
            names.push("round".into());
        }
        names
    }
}
