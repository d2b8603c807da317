//! Where a job is, readable from another thread or, in a page that two processes map, from the parent of a worker.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What a job is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Phase {
    Start = 0,
    /// Reading the spec, opening the device, planning.
    Plan = 1,
    Compile = 2,
    /// Allocating and uploading.
    Setup = 3,
    /// Filling a round's inputs.
    Prepare = 4,
    Run = 5,
    Check = 6,
    Done = 7,
}

impl Phase {
    fn from_code(code: u32) -> Phase {
        match code {
            1 => Phase::Plan,
            2 => Phase::Compile,
            3 => Phase::Setup,
            4 => Phase::Prepare,
            5 => Phase::Run,
            6 => Phase::Check,
            7 => Phase::Done,
            _ => Phase::Start,
        }
    }

    /// What a person calls it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Start => "starting",
            Phase::Plan => "planning",
            Phase::Compile => "compiling",
            Phase::Setup => "set-up",
            Phase::Prepare => "filling inputs",
            Phase::Run => "running",
            Phase::Check => "checking",
            Phase::Done => "done",
        }
    }
}

/// Plain atomics, written with relaxed stores: who looks needs no more than a recent value of each.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Progress {
    phase: AtomicU32,
    /// Index of the node that the device runs, for a crash.
    pub node: AtomicU32,
    round: AtomicU64,
    verified: AtomicU64,
    /// Changes with every step forward; a job that stands still keeps it.
    beat: AtomicU64,
    stop: AtomicU32,
    kernel: AtomicU32,
}

impl Progress {
    pub const fn new() -> Progress {
        Progress {
            phase: AtomicU32::new(0),
            node: AtomicU32::new(0),
            round: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            beat: AtomicU64::new(0),
            stop: AtomicU32::new(0),
            kernel: AtomicU32::new(0),
        }
    }

    /// Enters a phase of a round. Only the job's thread calls it.
    pub fn enter(&self, phase: Phase, round: u64) {
        self.round.store(round, Ordering::Relaxed);
        self.phase.store(phase as u32, Ordering::Relaxed);
        self.beat.store(self.beat.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Enters the compilation of a kernel.
    pub fn compiling(&self, kernel: u32) {
        self.kernel.store(kernel, Ordering::Relaxed);
        self.enter(Phase::Compile, 0);
    }

    /// So many rounds have been run and checked.
    pub fn verified(&self, rounds: u64) {
        self.verified.store(rounds, Ordering::Relaxed);
    }

    pub fn phase(&self) -> Phase {
        Phase::from_code(self.phase.load(Ordering::Relaxed))
    }

    pub fn round(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }

    pub fn kernel(&self) -> u32 {
        self.kernel.load(Ordering::Relaxed)
    }

    pub fn rounds_verified(&self) -> u64 {
        self.verified.load(Ordering::Relaxed)
    }

    pub fn beat(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }

    /// Asks the job to end after the rounds in flight.
    pub fn ask_to_stop(&self) {
        self.stop.store(1, Ordering::Relaxed);
    }

    pub fn stop_asked(&self) -> bool {
        self.stop.load(Ordering::Relaxed) != 0
    }
}
