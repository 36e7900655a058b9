//! Calls under way and calls that ended lately, by operator and id: for cancel, input, attach, and so that an id is
//! taken once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use outhaul_link::pipe::Pipe;
use outhaul_protocol::credit::ReceiveWindow;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::inner::{CallId, call_cost};
use outhaul_protocol::keys::{Digest, KeyId};
use outhaul_protocol::limits;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::outlet::Outlet;

/// Ended calls that are kept, at most: beyond it the oldest go before their ten minutes.
const KEPT_CALLS: usize = 1024;
/// Bytes of output and endings of ended calls that are kept, at most.
const KEPT_BYTES: usize = 4 << 20;

/// Whose call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallKey {
    /// the operator
    pub operator: KeyId,
    /// the call
    pub id: CallId,
}

/// A call from its admission on.
#[derive(Debug)]
pub struct Running {
    /// whose
    pub key: CallKey,
    /// the chain it was admitted under, for a later revocation
    pub chain: Digest,
    /// what it has to say
    pub outlet: Outlet,
    /// its input
    pub inlet: Inlet,
    /// ends it
    pub cancel: CancellationToken,
    /// why it was cancelled, if not by its caller
    pub reason: Mutex<Option<Failure>>,
    /// the versions that answer it: its pack's once it is admitted, and those of the packs that this one calls
    pub packs: Mutex<Vec<Digest>>,
}

impl Running {
    /// Notes a version that answers it or a part of it.
    pub fn uses(&self, pack: Digest) {
        let mut packs = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
        if !packs.contains(&pack) {
            packs.push(pack);
        }
    }

    /// Whether one of these versions answers it or a part of it.
    #[must_use]
    pub fn is_of(&self, packs: &[Digest]) -> bool {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|pack| packs.contains(pack))
    }

    /// Ends it for a reason of ours.
    pub fn stop(&self, why: Failure) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.cancel.cancel();
    }
}

/// Input that waits to be taken by the pack. The caller's credit bounds it.
#[derive(Debug)]
pub struct Inlet {
    state: Mutex<InletState>,
    changed: Notify,
}

#[derive(Debug)]
struct InletState {
    queue: VecDeque<(Bytes, u64, Arc<Pipe>)>,
    window: ReceiveWindow,
    next: u64,
    taken: u64,
    ended: bool,
}

impl Inlet {
    /// `open` when the caller said that it will send input.
    #[must_use]
    pub fn new(open: bool) -> Self {
        let window = ReceiveWindow::new(limits::CALL_WINDOW);
        Inlet { state: Mutex::new(InletState { queue: VecDeque::new(), window, next: 0, taken: 0, ended: !open }), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, InletState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Input arrived. An error is the caller's fault and ends its channel.
    pub fn put(&self, seq: u64, bytes: Bytes, cost: u64, pipe: Arc<Pipe>) -> Result<(), &'static str> {
        let mut state = self.state();
        if seq != state.next {
            return Err("input out of order");
        }
        state.window.receive(call_cost(&bytes)).map_err(|_| "input beyond its window")?;
        state.next += 1;
        state.queue.push_back((bytes, cost, pipe));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// No more comes.
    pub fn end(&self) {
        self.state().ended = true;
        self.changed.notify_one();
    }

    /// Hands input to the pack as it takes it, and credit back to the caller. Ends with the input.
    pub async fn feed(&self, call: CallId, into: tokio::sync::mpsc::Sender<Bytes>) {
        loop {
            let next = {
                let mut state = self.state();
                match state.queue.pop_front() {
                    Some(next) => Some(next),
                    None if state.ended => return,
                    None => None,
                }
            };
            let Some((bytes, cost, pipe)) = next else {
                self.changed.notified().await;
                continue;
            };
            // A pack that takes no input any more: what comes is counted and dropped, so that the caller is not stuck.
            let call_cost = call_cost(&bytes);
            let _ = into.send(bytes).await;
            let channel_due = pipe.consumed(cost);
            let (due, taken) = {
                let mut state = self.state();
                state.taken += 1;
                let due = state.window.consume(call_cost).is_some();
                if channel_due {
                    // Its credit tells the call's too, and what the peer was told is what it may send on.
                    state.window.tell();
                }
                (due, state.taken)
            };
            if channel_due || due {
                let _ = pipe.credit(call, taken);
            }
        }
    }
}

/// The table.
#[derive(Debug)]
pub struct Calls {
    table: Mutex<Table>,
    nested: Arc<Semaphore>,
}

impl Default for Calls {
    fn default() -> Self {
        Calls { table: Mutex::default(), nested: Arc::new(Semaphore::new(limits::CALLS)) }
    }
}

#[derive(Debug, Default)]
struct Table {
    running: HashMap<CallKey, Arc<Running>>,
    ended: HashMap<CallKey, Arc<Running>>,
    order: VecDeque<(Instant, CallKey, usize)>,
    bytes: usize,
}

impl Calls {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for the calls that packs make of other packs: as many again as operators may have.
    pub(crate) fn nested(&self) -> Arc<Semaphore> {
        self.nested.clone()
    }

    /// Takes a call's id and one of the places: the last check before it runs.
    pub fn take(&self, running: Arc<Running>, ceiling: usize) -> Result<(), Failure> {
        let mut table = self.table();
        if table.running.contains_key(&running.key) || table.ended.contains_key(&running.key) {
            return Err(Failure::new(Code::Replayed, "a call with this id was seen before"));
        }
        if table.running.len() >= ceiling {
            return Err(Failure::new(Code::Busy, format!("as many calls as this node takes at once are under way: {ceiling}"))
                .hint("try again in a moment"));
        }
        table.running.insert(running.key, running);
        Ok(())
    }

    /// A call under way or ended lately.
    #[must_use]
    pub fn find(&self, key: &CallKey) -> Option<Arc<Running>> {
        let table = self.table();
        table.running.get(key).or_else(|| table.ended.get(key)).cloned()
    }

    /// A call has its ending; it is kept for its caller. What was delivered on a channel that lives is not kept long:
    /// the newest thousand are enough for a link that is lost just then.
    pub fn ended(&self, key: &CallKey) {
        let mut table = self.table();
        let Some(running) = table.running.remove(key) else { return };
        let bytes = running.outlet.kept_bytes();
        table.bytes += bytes;
        table.order.push_back((Instant::now(), *key, bytes));
        table.ended.insert(*key, running);
        while table.order.len() > KEPT_CALLS || table.bytes > KEPT_BYTES {
            table.forget_oldest();
        }
    }

    /// Forgets what has been kept long enough.
    pub fn sweep(&self) {
        let mut table = self.table();
        let kept = Duration::from_secs(limits::CALL_KEPT_SECS);
        while table.order.front().is_some_and(|(since, ..)| since.elapsed() >= kept) {
            table.forget_oldest();
        }
    }

    /// Calls under way.
    #[must_use]
    pub fn running(&self) -> Vec<Arc<Running>> {
        self.table().running.values().cloned().collect()
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table().running.len()
    }
}

impl Table {
    fn forget_oldest(&mut self) {
        if let Some((_, key, bytes)) = self.order.pop_front() {
            self.ended.remove(&key);
            self.bytes -= bytes;
        }
    }
}
