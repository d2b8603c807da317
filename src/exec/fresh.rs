//! `--fresh`: set-up, one round and tear-down for every round, the yardstick for speed and results. Kernels stay loaded.

use super::batch::Ring;
use super::board::Board;
use super::build::Building;
use super::host::Known;
use super::lane::Lane;
use super::progress::{Phase, Progress};
use super::session::{Session, Shared};
use super::{Beside, Stop};
use crate::device::{Device, DeviceError, Trace};
use crate::job::Job;
use crate::plan::Plan;

#[allow(clippy::too_many_arguments)]
pub(super) fn rounds(
    job: &Job,
    plan: &Plan,
    device: &mut Trace,
    kernels: &mut Building,
    known: &Known,
    progress: &Progress,
    board: &Board<'_>,
    beside: &Beside<'_>,
) {
    if !board.ready(device.own_counts()) {
        return;
    }
    let mut lane = Lane::new(job, plan, device, beside.lane(), known, progress, board, beside);
    while let Some((rounds, tally)) = board.deal(lane.tally.explained) {
        lane.tally = tally;
        let mut at = rounds.start;
        let result = rounds.clone().try_for_each(|nth| {
            at = nth;
            one(&mut lane, kernels, known, progress, nth)
        });
        let failed = result.is_err();
        board.merge(rounds, std::mem::replace(&mut lane.tally, super::Tally::empty()), result.err().map(|stop| (at, stop)));
        if failed {
            return;
        }
    }
}

fn one(lane: &mut Lane<'_, '_>, kernels: &mut Building, known: &Known, progress: &Progress, nth: u64) -> Result<(), Stop> {
    let (job, plan) = (lane.job, lane.plan);
    lane.interrupted()?;
    let round = lane.host.round(nth);
    lane.at.enter(Phase::Setup, round);
    let carries = job.tensors.iter().any(|t| t.carry);
    let shared = Shared::open(job, plan, lane.device, kernels, known, progress)?;
    let session = Session::open(plan, lane.device, &shared)?;
    session.start(lane.device)?;
    if carries {
        session.put_carried(lane.device, job, plan, &mut lane.host)?;
    }
    let mut ring = Ring::new(job, plan);
    let result = lane.submit(&session, &mut ring, &mut nth.clone(), 1).and_then(|()| lane.finish_oldest(&session, &mut ring, true));
    // Of a device that is lost nothing can be had.
    if result.as_ref().is_err_and(|stop| !matches!(stop, Stop::Device(DeviceError::Lost { .. }))) {
        lane.salvage(&session, &mut ring);
    }
    let released = ring.release(lane.device);
    result?;
    released?;
    if carries {
        session.keep_carried(lane.device, job, plan, &mut lane.host)?;
    }
    drop(session);
    Ok(lane.device.reset()?)
}
