//! What the names of an expression stand for.

use super::ast::Span;
use crate::diag::TextError;
use crate::tensor::{Dtype, Number, Shape};

/// What one name stands for.
#[derive(Clone, PartialEq, Debug)]
pub enum Name<'a> {
    /// A dim, or anything else that is one number for the whole job.
    Number(Number),
    /// The number of the round, counted from 0.
    Round,
    Tensor {
        id: usize,
        dtype: Dtype,
        shape: &'a Shape,
    },
    /// Why this name may not stand here.
    Refused(String),
}

/// The names that an expression may use.
pub trait Scope {
    /// What the name stands for; `None` when it is not known. Asked for `round` too.
    fn get(&self, name: &str) -> Option<Name<'_>>;

    /// What `after(name)` stands for: a tensor's contents at the end of the round, which it has whether or not it has
    /// any at the start. `None` when the name is not known. Refused, unless a scope says otherwise.
    fn after(&self, name: &str) -> Option<Name<'_>> {
        self.get(name).map(|_| Name::Refused(format!("`after({name})` may not stand here: the end of the round belongs to `holds`")))
    }

    /// The names that could be meant where one is not known.
    fn names(&self) -> Vec<String>;
}

/// What a name stands for; with `after`, what it stands for at the end of the round.
///
/// *Errors*: an unknown name (with candidates), or one that the scope refuses.
pub(super) fn look_up<'a>(scope: &'a dyn Scope, name: &str, after: bool, span: &Span) -> Result<Name<'a>, TextError> {
    match if after { scope.after(name) } else { scope.get(name) } {
        Some(Name::Refused(why)) => Err(TextError::new(span.clone(), why)),
        Some(found) => Ok(found),
        None if name == "round" => Err(TextError::new(span.clone(), "`round` may not stand here: this place is the same in every round")),
        None => Err(TextError::new(span.clone(), format!("`{name}` is not known")).unknown(name, scope.names())),
    }
}
