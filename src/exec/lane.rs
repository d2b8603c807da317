//! The loop of one lane: fill a slot, submit the round, check the oldest one in flight.

use std::time::Instant;

use super::board::Board;
use super::collect;
use super::host::{HostSide, Known};
use super::progress::{LaneProgress, Phase, Progress};
use super::session::{Session, Shared};
use super::slot::Ring;
use super::{SAMPLE, Stop, Tally};
use crate::device::Trace;
use crate::job::Job;
use crate::plan::{Host, Plan};

/// One thread with its own device instance and slots.
pub(super) struct Lane<'a, 'b> {
    pub job: &'a Job,
    pub plan: &'a Plan,
    pub device: &'a mut Trace,
    pub host: HostSide<'a>,
    pub at: &'a LaneProgress,
    stop: &'a Progress,
    board: &'a Board<'b>,
    pub tally: Tally,
}

impl<'a, 'b> Lane<'a, 'b> {
    pub fn new(
        job: &'a Job,
        plan: &'a Plan,
        device: &'a mut Trace,
        index: usize,
        known: &'a Known,
        progress: &'a Progress,
        board: &'a Board<'b>,
    ) -> Lane<'a, 'b> {
        let host = HostSide::new(job, plan, known);
        Lane { job, plan, device, host, at: progress.lane(index), stop: progress, board, tally: Tally::new(job) }
    }

    /// Sets the lane up, then runs the rounds that it is dealt until there are none.
    pub fn run(mut self, shared: &Shared) {
        self.at.enter(Phase::Setup, 0);
        let mut ring = Ring::new(self.job, self.plan);
        let ready = Session::open(self.plan, self.device, shared)
            .map_err(Stop::from)
            .and_then(|session| self.warm_up(&session, &mut ring).map(|()| session));
        match ready {
            Ok(session) => {
                self.at.enter(Phase::Idle, 0);
                if self.board.ready(self.device.own_counts()) {
                    self.deals(&session, &mut ring);
                }
            }
            Err(stop) => self.board.not_ready(stop),
        }
        if let Err(error) = ring.release(self.device) {
            self.board.after_all(Stop::Device(error));
        }
        self.at.enter(Phase::Idle, self.at.round());
    }

    /// Rounds of round 0's inputs, after which everything is put back.
    fn warm_up(&mut self, session: &Session, ring: &mut Ring) -> Result<(), Stop> {
        session.start(self.device)?;
        for _ in 0..self.plan.rounds.warmup {
            self.interrupted()?;
            self.submit(session, ring, 0)?;
            self.finish_oldest(session, ring, false)?;
        }
        if self.plan.rounds.warmup > 0 {
            ring.release(self.device)?;
            session.start(self.device)?;
        }
        ring.restart();
        self.host.restart(self.job);
        Ok(())
    }

    fn deals(&mut self, session: &Session, ring: &mut Ring) {
        let mut explained = 0;
        while let Some((rounds, tally)) = self.board.deal(explained) {
            self.at.begin(rounds.start);
            self.tally = tally;
            let mut round = rounds.start;
            let result = self.rounds(session, ring, &mut round, rounds.end);
            explained = self.tally.explained;
            let tally = std::mem::replace(&mut self.tally, Tally::empty());
            let failed = result.is_err();
            self.board.merge(rounds, tally, result.err().map(|stop| (round, stop)));
            if failed {
                return;
            }
        }
    }

    /// Runs rounds from `round` to `end`; after an error, `round` is the one that it is of.
    fn rounds(&mut self, session: &Session, ring: &mut Ring, round: &mut u64, end: u64) -> Result<(), Stop> {
        let mut result = Ok(());
        while result.is_ok() && *round < end && self.board.runs(*round) {
            result = self.interrupted().and_then(|()| self.submit(session, ring, *round));
            if result.is_ok() {
                result = self.drain(session, ring, round, ring.len() - 1);
                *round += u64::from(result.is_ok());
            }
        }
        // The rounds before get their verdicts, whatever made this one stop.
        let mut at = *round;
        match (self.drain(session, ring, &mut at, 0), result) {
            (Ok(()), result) => result,
            // The lower round's error is the one that counts.
            (Err(stop), Err(Stop::Device(also))) if at < *round => {
                self.tally.salvage.errors.push(format!("round {round}: {also}"));
                *round = at;
                Err(stop)
            }
            (Err(Stop::Device(also)), Err(stop)) => {
                self.tally.salvage.errors.push(format!("round {at}: {also}"));
                Err(stop)
            }
            (Err(stop), _) => {
                *round = at;
                Err(stop)
            }
        }
    }

    /// Finishes rounds until so many are in flight. After an error, `round` is the one that it is of, and what is in flight
    /// behind it was looked at, though it does not count.
    fn drain(&mut self, session: &Session, ring: &mut Ring, round: &mut u64, in_flight: usize) -> Result<(), Stop> {
        while ring.in_flight() > in_flight {
            let oldest = ring.oldest().round;
            if let Err(stop) = self.finish_oldest(session, ring, true) {
                *round = oldest;
                self.salvage(session, ring);
                return Err(stop);
            }
        }
        Ok(())
    }

    pub fn interrupted(&self) -> Result<(), Stop> {
        if self.stop.stop_asked() { Err(Stop::Interrupted) } else { Ok(()) }
    }

    /// Whether a round's phases are timed.
    fn timed(&self, round: u64) -> bool {
        self.plan.schedule.host == Host::Pool || round % SAMPLE == SAMPLE - 1
    }

    /// Fills a free slot for a round and submits it. After an error, the slot is free again.
    pub fn submit(&mut self, session: &Session, ring: &mut Ring, round: u64) -> Result<(), Stop> {
        self.at.enter(Phase::Prepare, round);
        let clock = self.timed(round).then(Instant::now);
        let after = ring.last.filter(|_| session.carries);
        let slot = ring.next(round);
        let filled = slot.fill(self.job, self.plan, session, self.device, &mut self.host);
        let filled = filled.map(|()| clock.map(|c| c.elapsed().as_nanos() as u64));
        self.at.enter(Phase::Run, round);
        let submitted = filled.and_then(|filled| Ok((filled, slot.submit(self.plan, session, self.device, after)?)));
        match submitted {
            Ok((filled, point)) => {
                if let (Some(clock), Some(filled)) = (clock, filled) {
                    slot.phases.fill = filled;
                    slot.phases.run = clock.elapsed().as_nanos() as u64 - filled;
                }
                ring.last = Some(point);
                Ok(())
            }
            Err(stop) => {
                ring.give_back();
                Err(stop)
            }
        }
    }

    /// Waits for the oldest round in flight and checks it.
    pub fn finish_oldest(&mut self, session: &Session, ring: &mut Ring, checked: bool) -> Result<(), Stop> {
        let slot = ring.oldest();
        let round = slot.round;
        let clock = self.timed(round).then(Instant::now);
        self.at.enter(Phase::Run, round);
        slot.wait(self.device)?;
        slot.take(session, self.device)?;
        let waited = clock.map(|c| c.elapsed().as_nanos() as u64);
        if checked {
            self.at.enter(Phase::Check, round);
            let bad = collect::check(self.job, self.plan, slot, &mut self.host, &mut self.tally);
            self.tally.run += 1;
            if bad {
                self.failed(round);
            }
            self.at.done(round + 1);
            if let (Some(clock), Some(waited)) = (clock, waited) {
                let times = &mut self.tally.times;
                times.sampled += 1;
                times.fill += slot.phases.fill;
                times.run += slot.phases.run + waited;
                times.check += clock.elapsed().as_nanos() as u64 - waited;
            }
        }
        let (hit, index) = (std::mem::take(&mut slot.hit), slot.index);
        ring.free_oldest();
        if !hit.is_empty() {
            // Else the next round in this slot would be blamed for what this one wrote.
            session.restore_guards(self.plan, self.device, index, &hit, &ring.flying())?;
        }
        Ok(())
    }

    /// Counts a round as failed, and tells what was just found wrong with it.
    fn failed(&mut self, round: u64) {
        if self.tally.last_failed != Some(round) {
            self.tally.failed_rounds += 1;
            self.tally.last_failed = Some(round);
        }
        self.board.failed(&self.tally.failures[self.tally.told..]);
        self.tally.told = self.tally.failures.len();
    }
}
