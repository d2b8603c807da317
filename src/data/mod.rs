//! Turns declared sources into the bytes of tensors: (seed, tensor name, round, element index) -> contents.
//!
//! `philox` makes random words, `generate` makes elements of them, `npy` reads arrays from files.

mod fingerprint;
mod generate;
mod map;
mod normal;
mod npy;
mod philox;
mod source;

pub use fingerprint::fingerprint;
pub use generate::{fill, permutation};
pub use npy::{Npy, NpyError, write};
pub use philox::{EVERY_ROUND, Key};
pub use source::{Refusal, Source, validate};
