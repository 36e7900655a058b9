//! Where a call's output goes: one bounded queue that waits for the caller's credit, one ceiling over all lanes.
//!
//! Nothing is dropped and nothing grows: a full queue makes the pack wait, the ceiling closes it, a caller who left closes it too.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::limits::CHUNK;

/// Which of a call's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// the `stream<u8>` of the result
    Result,
    /// standard output
    Stdout,
    /// standard error
    Stderr,
    /// events
    Event,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes of a lane, in order.
    Data {
        /// which
        lane: Lane,
        /// at most 256 KiB
        bytes: Bytes,
    },
    /// An event.
    Event {
        /// what happened
        name: String,
        /// a JSON text
        json: String,
    },
}

/// Why nothing more is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The caller left.
    Cancelled,
    /// The call's output ceiling was reached.
    Ceiling,
}

/// A call's end of its output.
#[derive(Clone)]
pub(crate) struct Sink {
    queue: mpsc::Sender<Output>,
    budget: Arc<Budget>,
}

struct Budget {
    limit: u64,
    left: AtomicU64,
    reached: AtomicBool,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("left", &self.budget.left).finish_non_exhaustive()
    }
}

impl Sink {
    pub(crate) fn new(queue: mpsc::Sender<Output>, limit: u64) -> Self {
        Sink { queue, budget: Arc::new(Budget { limit, left: AtomicU64::new(limit), reached: AtomicBool::new(false) }) }
    }

    /// The queue itself, for who polls.
    pub(crate) fn queue(&self) -> mpsc::Sender<Output> {
        self.queue.clone()
    }

    /// The ceiling.
    pub(crate) fn limit(&self) -> u64 {
        self.budget.limit
    }

    /// Whether something was refused because of the ceiling.
    pub(crate) fn reached(&self) -> bool {
        self.budget.reached.load(Ordering::Relaxed)
    }

    /// How many of `wanted` bytes may still be sent; they count as sent from here on.
    pub(crate) fn take(&self, wanted: usize) -> usize {
        let wanted = wanted as u64;
        let mut left = self.budget.left.load(Ordering::Relaxed);
        loop {
            let taken = wanted.min(left);
            match self.budget.left.compare_exchange_weak(left, left - taken, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    if taken < wanted {
                        self.budget.reached.store(true, Ordering::Relaxed);
                    }
                    // No more than `wanted`, which was a `usize`.
                    return taken as usize;
                }
                Err(now) => left = now,
            }
        }
    }

    /// Sends bytes; says how many were taken, and why not all.
    pub(crate) async fn send(&self, lane: Lane, mut bytes: Bytes) -> (u64, Option<Closed>) {
        let wanted = bytes.len();
        bytes.truncate(self.take(wanted));
        let closed = (bytes.len() < wanted).then_some(Closed::Ceiling);
        let mut sent = 0;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(CHUNK));
            let length = piece.len() as u64;
            if self.queue.send(Output::Data { lane, bytes: piece }).await.is_err() {
                return (sent, Some(Closed::Cancelled));
            }
            sent += length;
        }
        (sent, closed)
    }

    /// Sends an event.
    pub(crate) async fn event(&self, name: String, json: String) -> Result<(), Closed> {
        let wanted = name.len() + json.len();
        if self.take(wanted) < wanted {
            return Err(Closed::Ceiling);
        }
        self.queue.send(Output::Event { name, json }).await.map_err(|_| Closed::Cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_ceiling_counts_all_lanes_and_closes_when_it_is_passed() {
        let (queue, mut taken) = mpsc::channel(8);
        let sink = Sink::new(queue, 10);
        assert_eq!(sink.send(Lane::Stdout, Bytes::from_static(b"12345")).await, (5, None));
        assert_eq!(sink.event("n".into(), "{}".into()).await, Ok(()));
        assert!(!sink.reached());
        assert_eq!(sink.send(Lane::Stderr, Bytes::from_static(b"abc")).await, (2, Some(Closed::Ceiling)));
        assert!(sink.reached());
        assert_eq!(sink.event("n".into(), "{}".into()).await, Err(Closed::Ceiling));
        assert_eq!(taken.recv().await, Some(Output::Data { lane: Lane::Stdout, bytes: Bytes::from_static(b"12345") }));
        assert_eq!(taken.recv().await, Some(Output::Event { name: "n".into(), json: "{}".into() }));
        assert_eq!(taken.recv().await, Some(Output::Data { lane: Lane::Stderr, bytes: Bytes::from_static(b"ab") }));
    }

    #[tokio::test]
    async fn a_caller_who_left_closes_it() {
        let (queue, taken) = mpsc::channel(1);
        drop(taken);
        let sink = Sink::new(queue, 10);
        assert_eq!(sink.send(Lane::Stdout, Bytes::from_static(b"x")).await, (0, Some(Closed::Cancelled)));
        assert_eq!(sink.event("n".into(), "1".into()).await, Err(Closed::Cancelled));
        assert!(!sink.reached());
    }

    #[tokio::test]
    async fn long_bytes_are_cut() {
        let (queue, mut taken) = mpsc::channel(8);
        let sink = Sink::new(queue, u64::MAX);
        assert_eq!(sink.send(Lane::Stdout, Bytes::from(vec![1; CHUNK * 2 + 1])).await, (CHUNK as u64 * 2 + 1, None));
        drop(sink);
        let mut sizes = Vec::new();
        while let Some(Output::Data { bytes, .. }) = taken.recv().await {
            sizes.push(bytes.len());
        }
        assert_eq!(sizes, [CHUNK, CHUNK, 1]);
    }
}
