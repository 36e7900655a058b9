//! Waiting between attempts to reach the relay: doubling, jittered, and back to the start only on proof of life.

use std::time::Duration;

/// The first wait.
pub const FIRST: Duration = Duration::from_millis(500);
/// The longest.
pub const LONGEST: Duration = Duration::from_secs(30);

/// The state of one back-off.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: FIRST }
    }
}

impl Backoff {
    /// How long to wait now: between half and all of a span that doubles each time. A thousand agents that lost the
    /// same relay must not come back in the same instant.
    pub fn wait(&mut self) -> Duration {
        let span = self.next;
        self.next = (span * 2).min(LONGEST);
        let random = u32::from_be_bytes(outhaul_protocol::keys::random());
        span / 2 + (span / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// The peer showed a sign of life beyond the handshake.
    pub fn reset(&mut self) {
        *self = Backoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_bounded_and_differ() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..20).map(|_| backoff.wait()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(waits[19] >= LONGEST / 2 && waits[19] <= LONGEST);
        assert!(waits[10..].windows(2).any(|pair| pair[0] != pair[1]));
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
