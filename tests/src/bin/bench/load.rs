//! A closed loop of requests: so many in flight, each answer sends the next at once, in the very place that read it.
//! Both systems that are compared are driven by this, so that neither has a slower client.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::Notify;

use crate::table::{micros, quantile};

/// Bytes of every request and answer.
pub(crate) const PAYLOAD: usize = 256;
/// How long answers under way at the end of a round may take.
const GRACE: Duration = Duration::from_secs(10);

/// The loop's state.
#[derive(Debug, Default)]
pub(crate) struct Load {
    state: Mutex<State>,
    done: Notify,
}

#[derive(Debug, Default)]
struct State {
    until: Option<Instant>,
    sent: Vec<Instant>,
    latencies: Vec<Duration>,
    under_way: usize,
    broken: Option<String>,
}

/// What one round found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) rate: f64,
}

impl Load {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one round: `send` sends the first requests, by their slots; answers are reported to [`Load::answered`].
    pub(crate) async fn round(&self, in_flight: usize, time: Duration, mut send: impl FnMut(usize) -> Result<()>) -> Result<Round> {
        let began = Instant::now();
        let until = began + time;
        {
            let mut state = self.state();
            state.until = Some(until);
            state.sent = vec![began; in_flight];
            state.latencies = Vec::with_capacity(1 << 16);
            state.under_way = in_flight;
        }
        for slot in 0..in_flight {
            self.state().sent[slot] = Instant::now();
            send(slot)?;
        }
        tokio::time::timeout(time + GRACE, self.done.notified()).await.context("answers were lost")?;
        let mut latencies = {
            let mut state = self.state();
            ensure!(state.broken.is_none(), "a link ended: {}", state.broken.as_deref().unwrap_or_default());
            std::mem::take(&mut state.latencies)
        };
        let rate = latencies.len() as f64 / time.as_secs_f64();
        Ok(Round { p50: micros(quantile(&mut latencies, 0.5)), p99: micros(quantile(&mut latencies, 0.99)), rate })
    }

    /// An answer has come. Whether its slot is to send again.
    pub(crate) fn answered(&self, slot: usize) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let (Some(sent), Some(until)) = (state.sent.get(slot).copied(), state.until) else { return false };
        if now < until {
            state.latencies.push(now - sent);
            state.sent[slot] = now;
            return true;
        }
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 {
            self.done.notify_one();
        }
        false
    }

    /// A link has ended: so has the round.
    pub(crate) fn broke(&self, why: &str) {
        self.state().broken.get_or_insert_with(|| why.to_owned());
        self.done.notify_one();
    }
}

/// A request's bytes; the slot stands in front.
pub(crate) fn payload(slot: usize) -> [u8; PAYLOAD] {
    let mut bytes = [0x5a; PAYLOAD];
    bytes[0] = slot as u8;
    bytes
}
