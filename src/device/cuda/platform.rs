//! The driver of this machine -> the GPUs that it offers, with what each can do.

use std::ffi::c_int;
use std::sync::OnceLock;

use cudarc::driver::sys::{CUdevice, CUdevice_attribute as Attribute, CUresult};

use super::api::{Api, Called, Failure, api, cu, text, words};
use super::nvrtc;
use crate::device::{Caps, DeviceError, Peak};
use crate::tensor::Dtype;

/// The oldest driver whose graphs have all that lists need.
const OLDEST: i32 = 12_000;

/// What helps where there is no driver.
const HELP: &str = "install NVIDIA's driver, version 525 or later";

/// A GPU.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub device: CUdevice,
    pub caps: Caps,
    /// Major and minor number of the compute capability.
    pub arch: (u32, u32),
    /// Largest scratch of a block, once a kernel asks for it. *Units*: bytes.
    pub shared: u64,
    /// Most blocks by dimension.
    pub grid: [u64; 3],
    /// Largest distance between rows of a copy. *Units*: bytes.
    pub pitch: usize,
}

/// Every GPU, in the driver's order. They are looked for once.
///
/// *Errors*: `Unsupported` where there is no driver, one that is too old, or no GPU, with what helps.
pub(super) fn devices() -> Result<(&'static Api, &'static [Found]), DeviceError> {
    static FOUND: OnceLock<Result<(&'static Api, Vec<Found>), DeviceError>> = OnceLock::new();
    FOUND.get_or_init(look).as_ref().map(|(api, found)| (*api, found.as_slice())).map_err(DeviceError::clone)
}

fn look() -> Result<(&'static Api, Vec<Found>), DeviceError> {
    let unsupported = |why: String| DeviceError::Unsupported(format!("{why}: {HELP}"));
    let api = api().map_err(|why| unsupported(why.to_string()))?;
    let said = |failure: Failure| unsupported(format!("the CUDA driver does not start ({} said {})", failure.call, words(failure.code)));
    let none = || unsupported("the CUDA driver has no GPU".into());
    match cu!(api.cuInit(0)) {
        Err(failure) if failure.is(CUresult::CUDA_ERROR_NO_DEVICE) => return Err(none()),
        other => other.map_err(said)?,
    }
    let mut version: c_int = 0;
    cu!(api.cuDriverGetVersion(&mut version)).map_err(said)?;
    if version < OLDEST {
        let dotted = |version: c_int| format!("{}.{}", version / 1000, version % 1000 / 10);
        let (has, needs) = (dotted(version), dotted(OLDEST));
        return Err(unsupported(format!("the CUDA driver is too old: it has CUDA {has}, runjob needs {needs}")));
    }
    let mut count: c_int = 0;
    cu!(api.cuDeviceGetCount(&mut count)).map_err(said)?;
    let found = (0..count).map(|index| of_device(api, index, version)).collect::<Called<Vec<_>>>().map_err(said)?;
    if found.is_empty() { Err(none()) } else { Ok((api, found)) }
}

/// Said of a machine whose driver has no compiler beside it.
const NO_COMPILER: &str = "no NVRTC, which CUDA C++ needs";

/// Alignment of tensors in a memory: that of what the driver allocates. *Units*: bytes.
const ALIGNMENT: u64 = 256;

/// What one more small node of a graph costs. *Units*: nanoseconds.
const NODE: u64 = 700;

/// What a launch of a graph costs. *Units*: nanoseconds.
const SUBMIT: u64 = 5_000;

fn of_device(api: &Api, index: c_int, version: c_int) -> Called<Found> {
    let mut device: CUdevice = 0;
    cu!(api.cuDeviceGet(&mut device, index))?;
    let mut name = [0u8; 256];
    cu!(api.cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, device))?;
    let mut memory = 0usize;
    cu!(api.cuDeviceTotalMem_v2(&mut memory, device))?;
    let number = |attribute: Attribute| {
        let mut value: c_int = 0;
        cu!(api.cuDeviceGetAttribute(&mut value, attribute as c_int, device)).map(|()| value.max(0) as u64)
    };
    let arch = (
        number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32,
        number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32,
    );
    let known = |attribute| number(attribute).ok().filter(|&n| n > 0);
    // Two transfers per clock of so many kHz over so many bits.
    let clock = known(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
    let width = known(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
    let bytes_per_ns = clock.zip(width).map(|(khz, bits)| 2.0 * khz as f64 * 1e3 * bits as f64 / 8.0 / 1e9);
    // Of all multiprocessors, at so many kHz.
    let kilohertz = known(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
    let cycles = known(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).zip(kilohertz).map(|(all, khz)| all as f64 * khz as f64 / 1e6);
    let shared = number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK)?;
    let dotted = format!("{}.{}", version / 1000, version % 1000 / 10);
    let compiler = nvrtc::version().map_or_else(|_| NO_COMPILER.to_string(), |(major, minor)| format!("NVRTC {major}.{minor}"));
    let dtypes = Dtype::ALL.iter().filter(|dtype| computes(**dtype, arch));
    let caps = Caps {
        backend: "cuda",
        name: text(&name),
        driver: format!("CUDA {dotted}, {compiler}, sm_{}{}", arch.0, arch.1),
        unified: false,
        lanes: 1,
        submit_ns: SUBMIT,
        // A fill of a variable that stands for several cannot be changed in a graph, so rounds are submitted one by one.
        node_ns: NODE,
        bytes_per_ns: bytes_per_ns.unwrap_or(10_000.0),
        memory: memory as u64,
        largest_alloc: memory as u64,
        alignment: ALIGNMENT,
        bind_alignment: 1,
        max_block: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
        max_block_dims: [
            number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z)?,
        ],
        shares_cores: false,
        peak: Peak {
            bytes_per_ns,
            flops_per_ns: per_clock(arch).zip(cycles).map(|((flops, _), cycles)| flops * cycles),
            most_flops_per_ns: per_clock(arch).zip(cycles).and_then(|((_, most), cycles)| Some(most? * cycles)),
            cache: known(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
        },
        features: dtypes.map(|dtype| dtype.name().to_string()).chain([format!("sm_{}{}", arch.0, arch.1)]).collect(),
        versions: vec![("cuda".to_string(), dotted), ("sm".to_string(), format!("{}.{}", arch.0, arch.1))],
    };
    Ok(Found {
        device,
        caps,
        arch,
        shared: known(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN).unwrap_or(shared),
        grid: [
            number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)?,
        ],
        pitch: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_PITCH)? as usize,
    })
}

/// Operations that a multiprocessor does in a cycle: in f32 with fused multiplications and additions, and at most, which is
/// what matrix units do with the narrowest numbers and half of them left out, where that is known.
///
/// *Source*: CUDA C++ programming guide, table of throughput by compute capability; NVIDIA's papers on A100 and H100.
fn per_clock(arch: (u32, u32)) -> Option<(f64, Option<f64>)> {
    match arch {
        (7, _) => Some((128.0, None)),
        (8, 0) => Some((128.0, Some(8192.0))),
        (8, _) | (10 | 12, _) => Some((256.0, None)),
        (9, 0) => Some((256.0, Some(16_384.0))),
        _ => None,
    }
}

/// Whether the device has instructions for a dtype.
///
/// *Source*: CUDA C++ programming guide, table of arithmetic by compute capability.
fn computes(dtype: Dtype, arch: (u32, u32)) -> bool {
    match dtype {
        Dtype::F16 => arch >= (5, 3),
        Dtype::Bf16 => arch >= (8, 0),
        Dtype::F8e4m3 | Dtype::F8e5m2 => arch >= (8, 9),
        _ => true,
    }
}
