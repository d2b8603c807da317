//! In-order queues of the driver, and what is known of the points on them.

use std::collections::VecDeque;
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::time::Duration;

use opencl_sys::*;

use super::Driver;
use super::api::{Called, Failure, cl, make};
use super::list::Times;
use super::object::{self, Event, Object};
use crate::device::{Clock, Result};

/// Points of one queue whose times are kept.
const TIMES: usize = 256;

/// An in-order queue. Its submissions are numbered from 1.
pub(super) struct Queue {
    object: Arc<Object<object::Queue>>,
    /// The number of the last submission.
    pub submitted: u64,
    /// The number of the last submission that is known to be done.
    pub finished: u64,
    /// An event behind a submission, for those who wait from another queue.
    marker: Option<(u64, Object<Event>)>,
    /// By submission, where times are asked for; of the last alone where those of nodes are.
    times: VecDeque<(u64, Times)>,
}

/// When a command started and ended. *Units*: nanoseconds.
fn span(driver: &Driver, event: &Object<Event>) -> Called<(u64, u64)> {
    let api = driver.api;
    let time = |what| {
        let mut at: cl_ulong = 0;
        let event = event.raw();
        cl!(api.clGetEventProfilingInfo(event, what, size_of::<cl_ulong>(), (&raw mut at).cast(), null_mut())).map(|()| at)
    };
    Ok((time(CL_PROFILING_COMMAND_START)?, time(CL_PROFILING_COMMAND_END)?))
}

impl Queue {
    pub fn new(driver: &Driver) -> Result<Queue> {
        let (api, context, device) = (driver.api, driver.context.raw(), driver.found.device);
        let properties = if driver.options.clock != Clock::Off { CL_QUEUE_PROFILING_ENABLE } else { 0 };
        let raw = make!(api.clCreateCommandQueue(context, device, properties))?;
        Ok(Queue {
            object: Arc::new(Object::new(api, raw)),
            submitted: 0,
            finished: 0,
            marker: None,
            times: VecDeque::with_capacity(TIMES),
        })
    }

    pub fn raw(&self) -> cl_command_queue {
        self.object.raw()
    }

    /// What keeps the driver's queue for as long as it is held.
    pub fn hold(&self) -> Arc<Object<object::Queue>> {
        Arc::clone(&self.object)
    }

    /// Waits for a submission.
    pub fn wait(&mut self, driver: &Driver, number: u64) -> Called<()> {
        if number <= self.finished {
            return Ok(());
        }
        let (api, queue) = (driver.api, self.raw());
        cl!(api.clFinish(queue))?;
        self.is_done();
        Ok(())
    }

    /// Everything that was submitted is known to be done.
    pub fn is_done(&mut self) {
        (self.finished, self.marker) = (self.submitted, None);
    }

    /// Waits for everything, whatever is wrong with it.
    pub fn drain(&mut self, driver: &Driver) -> Called<()> {
        let api = driver.api;
        let queue = self.raw();
        // One that fails may have waited for nothing.
        let drained = cl!(api.clFinish(queue));
        if drained.is_ok() || cl!(api.clFinish(queue)).is_ok() {
            self.is_done();
        }
        self.times.clear();
        drained
    }

    /// Hands what is submitted to the device, whoever waits for it.
    pub fn flush(&self, driver: &Driver) -> Called<()> {
        let (api, queue) = (driver.api, self.raw());
        cl!(api.clFlush(queue))
    }

    /// An event that comes after a submission; what was submitted since then may come before it too.
    pub fn event(&mut self, driver: &Driver, number: u64) -> Called<cl_event> {
        if let Some((behind, event)) = &self.marker
            && *behind >= number
        {
            return Ok(event.raw());
        }
        let (api, queue) = (driver.api, self.raw());
        let mut raw = null_mut();
        cl!(api.clEnqueueMarkerWithWaitList(queue, 0, null(), &mut raw))?;
        self.marker = Some((self.submitted, Object::new(api, raw)));
        // Nobody can wait for what the device does not have.
        self.flush(driver)?;
        Ok(raw)
    }

    /// Whether a submission is done.
    pub fn poll(&mut self, driver: &Driver, number: u64) -> Called<bool> {
        if number <= self.finished {
            return Ok(true);
        }
        let event = self.event(driver, number)?;
        let api = driver.api;
        let mut status: cl_int = CL_QUEUED;
        let size = size_of::<cl_int>();
        cl!(api.clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, size, (&raw mut status).cast(), null_mut()))?;
        if status < 0 {
            return Err(Failure { call: "a command", code: status });
        }
        if status == CL_COMPLETE {
            self.finished = self.marker.as_ref().map_or(number, |(behind, _)| *behind);
        }
        Ok(status == CL_COMPLETE)
    }

    /// Lets what is submitted next wait for events of other queues.
    pub fn wait_for(&self, driver: &Driver, events: &[cl_event]) -> Called<()> {
        if events.is_empty() {
            return Ok(());
        }
        let (api, queue) = (driver.api, self.raw());
        cl!(api.clEnqueueBarrierWithWaitList(queue, events.len() as cl_uint, events.as_ptr(), null_mut()))
    }

    /// What the times of the next submission are put into: those of nodes where the last one's were.
    pub fn times(&mut self, clock: Clock) -> Times {
        if clock != Clock::Steps {
            return Times::default();
        }
        let mut nodes = self.times.pop_front().and_then(|(_, times)| times.nodes).unwrap_or_default();
        nodes.1.clear();
        Times { nodes: Some(nodes), ..Times::default() }
    }

    /// Keeps the events of a submission.
    pub fn keep_times(&mut self, number: u64, times: Times) {
        if self.times.len() >= TIMES {
            self.times.pop_front();
        }
        self.times.push_back((number, times));
    }

    /// From the start of a submission's first command to the end of its last; `None` where it is not kept.
    pub fn elapsed(&mut self, driver: &Driver, number: u64) -> Called<Option<Duration>> {
        self.wait(driver, number)?;
        let Some((_, times)) = self.times.iter().find(|(of, _)| *of == number) else { return Ok(None) };
        let (first, last) = match &times.nodes {
            Some((_, nodes)) => (nodes.first().map(|(_, event)| event), nodes.last().map(|(_, event)| event)),
            None => (times.first.as_ref(), times.last.as_ref().or(times.first.as_ref())),
        };
        let (Some(first), Some(last)) = (first, last) else { return Ok(Some(Duration::ZERO)) };
        let ((start, _), (_, end)) = (span(driver, first)?, span(driver, last)?);
        Ok(Some(Duration::from_nanos(end.saturating_sub(start))))
    }

    /// What each node of the last submission took; false where it is not kept.
    pub fn node_times(&mut self, driver: &Driver, number: u64, into: &mut Vec<Option<Duration>>) -> Called<bool> {
        self.wait(driver, number)?;
        let Some((_, Times { nodes: Some((count, nodes)), .. })) = self.times.iter().find(|(of, _)| *of == number) else {
            return Ok(false);
        };
        into.resize(*count, Some(Duration::ZERO));
        for (node, event) in nodes {
            let (start, end) = span(driver, event)?;
            if let Some(Some(time)) = into.get_mut(*node as usize) {
                *time += Duration::from_nanos(end.saturating_sub(start));
            }
        }
        Ok(true)
    }
}
