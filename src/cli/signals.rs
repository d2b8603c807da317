//! Signals -> how soon a run ends. The first Ctrl-C lets the rounds in flight end, the second ends at once; SIGTERM and
//! SIGHUP, which come from programs that wait no longer than they must, let them end for [`GRACE`] and then end at once.

use std::io::Write;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::exec::Progress;

/// What rounds in flight have after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// How often it was asked to stop: once ends after the rounds in flight, twice at once.
static STOPS: AtomicU32 = AtomicU32::new(0);

/// The signal that asked first; 0 where none did.
static FIRST: AtomicI32 = AtomicI32::new(0);

pub(super) fn stops_asked() -> u32 {
    STOPS.load(Ordering::Relaxed)
}

/// The exit code of a run that was stopped.
pub(super) fn code() -> u8 {
    match FIRST.load(Ordering::Relaxed) {
        0 => 130,
        signal => exit_code(signal) as u8,
    }
}

/// As shells have it.
fn exit_code(signal: i32) -> i32 {
    128 + signal
}

/// Listens from now on. `in_process`: the job runs in this process and `progress` is its own.
pub(super) fn listen(in_process: bool, progress: &'static Progress) {
    // Without a listener signals end the program, as they do any other.
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let _ = FIRST.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
            progress.ask_to_stop();
            let asked = STOPS.fetch_add(1, Ordering::Relaxed) + 1;
            let say = |text: &str| {
                let _ = writeln!(std::io::stderr(), "{text}");
            };
            if asked > 1 {
                if in_process {
                    std::process::exit(exit_code(signal));
                }
            } else if signal == SIGINT {
                say("\nstopping after the rounds in flight; once more to stop at once");
            } else {
                say("stopping after the rounds in flight, in two seconds at the latest");
                std::thread::spawn(move || {
                    std::thread::sleep(GRACE);
                    STOPS.fetch_add(1, Ordering::Relaxed);
                    if in_process {
                        std::process::exit(exit_code(signal));
                    }
                });
            }
        }
    });
}
