//! Time as the pipeline sees it: handed in, so that nothing here reads a clock of its own and tests move time by hand.

use std::sync::Mutex;
use std::time::Duration;

/// A clock and a way to wait on it.
pub trait Clock {
    /// Time since some fixed moment; never goes back. All pacing and all deadlines use it, so a wall clock that jumps changes nothing.
    fn monotonic(&self) -> Duration;

    /// Wall clock time in milliseconds since the Unix epoch, for people and receipts only.
    fn unix_millis(&self) -> i64;

    /// Waits for `duration`.
    fn sleep(&self, duration: Duration);
}

impl<C: Clock + ?Sized> Clock for &C {
    fn monotonic(&self) -> Duration {
        (**self).monotonic()
    }

    fn unix_millis(&self) -> i64 {
        (**self).unix_millis()
    }

    fn sleep(&self, duration: Duration) {
        (**self).sleep(duration);
    }
}

/// A clock that moves only when somebody sleeps on it or [advances](ManualClock::advance) it: for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    elapsed: Mutex<Duration>,
}

impl ManualClock {
    /// A clock that stands at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock on.
    pub fn advance(&self, duration: Duration) {
        *self.lock() += duration;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Duration> {
        // A duration is whole at every moment, so a panic elsewhere cannot have left it half changed.
        self.elapsed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        *self.lock()
    }

    fn unix_millis(&self) -> i64 {
        i64::try_from(self.lock().as_millis()).unwrap_or(i64::MAX)
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}
