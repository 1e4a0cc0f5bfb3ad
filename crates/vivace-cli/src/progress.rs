//! Shows people that a long command is still at work. It goes to terminals only, so that pipes and logs see nothing of it.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What is done sooner needs no progress.
const QUIET: Duration = Duration::from_secs(1);
const BETWEEN: Duration = Duration::from_millis(200);

/// How far a command is, on stderr: where that is a terminal, and the command takes long.
pub(crate) struct Progress {
    noun: &'static str,
    total: u64,
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// `total` of these are to be done.
    pub(crate) fn new(noun: &'static str, total: u64) -> Self {
        let next = std::io::stderr().is_terminal().then(|| Instant::now() + QUIET);
        Self { noun, total, next, shown: false }
    }

    pub(crate) fn at(&mut self, done: u64) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now >= next) {
            self.next = Some(now + BETWEEN);
            self.shown = true;
            // Nobody can be told that stderr cannot be written.
            let _ = write!(std::io::stderr(), "\r{done} of {} {}s", self.total, self.noun);
        }
    }
}

impl Drop for Progress {
    /// Leaves the line to whatever comes next.
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
