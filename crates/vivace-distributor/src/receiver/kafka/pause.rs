//! Pauses between tries, each longer than the one before.

use std::time::Duration;

use vivace_config::KafkaBackoff;

/// Shortest pause: a try costs a request.
const SHORTEST: Duration = Duration::from_millis(10);

/// The pauses of one series of tries.
#[derive(Debug, Clone)]
pub(super) struct Pauses {
    first: Duration,
    longest: Duration,
    multiplier: f64,
    /// Share by which a pause may differ.
    jitter: f64,
    upcoming: Duration,
}

impl Pauses {
    pub(super) fn new(first: Duration, longest: Duration, multiplier: f64, jitter: f64) -> Self {
        let first = first.max(SHORTEST);
        Self { first, longest: longest.max(first), multiplier, jitter, upcoming: first }
    }

    pub(super) fn of(config: &KafkaBackoff) -> Self {
        Self::new(config.initial_interval, config.max_interval, config.multiplier, config.randomization_factor)
    }

    /// How long to wait now.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.upcoming;
        self.upcoming = Duration::try_from_secs_f64(pause.as_secs_f64() * self.multiplier).unwrap_or(self.longest).min(self.longest);
        pause.mul_f64(rand::random_range(1.0 - self.jitter..=1.0 + self.jitter))
    }

    /// Begins anew, once a try has succeeded.
    pub(super) fn reset(&mut self) {
        self.upcoming = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_millis(350), 2.0, 0.0);
        assert_eq!([(); 4].map(|()| pauses.next().as_millis()), [100, 200, 350, 350]);
        pauses.reset();
        assert_eq!(pauses.next().as_millis(), 100);
    }

    #[test]
    fn no_pause_is_no_endless_loop() {
        assert_eq!(Pauses::new(Duration::ZERO, Duration::ZERO, f64::MAX, 0.0).next(), SHORTEST);
    }
}
