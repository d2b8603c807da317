//! Runs a job the slow way: every round, every tensor gets fresh memory, and steps run one after the other.

use runjob::data::{self, EVERY_ROUND, Key};
use runjob::device::cpu::BlockAt;
use runjob::device::{Code, Word};
use runjob::job::{Action, Argument, Contents, Job, View};
use runjob::spec::Order;

/// A job between two rounds.
pub struct Interpreter<'a> {
    job: &'a Job,
    /// By tensor: what a carried one holds.
    carried: Vec<Option<Vec<u8>>>,
}

impl<'a> Interpreter<'a> {
    pub fn new(job: &'a Job) -> Interpreter<'a> {
        Interpreter { job, carried: vec![None; job.tensors.len()] }
    }

    fn set(&self, round: u64) -> usize {
        let sets = self.job.sets.len() as u64;
        if sets == 0 {
            return 0;
        }
        let at = (round % sets) as usize;
        match self.job.rounds.order {
            Order::Cycle => at,
            Order::Shuffle => {
                let mut order = vec![0; sets as usize];
                data::permutation(self.job.rounds.seed, (round / sets) as u32, sets as u32, &mut order);
                order[at] as usize
            }
        }
    }

    fn contents(&self, tensor: usize, round: u64, set: usize) -> Vec<u8> {
        let t = &self.job.tensors[tensor];
        // Nothing may depend on what a tensor without contents holds.
        let mut bytes = vec![0xee; t.bytes() as usize];
        if let Some(source) = t.contents.source(round, set).unwrap() {
            let name = if matches!(t.contents, Contents::Sets(_)) { format!("{}/{}", t.name, self.job.sets[set]) } else { t.name.clone() };
            let time = if t.contents.is_drawn() { round as u32 } else { EVERY_ROUND };
            data::fill(&source, t.dtype, Key::new(self.job.rounds.seed, &name), time, 0, &mut bytes);
        }
        if !t.spaced {
            return bytes;
        }
        let row = 3 * t.dtype.size();
        bytes.chunks(row).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0xff, t.dtype.size()))).collect()
    }

    /// Bytes of the device without the padding of rows.
    fn dense(&self, tensor: usize, bytes: &[u8]) -> Vec<u8> {
        let t = &self.job.tensors[tensor];
        let size = t.dtype.size();
        if t.spaced { bytes.chunks(4 * size).flat_map(|row| &row[..3 * size]).copied().collect() } else { bytes.to_vec() }
    }

    /// Runs the next round: its set, and what every tensor holds at its end.
    pub fn round(&mut self, round: u64) -> (usize, Vec<Vec<u8>>) {
        let job = self.job;
        let set = self.set(round);
        let start: Vec<Vec<u8>> = (0..job.tensors.len()).map(|t| self.contents(t, round, set)).collect();
        let word_of = |id: usize| start[id].iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        let vars: Vec<u64> = job.vars.iter().map(|v| v.word(round, &mut |id| word_of(id)).unwrap()).collect();
        let mut tensors: Vec<Aligned> =
            start.iter().zip(&self.carried).map(|(fresh, carried)| Aligned::new(carried.as_ref().unwrap_or(fresh))).collect();
        for step in &job.steps {
            self.step(&step.action, &vars, &mut tensors);
        }
        let ends: Vec<Vec<u8>> = tensors.iter().map(|t| t.bytes().to_vec()).collect();
        for (id, end) in ends.iter().enumerate().filter(|&(id, _)| job.tensors[id].carry) {
            self.carried[id] = Some(end.clone());
        }
        (set, ends.iter().enumerate().map(|(id, end)| self.dense(id, end)).collect())
    }

    fn step(&self, action: &Action, vars: &[u64], tensors: &mut [Aligned]) {
        let word = |w: &Word| match *w {
            Word::Const(value) => value,
            Word::Var(var) => vars[usize::from(var)],
        };
        let range = |v: &View| v.offset as usize..(v.offset + v.len) as usize;
        match action {
            Action::Copy { src, dst } => {
                let bytes = tensors[src.tensor].bytes()[range(src)].to_vec();
                tensors[dst.tensor].bytes_mut()[range(dst)].copy_from_slice(&bytes);
            }
            Action::Fill { dst, pattern } => {
                let pattern = (word(pattern) as u32).to_le_bytes();
                for (i, byte) in tensors[dst.tensor].bytes_mut()[range(dst)].iter_mut().enumerate() {
                    *byte = pattern[i % 4];
                }
            }
            Action::Launch { kernel, grid, offset, args } => {
                let kernel = &self.job.kernels[*kernel];
                let Code::Builtin(code) = kernel.code else { panic!("a builtin") };
                let mut scalars: Vec<Box<u64>> = Vec::new();
                let mut pointers: Vec<*mut u8> = args
                    .iter()
                    .map(|arg| match arg {
                        Argument::Tensor { view, .. } => tensors[view.tensor].bytes_mut()[range(view)].as_mut_ptr(),
                        Argument::Scalar(w) => {
                            scalars.push(Box::new(word(w)));
                            std::ptr::from_mut(scalars.last_mut().unwrap().as_mut()).cast()
                        }
                        Argument::Struct(_) | Argument::Null => panic!("no builtin of these jobs takes one"),
                    })
                    .collect();
                let mut locals: Vec<Aligned> = kernel.local_lens.iter().map(|n| Aligned::new(&vec![0xee; *n as usize * 8])).collect();
                pointers.extend(locals.iter_mut().map(|l| l.bytes_mut().as_mut_ptr()));
                let (grid, offset) = (grid.each_ref().map(|w| word(w) as u32), offset.each_ref().map(|w| word(w) as u32));
                for z in 0..grid[2] {
                    for y in 0..grid[1] {
                        for x in 0..grid[0] {
                            let at = BlockAt { block: [x, y, z], grid, block_dim: kernel.block, offset, shared: std::ptr::null_mut() };
                            // SAFETY: the arguments are as many and as large as the kernel's parameters ask for.
                            unsafe { code(pointers.as_ptr(), &at) };
                        }
                    }
                }
            }
        }
    }
}

/// Bytes at a multiple of 8.
struct Aligned {
    words: Vec<u64>,
    len: usize,
}

impl Aligned {
    fn new(bytes: &[u8]) -> Aligned {
        let mut aligned = Aligned { words: vec![0; bytes.len().div_ceil(8)], len: bytes.len() };
        aligned.bytes_mut().copy_from_slice(bytes);
        aligned
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}
