//! Runs compute kernels many times and knows that every round was right.

pub mod check;
pub mod data;
pub mod device;
pub mod diag;
pub mod exec;
pub mod expr;
pub mod job;
pub mod plan;
pub mod spec;
pub mod tensor;
pub mod verdict;
pub mod worker;

#[cfg(feature = "cli")]
pub mod cli;
