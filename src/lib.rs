//! Runs compute kernels many times, on real devices, and knows that every round was right and how fast it was.
//!
//! The modules in the order of the pipeline; each uses only those above it. One tensor's way through them:
//!
//! | call | the tensor |
//! |---|---|
//! | [`spec::load`] | text becomes `[tensors.x]`: a dtype, a shape, a source; mistakes become [`diag`]nostics |
//! | [`job::resolve`] | its name becomes an id, its shape numbers, its source exact values; steps refer to byte ranges of it |
//! | [`plan::build`] | its class (resident, streamed, scratch, ...), its address in a memory, the nodes that copy, fill and use it |
//! | [`exec::run`] | it is filled ([`data`]), its graph is replayed ([`device`]), its bytes are compared ([`check`]) with what [`expr`] says |
//! | [`verdict`] | what came of it in every round, as data |
//! | [`worker`] | all of that in a process of its own, watched from outside |
//!
//! Embedders leave out the `cli` feature and call these in turn: `spec::load`, `job::resolve`, `plan::build` with the
//! capabilities of a [`device::Device`], `exec::run` with a function that is told the [`verdict::Event`]s.

pub mod diag;
pub mod tensor;

pub mod expr;

pub mod data;

pub mod check;
pub mod spec;

pub mod device;
pub mod job;
pub mod plan;

pub mod exec;
pub mod verdict;
pub mod worker;

#[cfg(feature = "cli")]
pub mod cli;
