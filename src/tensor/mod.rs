//! The ground everything stands on: dtypes and their bits, numbers, shapes, how rows lie, and parameter types.
//!
//! Nothing here knows of specs, devices or rounds.

mod backend;
pub mod bits;
mod dtype;
mod lang;
pub(crate) mod narrow;
mod number;
mod param;
pub mod rows;
mod shape;
pub(crate) mod simd;
mod structure;

pub use backend::Backend;
pub use dtype::Dtype;
pub use lang::Lang;
pub use number::{Number, RangeError};
pub use param::{Access, NamedTypes, Param, ParamKind};
pub use shape::{MAX_ELEMENTS, Shape, ShapeError};
pub use structure::{Field, Struct, type_name};
