//! Runs a compiler: whatever it prints is kept up to a limit, and it is ended when it is told to stop or takes too long.

use std::io::{self, Read as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a compiler's messages that are kept.
const MOST_LOG: usize = 64 << 10;

/// How long the messages are waited for after a compiler's end: a process that it left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a compiler did.
pub(super) struct Ran {
    pub status: ExitStatus,
    /// What it printed, cut off with a line that says so.
    pub log: String,
}

/// Runs a command without input. *Errors*: it cannot be started, was stopped, or took longer than `limit`.
pub(super) fn run(command: &mut Command, limit: Option<Duration>, stop: &AtomicBool) -> io::Result<Ran> {
    let (mut reader, writer) = io::pipe()?;
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let started = Instant::now();
    let mut child = command.spawn()?;
    // The command holds the writing ends, and the reader waits for the last of them.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let log = Arc::new(Mutex::new((Vec::new(), 0usize)));
    let (ended, end) = channel::<()>();
    let kept = Arc::clone(&log);
    let reading = std::thread::Builder::new().name("compiler log".into()).spawn(move || {
        let mut buffer = [0u8; 8192];
        while let Ok(n @ 1..) = reader.read(&mut buffer) {
            let mut log = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let keep = n.min(MOST_LOG - log.0.len());
            log.0.extend_from_slice(&buffer[..keep]);
            log.1 += n - keep;
        }
        drop(ended);
    });
    if let Err(error) = reading {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    let mut pause = Duration::from_micros(200);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let late = limit.is_some_and(|limit| started.elapsed() > limit);
        if late || stop.load(Ordering::Relaxed) {
            let _ = child.kill();
            let _ = child.wait();
            let kind = if late { io::ErrorKind::TimedOut } else { io::ErrorKind::Interrupted };
            return Err(io::Error::new(kind, if late { "it did not answer in time" } else { "it was stopped" }));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(4));
    };
    // Says nothing, but is disconnected when all is read.
    let _ = end.recv_timeout(LAST_WORDS);
    let (bytes, left_out) = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut log = String::from_utf8_lossy(&bytes).into_owned();
    if left_out > 0 {
        log.push_str(&format!("\n[{left_out} more bytes]\n"));
    }
    Ok(Ran { status, log })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Option<Duration>, stop: bool) -> io::Result<Ran> {
        run(Command::new("sh").arg("-c").arg(script), limit, &AtomicBool::new(stop))
    }

    #[test]
    fn both_outputs_are_kept_in_order() {
        let ran = shell("echo a; echo b >&2; echo c; exit 3", None, false).unwrap();
        assert_eq!((ran.log.as_str(), ran.status.code()), ("a\nb\nc\n", Some(3)));
    }

    #[test]
    fn megabytes_are_cut_off() {
        let ran = shell("yes error | head -c 3000000", None, false).unwrap();
        assert!(ran.status.success());
        assert!(ran.log.len() < MOST_LOG + 100 && ran.log.ends_with(&format!("\n[{} more bytes]\n", 3_000_000 - MOST_LOG)));
    }

    #[test]
    fn what_hangs_is_ended() {
        assert_eq!(shell("sleep 60", Some(Duration::ZERO), false).err().unwrap().kind(), io::ErrorKind::TimedOut);
        assert_eq!(shell("sleep 60", None, true).err().unwrap().kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn a_process_left_behind_does_not_hold_the_result() {
        let ran = shell("sleep 60 & echo done", None, false).unwrap();
        assert_eq!(ran.log, "done\n");
    }
}
