//! Buffers of commands (`cl_khr_command_buffer`): several commands that are enqueued by one call.
//!
//! The extension is no part of the library: its functions come from the driver. Its versions before 0.9.5 lack a
//! parameter that later ones have.

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use opencl_sys::*;

use super::Driver;
use super::api::{Called, Failure, check, count, device_info};
use super::list::{Launch, Sizes};
use super::platform::{extension_function, extension_version};
use crate::device::Result;

type Copy = unsafe extern "C" fn(
    cl_command_buffer_khr,
    cl_command_queue,
    cl_mem,
    cl_mem,
    usize,
    usize,
    usize,
    cl_uint,
    *const cl_sync_point_khr,
    *mut cl_sync_point_khr,
    *mut cl_mutable_command_khr,
) -> cl_int;
type Fill = unsafe extern "C" fn(
    cl_command_buffer_khr,
    cl_command_queue,
    cl_mem,
    *const c_void,
    usize,
    usize,
    usize,
    cl_uint,
    *const cl_sync_point_khr,
    *mut cl_sync_point_khr,
    *mut cl_mutable_command_khr,
) -> cl_int;

/// The functions of the extension.
pub(super) struct Functions {
    create: unsafe extern "C" fn(
        cl_uint,
        *const cl_command_queue,
        *const cl_command_buffer_properties_khr,
        *mut cl_int,
    ) -> cl_command_buffer_khr,
    finalize: unsafe extern "C" fn(cl_command_buffer_khr) -> cl_int,
    release: unsafe extern "C" fn(cl_command_buffer_khr) -> cl_int,
    enqueue: unsafe extern "C" fn(cl_uint, *mut cl_command_queue, cl_command_buffer_khr, cl_uint, *const cl_event, *mut cl_event) -> cl_int,
    launch: unsafe extern "C" fn(
        cl_command_buffer_khr,
        cl_command_queue,
        *const cl_command_properties_khr,
        cl_kernel,
        cl_uint,
        *const usize,
        *const usize,
        *const usize,
        cl_uint,
        *const cl_sync_point_khr,
        *mut cl_sync_point_khr,
        *mut cl_mutable_command_khr,
    ) -> cl_int,
    copy: Either<Copy, clCommandCopyBufferKHR_fn>,
    fill: Either<Fill, clCommandFillBufferKHR_fn>,
}

/// A function before version 0.9.5 of the extension, or since.
enum Either<Old, New> {
    Old(Old),
    New(New),
}

/// The extension's first version with a `properties` parameter in every function.
const PROPERTIES: (u32, u32, u32) = (0, 9, 5);

impl Functions {
    /// The extension of a device; `None` where it has none, or none that can be used twice at a time.
    pub fn of(api: &super::api::Api, found: &super::platform::Found) -> Option<Functions> {
        if !found.caps.features.iter().any(|feature| feature == "cl_khr_command_buffer") {
            return None;
        }
        let version = extension_version(api, found.device, "cl_khr_command_buffer")?;
        let can: cl_bitfield = device_info(api, found.device, CL_DEVICE_COMMAND_BUFFER_CAPABILITIES_KHR).ok()?;
        let required: cl_bitfield = device_info(api, found.device, CL_DEVICE_COMMAND_BUFFER_REQUIRED_QUEUE_PROPERTIES_KHR).unwrap_or(0);
        // A graph may be replayed before its last replay is done, in queues without properties.
        if can & CL_COMMAND_BUFFER_CAPABILITY_SIMULTANEOUS_USE_KHR == 0 || required != 0 {
            return None;
        }
        let get = |name| extension_function(api, found.platform, name);
        let (copy, fill) = (get(c"clCommandCopyBufferKHR")?, get(c"clCommandFillBufferKHR")?);
        // SAFETY: functions of these names have these types, by the version of the extension.
        unsafe {
            Some(Functions {
                create: std::mem::transmute::<*const c_void, _>(get(c"clCreateCommandBufferKHR")?),
                finalize: std::mem::transmute::<*const c_void, _>(get(c"clFinalizeCommandBufferKHR")?),
                release: std::mem::transmute::<*const c_void, _>(get(c"clReleaseCommandBufferKHR")?),
                enqueue: std::mem::transmute::<*const c_void, _>(get(c"clEnqueueCommandBufferKHR")?),
                launch: std::mem::transmute::<*const c_void, _>(get(c"clCommandNDRangeKernelKHR")?),
                copy: if version < PROPERTIES {
                    Either::Old(std::mem::transmute::<*const c_void, Copy>(copy))
                } else {
                    Either::New(std::mem::transmute::<*const c_void, clCommandCopyBufferKHR_fn>(copy))
                },
                fill: if version < PROPERTIES {
                    Either::Old(std::mem::transmute::<*const c_void, Fill>(fill))
                } else {
                    Either::New(std::mem::transmute::<*const c_void, clCommandFillBufferKHR_fn>(fill))
                },
            })
        }
    }
}

/// Starts buffers of commands for the queues of an instance.
pub(super) struct Recorder {
    driver: Arc<Driver>,
    queue: cl_command_queue,
}

/// Commands that one call enqueues.
pub(super) struct CommandBuffer {
    raw: cl_command_buffer_khr,
    driver: Arc<Driver>,
    queue: cl_command_queue,
}

impl Recorder {
    /// `None` where the driver has no such buffers.
    pub fn of(driver: &Arc<Driver>, queue: cl_command_queue) -> Option<Recorder> {
        driver.command_buffers.as_ref().map(|_| Recorder { driver: Arc::clone(driver), queue })
    }

    pub fn start(&self) -> Result<CommandBuffer> {
        let mut code = super::api::LACKS;
        let mut raw = null_mut();
        let properties = [CL_COMMAND_BUFFER_FLAGS_KHR, CL_COMMAND_BUFFER_SIMULTANEOUS_USE_KHR, 0];
        if let Some(functions) = &self.driver.command_buffers {
            count();
            // SAFETY: the queue lives as long as its instance; the list of properties ends with 0.
            raw = unsafe { (functions.create)(1, &self.queue, properties.as_ptr(), &mut code) };
        }
        check("clCreateCommandBufferKHR", code)?;
        Ok(CommandBuffer { raw, driver: Arc::clone(&self.driver), queue: self.queue })
    }
}

impl CommandBuffer {
    fn call(&self, name: &'static str, call: impl FnOnce(&Functions) -> cl_int) -> Called<()> {
        count();
        check(name, self.driver.command_buffers.as_ref().map_or(super::api::LACKS, call))
    }

    pub fn copy(&mut self, src: cl_mem, dst: cl_mem, from: usize, to: usize, len: usize) -> Called<()> {
        let (raw, none) = (self.raw, null_mut::<c_void>());
        self.call("clCommandCopyBufferKHR", |functions| match functions.copy {
            // SAFETY: both buffers live as long as the list; the commands of an in-order queue need no sync points.
            Either::Old(copy) => unsafe { copy(raw, none, src, dst, from, to, len, 0, null(), null_mut(), null_mut()) },
            // SAFETY: as above.
            Either::New(Some(copy)) => unsafe { copy(raw, none, null(), src, dst, from, to, len, 0, null(), null_mut(), null_mut()) },
            Either::New(None) => super::api::LACKS,
        })
    }

    /// Fills with the first `size` bytes of a word.
    pub fn fill(&mut self, dst: cl_mem, word: u32, size: usize, at: usize, len: usize) -> Called<()> {
        let (raw, none, bytes) = (self.raw, null_mut::<c_void>(), word.to_le_bytes());
        let pattern = bytes.as_ptr().cast();
        self.call("clCommandFillBufferKHR", |functions| match functions.fill {
            // SAFETY: the buffer lives as long as the list; the pattern is copied by the call.
            Either::Old(fill) => unsafe { fill(raw, none, dst, pattern, size, at, len, 0, null(), null_mut(), null_mut()) },
            // SAFETY: as above.
            Either::New(Some(fill)) => unsafe { fill(raw, none, null(), dst, pattern, size, at, len, 0, null(), null_mut(), null_mut()) },
            Either::New(None) => super::api::LACKS,
        })
    }

    /// Launches with the arguments that the kernel object has now.
    pub fn launch(&mut self, launch: &Launch, sizes: &Sizes) -> Called<()> {
        let (raw, none, kernel) = (self.raw, null_mut::<c_void>(), launch.object.raw());
        let offset = sizes.offset_ptr(&sizes.offset);
        self.call("clCommandNDRangeKernelKHR", |functions| {
            let (global, local) = (sizes.global.as_ptr(), sizes.local.as_ptr());
            // SAFETY: the kernel lives as long as the list; the sizes are copied by the call.
            unsafe { (functions.launch)(raw, none, null(), kernel, launch.dims, offset, global, local, 0, null(), null_mut(), null_mut()) }
        })
    }

    /// Ends the recording.
    pub fn finish(self) -> Result<CommandBuffer> {
        let raw = self.raw;
        // SAFETY: the buffer was created and not yet finalized.
        self.call("clFinalizeCommandBufferKHR", |functions| unsafe { (functions.finalize)(raw) })?;
        Ok(self)
    }

    /// Enqueues the commands in a queue of the same device.
    pub fn enqueue(&self, queue: cl_command_queue, event: *mut cl_event) -> Called<()> {
        let (raw, mut queue) = (self.raw, queue);
        // The queue that it was recorded for need not be named.
        let (many, queues): (cl_uint, *mut cl_command_queue) = if queue == self.queue { (0, null_mut()) } else { (1, &mut queue) };
        // SAFETY: buffer and queue live as long as the list and its instance.
        self.call("clEnqueueCommandBufferKHR", |functions| unsafe { (functions.enqueue)(many, queues, raw, 0, null(), event) })
    }
}

impl Drop for CommandBuffer {
    fn drop(&mut self) {
        let raw = self.raw;
        // SAFETY: created once, released once; the driver keeps what is still to run.
        let released = self.call("clReleaseCommandBufferKHR", |functions| unsafe { (functions.release)(raw) });
        if let Err(Failure { code, .. }) = released {
            super::object::note_release_failure(code);
        }
    }
}
