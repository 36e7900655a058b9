//! What a call has to say to its caller: output kept until it is consumed, so that a caller who lost the link can attach
//! again and miss nothing. Bounded by the call's window; the pack waits when it is full.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use outhaul_link::pipe::Pipe;
use outhaul_protocol::credit::{CallWindow, Overrun};
use outhaul_protocol::evidence::Tally;
use outhaul_protocol::inner::{CallId, Ending, Inner, Lane, call_cost};
use outhaul_protocol::limits;
use tokio::sync::Notify;

/// The outgoing half of one call.
#[derive(Debug)]
pub struct Outlet {
    call: CallId,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    window: CallWindow,
    /// sent or not, not yet consumed; the first has number `first`
    kept: VecDeque<(Lane, Bytes)>,
    first: u64,
    cursor: u64,
    pipe: Option<Arc<Pipe>>,
    tally: Tally,
    ending: Option<Bytes>,
    ending_sent: bool,
    sending: bool,
    alone_since: Option<Instant>,
}

/// What the sender does next.
enum Step {
    Data(Arc<Pipe>, u64, Lane, Bytes),
    End(Arc<Pipe>, Bytes),
    Wait,
    Done,
}

impl Outlet {
    /// For a call that came through `pipe`.
    #[must_use]
    pub fn new(call: CallId, pipe: Arc<Pipe>) -> Self {
        let state = State {
            window: CallWindow::new(limits::CALL_WINDOW),
            kept: VecDeque::new(),
            first: 0,
            cursor: 0,
            pipe: Some(pipe),
            tally: Tally::default(),
            ending: None,
            ending_sent: false,
            sending: false,
            alone_since: None,
        };
        Outlet { call, state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room and keeps output for sending.
    pub async fn put(&self, lane: Lane, bytes: Bytes) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state();
                let cost = call_cost(&bytes);
                if state.window.has_room(cost) {
                    state.window.take(cost);
                    state.tally.add(lane, &bytes);
                    state.kept.push_back((lane, bytes));
                    break;
                }
            }
            changed.await;
        }
        self.changed.notify_waiters();
    }

    /// The call said all it has to say; gives what its receipt is about.
    #[must_use]
    pub fn close(&self) -> Tally {
        std::mem::take(&mut self.state().tally)
    }

    /// The ending, after which nothing comes. A caller that is there gets it from [`Outlet::send`].
    pub fn end(&self, ending: Ending) {
        let message = Inner::End { call: self.call, ending }.encode();
        self.state().ending = Some(message.into());
        self.changed.notify_waiters();
    }

    /// Whether the call has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.state().ending.is_some()
    }

    /// Bytes of memory that are kept.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let state = self.state();
        state.kept.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + state.ending.as_ref().map_or(0, Bytes::len)
    }

    /// The caller consumed all data messages below `next`.
    pub fn acknowledged(&self, next: u64) -> Result<(), Overrun> {
        let mut state = self.state();
        // A caller can be faster than we are at noting that a message went: it may acknowledge the one being sent.
        if next > state.cursor + 1 {
            return Err(Overrun);
        }
        state.cursor = state.cursor.max(next);
        let freed = state.window.acknowledge(next)?;
        for _ in 0..freed {
            state.kept.pop_front();
        }
        state.first += freed;
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// The caller is back on another channel and has everything below `from`.
    pub fn attach(&self, pipe: Arc<Pipe>, from: u64) -> Result<(), Overrun> {
        let mut state = self.state();
        let freed = state.window.acknowledge(from)?;
        for _ in 0..freed {
            state.kept.pop_front();
        }
        state.first += freed;
        if from < state.first {
            return Err(Overrun);
        }
        state.cursor = from;
        state.pipe = Some(pipe);
        state.ending_sent = false;
        state.alone_since = None;
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// How long no caller has been there.
    #[must_use]
    pub fn alone(&self) -> Option<Duration> {
        self.state().alone_since.map(|since| since.elapsed())
    }

    /// Forgets a caller that is gone, when it is this one.
    pub fn detach(&self, pipe: &Arc<Pipe>) {
        let mut state = self.state();
        if state.pipe.as_ref().is_some_and(|current| Arc::ptr_eq(current, pipe)) {
            state.pipe = None;
            state.alone_since = Some(Instant::now());
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Sends what there is, as it comes, until the ending is sent or its caller is gone after it ended. A second
    /// sender returns at once: order has one owner.
    pub async fn send(&self) {
        if std::mem::replace(&mut self.state().sending, true) {
            return;
        }
        let mut owner = Owner { outlet: self, done: false };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let step = self.step();
            match step {
                Step::Done => {
                    owner.done = true;
                    return;
                }
                Step::Wait => changed.await,
                Step::Data(pipe, seq, lane, bytes) => match pipe.send_data(self.call, lane, seq, &bytes).await {
                    Ok(()) => self.sent(&pipe, |state| state.cursor += u64::from(state.cursor == seq)),
                    Err(_) => self.detach(&pipe),
                },
                Step::End(pipe, message) => match pipe.send_bulk(&[&message]).await {
                    Ok(()) => self.sent(&pipe, |state| state.ending_sent = true),
                    Err(_) => self.detach(&pipe),
                },
            }
        }
    }

    /// Notes what went, unless the caller attached elsewhere meanwhile and starts over there.
    fn sent(&self, pipe: &Arc<Pipe>, note: impl FnOnce(&mut State)) {
        let mut state = self.state();
        if state.pipe.as_ref().is_some_and(|current| Arc::ptr_eq(current, pipe)) {
            note(&mut state);
        }
    }

    fn step(&self) -> Step {
        let mut state = self.state();
        let unsent = state.cursor < state.first + state.kept.len() as u64;
        match (&state.pipe, &state.ending) {
            (Some(pipe), _) if unsent => {
                let (lane, bytes) = state.kept[(state.cursor - state.first) as usize].clone();
                Step::Data(pipe.clone(), state.cursor, lane, bytes)
            }
            (Some(pipe), Some(ending)) if !state.ending_sent => Step::End(pipe.clone(), ending.clone()),
            (_, Some(_)) => {
                state.sending = false;
                Step::Done
            }
            _ => Step::Wait,
        }
    }
}

/// Gives the sender's place up when a sender is dropped in the middle; nothing is lost, for only what was sealed counts.
struct Owner<'a> {
    outlet: &'a Outlet,
    done: bool,
}

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.outlet.state().sending = false;
        }
    }
}
