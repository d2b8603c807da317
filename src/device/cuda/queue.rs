//! Queues: streams of the driver, and what is known of the points on them.

use std::ptr::null_mut;
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{CUevent, CUevent_flags, CUresult, CUstream, CUstream_flags};

use super::Driver;
use super::api::{Called, cu};
use super::graph::{Event, Graph};
use crate::device::Result;

/// What a submission runs: one graph, or one for each node.
pub(super) type Recorded = Arc<Mutex<Vec<Graph>>>;

/// An in-order stream. Its submissions are numbered from 1.
pub(super) struct Queue {
    raw: CUstream,
    /// The number of the last submission.
    pub submitted: u64,
    /// The number of the last submission that is known to be done.
    pub finished: u64,
    /// Behind the submission of that number, for those who wait from another queue.
    marker: Event,
    marked: u64,
    /// What runs once, with its number, for as long as it may run.
    pub once: Vec<(u64, Recorded)>,
    driver: Arc<Driver>,
}

// SAFETY: a stream is a handle, which CUDA lets any thread use.
unsafe impl Send for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        let api = self.driver.api;
        self.driver.release(|| cu!(api.cuStreamDestroy_v2(self.raw)));
    }
}

impl Queue {
    pub fn new(driver: &Arc<Driver>) -> Result<Queue> {
        let api = driver.api;
        let mut raw: CUstream = null_mut();
        cu!(api.cuStreamCreate(&mut raw, CUstream_flags::CU_STREAM_NON_BLOCKING as u32))?;
        let marker = Event::new(driver, CUevent_flags::CU_EVENT_DISABLE_TIMING as u32);
        let marker = marker.inspect_err(|_| driver.release(|| cu!(api.cuStreamDestroy_v2(raw))))?;
        Ok(Queue { raw, submitted: 0, finished: 0, marker, marked: 0, once: Vec::new(), driver: Arc::clone(driver) })
    }

    pub fn raw(&self) -> CUstream {
        self.raw
    }

    fn is_done(&mut self) {
        self.finished = self.submitted;
        self.once.clear();
    }

    /// Waits for a submission, and for those behind it.
    pub fn wait(&mut self, number: u64) -> Called<()> {
        if number > self.finished {
            let api = self.driver.api;
            cu!(api.cuStreamSynchronize(self.raw))?;
            self.is_done();
        }
        Ok(())
    }

    /// Whether a submission is known to be done: it is once those behind it are.
    pub fn poll(&mut self, number: u64) -> Called<bool> {
        if number > self.finished {
            let api = self.driver.api;
            match cu!(api.cuStreamQuery(self.raw)) {
                Ok(()) => self.is_done(),
                Err(failure) if failure.is(CUresult::CUDA_ERROR_NOT_READY) => return Ok(false),
                Err(failure) => return Err(failure),
            }
        }
        Ok(true)
    }

    /// An event that comes after a submission; what was submitted since then may come before it too.
    pub fn event(&mut self, number: u64) -> Called<CUevent> {
        if self.marked < number {
            let api = self.driver.api;
            cu!(api.cuEventRecord(self.marker.0, self.raw))?;
            self.marked = self.submitted;
        }
        Ok(self.marker.0)
    }

    /// Lets what is submitted next wait for an event of another queue.
    pub fn wait_for(&self, event: CUevent) -> Called<()> {
        let api = self.driver.api;
        cu!(api.cuStreamWaitEvent(self.raw, event, 0))
    }
}
