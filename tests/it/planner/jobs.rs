//! Turns a tape of numbers into a job that keeps every rule that resolving a spec keeps: what is read has contents, what
//! one launch writes it does not also read, and checked outputs are written in full.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use runjob::check::Tolerance;
use runjob::data::Source;
use runjob::device::cpu::{BlockAt, Builtin};
use runjob::device::{Code, KernelSource, NO_OFFSET, Word};
use runjob::diag::Place;
use runjob::expr::{self, Name, Scalar, Scope};
use runjob::job::{Action, Argument, Check, Contents, Draw, Every, Job, Limits, Origin, Rounds, Step, Tensor, Var, VarSource, View, Want};
use runjob::spec::{Backend, Order};
use runjob::tensor::{Access, Dtype, Number, Param, ParamKind, Shape};

/// Elements of one block.
const BLOCK: u32 = 8;

/// Numbers that decide; zeros behind its end, so that a shorter tape makes a simpler job.
pub struct Tape<'a> {
    numbers: &'a [u16],
    at: usize,
}

impl Tape<'_> {
    fn pick(&mut self, n: usize) -> usize {
        let number = self.numbers.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        usize::from(number) % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.pick(of.len())]
    }
}

/// What the jobs of a test may have.
#[derive(Clone, Copy)]
pub struct Style {
    /// Views start at multiples of 64 bytes, as `Caps::alignment` of the CPU asks for.
    pub aligned: bool,
    /// Some checks are expressions; the others have empty goldens that the test fills.
    pub expressions: bool,
}

/// An element that kernels compute with. Floats stay small, so that no NaN or infinity arises.
pub trait Element: Copy {
    fn blend(a: Self, b: Self, k: Self) -> Self;
    fn other(self) -> Self;
}

impl Element for f32 {
    fn blend(a: f32, b: f32, k: f32) -> f32 {
        a * 0.5 + b * 0.25 + k
    }
    fn other(self) -> f32 {
        1.0 - self
    }
}

impl Element for u32 {
    fn blend(a: u32, b: u32, k: u32) -> u32 {
        a.wrapping_mul(3).wrapping_add(b).wrapping_add(k)
    }
    fn other(self) -> u32 {
        !self
    }
}

impl Element for u8 {
    fn blend(a: u8, b: u8, k: u8) -> u8 {
        a.wrapping_mul(3).wrapping_add(b).wrapping_add(k)
    }
    fn other(self) -> u8 {
        !self
    }
}

/// The elements of a block, by a scalar argument that says how many there are in all.
unsafe fn elements(args: *const *mut u8, at: &BlockAt, scalar: usize) -> std::ops::Range<usize> {
    // SAFETY: promised by the caller: that argument is a u32.
    let n = unsafe { (*args.add(scalar)).cast::<u32>().read() };
    let start = at.block[0] * at.block_dim[0];
    start.min(n) as usize..(start + at.block_dim[0]).min(n) as usize
}

/// in a, in b, out c, k, n
unsafe fn blend<T: Element>(args: *const *mut u8, at: &BlockAt) {
    // SAFETY: the arguments are those of `KERNELS`.
    unsafe {
        let [a, b, c, k] = std::array::from_fn(|i| (*args.add(i)).cast::<T>());
        for i in elements(args, at, 4) {
            c.add(i).write(T::blend(a.add(i).read(), b.add(i).read(), k.read()));
        }
    }
}

/// inout a, in b, k, n
unsafe fn step<T: Element>(args: *const *mut u8, at: &BlockAt) {
    // SAFETY: as above.
    unsafe {
        let [a, b, k] = std::array::from_fn(|i| (*args.add(i)).cast::<T>());
        for i in elements(args, at, 3) {
            a.add(i).write(T::blend(a.add(i).read(), b.add(i).read(), k.read()));
        }
    }
}

/// in a, out b, out c, n, local tmp
unsafe fn spread<T: Element>(args: *const *mut u8, at: &BlockAt) {
    // SAFETY: as above; the scratch follows the other arguments.
    unsafe {
        let [a, b, c] = std::array::from_fn(|i| (*args.add(i)).cast::<T>());
        let tmp = (*args.add(4)).cast::<T>();
        for i in elements(args, at, 3) {
            tmp.write(a.add(i).read());
            b.add(i).write(tmp.read());
            c.add(i).write(tmp.read().other());
        }
    }
}

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::U32, Dtype::U8];

/// By kind and dtype, in the order of `DTYPES`.
const KERNELS: [(&str, [Builtin; 3], &[&str]); 3] = [
    ("blend", [blend::<f32>, blend::<u32>, blend::<u8>], &["in T a", "in T b", "out T c", "T k", "u32 n"]),
    ("step", [step::<f32>, step::<u32>, step::<u8>], &["inout T a", "in T b", "T k", "u32 n"]),
    ("spread", [spread::<f32>, spread::<u32>, spread::<u8>], &["in T a", "out T b", "out T c", "u32 n", "local T[1] tmp"]),
];

fn kernels() -> Vec<KernelSource> {
    let kernel = |(name, codes, params): &(&str, [Builtin; 3], &[&str]), at: usize| {
        let params = params.iter().map(|p| Param::parse(&p.replace('T', DTYPES[at].name())).unwrap()).collect();
        kernel(&format!("{name}_{}", DTYPES[at]), codes[at], params, [BLOCK, 1, 1])
    };
    KERNELS.iter().flat_map(|k| (0..3).map(move |at| kernel(k, at))).collect()
}

/// A kernel of this program.
pub fn kernel(name: &str, code: Builtin, params: Vec<Param>, block: [u32; 3]) -> KernelSource {
    let local_lens = params
        .iter()
        .filter_map(|p| match &p.kind {
            ParamKind::Local { len, .. } => Some(len.parse().unwrap()),
            _ => None,
        })
        .collect();
    KernelSource {
        name: name.into(),
        entry: name.into(),
        code: Code::Builtin(code),
        params,
        local_lens,
        block,
        shared: 0,
        serial: false,
        defines: Vec::new(),
        flags: Vec::new(),
        include: Vec::new(),
        hidden: 0,
    }
}

/// Names of a job's tensors, and `round`.
pub struct Names<'a>(pub &'a [Tensor]);

impl Scope for Names<'_> {
    fn get(&self, name: &str) -> Option<Name<'_>> {
        if name == "round" {
            return Some(Name::Round);
        }
        let id = self.0.iter().position(|t| t.name == name)?;
        Some(Name::Tensor { id, dtype: self.0[id].dtype, shape: &self.0[id].shape })
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|t| t.name.clone()).collect()
    }
}

/// An expectation by its text.
pub fn want(tensors: &[Tensor], tensor: usize, text: &str) -> Want {
    let shape = &tensors[tensor].shape;
    let program = expr::compile(&expr::parse(text).unwrap(), &Names(tensors), shape).unwrap();
    Want::Expr(Arc::new(program.broadcast_to(shape).unwrap()))
}

pub fn scalar(text: &str, float: bool) -> Scalar {
    let place = if float { expr::Place::Float } else { expr::Place::Integer };
    Scalar::bind(&expr::parse(text).unwrap(), &Names(&[]), place).unwrap()
}

pub fn tensor(name: &str, dtype: Dtype, elements: u64, contents: Contents) -> Tensor {
    Tensor { name: name.into(), dtype, shape: Shape::new(vec![elements]).unwrap(), contents, carry: false, spaced: false }
}

pub fn drawn(source: Source) -> Contents {
    Contents::Drawn(Draw { source, numbers: [None, None] })
}

pub fn check(tensor: usize, wants: Vec<Want>) -> Check {
    let text = format!("check of tensor {tensor}");
    let keeps = wants.iter().all(|want| matches!(want, Want::Expr(_)));
    Check {
        tensor,
        part: None,
        mask: None,
        wants,
        keeps,
        tolerance: Tolerance::exact(),
        default_tolerance: false,
        between: None,
        unordered: false,
        written: false,
        every: Every(1),
        place: Place::root(),
        text,
    }
}

/// A job of these parts, with as many rounds and sets.
pub fn job(tensors: Vec<Tensor>, kernels: Vec<KernelSource>, steps: Vec<Action>, checks: Vec<Check>, rounds: u64, sets: usize) -> Job {
    Job {
        name: "job".into(),
        jobs: 1,
        summary: None,
        tags: Vec::new(),
        xfail: None,
        requires: Vec::new(),
        backend: Backend::Cpu,
        dims: IndexMap::new(),
        tensors,
        loads: kernels.len(),
        kernels,
        steps: steps.into_iter().map(|action| Step { action, origin: 0, turn: Vec::new(), after: Vec::new() }).collect(),
        origins: vec![Origin { place: Place::root(), label: "step".into(), loops: Vec::new() }],
        vars: Vec::new(),
        sets: (0..sets).map(|s| format!("s{s}")).collect(),
        only: Vec::new(),
        rounds: Rounds { count: rounds, warmup: 0, seed: 7, order: Order::Cycle },
        checks,
        conditions: Vec::new(),
        builds: Vec::new(),
        limits: Limits {
            compile: Duration::from_secs(60),
            prepare: Duration::from_secs(60),
            run: Duration::from_secs(60),
            check: Duration::from_secs(60),
            device_memory: None,
            host_memory: None,
        },
        bench: Default::default(),
        compared: false,
    }
}

/// A job in the making.
struct Maker<'a> {
    tape: Tape<'a>,
    style: Style,
    tensors: Vec<Tensor>,
    writable: Vec<bool>,
    /// By tensor: which bytes have contents.
    written: Vec<Vec<bool>>,
    steps: Vec<Action>,
    vars: Vec<Var>,
    /// A tensor of one element that is passed by value.
    value: usize,
    sets: usize,
    profile: Profile,
    /// Tensors of this dtype have rows of three that the device spaces. Kernels take tensors of one dtype, padding and all.
    spaced: Option<Dtype>,
}

/// What a job has most of: lives that end where others start, and contents that differ by set, are rare in a mixture.
#[derive(Clone, Copy, PartialEq)]
enum Profile {
    Mixed,
    Scratch,
    Sets,
}

/// A job for a tape. Its rounds cycle through its sets at most once where anything depends on the round.
pub fn random(numbers: &[u16], style: Style) -> Job {
    let mut tape = Tape { numbers, at: 0 };
    let sets = tape.one(&[2, 1, 3, 5, 7, 18]);
    let profile = tape.one(&[Profile::Mixed, Profile::Scratch, Profile::Sets]);
    let order = tape.one(&[Order::Cycle, Order::Shuffle]);
    let warmup = tape.one(&[0, 0, 1, 2]);
    let spaced = tape.one(&[None, None, Some(Dtype::U32), Some(Dtype::F32), Some(Dtype::U8)]);
    let mut maker = Maker {
        tape,
        style,
        tensors: Vec::new(),
        writable: Vec::new(),
        written: Vec::new(),
        steps: Vec::new(),
        vars: Vec::new(),
        value: 0,
        sets,
        profile,
        spaced,
    };
    maker.tensors();
    for _ in 0..1 + maker.tape.pick(12) {
        maker.step();
    }
    let checks = maker.checks();
    let steady = maker.tensors.iter().all(|t| !t.carry && !matches!(t.contents, Contents::Drawn(_)))
        && maker.vars.iter().all(|v| matches!(v.source, VarSource::Tensor(_)));
    let rounds = if steady { 2 * sets as u64 + 1 } else { sets as u64 };
    let mut job = job(maker.tensors, kernels(), maker.steps, checks, rounds, sets);
    job.vars = maker.vars;
    job.rounds.order = order;
    job.rounds.warmup = warmup;
    job
}

impl Maker<'_> {
    fn source(&mut self, dtype: Dtype) -> Source {
        match (dtype, self.tape.pick(4)) {
            (_, 0) => Source::Fill(0),
            (Dtype::F32, 1) => Source::Fill(0.25f32.to_bits().into()),
            (_, 1) => Source::Fill(0x5a),
            (Dtype::F32, _) => Source::Uniform { low: -1.0, high: 1.0 },
            _ => Source::Integers { low: 0, high: 255 },
        }
    }

    /// All of one dtype find each other.
    fn dtype(&mut self) -> Dtype {
        if self.profile == Profile::Mixed { self.tape.one(&DTYPES) } else { Dtype::U32 }
    }

    fn drawn(&mut self, dtype: Dtype) -> Contents {
        let source = match dtype {
            Dtype::F32 => Source::Uniform { low: -1.0, high: 1.0 },
            _ if self.tape.pick(2) == 0 => Source::Integers { low: 1, high: 250 },
            _ => {
                let numbers = [Some(scalar("round % 5", false)), Some(scalar("1", false))];
                // Up to 200 elements of u8 stay in range.
                let source = Source::Range { start: Number::Int(0), step: Number::Int(1) };
                return Contents::Drawn(Draw { source, numbers });
            }
        };
        drawn(source)
    }

    fn tensors(&mut self) {
        let count = 3 + self.tape.pick(7);
        for index in 0..count {
            let dtype = self.dtype();
            let elements = self.tape.one(&[40, 1, 3, 16, 17, 64, 100, 200]);
            let spaced = self.spaced == Some(dtype);
            let elements = if spaced { u64::next_multiple_of(elements, 3) } else { elements };
            let kind = match self.profile {
                Profile::Mixed => self.tape.pick(6),
                Profile::Scratch => self.tape.one(&[0, 0, 0, 0, 2, 4]),
                Profile::Sets => self.tape.one(&[5, 5, 5, 0, 2, 4]),
            };
            let contents = match kind {
                0 | 1 => Contents::None,
                2 | 3 => Contents::Fixed(self.source(dtype)),
                4 => self.drawn(dtype),
                _ => Contents::Sets((0..self.sets).map(|_| self.source(dtype)).collect()),
            };
            let fixed = matches!(contents, Contents::Fixed(_));
            let bare = matches!(contents, Contents::None);
            let mut tensor = tensor(&format!("t{index}"), dtype, elements, contents);
            (tensor.carry, tensor.spaced) = (fixed && self.tape.pick(3) == 2, spaced);
            self.writable.push(bare || self.tape.pick(2) == 1);
            self.written.push(vec![!bare; tensor.device_bytes() as usize]);
            self.tensors.push(tensor);
        }
        // One that every job can write, and one that every job can read.
        let spare = Tensor { spaced: self.spaced == Some(Dtype::U32), ..tensor("out", Dtype::U32, 33, Contents::None) };
        self.written.push(vec![false; spare.device_bytes() as usize]);
        self.writable.push(true);
        self.tensors.push(spare);
        self.value = self.tensors.len();
        let contents = match self.tape.pick(3) {
            0 => Contents::Fixed(Source::Integers { low: 0, high: 9 }),
            1 => drawn(Source::Integers { low: 0, high: 9 }),
            _ => Contents::Sets((0..self.sets).map(|_| Source::Integers { low: 0, high: 9 }).collect()),
        };
        self.tensors.push(Tensor { shape: Shape::default(), ..tensor("value", Dtype::U32, 1, contents) });
        self.writable.push(false);
        self.written.push(vec![true; 4]);
    }

    fn var(&mut self, text: &str, source: VarSource) -> Word {
        self.vars.push(Var { text: text.into(), source });
        Word::Var(self.vars.len() as u16 - 1)
    }

    /// A scalar argument of a dtype.
    fn k(&mut self, dtype: Dtype) -> Word {
        match (self.tape.pick(4), dtype) {
            (0, Dtype::U32) => self.var("value", VarSource::Tensor(self.value)),
            (1, Dtype::F32) => self.var("round / 64", VarSource::Scalar { value: scalar("round / 64", true), dtype }),
            (1, _) => self.var("round * 3 + 1", VarSource::Scalar { value: scalar("round * 3 + 1", false), dtype }),
            (_, Dtype::F32) => Word::Const(0.125f32.to_bits().into()),
            _ => Word::Const(5),
        }
    }

    /// A tensor of a dtype; to write only where one may be written.
    fn find(&mut self, dtype: Dtype, write: bool) -> Option<usize> {
        let of: Vec<usize> = (0..self.tensors.len())
            .filter(|&id| id != self.value && self.tensors[id].dtype == dtype && (!write || self.writable[id]))
            .collect();
        (!of.is_empty()).then(|| self.tape.one(&of))
    }

    /// Elements of a tensor on the device.
    fn elements(&self, id: usize) -> u64 {
        self.tensors[id].device_bytes() / self.tensors[id].dtype.size() as u64
    }

    /// A view of so many elements.
    fn view(&mut self, id: usize, elements: u64, word_aligned: bool) -> View {
        let size = self.tensors[id].dtype.size() as u64;
        let unit = match (self.style.aligned, self.tensors[id].spaced) {
            (true, _) => 64 / size,
            (false, true) => 4,
            (false, false) => u64::from(word_aligned) * (4 / size.min(4) - 1) + 1,
        };
        let most = (self.elements(id) - elements) / unit;
        let offset = self.tape.pick(most as usize + 1) as u64 * unit * size;
        View { tensor: id, offset, len: elements * size }
    }

    fn readable(&self, view: View) -> bool {
        self.written[view.tensor][view.offset as usize..(view.offset + view.len) as usize].iter().all(|w| *w)
    }

    fn fill(&mut self, dst: View) {
        let dtype = self.tensors[dst.tensor].dtype;
        let pattern = match (self.tape.pick(3), dtype) {
            (0, Dtype::F32) => self.var("round / 8", VarSource::Pattern { value: scalar("round / 8", true), dtype }),
            (0, _) => self.var("round * 7 % 251", VarSource::Pattern { value: scalar("round * 7 % 251", false), dtype }),
            (_, Dtype::F32) => Word::Const(0.5f32.to_bits().into()),
            (_, Dtype::U8) => Word::Const(0x2121_2121),
            _ => Word::Const(0x21),
        };
        self.push(Action::Fill { dst, pattern });
    }

    fn push(&mut self, action: Action) {
        for (access, view) in action.views() {
            if access.writes() {
                self.written[view.tensor][view.offset as usize..(view.offset + view.len) as usize].fill(true);
            }
        }
        self.steps.push(action);
    }

    /// Adds the action if its views are apart; where it reads what nothing has written, a fill of that takes its place.
    fn try_push(&mut self, action: Action) {
        let views: Vec<(Access, View)> = action.views().collect();
        for (at, (access, view)) in views.iter().enumerate() {
            if views[..at].iter().any(|(other, seen)| (access.writes() || other.writes()) && seen.overlaps(view)) {
                return;
            }
        }
        if let Some((_, view)) = views.iter().find(|(access, view)| access.reads() && !self.readable(*view)) {
            let whole = View { tensor: view.tensor, offset: 0, len: self.tensors[view.tensor].device_bytes() };
            return self.fill(whole);
        }
        self.push(action);
    }

    fn step(&mut self) {
        let dtype = self.dtype();
        let before = self.steps.len();
        let Some(dst) = self.find(dtype, true) else { return self.fallback(before) };
        let kind = self.tape.pick(6);
        if kind == 4 {
            let elements = self.length(&[dst]);
            let dst = self.view(dst, elements, true);
            return self.fill(dst);
        }
        let Some(a) = self.find(dtype, false) else { return self.fallback(before) };
        if kind == 3 {
            let elements = self.length(&[a, dst]);
            let (src, dst) = (self.view(a, elements, false), self.view(dst, elements, false));
            self.try_push(Action::Copy { src, dst });
            return self.fallback(before);
        }
        let kernel = |kind: usize| kind * 3 + DTYPES.iter().position(|d| *d == dtype).unwrap();
        let blocks = |n: u64| [Word::Const(n.div_ceil(BLOCK.into())), Word::Const(1), Word::Const(1)];
        let read = |view| Argument::Tensor { access: Access::In, view };
        let write = |view| Argument::Tensor { access: Access::Out, view };
        match kind {
            1 => {
                let n = self.length(&[dst, a]);
                let view = self.view(dst, n, false);
                let other = self.view(a, n, false);
                let k = self.k(dtype);
                let mut grid = blocks(n);
                if self.tape.pick(4) == 3 {
                    grid[0] = self.var("round % 4", VarSource::Blocks(scalar("round % 4", false)));
                }
                let args = vec![
                    Argument::Tensor { access: Access::Inout, view },
                    read(other),
                    Argument::Scalar(k),
                    Argument::Scalar(Word::Const(n)),
                ];
                self.try_push(Action::Launch { kernel: kernel(1), grid, offset: NO_OFFSET, args });
            }
            2 => {
                let Some(second) = self.find(dtype, true) else { return };
                let n = self.length(&[a, dst, second]);
                let [a, b, c] = [a, dst, second].map(|id| self.view(id, n, false));
                let args = vec![read(a), write(b), write(c), Argument::Scalar(Word::Const(n))];
                self.try_push(Action::Launch { kernel: kernel(2), grid: blocks(n), offset: NO_OFFSET, args });
            }
            _ => {
                let Some(b) = self.find(dtype, false) else { return };
                let n = self.length(&[a, b, dst]);
                let [a, b, c] = [a, b, dst].map(|id| self.view(id, n, false));
                let k = self.k(dtype);
                let args = vec![read(a), read(b), write(c), Argument::Scalar(k), Argument::Scalar(Word::Const(n))];
                self.try_push(Action::Launch { kernel: kernel(0), grid: blocks(n), offset: NO_OFFSET, args });
            }
        }
        self.fallback(before);
    }

    /// Every turn leaves a step.
    fn fallback(&mut self, before: usize) {
        if self.steps.len() == before {
            let id = self.value - 1;
            let n = self.length(&[id]);
            let dst = self.view(id, n, true);
            self.fill(dst);
        }
    }

    /// A number of elements that all of these have; often all of them.
    fn length(&mut self, ids: &[usize]) -> u64 {
        let most = ids.iter().map(|&id| self.elements(id)).min().unwrap_or(1);
        let row = if ids.iter().any(|&id| self.tensors[id].spaced) { 4 } else { 1 };
        if self.tape.pick(2) == 0 { most } else { row * (1 + self.tape.pick((most / row) as usize) as u64) }
    }

    /// Checks some of what is written; outputs first get the parts that no step writes.
    fn checks(&mut self) -> Vec<Check> {
        let mut writes = vec![false; self.tensors.len()];
        for (access, view) in self.steps.iter().flat_map(|s| s.views().collect::<Vec<_>>()) {
            writes[view.tensor] |= access.writes();
        }
        let written: Vec<usize> = (0..writes.len()).filter(|&id| writes[id]).collect();
        let surely = self.tape.one(&written);
        let mut checks = Vec::new();
        for id in written {
            if id != surely && (self.profile == Profile::Scratch || self.tape.pick(2) == 0) {
                continue;
            }
            let size = self.tensors[id].dtype.size() as u64;
            while let Some(gap) = self.written[id].iter().position(|w| !w) {
                // Fills start at whole words; what they cover a second time was written before them.
                let offset = gap as u64 / 4 * 4;
                let first = self.written[id][gap..].iter().position(|w| *w).map_or(self.written[id].len(), |n| gap + n) as u64;
                let len = (first - offset).next_multiple_of(size);
                self.push(Action::Fill { dst: View { tensor: id, offset, len }, pattern: Word::Const(0) });
            }
            let wants = if self.style.expressions && self.tape.pick(2) == 0 {
                let others: Vec<usize> = (0..self.tensors.len()).filter(|&t| !matches!(self.tensors[t].contents, Contents::None)).collect();
                let other = self.tape.one(&others);
                let sum = format!("sum({})", self.tensors[other].name);
                let text = if self.tensors[id].dtype == Dtype::F32 { sum } else { format!("{}({sum})", self.tensors[id].dtype) };
                vec![want(&self.tensors, id, &text)]
            } else {
                vec![Want::Bytes(Arc::from([]))]
            };
            checks.push(check(id, wants));
        }
        checks
    }
}
