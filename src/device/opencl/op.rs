//! What a list enqueues: one call, or a few, each.

use std::ptr::{NonNull, null, null_mut};
use std::sync::{Arc, Mutex, PoisonError};

use opencl_sys::*;

use super::Driver;
use super::api::{Called, Failure, cl};
use super::command_buffer::CommandBuffer;
use super::kernel::Loaded;
use super::object::{Kernel, Object};
use crate::device::pieces::{pieces, turned};
use crate::device::{DeviceError, Word};
use crate::tensor::Dtype;

/// Largest number in a grid or an offset.
pub(super) const MOST_IN_GRID: u64 = u32::MAX as u64;

/// Something that is enqueued.
pub(super) enum Op {
    Copy {
        src: cl_mem,
        dst: cl_mem,
        from: usize,
        to: usize,
        len: usize,
    },
    /// From bytes that the host always reaches.
    Write {
        src: NonNull<u8>,
        dst: cl_mem,
        to: usize,
        len: usize,
    },
    /// To bytes that the host always reaches.
    Read {
        src: cl_mem,
        from: usize,
        dst: NonNull<u8>,
        len: usize,
    },
    Fill {
        dst: cl_mem,
        at: usize,
        len: usize,
        pattern: Word,
    },
    Launch(Box<Launch>),
    /// Several that need no variable.
    Recorded(CommandBuffer),
}

/// A kernel object, which lists of an instance and of its forks may share.
pub(super) struct Kept {
    object: Object<Kernel>,
    /// Held while arguments are set and what is enqueued takes them.
    setting: Mutex<()>,
}

impl Kept {
    /// Takes an object that nobody else has.
    pub fn new(object: Object<Kernel>) -> Kept {
        Kept { object, setting: Mutex::new(()) }
    }

    pub fn raw(&self) -> cl_kernel {
        self.object.raw()
    }
}

pub(super) struct Launch {
    pub object: Arc<Kept>,
    pub name: Arc<Loaded>,
    pub grid: [Word; 3],
    pub offset: [Word; 3],
    pub dims: u32,
    /// Arguments that are set before every run.
    pub sets: Vec<Set>,
}

/// An argument that is set.
pub(super) struct Set {
    pub index: u32,
    pub value: Value,
}

pub(super) enum Value {
    Buffer(cl_mem),
    Bytes { bytes: Vec<u8>, places: Vec<(usize, Dtype)>, words: Vec<Word> },
}

/// Puts the low bytes of words, variables among them where `vars` has them, in their places.
pub(super) fn write(bytes: &mut [u8], places: &[(usize, Dtype)], words: &[Word], vars: &[u64]) {
    for ((at, dtype), word) in places.iter().zip(words) {
        let value = match word {
            Word::Const(value) => *value,
            Word::Var(var) => vars.get(usize::from(*var)).copied().unwrap_or(0),
        };
        let size = dtype.size();
        bytes[*at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }
}

/// Why an op was not made, or not enqueued.
pub(super) enum Problem {
    Message(String),
    Call(Failure),
    Device(DeviceError),
}

impl Set {
    pub fn has_vars(&self) -> bool {
        matches!(&self.value, Value::Bytes { words, .. } if words.iter().any(|word| matches!(word, Word::Var(_))))
    }

    pub fn run(&mut self, driver: &Driver, kernel: cl_kernel, vars: &[u64]) -> Called<()> {
        let api = driver.api;
        match &mut self.value {
            Value::Buffer(buffer) => {
                cl!(api.clSetKernelArg(kernel, self.index, size_of::<cl_mem>(), (&raw const *buffer).cast()))
            }
            Value::Bytes { bytes, places, words } => {
                write(bytes, places, words, vars);
                cl!(api.clSetKernelArg(kernel, self.index, bytes.len(), bytes.as_ptr().cast()))
            }
        }
    }
}

fn value(word: Word, vars: &[u64]) -> u64 {
    match word {
        Word::Const(value) => value,
        // The list was given as many variables as it takes.
        Word::Var(var) => vars.get(usize::from(var)).copied().unwrap_or(0),
    }
}

impl Op {
    /// Whether a buffer of commands can hold it.
    pub fn is_fixed(&self) -> bool {
        let fixed = |words: &[Word]| words.iter().all(|word| matches!(word, Word::Const(_)));
        match self {
            Op::Copy { .. } => true,
            Op::Fill { pattern, .. } => fixed(&[*pattern]),
            Op::Launch(launch) => launch.sets.is_empty() && fixed(&launch.grid) && fixed(&launch.offset),
            Op::Write { .. } | Op::Read { .. } | Op::Recorded(_) => false,
        }
    }

    /// Adds it to a buffer of commands.
    pub fn record(self, mut buffer: CommandBuffer) -> Called<CommandBuffer> {
        match self {
            Op::Copy { src, dst, from, to, len } => buffer.copy(src, dst, from, to, len)?,
            Op::Fill { dst, at, len, pattern } => {
                let word = value(pattern, &[]) as u32;
                // One that starts within a word was refused before.
                for (from, len, size) in pieces(at, len, word).into_iter().flatten().filter(|(_, len, _)| *len > 0) {
                    buffer.fill(dst, turned(word, from - at), size, from, len)?;
                }
            }
            Op::Launch(launch) => {
                if let Ok(Some(sizes)) = launch.sizes(&[]) {
                    buffer.launch(&launch, &sizes)?;
                }
            }
            Op::Write { .. } | Op::Read { .. } | Op::Recorded(_) => {}
        }
        Ok(buffer)
    }

    pub fn run(
        &mut self,
        driver: &Driver,
        queue: cl_command_queue,
        vars: &[u64],
        event: *mut cl_event,
    ) -> std::result::Result<(), Problem> {
        let api = driver.api;
        match self {
            Op::Copy { src, dst, from, to, len } => {
                cl!(api.clEnqueueCopyBuffer(queue, *src, *dst, *from, *to, *len, 0, null(), event))
            }
            Op::Write { src, dst, to, len } => {
                cl!(api.clEnqueueWriteBuffer(queue, *dst, CL_FALSE, *to, *len, src.as_ptr().cast(), 0, null(), event))
            }
            Op::Read { src, from, dst, len } => {
                cl!(api.clEnqueueReadBuffer(queue, *src, CL_FALSE, *from, *len, dst.as_ptr().cast(), 0, null(), event))
            }
            Op::Fill { dst, at, len, pattern } => {
                let word = value(*pattern, vars) as u32;
                let Some(pieces) = pieces(*at, *len, word) else {
                    return Err(Problem::Message(format!("a fill from byte {at} with {word:#x}, which does not repeat there")));
                };
                let mut event = event;
                for (from, len, size) in pieces.into_iter().filter(|(_, len, _)| *len > 0) {
                    let bytes = turned(word, from - *at).to_le_bytes();
                    cl!(api.clEnqueueFillBuffer(queue, *dst, bytes.as_ptr().cast(), size, from, len, 0, null(), event))
                        .map_err(Problem::Call)?;
                    event = null_mut();
                }
                Ok(())
            }
            Op::Launch(launch) => {
                let Some(sizes) = launch.sizes(vars).map_err(Problem::Message)? else { return Ok(()) };
                let kernel = launch.object.raw();
                // Where none is set, all were before anybody else had the object.
                let setting = || launch.object.setting.lock().unwrap_or_else(PoisonError::into_inner);
                let _setting = (!launch.sets.is_empty()).then(setting);
                for set in &mut launch.sets {
                    set.run(driver, kernel, vars).map_err(Problem::Call)?;
                }
                let Sizes { offset, global, local } = &sizes;
                let offset = sizes.offset_ptr(offset);
                cl!(api.clEnqueueNDRangeKernel(queue, kernel, launch.dims, offset, global.as_ptr(), local.as_ptr(), 0, null(), event))
            }
            Op::Recorded(buffer) => buffer.enqueue(queue, event),
        }
        .map_err(Problem::Call)
    }

    /// The error of a call that failed.
    pub fn told(&self, failure: Failure, node: u32) -> DeviceError {
        // Of several commands that one call enqueues it is not known which one failed.
        if let Op::Recorded(buffer) = self {
            let mut error = failure.at(None);
            if let DeviceError::Failed { message, .. } | DeviceError::Lost { message, .. } = &mut error {
                message.push_str(&format!(", enqueuing {} commands at once", buffer.len));
            }
            return error;
        }
        let mut error = failure.at(Some(node));
        if let (DeviceError::Failed { message, .. } | DeviceError::Lost { message, .. }, Op::Launch(launch)) = (&mut error, self) {
            message.push_str(&format!(", launching kernel `{}` in blocks of {:?}", launch.name.source.name, launch.name.source.block));
        }
        error
    }
}

/// Threads of a launch.
pub(super) struct Sizes {
    pub offset: [usize; 3],
    pub global: [usize; 3],
    pub local: [usize; 3],
}

impl Sizes {
    /// What a call is given as offset.
    pub fn offset_ptr(&self, offset: &[usize; 3]) -> *const usize {
        // A driver builds the kernel without offsets where it knows that there are none.
        if *offset == [0; 3] { null() } else { offset.as_ptr() }
    }
}

impl Launch {
    /// `None` for no launch. *Errors*: a number that a grid cannot have.
    pub fn sizes(&self, vars: &[u64]) -> std::result::Result<Option<Sizes>, String> {
        let block = self.name.source.block.map(|n| n as usize);
        let mut sizes = Sizes { offset: [0; 3], global: [0; 3], local: block };
        for (axis, threads) in block.into_iter().enumerate() {
            let (blocks, offset) = (value(self.grid[axis], vars), value(self.offset[axis], vars));
            for (what, number) in [("a grid", blocks), ("an offset", offset)] {
                if number > MOST_IN_GRID {
                    return Err(format!("kernel `{}`: {what} of {number}: at most {MOST_IN_GRID}", self.name.source.name));
                }
            }
            sizes.offset[axis] = offset as usize;
            sizes.global[axis] = (blocks as usize).saturating_mul(threads);
        }
        Ok((!sizes.global.contains(&0)).then_some(sizes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_where_they_belong() {
        let mut bytes = [0xff; 12];
        let places = [(0, Dtype::U8), (4, Dtype::U32), (8, Dtype::U16)];
        write(&mut bytes, &places, &[Word::Const(0xffff_ff07), Word::Var(1), Word::Var(0)], &[0xabc0_fffe, 5]);
        assert_eq!(bytes, [7, 0xff, 0xff, 0xff, 5, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
    }
}
