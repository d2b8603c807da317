//! The cases that every backend passes, with builtins and with C kernels, plain and behind the contract.

use crate::device::conformance::{Probe, Suite, conform, source};
use crate::device::{Clock, Code, Counts, Device, KernelSource, Trace, TraceOptions};

use super::super::{BlockAt, Builtin, CpuOptions, open};
use super::Bench;

/// # Safety
/// As [`Builtin`], for the probe's parameters.
unsafe fn axpy(args: *const *mut u8, _: &BlockAt) {
    // SAFETY: promised by the caller; the tensors have `n` elements.
    unsafe {
        let (x, y) = ((*args).cast::<f32>(), (*args.add(1)).cast::<f32>());
        let (a, n) = (*(*args.add(2)).cast::<f32>(), *(*args.add(3)).cast::<u32>());
        (0..n as usize).for_each(|i| *y.add(i) += a * *x.add(i));
    }
}

/// # Safety
/// As [`axpy`].
unsafe fn step(args: *const *mut u8, _: &BlockAt) {
    // SAFETY: promised by the caller.
    unsafe {
        let y = (*args).cast::<u32>();
        *y = (*y).wrapping_mul(*(*args.add(1)).cast::<u32>()).wrapping_add(*(*args.add(2)).cast::<u32>());
    }
}

/// # Safety
/// As [`axpy`].
unsafe fn whereabouts(args: *const *mut u8, at: &BlockAt) {
    let ([x, y, z], [gx, gy, _]) = (at.block, at.grid);
    // SAFETY: promised by the caller; the tensor has an element for each block.
    unsafe { *(*args).cast::<u32>().add((x + gx * (y + gy * z)) as usize) = 1 + x + 100 * y + 10_000 * z };
}

/// # Safety
/// As [`axpy`]; the scalar has `N` bytes.
unsafe fn scalar<const N: usize>(args: *const *mut u8, _: &BlockAt) {
    // SAFETY: promised by the caller.
    unsafe { std::ptr::copy_nonoverlapping(*args.add(1), *args, N) };
}

/// # Safety
/// As [`axpy`].
unsafe fn structure(args: *const *mut u8, _: &BlockAt) {
    // SAFETY: promised by the caller: the struct has its fields at bytes 0, 4 and 8.
    unsafe {
        let (y, p) = ((*args).cast::<u32>(), *args.add(1));
        *y = (*p).into();
        *y.add(1) = p.add(4).cast::<u32>().read_unaligned();
        *y.add(2) = p.add(8).cast::<u16>().read_unaligned().into();
        *y.add(3) = (*args.add(2)).is_null().into();
    }
}

/// # Safety
/// As [`axpy`].
unsafe fn offset(args: *const *mut u8, at: &BlockAt) {
    // SAFETY: promised by the caller; the tensor has three elements.
    unsafe { (*args).cast::<[u32; 3]>().write_unaligned(at.offset) };
}

fn builtin(probe: Probe) -> Option<KernelSource> {
    let code: Builtin = match probe {
        Probe::Axpy => axpy,
        Probe::Step => step,
        Probe::Where => whereabouts,
        Probe::Struct => structure,
        Probe::Offset => offset,
        Probe::Scalar(dtype) => match dtype.size() {
            1 => scalar::<1>,
            2 => scalar::<2>,
            4 => scalar::<4>,
            _ => scalar::<8>,
        },
        Probe::Broken | Probe::Mismatch => return None,
    };
    Some(source(probe, Code::Builtin(code)))
}

fn compiled(bench: &Bench, probe: Probe) -> Option<KernelSource> {
    let text = match probe {
        Probe::Axpy => {
            "#include <stdint.h>\nvoid axpy(const float *x, float *y, float a, uint32_t n) { for (uint32_t i = 0; i < n; ++i) y[i] += a * x[i]; }\n".to_string()
        }
        Probe::Broken => "#include <stdint.h>\nvoid broken(uint32_t *y) { y[0] = nowhere; }\n".to_string(),
        Probe::Mismatch => "#include <stdint.h>\nvoid mismatch(uint32_t *y, uint32_t a, uint32_t b) { y[0] = y[0] * a + b; }\n".to_string(),
        Probe::Step => "#include <stdint.h>\nvoid step(uint32_t *y, uint32_t a, uint32_t b) { y[0] = y[0] * a + b; }\n".to_string(),
        Probe::Where => "#include <runjob.h>\nvoid where(uint32_t *y) {\n  uint32_t i = rj_block(0) + rj_grid(0) * (rj_block(1) + rj_grid(1) * rj_block(2));\n  y[i] = rj_block_dim(2) + rj_block(0) + 100 * rj_block(1) + 10000 * rj_block(2);\n}\n".to_string(),
        Probe::Struct => "#include <runjob.h>\nstruct mixed { uint8_t a; uint32_t b; uint16_t c; };\nvoid struct_(uint32_t *y, struct mixed p, const float *none) { y[0] = p.a; y[1] = p.b; y[2] = p.c; y[3] = !none; }\n".to_string(),
        Probe::Offset => "#include <runjob.h>\nvoid offset(uint32_t *y) { for (int d = 0; d < 3; ++d) y[d] = rj_offset(d); }\n".to_string(),
        Probe::Scalar(dtype) => format!("#include <runjob.h>\nvoid scalar_{dtype}(rj_{dtype} *y, rj_{dtype} s) {{ y[0] = s; }}\n"),
    };
    let kernel = source(probe, Code::File(std::path::PathBuf::new()));
    let path = bench.file(&format!("{}.c", kernel.entry), &text);
    Some(KernelSource { code: Code::File(path), ..kernel })
}

#[test]
fn the_cpu_conforms() {
    let bench = Bench::new();
    for discrete in [false, true] {
        for threads in [1, 2, 5] {
            let options = || CpuOptions { discrete, threads: Some(threads), ..bench.options() };
            let plain = || -> Box<dyn Device> { Box::new(open(options()).unwrap()) };
            conform(&Suite { open: &plain, kernel: &builtin });
            for clock in [Clock::Rounds, Clock::Steps] {
                let timed = || -> Box<dyn Device> { Box::new(open(CpuOptions { clock, ..options() }).unwrap()) };
                conform(&Suite { open: &timed, kernel: &builtin });
            }
            if threads == 2 {
                conform(&Suite { open: &plain, kernel: &|probe| compiled(&bench, probe) });
            }
        }
    }
}

#[test]
fn the_conformance_list_keeps_the_contract() {
    let bench = Bench::new();
    let traced = || -> Box<dyn Device> {
        Box::new(Trace::new(Box::new(open(bench.options()).unwrap()), TraceOptions { log: true, contract: true }))
    };
    conform(&Suite { open: &traced, kernel: &builtin });
}

#[test]
fn counts_add_up_over_forks_and_frees_equal_allocations_at_the_end() {
    let mut device = Trace::new(Box::new(open(Bench::new().options()).unwrap()), TraceOptions::default());
    device.alloc(crate::device::Place::Device, 100).unwrap();
    let mut fork = device.fork().unwrap();
    fork.alloc(crate::device::Place::Device, 50).unwrap();
    drop(fork);
    device.reset().unwrap();
    let counts = device.counts();
    let want = Counts { allocs: 2, bytes_allocated: 150, frees: 2, bytes_freed: 150, forks: 1, resets: 1, ..Counts::default() };
    assert_eq!(counts, want);
    assert_eq!(counts - counts, Counts::default());
}
