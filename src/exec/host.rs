//! What the host knows without asking the device: contents as generated, carried starts by expectation, scratch of programs.

use rayon::prelude::*;

use super::compute::{self, Computed, Made, Tools, of_set};
use super::progress::{Phase, Progress};
use super::work::Work;
use super::{CHUNK, HASHED};
use crate::data::{self, EVERY_ROUND, Key, Source};
use crate::expr::{Registers, Scratch};
use crate::job::{Contents, Job, SetOrder, Tensor, Want};
use crate::plan::{Class, Host, Plan};
use crate::tensor::rows;

/// What the host knows of a job and never changes: one for all lanes.
pub(super) struct Known {
    /// By tensor and set: the key of its random contents.
    keys: Vec<Vec<Key>>,
    /// By tensor and set: fixed contents that expectations read.
    copies: Vec<Vec<Vec<u8>>>,
    /// By tensor and set: fixed contents that others are computed from, and what comes of it.
    computed: Vec<Vec<Vec<u8>>>,
    /// Why some of `computed` have no value.
    problem: Option<String>,
    /// Whether work is dealt to the pool.
    parallel: bool,
}

/// The host's side of a lane: allocated once.
pub(super) struct HostSide<'a> {
    pub known: &'a Known,
    computed: Computed,
    /// By tensor: contents of the round that is checked, where nothing else holds them.
    drawn: Vec<Vec<u8>>,
    /// By tensor: what a carried tensor holds at the start of the round that is checked, by expectation.
    pub carried: Vec<Vec<u8>>,
    /// By tensor: the expectation of the round that is checked, which becomes `carried`.
    pub next: Vec<Vec<u8>>,
    /// By check and want.
    pub scratch: Vec<Vec<Option<Scratch>>>,
    /// By check, want and thread.
    pub registers: Vec<Vec<Vec<std::sync::Mutex<Registers>>>>,
    /// What checks need beyond their expectations.
    pub work: Work,
    /// Whether work is dealt to the pool.
    pub parallel: bool,
    /// Carried tensors between fresh rounds.
    pub kept: Vec<(usize, Vec<u8>)>,
    order: SetOrder,
}

impl Known {
    /// Without a plan: for [`Known::start`] alone, which no expectation reads.
    pub fn new(job: &Job, plan: Option<&Plan>, progress: &Progress) -> Known {
        let seed = job.rounds.seed;
        let keys = job
            .tensors
            .iter()
            .map(|t| match &t.contents {
                // Sets have contents of their own, so each has a key of its own.
                Contents::Sets(_) => job.sets.iter().map(|set| Key::new(seed, &format!("{}/{set}", t.name))).collect(),
                _ => vec![Key::new(seed, &t.name)],
            })
            .collect();
        let none = || vec![Vec::new(); job.tensors.len()];
        let parallel = plan.is_none_or(|plan| plan.schedule.host == Host::Pool);
        let mut known = Known { keys, copies: none(), computed: none(), problem: None, parallel };
        known.compute(job, progress);
        for (id, placement) in plan.iter().flat_map(|plan| plan.tensors.iter().enumerate()) {
            for set in 0..placement.held {
                progress.enter(Phase::Setup, 0);
                let mut copy = vec![0; job.tensors[id].bytes() as usize];
                known.generate(job, id, set, &mut copy);
                known.copies[id].push(copy);
            }
        }
        known
    }

    /// Makes the fixed contents that are computed, and those that they name.
    fn compute(&mut self, job: &Job, progress: &Progress) {
        for id in compute::order(job) {
            let tensor = &job.tensors[id];
            let sources = match &tensor.contents {
                Contents::Fixed(source) => std::slice::from_ref(source),
                Contents::Sets(sources) => sources,
                Contents::None | Contents::Drawn(_) => continue,
            };
            for (set, source) in sources.iter().enumerate() {
                progress.enter(Phase::Setup, 0);
                let mut bytes = vec![0; tensor.bytes() as usize];
                if let Source::Program(program) = source {
                    let inputs = Made { drawn: &[], fixed: &self.computed, set: set as u32 };
                    let mut tools = Tools::new(program, self.parallel);
                    let made = compute::evaluate(program, &mut tools, &inputs, tensor, 0, self.parallel, &mut bytes);
                    if let Err(message) = made {
                        self.problem.get_or_insert(message);
                    }
                } else {
                    self.write(source, job, id, set as u32, &mut bytes);
                }
                self.computed[id].push(bytes);
            }
        }
    }

    /// What a round starts with, outside of any lane.
    ///
    /// *Errors*: an expression without a value, or with one that its tensor cannot hold.
    pub fn start<'a>(&'a self, job: &'a Job, set: u32, round: u64) -> Result<Start<'a>, String> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        let mut computed = Computed::new(job, self.parallel);
        let draw = |id: usize, out: &mut [u8]| self.draw(job, id, set, round, None, out, &mut []);
        computed.begin(job, (set, round), self.parallel, draw, &self.computed)?;
        Ok(Start { known: self, job, computed, set, round })
    }

    /// The key of a tensor's random contents in a set.
    fn key(&self, tensor: usize, set: u32) -> Key {
        let keys = &self.keys[tensor];
        keys[(set as usize).min(keys.len() - 1)]
    }

    /// Writes a tensor's fixed contents.
    pub fn generate(&self, job: &Job, tensor: usize, set: u32, out: &mut [u8]) {
        if let Some(bytes) = of_set(&self.computed, tensor, set) {
            return out.copy_from_slice(bytes);
        }
        // Fixed contents do not depend on the round and were validated when the job was resolved.
        if let Ok(Some(source)) = job.tensors[tensor].contents.source(0, set as usize) {
            self.write(&source, job, tensor, set, out);
        }
    }

    /// Writes a tensor's fixed contents as the device has them.
    pub fn generate_for_device(&self, job: &Job, tensor: usize, set: u32, out: &mut [u8]) {
        let of = &job.tensors[tensor];
        if !of.spaced {
            return self.generate(job, tensor, set, out);
        }
        self.generate(job, tensor, set, &mut out[..of.bytes() as usize]);
        rows::spread_in_place(of.dtype.size(), out);
    }

    /// Writes a tensor's contents of a round (`made`, where they are known), and the hash of every [`HASHED`] elements while they are in cache (`hashes` may be empty).
    ///
    /// *Errors*: a number of the source that this round cannot have.
    #[allow(clippy::too_many_arguments)]
    fn draw(
        &self,
        job: &Job,
        tensor: usize,
        set: u32,
        round: u64,
        made: Option<&[u8]>,
        out: &mut [u8],
        hashes: &mut [u64],
    ) -> Result<(), String> {
        let contents = &job.tensors[tensor].contents;
        let varying;
        let source = match contents.constant_source(set as usize) {
            Some(source) => source,
            None => {
                let Some(source) = contents.source(round, set as usize)? else { return Ok(()) };
                data::validate(&source, job.tensors[tensor].dtype, job.tensors[tensor].shape.elements()).map_err(|e| e.message)?;
                varying = source;
                &varying
            }
        };
        let time = if contents.is_drawn() { round as u32 } else { EVERY_ROUND };
        let copied = made.or_else(|| of_set(&self.computed, tensor, set)).or(self.copies[tensor].get(set as usize).map(Vec::as_slice));
        let dtype = job.tensors[tensor].dtype;
        let key = self.key(tensor, set);
        let fill = |first: usize, part: &mut [u8]| match copied {
            Some(copy) => part.copy_from_slice(&copy[first * dtype.size()..][..part.len()]),
            None => data::fill(source, dtype, key, time, first as u64, part),
        };
        let (chunk, block) = (CHUNK as usize * dtype.size(), HASHED as usize * dtype.size());
        let hashed = |first: usize, part: &mut [u8], hashes: &mut [u64]| {
            for (i, (part, hash)) in part.chunks_mut(block).zip(hashes).enumerate() {
                fill(first + i * HASHED as usize, part);
                *hash = hash_of(part);
            }
        };
        let per_chunk = (CHUNK / HASHED) as usize;
        match (self.parallel && out.len() > chunk, hashes.is_empty()) {
            (true, true) => out.par_chunks_mut(chunk).enumerate().for_each(|(i, part)| fill(i * CHUNK as usize, part)),
            (true, false) => {
                let parts = out.par_chunks_mut(chunk).zip(hashes.par_chunks_mut(per_chunk)).enumerate();
                parts.for_each(|(i, (part, hashes))| hashed(i * CHUNK as usize, part, hashes));
            }
            (false, true) => fill(0, out),
            (false, false) => hashed(0, out, hashes),
        }
        Ok(())
    }

    fn write(&self, source: &Source, job: &Job, tensor: usize, set: u32, out: &mut [u8]) {
        let dtype = job.tensors[tensor].dtype;
        let key = self.key(tensor, set);
        let chunk = CHUNK as usize * dtype.size();
        if self.parallel && out.len() > chunk {
            out.par_chunks_mut(chunk).enumerate().for_each(|(i, part)| data::fill(source, dtype, key, EVERY_ROUND, i as u64 * CHUNK, part));
        } else {
            data::fill(source, dtype, key, EVERY_ROUND, 0, out);
        }
    }
}

/// The tensors that expectations read.
fn expected(job: &Job) -> impl Iterator<Item = (usize, &Tensor)> {
    let mut expected = vec![false; job.tensors.len()];
    for &id in job.programs().flat_map(|program| program.tensors()) {
        expected[id] = true;
    }
    job.tensors.iter().enumerate().filter(move |&(id, _)| expected[id])
}

/// The contents that one round starts with.
pub(super) struct Start<'a> {
    known: &'a Known,
    job: &'a Job,
    computed: Computed,
    set: u32,
    round: u64,
}

impl Start<'_> {
    /// Writes a tensor's contents. *Errors*: a number of the source that this round cannot have.
    pub fn draw(&self, tensor: usize, out: &mut [u8]) -> Result<(), String> {
        let made = self.computed.of(tensor, self.set, self.round)?;
        self.known.draw(self.job, tensor, self.set, self.round, made, out, &mut [])
    }
}

impl<'a> HostSide<'a> {
    pub fn new(job: &Job, plan: &Plan, known: &'a Known) -> HostSide<'a> {
        let threads = if known.parallel { rayon::current_num_threads() } else { 1 };
        let mut scratch = Vec::new();
        let mut registers = Vec::new();
        for check in &job.checks {
            let programs = || {
                check.wants.iter().map(|want| match want {
                    Want::Expr(program) => Some(program),
                    _ => None,
                })
            };
            scratch.push(programs().map(|p| p.map(|p| p.scratch(threads))).collect());
            let of = |p: Option<&std::sync::Arc<crate::expr::Program>>| match p {
                Some(p) => (0..threads).map(|_| std::sync::Mutex::new(p.registers())).collect(),
                None => Vec::new(),
            };
            registers.push(programs().map(of).collect());
        }
        let mut host = HostSide {
            known,
            computed: Computed::new(job, known.parallel),
            drawn: vec![Vec::new(); job.tensors.len()],
            carried: vec![Vec::new(); job.tensors.len()],
            next: vec![Vec::new(); job.tensors.len()],
            scratch,
            registers,
            work: Work::new(job, threads),
            parallel: known.parallel,
            kept: Vec::new(),
            order: SetOrder::new(job),
        };
        for (id, tensor) in expected(job) {
            let bytes = tensor.bytes() as usize;
            if tensor.contents.is_drawn() && plan.tensors[id].class != Class::Streamed {
                host.drawn[id] = vec![0; bytes];
            }
            if tensor.carry {
                host.carried[id] = vec![0; bytes];
                if job.checks.iter().any(|c| c.tensor == id && c.keeps) {
                    host.next[id] = vec![0; bytes];
                }
            }
        }
        host.restart(job);
        host
    }

    /// Puts carried starts back: what the next check sees is round 0.
    pub fn restart(&mut self, job: &Job) {
        for id in 0..job.tensors.len() {
            if !self.carried[id].is_empty() {
                let mut bytes = std::mem::take(&mut self.carried[id]);
                self.known.generate(job, id, 0, &mut bytes);
                self.carried[id] = bytes;
            }
        }
    }

    /// The set of a round.
    pub fn set(&mut self, round: u64) -> u32 {
        self.order.set(round)
    }

    /// The number of the round that is run `nth`.
    pub fn round(&mut self, nth: u64) -> u64 {
        self.order.round(nth)
    }

    /// The round that was run before the `nth`, and its set.
    pub fn before(&self, nth: u64) -> Option<(u64, u32)> {
        let mut order = self.order.clone();
        let round = order.round(nth.checked_sub(1)?);
        Some((round, order.set(round)))
    }

    /// Makes the contents of a round that are computed, and those that they name. Comes before [`HostSide::draw`] in the round.
    ///
    /// *Errors*: an expression without a value, or with one that its tensor cannot hold.
    pub fn begin(&mut self, job: &Job, set: u32, round: u64) -> Result<(), String> {
        let known = self.known;
        if let Some(problem) = &known.problem {
            return Err(problem.clone());
        }
        let draw = |id: usize, out: &mut [u8]| known.draw(job, id, set, round, None, out, &mut []);
        self.computed.begin(job, (set, round), known.parallel, draw, &known.computed)
    }

    /// Writes a tensor's contents of a round, and the hash of every [`HASHED`] elements while they are in cache (`hashes` may be empty).
    ///
    /// *Errors*: a number of the source that this round cannot have.
    pub fn draw(&self, job: &Job, tensor: usize, set: u32, round: u64, out: &mut [u8], hashes: &mut [u64]) -> Result<(), String> {
        self.known.draw(job, tensor, set, round, self.computed.of(tensor, set, round)?, out, hashes)
    }

    /// The bits of the one element of a tensor in a round.
    pub fn element(&self, job: &Job, tensor: usize, set: u32, round: u64) -> Result<u64, String> {
        let mut bytes = [0u8; 8];
        let size = job.tensors[tensor].dtype.size();
        self.draw(job, tensor, set, round, &mut bytes[..size], &mut [])?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Draws the contents that only expectations read, for the round that is checked.
    pub fn draw_for_check(&mut self, job: &Job, set: u32, round: u64) -> Result<(), String> {
        for id in 0..self.drawn.len() {
            if !self.drawn[id].is_empty() {
                self.begin(job, set, round)?;
                let mut bytes = std::mem::take(&mut self.drawn[id]);
                let result = self.draw(job, id, set, round, &mut bytes, &mut []);
                self.drawn[id] = bytes;
                result?;
            }
        }
        Ok(())
    }

    /// What the host holds of a tensor for an expectation; `None` where the slot has it.
    pub fn held(&self, tensor: usize, set: u32) -> Option<&[u8]> {
        let copies = &self.known.copies[tensor];
        if !copies.is_empty() {
            return copies.get((set as usize).min(copies.len() - 1)).map(Vec::as_slice);
        }
        let alone = [&self.carried[tensor], &self.drawn[tensor]];
        alone.into_iter().find(|bytes| !bytes.is_empty()).map(Vec::as_slice)
    }

    /// The expectations of this round are the starts of the next.
    pub fn advance(&mut self) {
        // A carried tensor that no step writes stays at its start.
        for (carried, next) in self.carried.iter_mut().zip(&mut self.next).filter(|(_, next)| !next.is_empty()) {
            std::mem::swap(carried, next);
        }
    }
}

/// The hash by which bytes are known to be those that were generated.
pub(super) fn hash_of(bytes: &[u8]) -> u64 {
    data::fingerprint(bytes)
}
