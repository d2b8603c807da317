//! The OpenCL library, found at run time: its functions, and what its error codes mean.
//!
//! Only types come from a crate. Those that wrap the calls ask for an event with every command and release objects in
//! `Drop`s that panic, which a loop of tiny rounds and a driver that died do not bear.

use std::cell::Cell;
use std::error::Error as _;
use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

use libloading::Library;
use opencl_sys::cl_function_types::*;
use opencl_sys::*;

use crate::device::DeviceError;

/// Names that the library is looked for under.
#[cfg(target_os = "macos")]
const NAMES: &[&str] = &["/System/Library/Frameworks/OpenCL.framework/OpenCL"];
#[cfg(windows)]
const NAMES: &[&str] = &["OpenCL.dll"];
#[cfg(not(any(target_os = "macos", windows)))]
const NAMES: &[&str] = &["libOpenCL.so.1", "libOpenCL.so"];

/// The environment variable that names another library.
pub(super) const LIBRARY: &str = "RUNJOB_OPENCL";

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// Driver calls that this thread has made.
pub(super) fn calls() -> u64 {
    CALLS.get()
}

/// Counts one more.
#[inline]
pub(super) fn count() {
    CALLS.set(CALLS.get() + 1);
}

macro_rules! functions {
    ($($name:ident: $type:ty,)*) => {
        /// The functions of the library; those that it lacks are `None`.
        #[allow(non_snake_case)]
        pub(super) struct Api {
            $(pub $name: $type,)*
            // Last, as the functions are in it.
            _library: Library,
        }

        impl Api {
            fn of(library: Library) -> Api {
                Api {
                    // SAFETY: a symbol of this name has this type in every version of OpenCL.
                    $($name: unsafe { library.get::<$type>(concat!(stringify!($name), "\0").as_bytes()) }.ok().and_then(|f| *f),)*
                    _library: library,
                }
            }
        }
    };
}

functions! {
    clGetPlatformIDs: clGetPlatformIDs_t,
    clGetPlatformInfo: clGetPlatformInfo_t,
    clGetDeviceIDs: clGetDeviceIDs_t,
    clGetDeviceInfo: clGetDeviceInfo_t,
    clGetExtensionFunctionAddressForPlatform: clGetExtensionFunctionAddressForPlatform_t,
    clCreateContext: clCreateContext_t,
    clReleaseContext: clReleaseContext_t,
    clCreateCommandQueue: clCreateCommandQueue_t,
    clReleaseCommandQueue: clReleaseCommandQueue_t,
    clFlush: clFlush_t,
    clFinish: clFinish_t,
    clCreateBuffer: clCreateBuffer_t,
    clCreateSubBuffer: clCreateSubBuffer_t,
    clReleaseMemObject: clReleaseMemObject_t,
    clEnqueueMapBuffer: clEnqueueMapBuffer_t,
    clEnqueueUnmapMemObject: clEnqueueUnmapMemObject_t,
    clEnqueueReadBuffer: clEnqueueReadBuffer_t,
    clEnqueueWriteBuffer: clEnqueueWriteBuffer_t,
    clEnqueueCopyBuffer: clEnqueueCopyBuffer_t,
    clEnqueueFillBuffer: clEnqueueFillBuffer_t,
    clEnqueueNDRangeKernel: clEnqueueNDRangeKernel_t,
    clEnqueueMarkerWithWaitList: clEnqueueMarkerWithWaitList_t,
    clEnqueueBarrierWithWaitList: clEnqueueBarrierWithWaitList_t,
    clGetEventInfo: clGetEventInfo_t,
    clGetEventProfilingInfo: clGetEventProfilingInfo_t,
    clReleaseEvent: clReleaseEvent_t,
    clCreateProgramWithSource: clCreateProgramWithSource_t,
    clCreateProgramWithIL: clCreateProgramWithIL_t,
    clBuildProgram: clBuildProgram_t,
    clGetProgramInfo: clGetProgramInfo_t,
    clGetProgramBuildInfo: clGetProgramBuildInfo_t,
    clReleaseProgram: clReleaseProgram_t,
    clCreateKernel: clCreateKernel_t,
    clSetKernelArg: clSetKernelArg_t,
    clGetKernelInfo: clGetKernelInfo_t,
    clGetKernelArgInfo: clGetKernelArgInfo_t,
    clGetKernelWorkGroupInfo: clGetKernelWorkGroupInfo_t,
    clReleaseKernel: clReleaseKernel_t,
}

/// The library, loaded once and never unloaded. *Errors*: why there is none, in words.
pub(super) fn api() -> Result<&'static Api, &'static str> {
    static LOADED: OnceLock<Result<Api, String>> = OnceLock::new();
    LOADED.get_or_init(load).as_ref().map_err(String::as_str)
}

fn load() -> Result<Api, String> {
    let asked = std::env::var(LIBRARY).ok().filter(|path| !path.is_empty());
    let names: Vec<&str> = asked.as_deref().map_or_else(|| NAMES.to_vec(), |path| vec![path]);
    let mut why = String::new();
    for name in &names {
        // SAFETY: an OpenCL loader runs nothing but its own initialisation.
        match unsafe { Library::new(*name) } {
            Ok(library) => {
                let api = Api::of(library);
                // What came last of those that are needed: OpenCL 1.2.
                return match (api.clGetPlatformIDs, api.clEnqueueFillBuffer, api.clGetKernelArgInfo) {
                    (Some(_), Some(_), Some(_)) => Ok(api),
                    _ => Err(format!("`{name}` lacks functions of OpenCL 1.2")),
                };
            }
            // What the system says stands behind the error.
            Err(error) => why = error.source().map_or_else(|| error.to_string(), ToString::to_string),
        }
    }
    Err(match asked {
        Some(path) => format!("${LIBRARY} names `{path}`, which cannot be loaded: {why}"),
        None => format!("there is no OpenCL library (`{}`) on this machine", names[0]),
    })
}

/// A call that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub call: &'static str,
    pub code: cl_int,
}

/// What a call of the library returns when the library does not have it.
pub(super) const LACKS: cl_int = cl_int::MIN;

/// What a call is said to return that tells of success and gives nothing.
pub(super) const NOTHING: cl_int = cl_int::MIN + 1;

/// What a call is said to return that tells of more than any driver has.
pub(super) const ABSURD: cl_int = cl_int::MIN + 2;

/// Most bytes of an answer: a driver that says more has gone wrong. *Units*: bytes.
const LONGEST_ANSWER: usize = 64 << 20;

impl Failure {
    /// Whether nothing can be done with the device any more.
    fn is_loss(self) -> bool {
        matches!(self.code, CL_DEVICE_NOT_AVAILABLE | CL_INVALID_DEVICE | CL_INVALID_CONTEXT | CL_INVALID_COMMAND_QUEUE)
    }

    /// Whether memory was short.
    pub fn is_short(self) -> bool {
        matches!(self.code, CL_MEM_OBJECT_ALLOCATION_FAILURE | CL_OUT_OF_RESOURCES | CL_OUT_OF_HOST_MEMORY | CL_INVALID_BUFFER_SIZE)
    }

    /// The error of a node.
    pub fn at(self, node: Option<u32>) -> DeviceError {
        let message = words(self.code);
        if self.is_loss() {
            return DeviceError::Lost { node, message: format!("{}: {message}", self.call) };
        }
        DeviceError::Failed { node, call: self.call, message }
    }
}

impl From<Failure> for DeviceError {
    fn from(failure: Failure) -> DeviceError {
        failure.at(None)
    }
}

pub(super) type Called<T> = std::result::Result<T, Failure>;

/// Turns a code into a result.
#[inline]
pub(super) fn check(call: &'static str, code: cl_int) -> Called<()> {
    if code == CL_SUCCESS { Ok(()) } else { Err(Failure { call, code }) }
}

/// Calls a function that returns a code: `cl!(api.clFinish(queue))`.
macro_rules! cl {
    ($api:ident.$name:ident($($arg:expr),* $(,)?)) => {{
        $crate::device::opencl::api::count();
        let code = match $api.$name {
            // SAFETY: the handles are those of objects that live; what is pointed to outlives the call.
            Some(function) => unsafe { function($($arg),*) },
            None => $crate::device::opencl::api::LACKS,
        };
        $crate::device::opencl::api::check(stringify!($name), code)
    }};
}

/// Calls a function that returns an object and writes a code: `make!(api.clCreateKernel(program, name))`.
macro_rules! make {
    ($api:ident.$name:ident($($arg:expr),* $(,)?)) => {{
        $crate::device::opencl::api::count();
        let mut code = $crate::device::opencl::api::LACKS;
        let made = match $api.$name {
            // SAFETY: the handles are those of objects that live; what is pointed to outlives the call.
            Some(function) => unsafe { function($($arg,)* &mut code) },
            None => std::ptr::null_mut(),
        };
        let code = if code == CL_SUCCESS && made.is_null() { $crate::device::opencl::api::NOTHING } else { code };
        $crate::device::opencl::api::check(stringify!($name), code).map(|()| made)
    }};
}

pub(super) use {cl, make};

/// A code with its name, and what it most likely means.
pub(super) fn words(code: cl_int) -> String {
    let (name, meaning) = match code {
        LACKS => return "the OpenCL library does not have this call".into(),
        NOTHING => return "the driver says that it worked, and gives nothing".into(),
        ABSURD => return "the driver's answer makes no sense".into(),
        CL_DEVICE_NOT_FOUND => ("CL_DEVICE_NOT_FOUND", ""),
        CL_DEVICE_NOT_AVAILABLE => ("CL_DEVICE_NOT_AVAILABLE", "the device is gone or in use"),
        CL_COMPILER_NOT_AVAILABLE => ("CL_COMPILER_NOT_AVAILABLE", "the driver has no compiler"),
        CL_MEM_OBJECT_ALLOCATION_FAILURE => ("CL_MEM_OBJECT_ALLOCATION_FAILURE", "the device's memory is full"),
        CL_OUT_OF_RESOURCES => ("CL_OUT_OF_RESOURCES", "the device ran out of something, or a kernel went astray"),
        CL_OUT_OF_HOST_MEMORY => ("CL_OUT_OF_HOST_MEMORY", "the host's memory is full"),
        CL_PROFILING_INFO_NOT_AVAILABLE => ("CL_PROFILING_INFO_NOT_AVAILABLE", ""),
        CL_MEM_COPY_OVERLAP => ("CL_MEM_COPY_OVERLAP", ""),
        CL_BUILD_PROGRAM_FAILURE => ("CL_BUILD_PROGRAM_FAILURE", ""),
        CL_MAP_FAILURE => ("CL_MAP_FAILURE", ""),
        CL_MISALIGNED_SUB_BUFFER_OFFSET => ("CL_MISALIGNED_SUB_BUFFER_OFFSET", ""),
        CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST => ("CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST", "what was waited for failed"),
        CL_INVALID_VALUE => ("CL_INVALID_VALUE", ""),
        CL_INVALID_DEVICE => ("CL_INVALID_DEVICE", "the device is gone"),
        CL_INVALID_CONTEXT => ("CL_INVALID_CONTEXT", "the device's context is gone"),
        CL_INVALID_QUEUE_PROPERTIES => ("CL_INVALID_QUEUE_PROPERTIES", ""),
        CL_INVALID_COMMAND_QUEUE => ("CL_INVALID_COMMAND_QUEUE", "the device's queue is gone"),
        CL_INVALID_MEM_OBJECT => ("CL_INVALID_MEM_OBJECT", ""),
        CL_INVALID_BINARY => ("CL_INVALID_BINARY", "the driver cannot read it"),
        CL_INVALID_BUILD_OPTIONS => ("CL_INVALID_BUILD_OPTIONS", "the driver's compiler does not know one of the flags"),
        CL_INVALID_PROGRAM => ("CL_INVALID_PROGRAM", ""),
        CL_INVALID_PROGRAM_EXECUTABLE => ("CL_INVALID_PROGRAM_EXECUTABLE", ""),
        CL_INVALID_KERNEL_NAME => ("CL_INVALID_KERNEL_NAME", ""),
        CL_INVALID_KERNEL_DEFINITION => ("CL_INVALID_KERNEL_DEFINITION", ""),
        CL_INVALID_KERNEL => ("CL_INVALID_KERNEL", ""),
        CL_INVALID_ARG_INDEX => ("CL_INVALID_ARG_INDEX", ""),
        CL_INVALID_ARG_VALUE => ("CL_INVALID_ARG_VALUE", ""),
        CL_INVALID_ARG_SIZE => ("CL_INVALID_ARG_SIZE", "the kernel's parameter has another size than that in `params`"),
        CL_INVALID_KERNEL_ARGS => ("CL_INVALID_KERNEL_ARGS", ""),
        CL_INVALID_WORK_DIMENSION => ("CL_INVALID_WORK_DIMENSION", ""),
        CL_INVALID_WORK_GROUP_SIZE => ("CL_INVALID_WORK_GROUP_SIZE", "the kernel cannot run with this block"),
        CL_INVALID_WORK_ITEM_SIZE => ("CL_INVALID_WORK_ITEM_SIZE", "the block is too long in one dimension"),
        CL_INVALID_GLOBAL_OFFSET => ("CL_INVALID_GLOBAL_OFFSET", ""),
        CL_INVALID_EVENT_WAIT_LIST => ("CL_INVALID_EVENT_WAIT_LIST", ""),
        CL_INVALID_EVENT => ("CL_INVALID_EVENT", ""),
        CL_INVALID_OPERATION => ("CL_INVALID_OPERATION", ""),
        CL_INVALID_BUFFER_SIZE => ("CL_INVALID_BUFFER_SIZE", "larger than the device's largest allocation"),
        CL_INVALID_GLOBAL_WORK_SIZE => ("CL_INVALID_GLOBAL_WORK_SIZE", "the grid is larger than the device can run"),
        CL_INVALID_COMMAND_BUFFER_KHR => ("CL_INVALID_COMMAND_BUFFER_KHR", ""),
        CL_INCOMPATIBLE_COMMAND_QUEUE_KHR => ("CL_INCOMPATIBLE_COMMAND_QUEUE_KHR", ""),
        // The loader's own: no driver is installed.
        -1001 => ("CL_PLATFORM_NOT_FOUND_KHR", "no driver is installed"),
        _ => ("an error that OpenCL does not name", ""),
    };
    if meaning.is_empty() { format!("{name} ({code})") } else { format!("{name} ({code}): {meaning}") }
}

/// A device's information of a fixed size.
pub(super) fn device_info<T: Copy + Default>(api: &Api, device: cl_device_id, what: cl_device_info) -> Called<T> {
    let mut value = T::default();
    cl!(api.clGetDeviceInfo(device, what, size_of::<T>(), (&raw mut value).cast(), std::ptr::null_mut()))?;
    Ok(value)
}

/// Bytes whose length only the driver knows, by a call that asks twice.
pub(super) fn bytes_of(mut ask: impl FnMut(usize, *mut c_void, *mut usize) -> Called<()>) -> Called<Vec<u8>> {
    let mut len = 0;
    ask(0, std::ptr::null_mut(), &mut len)?;
    if len > LONGEST_ANSWER {
        return Err(Failure { call: "a query of the driver", code: ABSURD });
    }
    let mut bytes = vec![0u8; len];
    if len > 0 {
        ask(len, bytes.as_mut_ptr().cast(), std::ptr::null_mut())?;
    }
    Ok(bytes)
}

/// The text before the first zero byte.
pub(super) fn text(bytes: &[u8]) -> String {
    let bytes = CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes);
    String::from_utf8_lossy(bytes).trim().to_string()
}

pub(super) fn device_text(api: &Api, device: cl_device_id, what: cl_device_info) -> Called<String> {
    Ok(text(&bytes_of(|size, value, len| cl!(api.clGetDeviceInfo(device, what, size, value, len)))?))
}
