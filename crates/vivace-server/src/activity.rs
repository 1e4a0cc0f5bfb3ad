//! What a connection has been doing, as far as it decides whether it may stay.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::outgoing::Unsent;

/// The first bytes of HTTP/2. Source: RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a connection that was told to move may stay without a request.
const MOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long connections may do what; zero is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From a request's first byte until its head is complete, and from a connection's beginning until its first request has
    /// begun.
    pub header: Duration,
    /// For the body of an HTTP request.
    pub body: Duration,
    /// Without that anything is taken of an answer.
    pub write: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Altogether; then clients are told to move.
    pub age: Duration,
    /// For the requests in flight when a connection is too old.
    pub age_grace: Duration,
}

impl Timeouts {
    /// No limit.
    pub const NONE: Self = Self {
        header: Duration::ZERO,
        body: Duration::ZERO,
        write: Duration::ZERO,
        idle: Duration::ZERO,
        age: Duration::ZERO,
        age_grace: Duration::ZERO,
    };

    /// How often a connection must be looked at.
    pub(crate) fn period(&self) -> Duration {
        let all = [self.header, self.write, self.idle, self.age, self.age_grace];
        let shortest = all.into_iter().filter(|timeout| !timeout.is_zero()).min().unwrap_or(Duration::MAX);
        (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(5))
    }
}

/// Of one connection. Shared by its socket, its requests, and those who judge it.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    read_bytes: AtomicUsize,
    /// Whether all that came so far is how HTTP/2 begins.
    may_be_http2: AtomicBool,
    requests: AtomicU64,
    in_flight: AtomicUsize,
    /// Requests whose body has not come to its end.
    unfinished_bodies: AtomicUsize,
    /// Times are milliseconds since it was opened, plus one; zero is not now.
    idle_since: AtomicU64,
    last_read: AtomicU64,
    head_since: AtomicU64,
    write_blocked_since: AtomicU64,
    told_to_move: AtomicU64,
    answers: Mutex<Vec<Weak<Mutex<Unsent>>>>,
}

/// A request from its head to the end of its answer.
pub(crate) struct InFlight(Arc<Activity>);

/// A body that is still coming.
pub(crate) struct UnfinishedBody(Arc<Activity>);

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// Ends when its requests have.
    Move,
    /// Ends now.
    Cut(&'static str),
}

impl Activity {
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            opened: now,
            read_bytes: AtomicUsize::new(0),
            may_be_http2: AtomicBool::new(true),
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            unfinished_bodies: AtomicUsize::new(0),
            idle_since: AtomicU64::new(1),
            last_read: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            write_blocked_since: AtomicU64::new(0),
            told_to_move: AtomicU64::new(0),
            answers: Mutex::default(),
        })
    }

    /// A request's head is complete.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        self.idle_since.store(0, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// The body of a request has begun.
    pub(crate) fn begin_body(self: &Arc<Self>) -> UnfinishedBody {
        self.unfinished_bodies.fetch_add(1, Ordering::Relaxed);
        UnfinishedBody(self.clone())
    }

    /// Bytes have arrived.
    pub(crate) fn has_read(&self, bytes: &[u8], now: Instant) {
        self.last_read.store(self.stamp(now), Ordering::Relaxed);
        let before = self.read_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        if let Some(preface) = PREFACE.get(before..)
            && !bytes.iter().zip(preface).all(|(byte, expected)| byte == expected)
        {
            self.may_be_http2.store(false, Ordering::Relaxed);
        }
        if !self.may_be_http2.load(Ordering::Relaxed) && self.in_flight.load(Ordering::Relaxed) == 0 {
            let _ = self.head_since.compare_exchange(0, self.stamp(now), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The socket took bytes, or none.
    pub(crate) fn has_written(&self, is_blocked: bool, now: Instant) {
        if is_blocked {
            let _ = self.write_blocked_since.compare_exchange(0, self.stamp(now), Ordering::Relaxed, Ordering::Relaxed);
        } else {
            self.write_blocked_since.store(0, Ordering::Relaxed);
        }
    }

    /// An answer over HTTP/2: it can wait though the socket does not.
    pub(crate) fn watch(&self, answer: Weak<Mutex<Unsent>>) {
        let mut answers = self.answers.lock();
        if answers.len() == answers.capacity() {
            // Before it grows: most are sent long ago.
            answers.retain(|answer| answer.strong_count() > 0);
            let room = answers.len().max(16);
            answers.reserve(room);
        }
        answers.push(answer);
    }

    /// Whether requests have come, over HTTP/2.
    pub(crate) fn serves_http2(&self) -> bool {
        self.is_http2() && self.requests.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.may_be_http2.load(Ordering::Relaxed) && self.read_bytes.load(Ordering::Relaxed) >= PREFACE.len()
    }

    /// Since when there is no request, if there is none.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.time(&self.idle_since).filter(|_| self.in_flight.load(Ordering::Relaxed) == 0)
    }

    /// Since when it is the client that is waited for: without a request, or for more of a body.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        let awaits_body = self.unfinished_bodies.load(Ordering::Relaxed) > 0;
        self.idle_since().or_else(|| self.time(&self.last_read).filter(|_| awaits_body))
    }

    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    /// Judges the connection, and gives up answers that its client does not take.
    pub(crate) fn judge(&self, timeouts: &Timeouts, now: Instant) -> Verdict {
        let over = |since: Option<Instant>, timeout: Duration| {
            !timeout.is_zero() && since.is_some_and(|since| now.saturating_duration_since(since) > timeout)
        };
        if over(self.time(&self.write_blocked_since), timeouts.write) {
            return Verdict::Cut("its client takes nothing of its answer");
        }
        if !timeouts.write.is_zero() {
            self.answers.lock().retain(|answer| match answer.upgrade() {
                None => false,
                Some(answer) => !answer.lock().give_up(timeouts.write, now),
            });
        }
        let idle = self.idle_since();
        if idle.is_some() {
            // A client of HTTP/2 may connect long before it asks; then its preface is here.
            let has_begun = self.requests.load(Ordering::Relaxed) > 0 || self.is_http2();
            if !has_begun && over(Some(self.opened), timeouts.header) {
                return Verdict::Cut("no request has come");
            }
            if over(self.time(&self.head_since), timeouts.header) {
                return Verdict::Cut("the head of its request does not come");
            }
            if over(self.time(&self.told_to_move), MOVE_TIMEOUT) {
                return Verdict::Cut("it was told to move");
            }
        }
        let is_too_old = over(Some(self.opened), timeouts.age);
        if is_too_old && over(Some(self.opened), timeouts.age.saturating_add(timeouts.age_grace)) && !timeouts.age_grace.is_zero() {
            return Verdict::Cut("it is too old");
        }
        if is_too_old || over(idle, timeouts.idle) {
            let _ = self.told_to_move.compare_exchange(0, self.stamp(now), Ordering::Relaxed, Ordering::Relaxed);
            return Verdict::Move;
        }
        Verdict::Keep
    }

    fn stamp(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.opened).as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn time(&self, stamp: &AtomicU64) -> Option<Instant> {
        let millis = stamp.load(Ordering::Relaxed).checked_sub(1)?;
        self.opened.checked_add(Duration::from_millis(millis))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle_since.store(self.0.stamp(Instant::now()), Ordering::Relaxed);
        }
    }
}

impl Drop for UnfinishedBody {
    fn drop(&mut self) {
        self.0.unfinished_bodies.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        header: Duration::from_secs(10),
        write: Duration::from_secs(30),
        idle: Duration::from_secs(60),
        age: Duration::from_secs(1000),
        age_grace: Duration::from_secs(100),
        ..Timeouts::NONE
    };

    /// Judges a connection so many seconds after it was opened.
    fn after(activity: &Activity, seconds: u64) -> Verdict {
        activity.judge(&TIMEOUTS, activity.opened + Duration::from_secs(seconds))
    }

    fn read(activity: &Activity, bytes: &[u8], seconds: u64) {
        activity.has_read(bytes, activity.opened + Duration::from_secs(seconds));
    }

    #[test]
    fn who_sends_nothing_or_drips_is_cut() {
        let silent = Activity::new(Instant::now());
        assert_eq!(after(&silent, 9), Verdict::Keep);
        assert_eq!(after(&silent, 11), Verdict::Cut("no request has come"));
        for part in [&b"GET /"[..], b"PRI * HT"] {
            let dripping = Activity::new(Instant::now());
            for (second, byte) in (0..).zip(part.chunks(1)) {
                read(&dripping, byte, second);
            }
            assert!(matches!(after(&dripping, 11), Verdict::Cut(_)));
        }
        let late = Activity::new(Instant::now());
        read(&late, b"P", 0);
        read(&late, &[b'x'; 100], 1);
        assert!(matches!(after(&late, 11), Verdict::Cut(_)), "what looked like HTTP/2 for a byte");
        let kept = Activity::new(Instant::now());
        read(&kept, b"GET / HTTP/1.1\r\n\r\n", 0);
        drop(kept.enter());
        read(&kept, b"G", 20);
        assert_eq!(after(&kept, 29), Verdict::Keep);
        assert_eq!(after(&kept, 31), Verdict::Cut("the head of its request does not come"));
    }

    #[test]
    fn clients_of_http2_may_be_quiet_until_they_idle() {
        let quiet = Activity::new(Instant::now());
        read(&quiet, PREFACE, 0);
        read(&quiet, b"a ping", 9);
        assert_eq!(after(&quiet, 59), Verdict::Keep);
        assert_eq!(after(&quiet, 61), Verdict::Move);
        assert_eq!(after(&quiet, 67), Verdict::Cut("it was told to move"));
    }

    #[test]
    fn a_request_in_flight_is_waited_for_until_the_connection_is_too_old() {
        let busy = Activity::new(Instant::now());
        read(&busy, PREFACE, 0);
        let request = busy.enter();
        assert_eq!(busy.idle_since(), None);
        assert_eq!(after(&busy, 999), Verdict::Keep);
        assert_eq!(after(&busy, 1001), Verdict::Move);
        assert_eq!(after(&busy, 1099), Verdict::Move);
        assert_eq!(after(&busy, 1101), Verdict::Cut("it is too old"));
        drop(request);
        assert!(busy.idle_since().is_some());
    }

    #[test]
    fn who_does_not_read_is_cut() {
        let full = Activity::new(Instant::now());
        read(&full, PREFACE, 0);
        let _request = full.enter();
        full.has_written(true, full.opened + Duration::from_secs(5));
        full.has_written(true, full.opened + Duration::from_secs(20));
        assert_eq!(after(&full, 34), Verdict::Keep);
        assert!(matches!(after(&full, 36), Verdict::Cut(_)));
        full.has_written(false, full.opened + Duration::from_secs(36));
        assert_eq!(after(&full, 100), Verdict::Keep);
    }

    #[test]
    fn without_limits_nothing_ends() {
        let silent = Activity::new(Instant::now());
        assert_eq!(silent.judge(&Timeouts::NONE, silent.opened + Duration::from_secs(1 << 30)), Verdict::Keep);
    }
}
