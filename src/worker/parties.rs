//! Parties that are ready -> events: one runs as it stands; several run side by side, a thread each, and leave their
//! outputs at an exchange, where every two are compared.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use super::{Message, Party, Ready, Request};
use crate::exec::{self, Exchange, Options, Progress};
use crate::verdict::{Event, Report};

type Send<'a> = dyn FnMut(Message) + std::marker::Send + 'a;

/// Runs every party that is ready, and sends a report for each and for every two.
pub(super) fn run(
    request: &Request,
    parties: &[Party],
    ready: Vec<Result<Ready, Box<Report>>>,
    progress: &'static Progress,
    send: &mut Send<'_>,
) {
    let threads = request.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let several = parties.len() > 1;
    let dumps: Vec<Option<PathBuf>> = parties.iter().map(|party| dump(request, party, several)).collect();
    if !several {
        for (party, (ready, dump)) in parties.iter().zip(ready.into_iter().zip(&dumps)) {
            match ready {
                Ok(Ready { mut device, plan }) => {
                    let options = Options { threads, dump: dump.as_deref(), clock: request.clock(&party.job), seat: None };
                    let events = &mut |event| send(Message::Event { of: 0, event });
                    exec::run(&party.job, &plan, &mut device, &options, progress, events);
                }
                Err(report) => send(Message::Event { of: 0, event: Event::Done(report) }),
            }
        }
        return;
    }
    let Some(first) = parties.first() else { return };
    progress.devices(parties.len());
    let names = parties.iter().map(|party| party.device.to_string()).collect();
    let exchange = Exchange::new(&first.job, names, ready.iter().map(Result::is_ok).collect());
    let reports: Vec<Mutex<Option<Report>>> = parties.iter().map(|_| Mutex::default()).collect();
    let send = Mutex::new(send);
    let tell = |of: usize, event: Event| {
        if let Event::Done(report) = &event {
            *reports[of].lock().unwrap_or_else(PoisonError::into_inner) = Some((**report).clone());
        }
        (send.lock().unwrap_or_else(PoisonError::into_inner))(Message::Event { of, event });
    };
    std::thread::scope(|scope| {
        for (of, (party, ready)) in parties.iter().zip(ready).enumerate() {
            let (exchange, tell, dump) = (&exchange, &tell, dumps[of].as_deref());
            let Ready { mut device, plan } = match ready {
                Ok(ready) => ready,
                Err(report) => {
                    tell(of, Event::Done(report));
                    continue;
                }
            };
            let party = move || {
                // Whatever ends this thread, the others do not wait for it.
                let _gone = Gone { exchange, of };
                let options = Options { threads, dump, clock: request.clock(&party.job), seat: Some(exchange.seat(of)) };
                exec::run(&party.job, &plan, &mut device, &options, progress, &mut |event| tell(of, event));
                // It is done, which takes no time; others are not.
                progress.lane(of).enter(exec::Phase::Idle, 0);
            };
            if let Err(error) = std::thread::Builder::new().name(format!("device {of}")).spawn_scoped(scope, party) {
                exchange.leaves_for_good(of);
                let why = format!("no thread: {error}");
                let job = &parties[of].job;
                let report = super::unplanned(job, job.backend, None, request, crate::verdict::Verdict::Error, why);
                tell(of, Event::Done(Box::new(report)));
            }
        }
    });
    let of: Vec<Report> = reports
        .into_iter()
        .zip(parties)
        .map(|(report, party)| {
            let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
            report.unwrap_or_else(|| Report::empty(&party.job.name, crate::verdict::Verdict::Error))
        })
        .collect();
    let send = send.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (nth, report) in exchange.reports(&of.iter().collect::<Vec<_>>()).into_iter().enumerate() {
        let job = pair_name(&parties[0], report.between.as_ref());
        send(Message::Event { of: parties.len() + nth, event: Event::Done(Box::new(Report { job, ..report })) });
    }
}

/// `saxpy [cpu ~ opencl]`.
fn pair_name(party: &Party, between: Option<&[String; 2]>) -> String {
    let name = party.job.name.strip_suffix(&format!(" [{}]", party.device)).unwrap_or(&party.job.name);
    match between {
        Some([a, b]) => format!("{name} [{a} ~ {b}]"),
        None => name.to_string(),
    }
}

/// Tells the exchange that a device ends.
struct Gone<'a> {
    exchange: &'a Exchange<'a>,
    of: usize,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.exchange.leaves_for_good(self.of);
    }
}

/// A party's folder for failing rounds. Jobs of one spec, and its devices, have rounds of the same numbers.
fn dump(request: &Request, party: &Party, several: bool) -> Option<PathBuf> {
    let mut folder = request.dump.clone()?;
    if party.job.jobs > 1 {
        folder.push(format!("job-{}", request.overrides.point));
    }
    if several {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        folder.push(party.device.to_string().chars().map(plain).collect::<String>());
    }
    Some(folder)
}
