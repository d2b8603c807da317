//! Where a job and each of its lanes are, readable from another thread or, in a page that two processes map, from the
//! parent of a worker.

use std::cell::Cell;
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
    /// A lane without rounds, or one that waits for the others.
    Idle = 8,
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
            8 => Phase::Idle,
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
            Phase::Idle => "waiting",
        }
    }
}

/// The most lanes that a job may have.
pub const MOST_LANES: usize = 64;

/// Where a job is: plain atomics, written with relaxed stores, as who looks needs no more than a recent value of each.
#[derive(Debug)]
#[repr(C)]
pub struct Progress {
    /// All rounds below are run and checked.
    verified: AtomicU64,
    stop: AtomicU32,
    kernel: AtomicU32,
    lanes: AtomicU32,
    /// Devices that run the job side by side, each in the lane of its index; 0 where there is one.
    devices: AtomicU32,
    /// One more than the lane whose thread a signal ended; 0 where there was none.
    crashed: AtomicU32,
    each: [LaneProgress; MOST_LANES],
}

/// Where one lane is, on a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct LaneProgress {
    phase: AtomicU32,
    /// Index of the node that the device runs, for a crash.
    pub node: AtomicU32,
    round: AtomicU64,
    /// Changes with every step forward; a lane that stands still keeps it.
    beat: AtomicU64,
    /// The rounds that the lane works on start here, and those below `done` are run and checked.
    begin: AtomicU64,
    done: AtomicU64,
    /// Rounds that are in its slots: filled, run or checked.
    flying: AtomicU32,
}

/// A thread that works for whichever lane.
const NO_LANE: u32 = u32::MAX;

thread_local! {
    /// The lane that this thread works for.
    static LANE: Cell<u32> = const { Cell::new(NO_LANE) };
}

/// Says which lane this thread works for.
pub(super) fn work_for(lane: usize) {
    LANE.set(lane as u32);
}

impl LaneProgress {
    const fn new() -> LaneProgress {
        LaneProgress {
            phase: AtomicU32::new(0),
            node: AtomicU32::new(0),
            round: AtomicU64::new(0),
            beat: AtomicU64::new(0),
            begin: AtomicU64::new(0),
            done: AtomicU64::new(0),
            flying: AtomicU32::new(0),
        }
    }

    /// Enters a phase of a round. Only the lane's thread calls it.
    pub fn enter(&self, phase: Phase, round: u64) {
        self.round.store(round, Ordering::Relaxed);
        self.phase.store(phase as u32, Ordering::Relaxed);
        self.beat.store(self.beat.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The lane takes the rounds from this one on.
    pub fn begin(&self, round: u64) {
        self.begin.store(round, Ordering::Relaxed);
        // Whoever sees this sees the store above.
        self.done.store(round, Ordering::Release);
    }

    /// The lane has run and checked its rounds below this one.
    pub fn done(&self, round: u64) {
        self.done.store(round, Ordering::Release);
    }

    /// So many rounds are in the lane's slots.
    pub(super) fn fly(&self, rounds: usize) {
        self.flying.store(rounds as u32, Ordering::Relaxed);
    }

    /// Rounds that are in the lane's slots: more than one where they overlap.
    pub fn flying(&self) -> u32 {
        self.flying.load(Ordering::Relaxed)
    }

    /// Below this round all of the lane's are run and checked.
    pub fn rounds_done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    pub fn phase(&self) -> Phase {
        Phase::from_code(self.phase.load(Ordering::Relaxed))
    }

    pub fn round(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }

    pub fn beat(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

impl Progress {
    pub const fn new() -> Progress {
        Progress {
            verified: AtomicU64::new(0),
            stop: AtomicU32::new(0),
            kernel: AtomicU32::new(0),
            lanes: AtomicU32::new(1),
            devices: AtomicU32::new(0),
            crashed: AtomicU32::new(0),
            each: [const { LaneProgress::new() }; MOST_LANES],
        }
    }

    /// Enters a phase of the job: that of the lane of this thread, or of the first as long as there is no other.
    pub fn enter(&self, phase: Phase, round: u64) {
        let lane = LANE.get() as usize;
        self.each[if lane < MOST_LANES { lane } else { 0 }].enter(phase, round);
    }

    /// So many devices run the job side by side.
    pub fn devices(&self, devices: usize) {
        self.lanes.store(devices.min(MOST_LANES) as u32, Ordering::Relaxed);
        self.devices.store(devices.min(MOST_LANES) as u32, Ordering::Relaxed);
    }

    fn is_shared(&self) -> bool {
        self.devices.load(Ordering::Relaxed) > 0
    }

    /// Enters the compilation of a kernel.
    pub fn compiling(&self, kernel: u32) {
        self.kernel.store(kernel, Ordering::Relaxed);
        self.enter(Phase::Compile, 0);
    }

    /// So many lanes are at work.
    pub(super) fn work_in(&self, lanes: usize) {
        if !self.is_shared() {
            self.lanes.store(lanes.min(MOST_LANES) as u32, Ordering::Relaxed);
        }
    }

    /// All rounds below this one are run and checked.
    pub(super) fn verified(&self, rounds: u64) {
        if !self.is_shared() {
            self.verified.store(rounds, Ordering::Relaxed);
        }
    }

    /// *Panics* for a lane that is none of [`MOST_LANES`].
    pub fn lane(&self, lane: usize) -> &LaneProgress {
        &self.each[lane]
    }

    /// The lanes that are at work.
    pub fn lanes(&self) -> &[LaneProgress] {
        // A page that another process writes may hold any number.
        &self.each[..(self.lanes.load(Ordering::Relaxed) as usize).clamp(1, MOST_LANES)]
    }

    /// Notes the lane of this thread, for whoever finds the process ended by a signal. Safe in a signal's handler.
    pub fn note_crash(&self) {
        self.crashed.store(LANE.get().wrapping_add(1), Ordering::Relaxed);
    }

    /// The lane whose thread a signal ended.
    pub fn crashed(&self) -> Option<&LaneProgress> {
        self.lanes().get((self.crashed.load(Ordering::Relaxed) as usize).checked_sub(1)?)
    }

    pub fn kernel(&self) -> u32 {
        self.kernel.load(Ordering::Relaxed)
    }

    /// Rounds from the first on that are all run and checked.
    pub fn rounds_verified(&self) -> u64 {
        if self.is_shared() {
            return self.lanes().iter().map(LaneProgress::rounds_done).min().unwrap_or(0);
        }
        let mut verified = self.verified.load(Ordering::Relaxed);
        loop {
            // What lanes are at joins what is done before it.
            let done = |lane: &LaneProgress| {
                let done = lane.done.load(Ordering::Acquire);
                (lane.begin.load(Ordering::Relaxed) <= verified).then_some(done)
            };
            match self.lanes().iter().filter_map(done).max().filter(|&done| done > verified) {
                Some(done) => verified = done,
                None => return verified,
            }
        }
    }

    /// Asks the job to end after the rounds in flight.
    pub fn ask_to_stop(&self) {
        self.stop.store(1, Ordering::Relaxed);
    }

    pub fn stop_asked(&self) -> bool {
        self.stop.load(Ordering::Relaxed) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verified_rounds_are_those_without_a_gap() {
        let progress = Progress::new();
        progress.work_in(3);
        for (lane, begin, done) in [(0, 20, 25), (1, 10, 20), (2, 30, 35)] {
            progress.lane(lane).begin(begin);
            progress.lane(lane).done(done);
        }
        assert_eq!(progress.rounds_verified(), 0);
        progress.verified(10);
        assert_eq!(progress.rounds_verified(), 25);
    }
}
