//! Turns outputs and expectations into what is known of their agreement: counts, mismatches, and words for where they lie.

mod census;
mod compare;
mod float;
mod judge;
mod pattern;
mod region;
mod tolerance;

pub use census::{Census, FIRST, First, Mismatch};
pub use compare::{compare, compare_bytes};
pub use pattern::{Evidence, describe};
pub use tolerance::Tolerance;
