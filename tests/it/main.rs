//! One binary for all tests from outside, a module per subject.

mod arrows;
mod bad;
mod cli;
mod commands;
mod docs;
mod executor;
mod planner;
mod schema;
mod selection;
mod vectors;
mod verdicts;
