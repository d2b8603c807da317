//! The loop of one lane: fill a batch, submit its rounds, check the oldest ones in flight.

use std::time::Instant;

use super::batch::Ring;
use super::board::Board;
use super::clock::{OnDevice, StepClock};
use super::collect;
use super::host::{HostSide, Known};
use super::progress::{LaneProgress, Phase, Progress};
use super::session::{Session, Shared};
use super::slot::Slot;
use super::{Beside, SAMPLE, Stop, Tally};
use crate::device::{DeviceError, Trace};
use crate::job::Job;
use crate::plan::{Host, Plan};
use crate::verdict::TimeOf;

/// One thread with its own device instance and slots.
pub(super) struct Lane<'a, 'b> {
    pub job: &'a Job,
    pub plan: &'a Plan,
    pub device: &'a mut Trace,
    pub host: HostSide<'a>,
    pub at: &'a LaneProgress,
    stop: &'a Progress,
    board: &'a Board<'b>,
    beside: &'a Beside<'a>,
    clock: StepClock,
    /// Every round is timed.
    measures: bool,
    /// When the round before ended.
    ended: Option<Instant>,
    pub tally: Tally,
}

impl<'a, 'b> Lane<'a, 'b> {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        job: &'a Job,
        plan: &'a Plan,
        device: &'a mut Trace,
        index: usize,
        known: &'a Known,
        progress: &'a Progress,
        board: &'a Board<'b>,
        beside: &'a Beside<'a>,
    ) -> Lane<'a, 'b> {
        let host = HostSide::new(job, plan, known);
        let (clock, measures) = (StepClock::new(job, plan, beside.clock), job.bench.is_asked() && !job.compared);
        let (at, tally) = (progress.lane(index), Tally::new(job));
        Lane { job, plan, device, host, at, stop: progress, board, beside, clock, measures, ended: None, tally }
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

    /// Rounds of the first round's inputs, after which everything is put back.
    fn warm_up(&mut self, session: &Session, ring: &mut Ring) -> Result<(), Stop> {
        session.start(self.device)?;
        for _ in 0..self.plan.rounds.warmup {
            self.interrupted()?;
            self.submit(session, ring, &mut 0, 1)?;
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
            let mut nth = rounds.start;
            let result = self.rounds(session, ring, &mut nth, rounds.end);
            explained = self.tally.explained;
            let tally = std::mem::replace(&mut self.tally, Tally::empty());
            let failed = result.is_err();
            self.board.merge(rounds, tally, result.err().map(|stop| (nth, stop)));
            if failed {
                return;
            }
        }
    }

    /// Runs the rounds from the `nth` on to `end`; after an error, `nth` is the one that it is of.
    fn rounds(&mut self, session: &Session, ring: &mut Ring, nth: &mut u64, end: u64) -> Result<(), Stop> {
        let mut result = Ok(());
        self.ended = self.measures.then(Instant::now);
        while result.is_ok() && *nth < end && self.board.runs(*nth) {
            // Every count begins with a batch of its own: there are lists for what is left of one.
            let count = self.plan.rounds.count.max(1);
            let rounds = (end - *nth).min(self.plan.schedule.batch.max(1).into()).min(count - *nth % count);
            result = self.interrupted().and_then(|()| self.submit(session, ring, nth, rounds as usize));
            if result.is_ok() {
                result = self.drain(session, ring, nth, ring.len() - 1);
            }
        }
        // The rounds before get their verdicts, whatever made this one stop.
        let mut at = *nth;
        match (self.drain(session, ring, &mut at, 0), result) {
            (Ok(()), result) => result,
            // The lower round's error is the one that counts.
            (Err(stop), Err(Stop::Device(also))) if at < *nth => {
                self.also(*nth, &also);
                *nth = at;
                Err(stop)
            }
            (Err(Stop::Device(also)), Err(stop)) => {
                self.also(at, &also);
                Err(stop)
            }
            (Err(stop), _) => {
                *nth = at;
                Err(stop)
            }
        }
    }

    /// Notes an error that is not the one that counts.
    fn also(&mut self, nth: u64, error: &DeviceError) {
        let round = self.host.round(nth);
        self.tally.salvage.errors.push(format!("round {round}: {error}"));
    }

    /// Finishes rounds until so many are in flight. After an error, `nth` is the one that it is of, and what is in flight
    /// behind it was looked at, though it does not count.
    fn drain(&mut self, session: &Session, ring: &mut Ring, nth: &mut u64, in_flight: usize) -> Result<(), Stop> {
        while ring.in_flight() > in_flight {
            let oldest = ring.oldest().nth();
            if let Err(stop) = self.finish_oldest(session, ring, true) {
                *nth = oldest;
                match &stop {
                    // All bytes went with the context.
                    Stop::Device(DeviceError::Lost { .. }) => (0..ring.in_flight()).for_each(|_| ring.free_oldest()),
                    _ => self.salvage(session, ring),
                }
                return Err(stop);
            }
        }
        Ok(())
    }

    pub fn interrupted(&self) -> Result<(), Stop> {
        if self.stop.stop_asked() { Err(Stop::Interrupted) } else { Ok(()) }
    }

    /// Whether the phases of so many rounds from the `nth` on are timed.
    fn timed(&self, nth: u64, rounds: usize) -> bool {
        self.measures || self.plan.schedule.host == Host::Pool || (nth + rounds as u64) / SAMPLE > nth / SAMPLE
    }

    /// Fills a free batch for so many rounds from the `nth` on and submits them; `nth` goes on by those that were submitted.
    /// After an error these are the rounds before the one that it is of; where there are none, the batch is free again.
    pub fn submit(&mut self, session: &Session, ring: &mut Ring, nth: &mut u64, rounds: usize) -> Result<(), Stop> {
        let round = self.host.round(*nth);
        self.at.enter(Phase::Prepare, round);
        let clock = self.timed(*nth, rounds).then(Instant::now);
        let after = ring.last.filter(|_| session.carries);
        self.at.fly(ring.rounds() + rounds);
        let batch = ring.next(self.plan, &mut self.host, *nth, rounds);
        let filled = batch.fill(self.job, self.plan, session, self.device, &mut self.host, self.at);
        let fill_time = clock.map(|c| c.elapsed().as_nanos() as u64);
        self.at.enter(Phase::Run, round);
        let some = batch.rounds();
        let submitted = match some {
            0 => None,
            _ => Some(batch.submit(self.job, self.plan, session, self.device, after)),
        };
        match submitted {
            Some(Ok(point)) => {
                if let (Some(clock), Some(fill)) = (clock, fill_time) {
                    batch.phases.fill = fill;
                    batch.phases.run = clock.elapsed().as_nanos() as u64 - fill;
                }
                ring.last = Some(point);
                ring.cut(rounds, some);
                *nth += some as u64;
                filled
            }
            None => {
                ring.give_back(rounds);
                filled
            }
            // It is of earlier rounds than what could not be filled.
            Some(Err(stop)) => {
                ring.give_back(rounds);
                Err(stop)
            }
        }
    }

    /// Waits for the oldest batch in flight and checks its rounds.
    pub fn finish_oldest(&mut self, session: &Session, ring: &mut Ring, checked: bool) -> Result<(), Stop> {
        let batch = ring.oldest();
        let (nth, rounds) = (batch.nth(), batch.rounds());
        let clock = self.timed(nth, rounds).then(Instant::now);
        self.at.enter(Phase::Run, batch.round());
        batch.wait(self.device).map_err(|error| batch.located(self.job, self.plan, error))?;
        // What the warm-up took is cleared with the rest before the first round.
        let on_device = self.clock.read(self.plan, batch, self.device, &mut self.tally.parts)?;
        batch.take(self.plan, session, self.device)?;
        let waited = clock.map(|c| c.elapsed().as_nanos() as u64);
        let (index, phases) = (batch.index, batch.phases);
        if checked {
            batch.slots().iter_mut().for_each(|slot| self.check(slot));
            let times = &mut self.tally.times;
            times.add_device(if self.plan.flush.is_some() { on_device.steps } else { on_device.round });
            if let (Some(clock), Some(waited)) = (clock, waited) {
                times.sampled += rounds as u64;
                times.fill += phases.fill;
                times.run += phases.run + waited;
                times.check += clock.elapsed().as_nanos() as u64 - waited;
            }
            self.sample(on_device, waited.map(|waited| phases.run + waited), rounds);
        }
        let batch = ring.oldest();
        let hit = |slot: &mut Slot| (!slot.hit.is_empty()).then(|| (slot.position, std::mem::take(&mut slot.hit)));
        // Nothing is collected where nothing was hit, which allocates nothing.
        let hits: Vec<(u32, Vec<usize>)> = batch.slots().iter_mut().filter_map(hit).collect();
        ring.free_oldest();
        self.at.fly(ring.rounds());
        for (position, zones) in hits {
            // Else the next round in this slot would be blamed for what this one wrote.
            session.restore_guards(self.plan, self.device, (index, position), &zones, &ring.flying())?;
        }
        Ok(())
    }

    /// Checks the round in a slot.
    fn check(&mut self, slot: &mut Slot) {
        let (nth, round) = (slot.nth, slot.round);
        self.at.enter(Phase::Check, round);
        let bad = collect::check(self.job, self.plan, slot, &mut self.host, &mut self.tally);
        if let (true, Some(dump)) = (bad, &self.beside.dump) {
            let (at, told) = (self.at, self.tally.told);
            dump.round(self.job, self.plan, slot, &mut self.host, &mut self.tally.failures[told..], || at.enter(Phase::Check, round));
        }
        if let Some(seat) = self.beside.seat {
            // It may wait for others, which have limits of their own.
            self.at.enter(Phase::Idle, round);
            seat.leave(self.job, self.plan, slot, &self.host);
            self.at.enter(Phase::Check, round);
        }
        self.host.advance();
        self.tally.run += 1;
        if bad {
            self.failed(round);
        }
        self.at.done(nth + 1);
    }

    /// Adds the time of so many rounds at once: the nearest to what their steps took that is known. `run` is from their
    /// submission to their end.
    fn sample(&mut self, on_device: OnDevice, run: Option<u64>, rounds: usize) {
        let before = if self.measures { self.ended.replace(Instant::now()) } else { None };
        let cold = self.plan.flush.is_some();
        let (of, time) = match (on_device, run) {
            (OnDevice { steps: Some(time), .. }, _) => (TimeOf::Steps, time),
            // The others are with the flush of the caches.
            _ if cold => return,
            (OnDevice { round: Some(time), .. }, _) => (TimeOf::Device, time),
            (_, Some(time)) if self.plan.schedule.slots == 1 => (TimeOf::Run, time),
            _ => match before.zip(self.ended) {
                Some((before, ended)) => (TimeOf::Whole, (ended - before).as_nanos() as u64),
                None => return,
            },
        };
        self.tally.samples.add(of, time, rounds as u64);
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
