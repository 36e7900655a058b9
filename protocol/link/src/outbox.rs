//! What waits to be written to one socket: two bounded queues, control before bulk, and never a silent drop.
//! A full outbox refuses; whoever pushes decides whether that means waiting ([`Outbox::ready`]) or hanging up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Counts the queued bytes of one channel, so that a channel cannot fill a socket's queue alone.
pub type Meter = Arc<AtomicUsize>;

/// A handle to one socket's queue.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// control frames wait: seen without the lock by a writer in the middle of a bulk batch
    urgent: AtomicBool,
    filled: Notify,
    drained: Notify,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    control: VecDeque<Bytes>,
    bulk: VecDeque<(Bytes, Option<Meter>)>,
    bytes: usize,
    closed: bool,
}

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The queue holds its limit.
    #[error("the peer does not keep up")]
    Full,
    /// The socket is closing.
    #[error("the link is closed")]
    Closed,
}

/// Control frames that may wait: far more than honest peers cause.
const CONTROL_FRAMES: usize = 4096;

impl Outbox {
    /// A queue of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let (state, urgent) = (Mutex::default(), AtomicBool::new(false));
        Outbox(Arc::new(Shared { state, urgent, filled: Notify::new(), drained: Notify::new(), limit }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere while this short lock was held leaves a queue that is still consistent.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a control frame: it overtakes bulk.
    pub fn control(&self, frame: impl Into<Bytes>) -> Result<(), Refused> {
        let mut state = self.state();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.control.len() >= CONTROL_FRAMES {
            return Err(Refused::Full);
        }
        state.control.push_back(frame.into());
        self.0.urgent.store(true, Ordering::Release);
        drop(state);
        self.0.filled.notify_one();
        Ok(())
    }

    /// Queues a frame that keeps its order among bulk frames; with a meter, its bytes are counted there until written.
    pub fn push(&self, frame: impl Into<Bytes>, meter: Option<&Meter>) -> Result<(), Refused> {
        let frame = frame.into();
        let mut state = self.state();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.bytes > 0 && state.bytes + frame.len() > self.0.limit {
            return Err(Refused::Full);
        }
        state.bytes += frame.len();
        if let Some(meter) = meter {
            meter.fetch_add(frame.len(), Ordering::Relaxed);
        }
        state.bulk.push_back((frame, meter.cloned()));
        drop(state);
        self.0.filled.notify_one();
        Ok(())
    }

    /// Queues a sealed frame whose place in the order is already fixed: it may exceed the limit, because dropping it
    /// would end its channel. Callers waited for [`Outbox::ready`] before they sealed.
    pub(crate) fn push_sealed(&self, frame: Vec<u8>) -> Result<(), Refused> {
        let mut state = self.state();
        if state.closed {
            return Err(Refused::Closed);
        }
        state.bytes += frame.len();
        state.bulk.push_back((frame.into(), None));
        drop(state);
        self.0.filled.notify_one();
        Ok(())
    }

    /// Waits until the queue is below half its limit, or the socket is closed.
    pub async fn ready(&self) {
        loop {
            let drained = self.0.drained.notified();
            tokio::pin!(drained);
            // Registered before the look, so that a drain in between is not missed.
            drained.as_mut().enable();
            {
                let state = self.state();
                if state.closed || state.bytes <= self.0.limit / 2 {
                    return;
                }
            }
            drained.await;
        }
    }

    /// No more frames are taken; what is queued is still written.
    pub fn close(&self) {
        self.state().closed = true;
        self.0.filled.notify_one();
        self.0.drained.notify_waiters();
    }

    /// Whether [`Outbox::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Everything queued, control first; waits for something. `None` when closed and empty.
    pub(crate) async fn take(&self) -> Option<Batch> {
        loop {
            {
                let mut state = self.state();
                if !state.control.is_empty() || !state.bulk.is_empty() {
                    self.0.urgent.store(false, Ordering::Release);
                    return Some(Batch { control: std::mem::take(&mut state.control), bulk: std::mem::take(&mut state.bulk) });
                }
                if state.closed {
                    return None;
                }
            }
            self.0.filled.notified().await;
        }
    }

    /// The next control frame, so that a long bulk batch is interrupted for it.
    pub(crate) fn take_control(&self) -> Option<Bytes> {
        if !self.0.urgent.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state();
        let control = state.control.pop_front();
        self.0.urgent.store(!state.control.is_empty(), Ordering::Release);
        control
    }

    /// Whether anything waits.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state();
        state.control.is_empty() && state.bulk.is_empty()
    }

    /// These bytes of bulk are on their way. Their meters are the writer's to lower.
    pub(crate) fn written(&self, bytes: usize) {
        let mut state = self.state();
        let before = state.bytes;
        state.bytes -= bytes;
        let crossed = before > self.0.limit / 2 && state.bytes <= self.0.limit / 2;
        drop(state);
        if crossed {
            self.0.drained.notify_waiters();
        }
    }
}

/// Frames taken out for writing.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) control: VecDeque<Bytes>,
    pub(crate) bulk: VecDeque<(Bytes, Option<Meter>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn control_overtakes_bulk_and_a_full_queue_refuses() {
        let outbox = Outbox::new(10);
        outbox.push(vec![1; 8], None).expect("room");
        assert_eq!(outbox.push(vec![2; 8], None), Err(Refused::Full));
        outbox.control(vec![3]).expect("control has its own room");
        let batch = outbox.take().await.expect("queued");
        assert_eq!((batch.control.len(), batch.bulk.len()), (1, 1));
    }

    #[tokio::test]
    async fn waiting_for_room_ends_when_written_and_when_closed() {
        let outbox = Outbox::new(10);
        outbox.push(vec![1; 8], None).expect("room");
        let waiter = {
            let outbox = outbox.clone();
            tokio::spawn(async move { outbox.ready().await })
        };
        let batch = outbox.take().await.expect("queued");
        outbox.written(batch.bulk[0].0.len());
        waiter.await.expect("woken");
        outbox.close();
        outbox.ready().await;
        assert!(outbox.take().await.is_none());
        assert_eq!(outbox.push(vec![1], None), Err(Refused::Closed));
    }

    #[tokio::test]
    async fn a_meter_counts_what_waits() {
        let (outbox, meter) = (Outbox::new(100), Meter::default());
        outbox.push(vec![1; 8], Some(&meter)).expect("room");
        assert_eq!(meter.load(Ordering::Relaxed), 8);
        let batch = outbox.take().await.expect("queued");
        let theirs = batch.bulk[0].1.as_ref().expect("its meter comes with it");
        theirs.fetch_sub(8, Ordering::Relaxed);
        assert_eq!(meter.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn control_that_comes_in_the_middle_of_a_batch_is_seen() {
        let outbox = Outbox::new(100);
        outbox.push(vec![1; 8], None).expect("room");
        let _batch = outbox.take().await.expect("queued");
        assert_eq!(outbox.take_control(), None);
        outbox.control(vec![2]).expect("room");
        outbox.control(vec![3]).expect("room");
        assert_eq!(outbox.take_control().as_deref(), Some(&[2][..]));
        assert_eq!(outbox.take_control().as_deref(), Some(&[3][..]));
        assert_eq!(outbox.take_control(), None);
    }
}
