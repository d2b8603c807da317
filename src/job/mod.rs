//! A parsed spec and a kind of backend -> a [`Job`]: names turned into ids, sizes into numbers, loops unrolled.
//! All semantic diagnostics are made here. No user code is run and no device is opened.

mod bench;
mod builds;
mod checks;
mod computed;
mod conditions;
mod devices;
mod flow;
mod kernels;
mod launch;
mod loose;
mod names;
mod parts;
mod places;
mod requires;
mod select;
mod sets;
mod source;
mod spacing;
mod steps;
mod tensors;
mod tolerances;
mod triton;
mod types;
mod unroll;
mod unused;
mod values;
mod vars;
mod views;
mod wants;

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde::Serialize;

use crate::check::{Multiset, Part, Tolerance};
use crate::data::{Npy, Source};
use crate::device::{KernelSource, Word};
use crate::diag::{Diagnostic, Place, TextError};
use crate::expr::{Binary, Program, Scalar};
use crate::spec::{Backend, Loaded, Order};
use crate::tensor::{Access, Dtype, Number, Shape, rows};

pub use bench::{Bench, Stopping};
pub use devices::{choices, differences, has_sources};
pub use names::MOST_ROUNDS;
pub use requires::Requirement;
pub use select::SetOrder;
pub(crate) use vars::repeat_to_32;
pub use vars::{Var, VarError, VarSource};

/// Code of the diagnostic that says that `--only` leaves nothing to run.
pub const NOTHING_SELECTED: &str = "nothing-selected";

/// A runnable job: everything the planner and the executor need, and nothing of the spec's text.
#[derive(Clone, Debug)]
pub struct Job {
    pub name: String,
    /// Jobs of the spec; this is that of `Overrides::point`.
    pub jobs: usize,
    pub summary: Option<String>,
    pub tags: Vec<String>,
    /// The reason for which the job is expected to fail.
    pub xfail: Option<String>,
    /// What a device must have to run it.
    pub requires: Vec<Requirement>,
    pub backend: Backend,
    pub dims: IndexMap<String, i128>,
    pub tensors: Vec<Tensor>,
    /// The first `loads` of them are loaded before the rounds; the others, which no step launches, are built for a claim.
    pub kernels: Vec<KernelSource>,
    pub loads: usize,
    /// In an order that is legal: the spec's, loops unrolled.
    pub steps: Vec<Step>,
    /// The steps of the spec that `Step::origin` points into.
    pub origins: Vec<Origin>,
    /// Values that differ from round to round.
    pub vars: Vec<Var>,
    /// Names of the sets; empty where the spec has none.
    pub sets: Vec<String>,
    /// Ids of the sets whose rounds are run, ascending; empty where all rounds are.
    pub only: Vec<u32>,
    pub rounds: Rounds,
    pub checks: Vec<Check>,
    /// Claims of which no single tensor is the subject. In reports they come after the checks.
    pub conditions: Vec<Condition>,
    /// Claims about builds of kernels. In reports they come last.
    pub builds: Vec<Build>,
    pub limits: Limits,
    pub bench: Bench,
    /// Its outputs are compared with those of the same job on other devices.
    pub compared: bool,
}

impl Job {
    /// The tensors that are read back after a round; one may come more than once.
    pub fn read_back(&self) -> impl Iterator<Item = usize> + '_ {
        let named = |condition: &'_ Condition| condition.program.after_tensors().to_vec();
        self.checks.iter().map(|check| check.tensor).chain(self.conditions.iter().flat_map(named))
    }

    /// The step of an index as the spec has it: its label, and the turns of the loops around it.
    pub fn step_in_words(&self, index: usize) -> Option<String> {
        let step = self.steps.get(index)?;
        let origin = self.origins.get(step.origin as usize)?;
        let turns: Vec<String> = origin.loops.iter().zip(&step.turn).map(|(name, value)| format!("{name} = {value}")).collect();
        let turn = if turns.is_empty() { String::new() } else { format!(", {}", turns.join(", ")) };
        Some(format!("`{}`{turn}", origin.label))
    }

    /// Claims that are checked in rounds.
    pub fn claims_of_rounds(&self) -> usize {
        self.checks.len() + self.conditions.len()
    }

    /// Whether builds of kernels are all that it is about: it has no rounds.
    pub fn is_of_builds(&self) -> bool {
        !self.builds.is_empty() && self.claims_of_rounds() == 0 && self.steps.is_empty() && self.rounds.count == 0
    }

    /// Every program that a check evaluates.
    pub fn programs(&self) -> impl Iterator<Item = &Arc<Program>> + '_ {
        self.checks.iter().flat_map(Check::programs).chain(self.conditions.iter().flat_map(Condition::programs))
    }
}

/// A tensor with its contents at the start of a round.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Shape,
    pub contents: Contents,
    /// Keeps what the last round left.
    pub carry: bool,
    /// On the device its rows of three elements are spaced by four; on the host they never are. See [`rows`].
    pub spaced: bool,
}

impl Tensor {
    /// What it takes on the host. *Units*: bytes.
    pub fn bytes(&self) -> u64 {
        self.shape.bytes(self.dtype)
    }

    /// What it takes on the device, padding of its rows included. *Units*: bytes.
    pub fn device_bytes(&self) -> u64 {
        if self.spaced { rows::spaced(self.bytes()) } else { self.bytes() }
    }
}

/// Where a tensor's contents at the start of a round come from.
#[derive(Clone, Debug)]
pub enum Contents {
    None,
    /// The same in every round.
    Fixed(Source),
    /// Drawn anew every round.
    Drawn(Draw),
    /// One per set.
    Sets(Vec<Source>),
}

/// A source whose numbers may depend on the round.
#[derive(Clone, Debug)]
pub struct Draw {
    pub source: Source,
    /// Replace the source's numbers, in the order of its fields.
    pub numbers: [Option<Scalar>; 2],
}

/// One action of a round.
#[derive(Clone, Debug)]
pub struct Step {
    pub action: Action,
    /// Index into `Job::origins`.
    pub origin: u32,
    /// Values of the loop variables around it, outermost first.
    pub turn: Vec<i128>,
    /// Earlier steps that it waits for besides those that its reads and writes make it wait for, ascending.
    pub after: Vec<u32>,
}

#[derive(Clone, Debug)]
pub enum Action {
    Launch {
        kernel: usize,
        grid: [Word; 3],
        /// *Units*: threads.
        offset: [Word; 3],
        args: Vec<Argument>,
    },
    Copy {
        src: View,
        dst: View,
    },
    Fill {
        dst: View,
        pattern: Word,
    },
}

/// One argument of a launch; `Word::Var` points into `Job::vars`.
#[derive(Clone, PartialEq, Debug)]
pub enum Argument {
    Tensor {
        access: Access,
        view: View,
    },
    Scalar(Word),
    /// One word per field and lane of a struct, or per lane of a scalar with lanes.
    Struct(Vec<Word>),
    Null,
}

/// A contiguous byte range of a tensor, as the device has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct View {
    pub tensor: usize,
    pub offset: u64,
    pub len: u64,
}

impl View {
    pub fn overlaps(&self, other: &View) -> bool {
        self.tensor == other.tensor && self.offset < other.offset + other.len && other.offset < self.offset + self.len
    }
}

impl Action {
    /// The views that the action reads and writes.
    pub fn views(&self) -> impl Iterator<Item = (Access, View)> + '_ {
        type Pair = [Option<(Access, View)>; 2];
        let (args, pair): (&[Argument], Pair) = match self {
            Action::Launch { args, .. } => (args, [None, None]),
            Action::Copy { src, dst } => (&[], [Some((Access::In, *src)), Some((Access::Out, *dst))]),
            Action::Fill { dst, .. } => (&[], [Some((Access::Out, *dst)), None]),
        };
        let launched = args.iter().filter_map(|arg| match arg {
            Argument::Tensor { access, view } => Some((*access, *view)),
            Argument::Scalar(_) | Argument::Struct(_) | Argument::Null => None,
        });
        launched.chain(pair.into_iter().flatten())
    }
}

/// A step of the spec, for messages.
#[derive(Clone, Debug)]
pub struct Origin {
    pub place: Place,
    /// `saxpy`, `copy a -> b`, `fill t`.
    pub label: String,
    /// Names of the loop variables around it, outermost first.
    pub loops: Vec<String>,
}

/// How often, in which order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Rounds {
    pub count: u64,
    pub warmup: u64,
    pub seed: u64,
    pub order: Order,
}

/// One claim about one tensor, or a part of it.
#[derive(Clone, Debug)]
pub struct Check {
    pub tensor: usize,
    /// The box that is compared; `None` for all of the tensor.
    pub part: Option<Part>,
    /// Only elements where it is true are compared. Of the tensor's shape, or the part's.
    pub mask: Option<Arc<Program>>,
    /// What the tensor must be: one for all rounds, or one per set; none where it must be written, whatever with.
    /// Of the tensor's shape, or the part's.
    pub wants: Vec<Want>,
    /// Its expectation is what the carried tensor holds at the start of the next round.
    pub keeps: bool,
    pub tolerance: Tolerance,
    /// The tolerance is the dtype's default.
    pub default_tolerance: bool,
    /// How close the outputs of two devices must be; `None` where they may differ.
    pub between: Option<Tolerance>,
    /// The elements may come in any order.
    pub unordered: bool,
    /// No element may hold the poison.
    pub written: bool,
    pub every: Every,
    pub place: Place,
    /// The claim in the spec's words.
    pub text: String,
}

/// A claim about tensors at the start and at the end of a round.
#[derive(Clone, Debug)]
pub struct Condition {
    /// One truth value.
    pub program: Arc<Program>,
    /// Where it compares two numbers: both, and the sign between them.
    pub sides: Option<(Arc<Program>, Binary, Arc<Program>)>,
    /// It asks for NaN or finite values itself, so NaN at the end of a round does not make it false.
    pub asks_nan: bool,
    pub every: Every,
    pub place: Place,
    /// The claim in the spec's words.
    pub text: String,
}

impl Condition {
    /// The whole, and both sides where it compares two numbers.
    pub fn programs(&self) -> impl Iterator<Item = &Arc<Program>> + '_ {
        [Some(&self.program), self.sides.as_ref().map(|s| &s.0), self.sides.as_ref().map(|s| &s.2)].into_iter().flatten()
    }
}

/// A claim about what a compiler makes of a kernel.
#[derive(Clone, Debug)]
pub struct Build {
    /// Index into `Job::kernels`.
    pub kernel: usize,
    pub must: crate::spec::Build,
    /// What the compiler's messages must hold where it refuses the kernel.
    pub log: Option<String>,
    pub place: Place,
    /// The claim in words.
    pub text: String,
}

/// In which rounds a claim is checked: every so many, and the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Every(pub u64);

impl Every {
    /// Whether a round is one of them: by its number, and whether it is the last that is run.
    pub fn is_due(self, round: u64, last: bool) -> bool {
        last || (round + 1).is_multiple_of(self.0.max(1))
    }

    /// How many of the first `run` rounds are, where the last of every `count` rounds is one.
    fn due(self, run: u64, count: u64) -> u64 {
        let every = self.0.max(1);
        let lasts = run.checked_div(count).unwrap_or(0);
        // Of the last rounds, those that are one of every so many are counted already.
        let (mut divisor, mut rest) = (every, count);
        while rest > 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        run / every + lasts - lasts / (every / divisor)
    }
}

impl Check {
    /// Index into `wants` for a round with this set.
    pub fn want(&self, set: u32) -> usize {
        if self.wants.len() > 1 { set as usize } else { 0 }
    }

    /// Its expectations that are expressions, and its mask.
    pub fn programs(&self) -> impl Iterator<Item = &Arc<Program>> + '_ {
        let wants = self.wants.iter().filter_map(|want| match want {
            Want::Expr(program) => Some(program),
            Want::Bytes(_) | Want::File { .. } => None,
        });
        wants.chain(&self.mask)
    }

    /// Elements that are compared, before a mask.
    pub fn elements(&self, tensor: &Tensor) -> u64 {
        self.part.as_ref().map_or(tensor.shape.elements(), Part::elements)
    }

    /// What sorting the elements takes. *Units*: bytes.
    pub fn sorted_bytes(&self, tensor: &Tensor) -> u64 {
        if self.unordered { Multiset::bytes(tensor.dtype, self.elements(tensor)) } else { 0 }
    }

    /// Whether all elements are compared in their order: the expectation is then known of every element.
    pub fn is_whole(&self) -> bool {
        self.part.is_none() && self.mask.is_none() && !self.unordered
    }
}

/// Expected contents.
#[derive(Clone, Debug)]
pub enum Want {
    /// Evaluated from the inputs of the round, as generated.
    Expr(Arc<Program>),
    /// In the tensor's dtype.
    Bytes(Arc<[u8]>),
    /// A golden, or one row of its leading dimension.
    File { file: Arc<Npy>, row: Option<Scalar> },
}

/// Time and memory that the job may take.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Limits {
    pub compile: Duration,
    pub prepare: Duration,
    pub run: Duration,
    pub check: Duration,
    /// *Units*: bytes.
    pub device_memory: Option<u64>,
    /// *Units*: bytes.
    pub host_memory: Option<u64>,
}

/// What the command line changes of a spec.
#[derive(Clone, PartialEq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Overrides {
    pub dims: Vec<(String, i64)>,
    pub rounds: Option<u64>,
    pub seed: Option<u64>,
    /// Names of the sets whose rounds are run, with `*` for any characters; empty where all rounds are.
    pub only: Vec<String>,
    /// Which of the spec's jobs, counted from 0.
    #[serde(default)]
    pub point: usize,
    /// Rows of three lanes are spaced by four whatever the backend: for tests of what a backend that does so needs.
    #[serde(default)]
    pub spaced: bool,
}

/// The code of warnings of what nothing names.
pub const UNUSED: &str = "unused";

/// All jobs of a spec for a backend; none where one has an error. The diagnostics are those of [`resolve`], each once.
pub fn resolve_all(loaded: &Loaded, backend: Backend, overrides: &Overrides) -> (Vec<Job>, Vec<Diagnostic>) {
    let (first, mut diagnostics) = resolve(loaded, backend, &Overrides { point: 0, ..overrides.clone() });
    let mut jobs = Vec::from_iter(first);
    let points = loaded.spec.as_ref().map(|spec| names::Resolver::new(loaded, spec, backend, overrides).points()).unwrap_or_default();
    let mut told = diagnostics.clone();
    for (point, named) in points.iter().enumerate().skip(1) {
        let (job, more) = resolve(loaded, backend, &Overrides { point, ..overrides.clone() });
        // What one job does not use another may.
        diagnostics.retain(|d| d.code != UNUSED || more.contains(d));
        for diagnostic in more.into_iter().filter(|d| d.code != UNUSED) {
            if !told.contains(&diagnostic) {
                told.push(diagnostic.clone());
                diagnostics.push(Diagnostic { message: diagnostic.message + &named.suffix(), ..diagnostic });
            }
        }
        jobs.extend(job);
    }
    if diagnostics.iter().any(|d| d.severity == crate::diag::Severity::Error) {
        jobs.clear();
    }
    (jobs, diagnostics)
}

/// The job for a backend, if the spec has no error; and the diagnostics of reading and resolving, by place.
pub fn resolve(loaded: &Loaded, backend: Backend, overrides: &Overrides) -> (Option<Job>, Vec<Diagnostic>) {
    let mut diagnostics = loaded.diagnostics.clone();
    let job = loaded.spec.as_ref().and_then(|spec| {
        let resolver = names::Resolver::new(loaded, spec, backend, overrides);
        let job = resolver.job();
        diagnostics.extend(resolver.into_problems());
        job
    });
    // One order for every run and every printer: as in the text, errors before warnings at one place.
    let mut keyed: Vec<_> = diagnostics.into_iter().map(|d| (loaded.source.span(&d.at).start, d)).collect();
    keyed.sort_by(|(a, x), (b, y)| (a, y.severity).cmp(&(b, x.severity)));
    let diagnostics: Vec<_> = keyed.into_iter().map(|(_, d)| d).collect();
    let failed = diagnostics.iter().any(|d| d.severity == crate::diag::Severity::Error);
    (job.filter(|_| !failed), diagnostics)
}

impl Contents {
    /// The contents of a round with this set. *Errors*: a number of the source that this round cannot have.
    pub fn source(&self, round: u64, set: usize) -> Result<Option<Source>, String> {
        Ok(match self {
            Contents::None => None,
            Contents::Fixed(source) => Some(source.clone()),
            Contents::Drawn(draw) => Some(draw.at(round).map_err(|e| e.message)?),
            Contents::Sets(sources) => sources.get(set).cloned(),
        })
    }

    /// The source, where no number of it depends on the round.
    pub fn constant_source(&self, set: usize) -> Option<&Source> {
        match self {
            Contents::Fixed(source) => Some(source),
            Contents::Drawn(draw) if !draw.varies() => Some(&draw.source),
            Contents::Sets(sources) => sources.get(set),
            Contents::None | Contents::Drawn(_) => None,
        }
    }

    /// The sources, one for each set where those differ.
    pub fn sources(&self) -> &[Source] {
        match self {
            Contents::None => &[],
            Contents::Fixed(source) => std::slice::from_ref(source),
            Contents::Drawn(draw) => std::slice::from_ref(&draw.source),
            Contents::Sets(sources) => sources,
        }
    }

    /// The expressions that give the contents.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.sources().iter().filter_map(|source| match source {
            Source::Program(program) => Some(&**program),
            _ => None,
        })
    }

    /// Whether every round has its own contents.
    pub fn is_drawn(&self) -> bool {
        matches!(self, Contents::Drawn(_))
    }
}

impl Draw {
    /// Whether the source's numbers depend on the round.
    pub fn varies(&self) -> bool {
        self.numbers.iter().any(Option::is_some)
    }

    /// The source with its numbers in a round. *Errors*: a number that cannot be evaluated.
    pub fn at(&self, round: u64) -> Result<Source, TextError> {
        let [first, second] = &self.numbers;
        let value = |scalar: &Option<Scalar>, fixed: Number| scalar.as_ref().map_or(Ok(fixed), |s| s.eval(round));
        Ok(match &self.source {
            Source::Range { start, step } => Source::Range { start: value(first, *start)?, step: value(second, *step)? },
            Source::Uniform { low, high } => {
                Source::Uniform { low: value(first, Number::Float(*low))?.to_f64(), high: value(second, Number::Float(*high))?.to_f64() }
            }
            Source::Normal { mean, std } => {
                Source::Normal { mean: value(first, Number::Float(*mean))?.to_f64(), std: value(second, Number::Float(*std))?.to_f64() }
            }
            Source::Integers { low, high } => {
                let whole = |scalar: &Option<Scalar>, fixed: i128| {
                    let number = value(scalar, Number::Int(fixed))?;
                    number.to_integer().ok_or_else(|| TextError::new(0..0, format!("{number} is not a whole number")))
                };
                Source::Integers { low: whole(first, *low)?, high: whole(second, *high)? }
            }
            other => other.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn scalar(text: &str, place: crate::expr::Place) -> Scalar {
        struct Round;
        impl crate::expr::Scope for Round {
            fn get(&self, name: &str) -> Option<crate::expr::Name<'_>> {
                (name == "round").then_some(crate::expr::Name::Round)
            }
            fn names(&self) -> Vec<String> {
                Vec::new()
            }
        }
        Scalar::bind(&crate::expr::parse(text).expect("an expression"), &Round, place).expect("a scalar")
    }

    #[test]
    fn the_last_round_is_always_checked() {
        let due = |every, count| (0..count).filter(|&round| Every(every).is_due(round, round + 1 == count)).collect::<Vec<_>>();
        assert_eq!(due(1, 3), [0, 1, 2]);
        assert_eq!(due(10, 25), [9, 19, 24]);
        assert_eq!(due(10, 20), [9, 19]);
        assert_eq!(due(10, 3), [2]);
        for (every, count) in [(1, 3), (10, 25), (10, 20), (10, 3), (3, 1), (4, 6), (7, 1000)] {
            for run in 0..=5 * count {
                let found = (0..run).filter(|&round| Every(every).is_due(round, (round + 1).is_multiple_of(count))).count() as u64;
                assert_eq!(Every(every).due(run, count), found, "{every} {count} {run}");
            }
        }
    }

    #[test]
    fn integers_are_drawn_between_whole_numbers() {
        let low = Some(scalar("round / 2", crate::expr::Place::Float));
        let draw = Draw { source: Source::Integers { low: 0, high: 9 }, numbers: [low, None] };
        assert!(matches!(draw.at(4), Ok(Source::Integers { low: 2, high: 9 })));
        assert_eq!(draw.at(5).err().map(|e| e.message), Some("2.5 is not a whole number".into()));
    }
}
