//! Buffers of commands (`cl_khr_command_buffer`): several commands that are enqueued by one call.
//!
//! The extension is no part of the library: its functions come from the driver. Its versions before 0.9.5 lack a
//! parameter that later ones have.

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use opencl_sys::*;

use super::Driver;
use super::api::{Called, check, count, device_info};
use super::object::{Object, Queue};
use super::op::{Kept, Launch, Sizes};
use super::platform::{extension_function, extension_version};
use crate::device::Result;

type Copy = Option<
    unsafe extern "C" fn(
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
    ) -> cl_int,
>;
type Fill = Option<
    unsafe extern "C" fn(
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
    ) -> cl_int,
>;

/// The functions of the extension.
pub(super) struct Functions {
    create: clCreateCommandBufferKHR_fn,
    finalize: clFinalizeCommandBufferKHR_fn,
    release: clReleaseCommandBufferKHR_fn,
    enqueue: clEnqueueCommandBufferKHR_fn,
    launch: clCommandNDRangeKernelKHR_fn,
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
        // SAFETY: functions of these names have these types, by the version of the extension.
        let functions = unsafe {
            Functions {
                create: of_address(get(c"clCreateCommandBufferKHR")),
                finalize: of_address(get(c"clFinalizeCommandBufferKHR")),
                release: of_address(get(c"clReleaseCommandBufferKHR")),
                enqueue: of_address(get(c"clEnqueueCommandBufferKHR")),
                launch: of_address(get(c"clCommandNDRangeKernelKHR")),
                copy: Either::of(version, get(c"clCommandCopyBufferKHR")),
                fill: Either::of(version, get(c"clCommandFillBufferKHR")),
            }
        };
        let there = functions.create.is_some()
            && functions.finalize.is_some()
            && functions.release.is_some()
            && functions.enqueue.is_some()
            && functions.launch.is_some()
            && functions.copy.is_there()
            && functions.fill.is_there();
        there.then_some(functions)
    }
}

/// A function at an address; a null address is `None`.
///
/// # Safety
/// `F` is the type of an optional function, and the function at the address has it.
unsafe fn of_address<F>(address: *const c_void) -> F {
    const { assert!(size_of::<F>() == size_of::<*const c_void>()) };
    // SAFETY: promised by the caller; an optional function is an address, or null.
    unsafe { std::mem::transmute_copy(&address) }
}

impl<Old, New> Either<Option<Old>, Option<New>> {
    /// # Safety
    /// The function at the address has the type of the version.
    unsafe fn of(version: (u32, u32, u32), address: *const c_void) -> Self {
        // SAFETY: promised by the caller.
        unsafe { if version < PROPERTIES { Either::Old(of_address(address)) } else { Either::New(of_address(address)) } }
    }

    fn is_there(&self) -> bool {
        match self {
            Either::Old(function) => function.is_some(),
            Either::New(function) => function.is_some(),
        }
    }
}

/// Starts buffers of commands for the queues of an instance.
pub(super) struct Recorder {
    driver: Arc<Driver>,
    queue: Arc<Object<Queue>>,
}

/// Commands that one call enqueues.
pub(super) struct CommandBuffer {
    raw: cl_command_buffer_khr,
    /// How many.
    pub len: usize,
    driver: Arc<Driver>,
    /// The queue that it was recorded for, which may be that of another instance.
    queue: Arc<Object<Queue>>,
    kernels: Vec<Arc<Kept>>,
}

impl Recorder {
    /// `None` where the driver has no such buffers.
    pub fn of(driver: &Arc<Driver>, queue: &Arc<Object<Queue>>) -> Option<Recorder> {
        driver.command_buffers.as_ref().map(|_| Recorder { driver: Arc::clone(driver), queue: Arc::clone(queue) })
    }

    pub fn start(&self) -> Result<CommandBuffer> {
        let mut code = super::api::LACKS;
        let mut raw = null_mut();
        let properties = [CL_COMMAND_BUFFER_FLAGS_KHR, CL_COMMAND_BUFFER_SIMULTANEOUS_USE_KHR, 0];
        if let Some(create) = self.driver.command_buffers.as_ref().and_then(|functions| functions.create) {
            count();
            let queue = self.queue.raw();
            // SAFETY: the queue is held; the list of properties ends with 0.
            raw = unsafe { create(1, &queue, properties.as_ptr(), &mut code) };
        }
        if code == CL_SUCCESS && raw.is_null() {
            code = super::api::NOTHING;
        }
        check("clCreateCommandBufferKHR", code)?;
        Ok(CommandBuffer { raw, len: 0, driver: Arc::clone(&self.driver), queue: Arc::clone(&self.queue), kernels: Vec::new() })
    }
}

impl CommandBuffer {
    fn call(&self, name: &'static str, call: impl FnOnce(&Functions) -> Option<cl_int>) -> Called<()> {
        count();
        check(name, self.driver.command_buffers.as_ref().and_then(call).unwrap_or(super::api::LACKS))
    }

    pub fn copy(&mut self, src: cl_mem, dst: cl_mem, from: usize, to: usize, len: usize) -> Called<()> {
        self.len += 1;
        let (raw, none) = (self.raw, null_mut::<c_void>());
        self.call("clCommandCopyBufferKHR", |functions| {
            // SAFETY: both buffers live as long as the list; the commands of an in-order queue need no sync points.
            Some(match functions.copy {
                Either::Old(copy) => unsafe { copy?(raw, none, src, dst, from, to, len, 0, null(), null_mut(), null_mut()) },
                Either::New(copy) => unsafe { copy?(raw, none, null(), src, dst, from, to, len, 0, null(), null_mut(), null_mut()) },
            })
        })
    }

    /// Fills with the first `size` bytes of a word.
    pub fn fill(&mut self, dst: cl_mem, word: u32, size: usize, at: usize, len: usize) -> Called<()> {
        self.len += 1;
        let (raw, none, bytes) = (self.raw, null_mut::<c_void>(), word.to_le_bytes());
        let pattern = bytes.as_ptr().cast();
        self.call("clCommandFillBufferKHR", |functions| {
            // SAFETY: the buffer lives as long as the list; the pattern is copied by the call.
            Some(match functions.fill {
                Either::Old(fill) => unsafe { fill?(raw, none, dst, pattern, size, at, len, 0, null(), null_mut(), null_mut()) },
                Either::New(fill) => unsafe { fill?(raw, none, null(), dst, pattern, size, at, len, 0, null(), null_mut(), null_mut()) },
            })
        })
    }

    /// Launches with the arguments that the kernel object has now.
    pub fn launch(&mut self, launch: &Launch, sizes: &Sizes) -> Called<()> {
        self.len += 1;
        self.kernels.push(Arc::clone(&launch.object));
        let (raw, none, kernel) = (self.raw, null_mut::<c_void>(), launch.object.raw());
        let offset = sizes.offset_ptr(&sizes.offset);
        self.call("clCommandNDRangeKernelKHR", |functions| {
            let (global, local) = (sizes.global.as_ptr(), sizes.local.as_ptr());
            // SAFETY: the kernel is held beside the buffer; the sizes are copied by the call.
            Some(unsafe {
                functions.launch?(raw, none, null(), kernel, launch.dims, offset, global, local, 0, null(), null_mut(), null_mut())
            })
        })
    }

    /// Ends the recording.
    pub fn finish(self) -> Result<CommandBuffer> {
        let raw = self.raw;
        // SAFETY: the buffer was created and not yet finalized.
        self.call("clFinalizeCommandBufferKHR", |functions| Some(unsafe { functions.finalize?(raw) }))?;
        Ok(self)
    }

    /// Enqueues the commands in a queue of the same device.
    pub fn enqueue(&self, queue: cl_command_queue, event: *mut cl_event) -> Called<()> {
        let (raw, mut queue) = (self.raw, queue);
        // The queue that it was recorded for need not be named.
        let (many, queues): (cl_uint, *mut cl_command_queue) = if queue == self.queue.raw() { (0, null_mut()) } else { (1, &mut queue) };
        // SAFETY: buffer and queue live as long as the list and its instance.
        self.call("clEnqueueCommandBufferKHR", |functions| Some(unsafe { functions.enqueue?(many, queues, raw, 0, null(), event) }))
    }
}

impl Drop for CommandBuffer {
    fn drop(&mut self) {
        let raw = self.raw;
        // SAFETY: created once, released once; the driver keeps what is still to run.
        let released = self.call("clReleaseCommandBufferKHR", |functions| Some(unsafe { functions.release?(raw) }));
        if let Err(failure) = released {
            super::object::note_release_failure(failure);
        }
    }
}
