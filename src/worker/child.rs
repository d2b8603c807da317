//! The worker's side: a request on the command line in, messages on a private descriptor out.

use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use super::{Message, Request, execute, unix};

/// Runs one request as a worker process; its exit code says nothing, its last message everything.
///
/// `parent` is the process that started it, which may be gone before this one looks: the worker ends when it is.
pub fn child(request: &str, page: &str, parent: u32) -> u8 {
    let Ok(events) = unix::event_pipe() else { return 3 };
    let events = Mutex::new(events);
    let this = std::process::id();
    let mut send = |message: Message| {
        // A kernel that forks makes a second worker, which has nothing to say.
        if std::process::id() != this {
            return;
        }
        let Ok(mut line) = serde_json::to_vec(&message) else { return };
        line.push(b'\n');
        let mut events = events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A parent that is gone reads no verdict.
        let _ = events.write_all(&line);
    };
    let request: Request = match serde_json::from_str(request) {
        Ok(request) => request,
        Err(error) => {
            send(Message::Refused { message: format!("the worker cannot read its request: {error}") });
            return 2;
        }
    };
    let progress = match unix::open_page(page.as_ref()) {
        Ok(progress) => progress,
        Err(error) => {
            send(Message::Refused { message: format!("the worker cannot map `{page}`: {error}") });
            return 3;
        }
    };
    unix::note_crashes(progress);
    std::thread::spawn(move || {
        while std::os::unix::process::parent_id() == parent {
            std::thread::sleep(Duration::from_millis(500));
        }
        // Nobody is left to report to. What this process started is in its group, and goes with it.
        unix::kill_group(std::process::id());
        std::process::exit(3);
    });
    execute(&request, progress, &mut send);
    0
}
