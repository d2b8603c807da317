//! Turns outputs and expectations into what is known of their agreement: counts, mismatches, and words for where they lie.

mod census;
mod compare;
mod float;
mod judge;
mod metrics;
mod multiset;
mod part;
mod pattern;
mod region;
mod tolerance;

pub use census::{Census, FIRST, First, Mismatch};
pub use compare::{Places, compare, compare_bytes};
pub use metrics::{Metric, Reached, Sums};
pub use multiset::{Multiset, Odd, Unmatched};
pub use part::{Part, Side};
pub use pattern::{Evidence, describe};
pub use tolerance::Tolerance;

/// Words for the elements at `indices` (ascending, distinct) that were never written; `None` where no short name fits.
pub fn region(shape: &crate::tensor::Shape, indices: &[usize]) -> Option<String> {
    region::name(shape, indices).map(|region| region.then("was never written", "were never written"))
}
