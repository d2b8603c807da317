//! The CUDA driver, found at run time: its functions, and what its error codes mean.
//!
//! Types are cudarc's. Its functions are not called: they panic where an older driver lacks one, a code that a newer driver
//! returns is no value of their enum, and the library is looked for under names that a stub may have.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::path::Path;
use std::sync::OnceLock;

use cudarc::driver::sys::{
    CUDA_KERNEL_NODE_PARAMS, CUDA_MEMCPY3D, CUDA_MEMSET_NODE_PARAMS, CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUgraph,
    CUgraphExec, CUgraphNode, CUmodule, CUresult, CUstream,
};
use libloading::Library;

use crate::device::DeviceError;

/// The environment variable that names another driver library.
pub(super) const LIBRARY: &str = "RUNJOB_CUDA";

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

/// What the calls of a driver return.
pub(super) type Code = c_uint;

macro_rules! functions {
    ($($name:ident: ($($arg:ty),*),)*) => {
        /// The functions of the library; those that it lacks are `None`.
        #[allow(non_snake_case)]
        pub(super) struct Api {
            $(pub $name: Option<unsafe extern "C" fn($($arg),*) -> Code>,)*
        }

        impl Api {
            fn of(library: &'static Library) -> Api {
                Api {
                    // SAFETY: a symbol of this name has this type in every version of the driver.
                    $($name: unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }.ok().map(|f| *f),)*
                }
            }
        }
    };
}

functions! {
    cuInit: (c_uint),
    cuDriverGetVersion: (*mut c_int),
    cuGetErrorName: (Code, *mut *const c_char),
    cuGetErrorString: (Code, *mut *const c_char),
    cuDeviceGetCount: (*mut c_int),
    cuDeviceGet: (*mut CUdevice, c_int),
    cuDeviceGetName: (*mut c_char, c_int, CUdevice),
    cuDeviceGetAttribute: (*mut c_int, c_int, CUdevice),
    cuDeviceTotalMem_v2: (*mut usize, CUdevice),
    cuDevicePrimaryCtxRetain: (*mut CUcontext, CUdevice),
    cuDevicePrimaryCtxRelease_v2: (CUdevice),
    cuDevicePrimaryCtxReset_v2: (CUdevice),
    cuCtxSetCurrent: (CUcontext),
    cuCtxSetLimit: (c_uint, usize),
    cuMemGetInfo_v2: (*mut usize, *mut usize),
    cuMemAlloc_v2: (*mut CUdeviceptr, usize),
    cuMemFree_v2: (CUdeviceptr),
    cuMemHostAlloc: (*mut *mut c_void, usize, c_uint),
    cuMemFreeHost: (*mut c_void),
    cuStreamCreate: (*mut CUstream, c_uint),
    cuStreamDestroy_v2: (CUstream),
    cuStreamSynchronize: (CUstream),
    cuStreamQuery: (CUstream),
    cuStreamWaitEvent: (CUstream, CUevent, c_uint),
    cuEventCreate: (*mut CUevent, c_uint),
    cuEventDestroy_v2: (CUevent),
    cuEventRecord: (CUevent, CUstream),
    cuEventElapsedTime: (*mut f32, CUevent, CUevent),
    cuModuleLoadDataEx: (*mut CUmodule, *const c_void, c_uint, *mut c_uint, *mut *mut c_void),
    cuModuleUnload: (CUmodule),
    cuModuleGetFunction: (*mut CUfunction, CUmodule, *const c_char),
    cuModuleGetFunctionCount: (*mut c_uint, CUmodule),
    cuModuleEnumerateFunctions: (*mut CUfunction, c_uint, CUmodule),
    cuFuncGetName: (*mut *const c_char, CUfunction),
    cuFuncGetAttribute: (*mut c_int, c_uint, CUfunction),
    cuFuncSetAttribute: (CUfunction, c_uint, c_int),
    cuFuncGetParamInfo: (CUfunction, usize, *mut usize, *mut usize),
    cuGraphCreate: (*mut CUgraph, c_uint),
    cuGraphDestroy: (CUgraph),
    cuGraphAddKernelNode_v2: (*mut CUgraphNode, CUgraph, *const CUgraphNode, usize, *const CUDA_KERNEL_NODE_PARAMS),
    cuGraphAddMemcpyNode: (*mut CUgraphNode, CUgraph, *const CUgraphNode, usize, *const CUDA_MEMCPY3D, CUcontext),
    cuGraphAddMemsetNode: (*mut CUgraphNode, CUgraph, *const CUgraphNode, usize, *const CUDA_MEMSET_NODE_PARAMS, CUcontext),
    cuGraphAddEmptyNode: (*mut CUgraphNode, CUgraph, *const CUgraphNode, usize),
    cuGraphAddEventRecordNode: (*mut CUgraphNode, CUgraph, *const CUgraphNode, usize, CUevent),
    cuGraphInstantiateWithFlags: (*mut CUgraphExec, CUgraph, c_ulonglong),
    cuGraphExecDestroy: (CUgraphExec),
    cuGraphExecKernelNodeSetParams_v2: (CUgraphExec, CUgraphNode, *const CUDA_KERNEL_NODE_PARAMS),
    cuGraphExecMemsetNodeSetParams: (CUgraphExec, CUgraphNode, *const CUDA_MEMSET_NODE_PARAMS, CUcontext),
    cuGraphNodeSetEnabled: (CUgraphExec, CUgraphNode, c_uint),
    cuGraphUpload: (CUgraphExec, CUstream),
    cuGraphLaunch: (CUgraphExec, CUstream),
}

/// The library, loaded once and never unloaded. *Errors*: why there is none, in words.
pub(super) fn api() -> Result<&'static Api, &'static str> {
    static LOADED: OnceLock<Result<Api, String>> = OnceLock::new();
    LOADED.get_or_init(load).as_ref().map_err(String::as_str)
}

/// Names that the library is looked for under; the second may be a stub for linkers.
#[cfg(not(windows))]
const NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];
#[cfg(windows)]
const NAMES: [&str; 1] = ["nvcuda.dll"];

fn load() -> Result<Api, String> {
    let found = find(LIBRARY, &NAMES.map(Path::new))?;
    found.map(Api::of).ok_or_else(|| format!("there is no CUDA driver (`{}`) on this machine", NAMES[0]))
}

/// The library that an environment variable names, else the first that is there of some; never unloaded.
///
/// *Errors*: the one that is named cannot be loaded.
pub(super) fn find(variable: &str, names: &[&Path]) -> Result<Option<&'static Library>, String> {
    // SAFETY: who names it says that it is such a library, which runs nothing but its own initialisation.
    let open = |path: &Path| unsafe { Library::new(path) }.map(|library| &*Box::leak(Box::new(library)));
    #[cfg(test)]
    if let Some(path) = super::tests::simulated(variable) {
        return open(&path).map(Some).map_err(|error| error.to_string());
    }
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else {
        return Ok(names.iter().find_map(|name| open(name).ok()));
    };
    open(path.as_ref()).map(Some).map_err(|error| {
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        format!("${variable} names `{}`, which cannot be loaded: {why}", path.display())
    })
}

/// A call that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub call: &'static str,
    pub code: Code,
}

/// What a call of the library is said to return when the library does not have it.
pub(super) const LACKS: Code = Code::MAX;

/// What a call is said to return that tells of success and gives nothing.
pub(super) const NOTHING: Code = Code::MAX - 1;

/// After these nothing can be done with the context any more: every later call says the same.
const STICKY: &[CUresult] = &[
    CUresult::CUDA_ERROR_DEINITIALIZED,
    CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE,
    CUresult::CUDA_ERROR_INVALID_CONTEXT,
    CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
    CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE,
    CUresult::CUDA_ERROR_CONTAINED,
    CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
    CUresult::CUDA_ERROR_LAUNCH_TIMEOUT,
    CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED,
    CUresult::CUDA_ERROR_ASSERT,
    CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR,
    CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION,
    CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
    CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE,
    CUresult::CUDA_ERROR_INVALID_PC,
    CUresult::CUDA_ERROR_LAUNCH_FAILED,
    CUresult::CUDA_ERROR_TENSOR_MEMORY_LEAK,
    CUresult::CUDA_ERROR_EXTERNAL_DEVICE,
    CUresult::CUDA_ERROR_MPS_RPC_FAILURE,
    CUresult::CUDA_ERROR_MPS_CLIENT_TERMINATED,
    CUresult::CUDA_ERROR_UNKNOWN,
];

impl Failure {
    pub fn is(self, code: CUresult) -> bool {
        self.code == code as Code
    }

    /// Whether nothing can be done with the context any more.
    pub fn is_loss(self) -> bool {
        STICKY.iter().any(|sticky| self.is(*sticky))
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
pub(super) fn check(call: &'static str, code: Code) -> Called<()> {
    if code == CUresult::CUDA_SUCCESS as Code { Ok(()) } else { Err(Failure { call, code }) }
}

/// Calls a function of the driver: `cu!(api.cuStreamSynchronize(stream))`.
macro_rules! cu {
    ($api:ident.$name:ident($($arg:expr),* $(,)?)) => {{
        $crate::device::cuda::api::count();
        let code = match $api.$name {
            // SAFETY: the handles are those of objects that live; what is pointed to outlives the call.
            Some(function) => unsafe { function($($arg),*) },
            None => $crate::device::cuda::api::LACKS,
        };
        $crate::device::cuda::api::check(stringify!($name), code)
    }};
}

pub(super) use cu;

/// The driver's version, as 12040 for 12.4; `None` where there is no driver.
pub(super) fn driver_version() -> Option<i32> {
    let api = api().ok()?;
    let mut version: c_int = 0;
    cu!(api.cuDriverGetVersion(&mut version)).ok().map(|()| version)
}

/// A code with its name, and what it most likely means.
pub(super) fn words(code: Code) -> String {
    match code {
        LACKS => return "the CUDA driver does not have this call".into(),
        NOTHING => return "the driver says that it worked, and gives nothing".into(),
        _ => {}
    }
    let Ok(api) = api() else { return format!("error {code}") };
    let ask = |function: Option<unsafe extern "C" fn(Code, *mut *const c_char) -> Code>| {
        let mut text = std::ptr::null();
        // SAFETY: the driver writes the address of a string that it keeps, or null.
        let asked = function.map(|function| unsafe { function(code, &mut text) });
        // SAFETY: as above.
        (asked == Some(0) && !text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    let name = ask(api.cuGetErrorName).unwrap_or_else(|| "an error that this driver does not name".into());
    let is = |of: CUresult| code == of as Code;
    let meaning = match () {
        () if is(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS) => "a kernel read or wrote outside of all memory".to_string(),
        () if is(CUresult::CUDA_ERROR_MISALIGNED_ADDRESS) => "a kernel used an address that its type does not allow".into(),
        () if is(CUresult::CUDA_ERROR_LAUNCH_TIMEOUT) => "the display's watchdog stopped a kernel that ran for too long".into(),
        () if is(CUresult::CUDA_ERROR_ASSERT) => "an `assert` of a kernel did not hold".into(),
        () if is(CUresult::CUDA_ERROR_LAUNCH_FAILED) => "a kernel went astray, or trapped".into(),
        () if is(CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES) => "a block needs more registers or threads than the device has".into(),
        () if is(CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU) => "it was not built for this device".into(),
        () if is(CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION) => "the PTX is of a newer CUDA than the driver".into(),
        () => ask(api.cuGetErrorString).unwrap_or_default(),
    };
    if meaning.is_empty() { format!("{name} ({code})") } else { format!("{name} ({code}): {meaning}") }
}

/// The text before the first zero byte.
pub(super) fn text(bytes: &[u8]) -> String {
    let bytes = CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes);
    String::from_utf8_lossy(bytes).trim().to_string()
}
