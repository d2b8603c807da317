//! The drivers of this machine -> the devices that they offer, with what each can do.

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

use opencl_sys::*;

use super::api::{ABSURD, Api, Called, Failure, api, bytes_of, cl, device_info, device_text, text, words};
use crate::device::{Caps, DeviceError};
use crate::tensor::Dtype;

/// More platforms, or devices of one, than any machine has.
const MOST_LISTED: cl_uint = 4096;

/// What helps where there is no driver.
const HELP: &str = "install a driver: the GPU vendor's, or `pocl-opencl-icd` (Debian, Ubuntu), which runs on the CPU";

/// A device of a driver.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub platform: cl_platform_id,
    pub device: cl_device_id,
    pub caps: Caps,
    /// Its kernels run on the host's cores.
    pub is_cpu: bool,
    /// Largest scratch of a block. *Units*: bytes.
    pub local_memory: u64,
    /// It takes SPIR-V.
    pub takes_il: bool,
}

// SAFETY: platforms and devices are handles that the driver keeps for as long as the process lives.
unsafe impl Send for Found {}
// SAFETY: as above.
unsafe impl Sync for Found {}

/// Every device of every driver: GPUs first, then accelerators, then CPUs. They are looked for once: drivers start what
/// they need then, and some do not bear to be asked by two threads at once.
///
/// *Errors*: `Unsupported` where there is no library, no driver or no device, with what to install.
pub(super) fn devices() -> Result<(&'static Api, &'static [Found]), DeviceError> {
    static FOUND: OnceLock<Result<(&'static Api, Vec<Found>), DeviceError>> = OnceLock::new();
    FOUND.get_or_init(look).as_ref().map(|(api, found)| (*api, found.as_slice())).map_err(DeviceError::clone)
}

fn look() -> Result<(&'static Api, Vec<Found>), DeviceError> {
    let unsupported = |why: String| DeviceError::Unsupported(format!("{why}: {HELP}"));
    let api = api().map_err(|why| unsupported(why.to_string()))?;
    let mut found = Vec::new();
    let mut problem = None;
    let platforms = platforms(api).map_err(|failure| unsupported(no_platform(failure)))?;
    for platform in platforms {
        match of_platform(api, platform) {
            Ok(devices) => found.extend(devices),
            Err(failure) => {
                problem.get_or_insert(failure);
            }
        }
    }
    if found.is_empty() {
        let why = match problem {
            Some(failure) => format!("no OpenCL driver offers a device: {}: {}", failure.call, words(failure.code)),
            None => "no OpenCL driver offers a device".to_string(),
        };
        return Err(unsupported(why));
    }
    // Of CPUs the one with more cores first: PoCL lists its `basic` device, which has one, before the other.
    found.sort_by_key(|(rank, found)| (*rank, std::cmp::Reverse(found.caps.lanes)));
    Ok((api, found.into_iter().map(|(_, found)| found).collect()))
}

fn no_platform(failure: Failure) -> String {
    // The code of the loader that found nothing to load.
    const NO_PLATFORM: cl_int = -1001;
    match failure.code {
        NO_PLATFORM => "there is an OpenCL library, but no driver".to_string(),
        code => format!("the OpenCL library lists no driver: {}: {}", failure.call, words(code)),
    }
}

/// How many there are, where that can be.
fn listed(call: &'static str, count: cl_uint) -> Called<usize> {
    if count > MOST_LISTED { Err(Failure { call, code: ABSURD }) } else { Ok(count as usize) }
}

fn platforms(api: &Api) -> Called<Vec<cl_platform_id>> {
    let mut count = 0;
    cl!(api.clGetPlatformIDs(0, null_mut(), &mut count))?;
    let mut ids = vec![null_mut(); listed("clGetPlatformIDs", count)?];
    if count > 0 {
        cl!(api.clGetPlatformIDs(count, ids.as_mut_ptr(), null_mut()))?;
    }
    Ok(ids)
}

/// The devices of a driver, each with its rank among kinds of devices.
fn of_platform(api: &Api, platform: cl_platform_id) -> Called<Vec<(u32, Found)>> {
    let mut count = 0;
    match cl!(api.clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, null_mut(), &mut count)) {
        Err(failure) if failure.code == CL_DEVICE_NOT_FOUND => return Ok(Vec::new()),
        other => other?,
    }
    let mut ids: Vec<cl_device_id> = vec![null_mut(); listed("clGetDeviceIDs", count)?];
    if count > 0 {
        cl!(api.clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, count, ids.as_mut_ptr(), null_mut()))?;
    }
    let platform_text = |what| {
        bytes_of(|size, value, len| cl!(api.clGetPlatformInfo(platform, what, size, value, len))).map_or(String::new(), |b| text(&b))
    };
    let name = platform_text(CL_PLATFORM_NAME);
    let mut devices = Vec::new();
    for device in ids {
        // One that is listed and not there is no device.
        if device_info::<cl_bool>(api, device, CL_DEVICE_AVAILABLE)? == 0 {
            continue;
        }
        devices.push(of_device(api, platform, device, &name)?);
    }
    Ok(devices)
}

/// Alignment of tensors in memories: that of the device, and that of two cache lines, which neighbours then never share.
/// *Units*: bytes.
const ALIGNMENT: u64 = 256;

/// Cost of one submission of a device that runs what it is given in threads of its own, or behind a bus. *Units*: nanoseconds.
const SUBMIT: u64 = 8_000;

/// That of a CPU of one core: its work is done in the call that waits for it.
const SUBMIT_INLINE: u64 = 900;

fn of_device(api: &Api, platform: cl_platform_id, device: cl_device_id, platform_name: &str) -> Called<(u32, Found)> {
    let number = |what| device_info::<cl_ulong>(api, device, what);
    let word = |what| device_info::<cl_uint>(api, device, what).map(u64::from);
    let kind: cl_device_type = device_info(api, device, CL_DEVICE_TYPE)?;
    let rank = match kind {
        kind if kind & CL_DEVICE_TYPE_GPU != 0 => 0,
        kind if kind & CL_DEVICE_TYPE_CPU != 0 => 2,
        _ => 1,
    };
    let is_cpu = rank == 2;
    let cores = word(CL_DEVICE_MAX_COMPUTE_UNITS)?.max(1);
    let memory = number(CL_DEVICE_GLOBAL_MEM_SIZE)?;
    let base = (word(CL_DEVICE_MEM_BASE_ADDR_ALIGN)? / 8).max(1).next_power_of_two();
    let mut longest = [1usize; 8];
    let dims = (word(CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS)? as usize).min(longest.len());
    let bytes = size_of_val(&longest[..dims]);
    let longest_ptr = longest.as_mut_ptr().cast::<c_void>();
    cl!(api.clGetDeviceInfo(device, CL_DEVICE_MAX_WORK_ITEM_SIZES, bytes, longest_ptr, null_mut()))?;
    let extensions = device_text(api, device, CL_DEVICE_EXTENSIONS)?;
    let has = |extension: &str| extensions.split_whitespace().any(|word| word == extension);
    let computes = |dtype: &Dtype| match dtype {
        Dtype::F64 => has("cl_khr_fp64"),
        Dtype::F16 => has("cl_khr_fp16"),
        // There is no type for them; kernels take their bits.
        Dtype::Bf16 | Dtype::F8e4m3 | Dtype::F8e5m2 => false,
        _ => true,
    };
    let dtypes = Dtype::ALL.iter().filter(|dtype| computes(dtype)).map(|dtype| dtype.name().to_string());
    let version = device_text(api, device, CL_DEVICE_VERSION)?;
    let driver = device_text(api, device, CL_DRIVER_VERSION)?;
    let takes_il = device_text(api, device, CL_DEVICE_IL_VERSION).is_ok_and(|il| il.contains("SPIR-V"));
    let submit = if is_cpu && cores <= 1 { SUBMIT_INLINE } else { SUBMIT };
    let caps = Caps {
        backend: "opencl",
        name: device_text(api, device, CL_DEVICE_NAME)?,
        driver: format!("{platform_name} {driver}, {}", dotted(&version, "OpenCL ").map_or(version.clone(), |v| format!("OpenCL {v}"))),
        unified: device_info::<cl_bool>(api, device, CL_DEVICE_HOST_UNIFIED_MEMORY).is_ok_and(|unified| unified != 0),
        lanes: if is_cpu { cores as u32 } else { 1 },
        submit_ns: submit,
        // Drivers take a list command by command.
        node_ns: submit,
        // Beyond what today's devices give, so that a lower bound by bytes is one.
        bytes_per_ns: if is_cpu { 200.0 * cores as f64 } else { 10_000.0 },
        memory,
        largest_alloc: number(CL_DEVICE_MAX_MEM_ALLOC_SIZE)?.min(memory),
        alignment: base.max(ALIGNMENT),
        bind_alignment: base,
        max_block: device_info::<usize>(api, device, CL_DEVICE_MAX_WORK_GROUP_SIZE)? as u64,
        max_block_dims: [longest[0], longest[1], longest[2]].map(|n| n as u64),
        shares_cores: is_cpu,
        features: dtypes.chain(extensions.split_whitespace().map(String::from)).collect(),
        versions: [("opencl", dotted(&version, "OpenCL ")), ("opencl_c", language(api, device))]
            .into_iter()
            .filter_map(|(name, version)| Some((name.to_string(), version?)))
            .collect(),
    };
    let local_memory = number(CL_DEVICE_LOCAL_MEM_SIZE)?;
    Ok((rank, Found { platform, device, caps, is_cpu, local_memory, takes_il }))
}

/// The numbers behind a word: `3.0` of `OpenCL 3.0 PoCL`.
fn dotted(text: &str, word: &str) -> Option<String> {
    let rest = text.strip_prefix(word)?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    (end > 0).then(|| rest[..end].to_string())
}

/// The newest version of OpenCL C that the device's compiler knows.
fn language(api: &Api, device: cl_device_id) -> Option<String> {
    let all = bytes_of(|size, value, len| cl!(api.clGetDeviceInfo(device, CL_DEVICE_OPENCL_C_ALL_VERSIONS, size, value, len)));
    let versions = all.unwrap_or_default();
    let newest = versions
        .chunks_exact(size_of::<cl_name_version>())
        .map(|entry| [entry[0], entry[1], entry[2], entry[3]])
        .map(u32::from_ne_bytes)
        .max();
    match newest {
        // 10 bits of major, 10 of minor, 12 of patch version.
        Some(version) => Some(format!("{}.{}", version >> 22, version >> 12 & 0x3ff)),
        None => dotted(&device_text(api, device, CL_DEVICE_OPENCL_C_VERSION).ok()?, "OpenCL C "),
    }
}

/// The version of an extension, as major and minor number and patch; `None` where the driver does not say.
pub(super) fn extension_version(api: &Api, device: cl_device_id, extension: &str) -> Option<(u32, u32, u32)> {
    let all = bytes_of(|size, value, len| cl!(api.clGetDeviceInfo(device, CL_DEVICE_EXTENSIONS_WITH_VERSION, size, value, len))).ok()?;
    all.chunks_exact(size_of::<cl_name_version>()).find_map(|entry| {
        let version = u32::from_ne_bytes([entry[0], entry[1], entry[2], entry[3]]);
        (text(&entry[4..]) == extension).then_some((version >> 22, version >> 12 & 0x3ff, version & 0xfff))
    })
}

/// The address of an extension's function; null where the driver has none.
pub(super) fn extension_function(api: &Api, platform: cl_platform_id, name: &std::ffi::CStr) -> *const c_void {
    super::api::count();
    match api.clGetExtensionFunctionAddressForPlatform {
        // SAFETY: the platform lives as long as the process; the name ends with a zero byte.
        Some(get) => unsafe { get(platform, name.as_ptr()) }.cast_const(),
        None => null(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_drivers_say() {
        for (text, word, want) in [
            ("OpenCL 3.0 PoCL HSTR: basic", "OpenCL ", Some("3.0")),
            ("OpenCL C 1.2 ", "OpenCL C ", Some("1.2")),
            ("OpenCL 2.1", "OpenCL ", Some("2.1")),
            ("OpenCL", "OpenCL ", None),
            ("Vulkan 1.3", "OpenCL ", None),
        ] {
            assert_eq!(dotted(text, word).as_deref(), want, "{text}");
        }
    }
}
