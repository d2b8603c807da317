//! The parent's side: starts a worker, holds it to its limits, and makes a report of what it said or failed to say.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::unix::{self, Page};
use super::{Deadlines, Message, PartyName, Request};
use crate::exec::{self, LaneProgress, MOST_LANES, Phase, Progress};
use crate::spec::Backend;
use crate::verdict::{Event, Failure, Kind, Report, Verdict};

/// How often the parent looks at the worker's page.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes of a message at most.
const LONGEST_MESSAGE: u64 = 64 << 20;

/// How long the parent waits for the rest of the messages of a worker that has ended.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Bytes of a kernel's prints that are kept.
const MOST_OUTPUT: usize = 64 << 10;

/// What the caller of [`supervise`] wants to see while a job runs.
pub trait Watcher {
    /// Called some times a second.
    fn progress(&mut self, _job: &str, _rounds: u64, _progress: &Progress) {}

    /// How often the user asked to stop: once ends after the rounds in flight, twice at once.
    fn stops_asked(&self) -> u32 {
        0
    }
}

/// What came of a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// The spec is wrong; the diagnostics say how.
    Invalid { diagnostics: String },
    /// There is nothing to run: no round has a set that was selected.
    Unselected { diagnostics: String },
    /// The job ended, well or not; warnings may have been found. One report for each device, then one for every two of
    /// them. The spec has so many jobs.
    Ended { diagnostics: String, reports: Vec<Report>, jobs: usize },
}

/// A watcher that sees nothing, and stops when another one does.
struct Quiet<'a>(&'a dyn Watcher);

impl Watcher for Quiet<'_> {
    fn stops_asked(&self) -> u32 {
        self.0.stops_asked()
    }
}

/// Runs a request in a worker process. Where a device was lost, the job is run again in another, step by step, to tell what
/// the device was doing.
///
/// `program` is this program: it is started again as `program worker --request ... --page ... --parent ...`.
pub fn supervise(request: &Request, program: &std::path::Path, watcher: &mut dyn Watcher) -> Outcome {
    let mut outcome = once(request, program, watcher);
    let Outcome::Ended { reports, .. } = &mut outcome else { return outcome };
    if request.stepwise || watcher.stops_asked() > 0 || !reports.iter().any(|report| report.lost) {
        return outcome;
    }
    let again = Request { stepwise: true, dump: None, slots: Some(1), lanes: Some(1), batch: Some(1), ..request.clone() };
    let stepwise = match once(&again, program, &mut Quiet(watcher)) {
        Outcome::Ended { reports, .. } => reports,
        Outcome::Invalid { .. } | Outcome::Unselected { .. } => Vec::new(),
    };
    for report in reports.iter_mut().filter(|report| report.lost) {
        let told = match stepwise.iter().find(|other| other.job == report.job) {
            Some(Report { lost: true, reason: Some(reason), .. }) => format!("run again step by step: {reason}"),
            Some(Report { verdict: Verdict::Interrupted, .. }) | None => continue,
            Some(other) if other.run > 0 && other.run == other.rounds => "run again step by step, it did not happen".to_string(),
            Some(other) => {
                let why = other.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
                format!("run again step by step, it ended otherwise, as {}{why}", other.verdict.name())
            }
        };
        let reason = report.reason.get_or_insert_default();
        reason.push_str(if reason.is_empty() { "" } else { "\n" });
        reason.push_str(&told);
    }
    outcome
}

fn once(request: &Request, program: &std::path::Path, watcher: &mut dyn Watcher) -> Outcome {
    let name = request.spec.display().to_string();
    let failed = |message: String| Outcome::Ended {
        diagnostics: String::new(),
        reports: vec![Report { reason: Some(message), ..Report::empty(&name, Verdict::Error) }],
        jobs: 1,
    };
    let page = match Page::create() {
        Ok(page) => page,
        Err(error) => return failed(format!("cannot make the page that a worker reports on, in the temporary folder: {error}")),
    };
    let text = match serde_json::to_string(request) {
        Ok(text) => text,
        Err(error) => return failed(format!("the request cannot be written as JSON: {error}")),
    };
    let (reader, writer) = match std::io::pipe() {
        Ok(pipe) => pipe,
        Err(error) => return failed(format!("cannot make a pipe for a worker: {error}")),
    };
    let mut command = Command::new(program);
    command.arg("worker").arg("--request").arg(text).arg("--page").arg(page.path()).arg("--parent").arg(std::process::id().to_string());
    command.stdin(Stdio::from(writer)).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return failed(format!("cannot start a worker (`{}`): {error}", program.display())),
    };
    // The parent's copy of the writing end goes with the command, so that the worker's end is the end of the pipe.
    drop(command);
    let (sender, messages) = channel();
    std::thread::spawn(move || read_messages(reader, &sender));
    let prints = [child.stdout.take().map(capture), child.stderr.take().map(capture)];
    let mut watch =
        Watch { deadlines: Deadlines::default(), said: Said::default(), beats: vec![(0, Instant::now()); MOST_LANES], late: None };
    let status = watch.follow(&mut child, &messages, &page, watcher);
    let printed = |text: Option<Receiver<String>>| text.and_then(|t| t.recv_timeout(Duration::from_secs(1)).ok()).unwrap_or_default();
    let [out, err] = prints.map(printed);
    watch.said.outcome(&name, request, page.progress(), status, watch.late, out + &err)
}

/// Reads a message a line. What is none is passed over: a kernel may have written there.
fn read_messages(reader: impl Read, sender: &Sender<Message>) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let (mut reports, mut expected) = (0, 1);
    while let Ok(1..) = reader.by_ref().take(LONGEST_MESSAGE).read_until(b'\n', &mut line) {
        if let Ok(message) = serde_json::from_slice::<Message>(&line) {
            if let Message::Job { parties, .. } = &message {
                expected = subjects(parties.len());
            }
            reports += usize::from(matches!(message, Message::Event { event: Event::Done(_), .. }));
            // After the last report nothing more is believed.
            if sender.send(message).is_err() || reports == expected {
                return;
            }
        }
        line.clear();
    }
}

/// Devices, and every two of them.
fn subjects(devices: usize) -> usize {
    devices + devices * devices.saturating_sub(1) / 2
}

/// Collects what a worker prints, up to a limit; sends it at the end.
fn capture(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut left_out = 0usize;
        let mut buffer = [0u8; 8192];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            let keep = n.min(MOST_OUTPUT - kept.len());
            kept.extend_from_slice(&buffer[..keep]);
            left_out += n - keep;
        }
        let mut text = String::from_utf8_lossy(&kept).into_owned();
        if left_out > 0 {
            text.push_str(&format!("\n[{left_out} more bytes]\n"));
        }
        let _ = sender.send(text);
    });
    receiver
}

/// What a worker has said so far.
#[derive(Default)]
struct Said {
    diagnostics: String,
    errors: usize,
    parties: Vec<PartyName>,
    jobs: usize,
    xfail: Option<String>,
    first: u64,
    not_selected: u64,
    unselected: bool,
    /// Of every party, then of every two.
    subjects: Vec<Subject>,
    refused: Option<String>,
}

/// What a worker has said of one device, or of two.
#[derive(Default)]
struct Subject {
    device: String,
    driver: String,
    rounds: u64,
    failures: Vec<Failure>,
    report: Option<Box<Report>>,
}

struct Watch {
    deadlines: Deadlines,
    said: Said,
    /// By lane: its last beat, and when it changed.
    beats: Vec<(u64, Instant)>,
    late: Option<Late>,
}

/// A lane that made no progress for longer than a limit, with the limit's name in the spec.
struct Late {
    lane: usize,
    limit: Duration,
    key: &'static str,
}

/// How a worker ended.
enum End {
    Exited(std::process::ExitStatus),
    Killed,
}

impl Watch {
    fn follow(&mut self, child: &mut Child, messages: &Receiver<Message>, page: &Page, watcher: &mut dyn Watcher) -> End {
        let progress = page.progress();
        let mut named = true;
        loop {
            match messages.recv_timeout(LOOK) {
                Ok(message) => {
                    // Whoever speaks has opened the page.
                    if std::mem::take(&mut named) {
                        page.unname();
                    }
                    self.hear(message);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    // The pipe is closed: the worker is ending, or a kernel closed its descriptors.
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            watcher.progress(
                self.said.parties.first().map_or("", |party| &party.name),
                self.said.subjects.first().map_or(0, |s| s.rounds),
                progress,
            );
            match unix::has_ended(child.id()) {
                Ok(false) => {}
                Ok(true) => {
                    // Whatever the worker started goes with it; then its pipe comes to its end.
                    unix::kill_group(child.id());
                    let until = Instant::now() + LAST_WORDS;
                    while let Ok(message) = messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                        self.hear(message);
                    }
                    return child.wait().map_or(End::Killed, End::Exited);
                }
                Err(_) => {
                    end(child);
                    return End::Killed;
                }
            }
            match watcher.stops_asked() {
                0 => {}
                1 => progress.ask_to_stop(),
                _ => {
                    end(child);
                    return End::Killed;
                }
            }
            for (index, (lane, (beat, since))) in progress.lanes().iter().zip(&mut self.beats).enumerate() {
                if lane.beat() != *beat {
                    (*beat, *since) = (lane.beat(), Instant::now());
                }
                let (limit, key) = self.deadlines.of_phase(lane.phase());
                if since.elapsed() > limit {
                    self.late = Some(Late { lane: index, limit, key });
                    end(child);
                    return End::Killed;
                }
            }
        }
    }

    fn hear(&mut self, message: Message) {
        let said = &mut self.said;
        match message {
            Message::Diagnostics { text, errors, unselected, .. } => {
                said.unselected |= unselected;
                said.diagnostics.push_str(&text);
                said.errors += errors;
            }
            Message::Job { parties, jobs, xfail, deadlines, first, not_selected } => {
                said.subjects = (0..subjects(parties.len())).map(|_| Subject::default()).collect();
                (said.parties, said.jobs, said.xfail) = (parties, jobs, xfail);
                (said.first, said.not_selected) = (first, not_selected);
                self.deadlines = deadlines;
            }
            Message::Event { of, event } => {
                let Some(subject) = said.subjects.get_mut(of) else { return };
                match event {
                    Event::Planned { device, driver, rounds, .. } => {
                        (subject.device, subject.driver, subject.rounds) = (device, driver, rounds);
                    }
                    Event::Failed(failure) => subject.failures.push(*failure),
                    Event::Done(report) => {
                        subject.report.get_or_insert(report);
                    }
                }
            }
            Message::Refused { message } => said.refused = Some(message),
        }
    }
}

fn end(child: &mut Child) {
    unix::kill_group(child.id());
    let _ = child.kill();
    let _ = child.wait();
}

impl Said {
    fn outcome(mut self, spec: &str, request: &Request, progress: &Progress, end: End, late: Option<Late>, output: String) -> Outcome {
        let diagnostics = std::mem::take(&mut self.diagnostics);
        if self.unselected {
            return Outcome::Unselected { diagnostics };
        }
        if self.errors > 0 {
            return Outcome::Invalid { diagnostics };
        }
        let jobs = self.jobs;
        if self.subjects.is_empty() {
            self.parties.push(PartyName { name: spec.to_string(), device: String::new(), backend: Backend::Cpu, kernels: Vec::new() });
            self.subjects.push(Subject::default());
        }
        let subjects = std::mem::take(&mut self.subjects);
        let fall = Fall { request, progress, end: &end, late: late.as_ref(), output: &output };
        let devices = self.parties.len();
        let pairs: Vec<(usize, usize)> = exec::pairs(devices).collect();
        let each = subjects.into_iter().enumerate().map(|(of, subject)| match subject.report {
            Some(report) => after_the_report(*report, &end),
            None => match pairs.get(of.wrapping_sub(devices)) {
                Some(&(a, b)) => self.cut_off([&self.parties[a], &self.parties[b]], subject),
                None => fall.report(&self, of, subject),
            },
        });
        let mut reports: Vec<Report> = each.collect();
        if let Some(first) = reports.first_mut() {
            first.output = output.clone();
        }
        Outcome::Ended { diagnostics, reports, jobs }
    }

    /// The report of a comparison that the end of the process cut off.
    fn cut_off(&self, of: [&PartyName; 2], subject: Subject) -> Report {
        let names = of.map(|party| party.device.clone());
        let base = of[0].name.strip_suffix(&format!(" [{}]", names[0])).unwrap_or(&of[0].name);
        Report {
            reason: Some("not compared to the end: the process that ran both devices ended".to_string()),
            backend: format!("{} ~ {}", of[0].backend.name(), of[1].backend.name()),
            failures: subject.failures,
            ..Report { between: Some(names.clone()), ..Report::empty(&format!("{base} [{} ~ {}]", names[0], names[1]), Verdict::Error) }
        }
    }
}

/// A report, after which the process may have done more, and that went wrong.
fn after_the_report(mut report: Report, end: &End) -> Report {
    if let (End::Exited(status), Verdict::Pass) = (end, report.verdict)
        && !status.success()
    {
        report.verdict = Verdict::Crash;
        let how = match (status.signal(), status.code()) {
            (Some(signal), _) => unix::signal_name(signal),
            (_, code) => format!("exit code {}", code.unwrap_or(-1)),
        };
        report.reason = Some(format!("every round was right, but then the process ended by {how}"));
    }
    report
}

/// A worker that ended before a party's report.
struct Fall<'a> {
    request: &'a Request,
    progress: &'a Progress,
    end: &'a End,
    late: Option<&'a Late>,
    output: &'a str,
}

impl Fall<'_> {
    /// The report of a party.
    fn report(&self, said: &Said, of: usize, subject: Subject) -> Report {
        let Fall { request, progress, late, output, .. } = *self;
        let party = &said.parties[of];
        let several = said.parties.len() > 1;
        // Without a word from a signal it is a lane that ran a kernel: which one, nobody knows where there are more.
        let running: Vec<&LaneProgress> = progress.lanes().iter().filter(|lane| lane.phase() == Phase::Run).collect();
        let known = late.map(|late| progress.lane(late.lane)).or(progress.crashed());
        let sole = || if running.len() == 1 { running.first().copied() } else { None };
        let guilty = known.or_else(sole);
        let lane = if several { progress.lane(of) } else { known.or(running.first().copied()).unwrap_or(progress.lane(0)) };
        let (round, phase) = (lane.round(), lane.phase());
        let verified = if several { lane.rounds_done() } else { progress.rounds_verified() };
        let unsure = known.is_none() && running.len() > 1;
        // Of rounds that overlap nobody knows whose kernel it was, nor at which step.
        let overlapping = matches!(phase, Phase::Prepare | Phase::Run | Phase::Check) && lane.flying() > 1;
        let place = match phase {
            Phase::Compile => {
                let kernel = party.kernels.get(progress.kernel() as usize).map_or("a kernel", String::as_str);
                format!("while compiling and loading `{kernel}`")
            }
            Phase::Prepare | Phase::Run | Phase::Check if overlapping && !unsure => {
                format!("in round {round} or another of the {} in flight, while {}", lane.flying(), phase.name())
            }
            Phase::Prepare | Phase::Run | Phase::Check if verified == 0 && round == said.first => {
                format!("in round {round} or its warm-up, while {}", phase.name())
            }
            Phase::Run if unsure && several => {
                format!("in round {round}, while running beside other devices: which of them ended it is not known")
            }
            Phase::Run if unsure => {
                let mut rounds: Vec<u64> = running.iter().map(|lane| lane.round()).collect();
                rounds.sort_unstable();
                let rounds: Vec<String> = rounds.iter().map(u64::to_string).collect();
                format!("in one of the rounds {} that ran side by side", rounds.join(", "))
            }
            Phase::Prepare | Phase::Run | Phase::Check => format!("in round {round}, while {}", phase.name()),
            _ => format!("while {}", phase.name()),
        };
        let stands = match verified {
            0 => String::new(),
            1 => format!("; 1 round{} was checked", if overlapping { "" } else { " before it" }),
            n => format!("; {n} rounds{} were checked", if overlapping { "" } else { " before it" }),
        };
        let other =
            guilty.and_then(|guilty| progress.lanes().iter().position(|lane| std::ptr::eq(lane, guilty))).filter(|&at| several && at != of);
        let at = if phase == Phase::Run && !unsure && !overlapping && other.is_none() {
            super::where_of(request, of, lane).map(|at| format!(": {at}")).unwrap_or_default()
        } else {
            String::new()
        };
        let (mut verdict, mut reason) = match (late, &said.refused, self.end) {
            _ if other.and_then(|at| said.parties.get(at)).is_some() => {
                let name = other.and_then(|at| said.parties.get(at)).map_or("", |party| &party.device);
                (Verdict::Error, format!("ended with `{name}`, which runs in the same process, {place}{stands}"))
            }
            (Some(Late { limit, key, .. }), ..) => {
                (Verdict::Timeout, format!("no progress for {limit:?} {place}{at}{stands} (`limits.{key}`)"))
            }
            (_, Some(message), _) => (Verdict::Error, message.clone()),
            (_, _, End::Killed) => (Verdict::Interrupted, format!("stopped {place}{stands}")),
            (_, _, End::Exited(status)) => {
                let panicked = output.contains("panicked at");
                let how = match (status.signal(), status.code()) {
                    _ if output.contains("has overflowed its stack") => "the process overflowed its stack".to_string(),
                    (_, Some(101)) if panicked => "runjob itself failed (a bug: please report it with what is printed below)".to_string(),
                    _ if phase == Phase::Done => {
                        "the job ran to its end, but its report did not arrive: a kernel closed the process's descriptors".to_string()
                    }
                    (Some(signal), _) => format!("the process ended by {}", unix::signal_name(signal)),
                    (_, Some(code)) => format!("the process called exit({code}) before the job was done"),
                    _ => "the process ended".to_string(),
                };
                let place = if phase == Phase::Done { String::new() } else { format!(", {place}") };
                (Verdict::Crash, format!("{how}{place}{at}{stands}"))
            }
        };
        // What the spec expects to fail is its kernels, not the work around them.
        let by_kernel = (phase == Phase::Run || overlapping) && !output.contains("panicked at");
        if let (Some(why), Verdict::Crash | Verdict::Timeout, true) = (&said.xfail, verdict, by_kernel) {
            reason = format!("{why} ({}: {reason})", verdict.name());
            verdict = Verdict::Xfail;
        }
        let failed_rounds = {
            let mut rounds: Vec<u64> = subject.failures.iter().filter(|f| f.kind != Kind::Build).map(|f| f.round).collect();
            rounds.dedup();
            rounds.len() as u64
        };
        Report {
            reason: Some(reason),
            backend: party.backend.name().to_string(),
            device: subject.device,
            driver: subject.driver,
            trust: request.trust,
            rounds: subject.rounds,
            not_selected: said.not_selected,
            run: verified,
            checked: verified,
            failed_rounds,
            failures: subject.failures,
            ..Report::empty(&party.name, verdict)
        }
    }
}
