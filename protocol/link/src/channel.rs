//! The operator's end of an open channel: sends calls, and sorts what comes to the call it belongs to. A call is never
//! sent twice; after a lost link it is attached to by its id.

mod asked;
mod call;
mod opening;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::credit::ReceiveWindow;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::ChannelId;
use outhaul_protocol::inner::{CallId, Inner, Lane, OpenedPayload, call_cost};
use outhaul_protocol::limits;
use outhaul_protocol::time::Time;

use crate::pipe::{Pipe, PipeEnded, Received};
use asked::Asked;
use call::{CallStream, Happened, Slot};
use opening::Ends;

pub use asked::{CallSpec, Outcome};
pub use call::{CallEvent, CallHandle, CallSender};
pub use opening::{CHANNEL_VERSION, Caller, NodeTarget};
pub(crate) use opening::{HalfOpen, open};

/// An open channel.
#[derive(Debug, Clone)]
pub struct Channel(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pipe: Arc<Pipe>,
    ends: Ends,
    node: OpenedPayload,
    calls: Mutex<HashMap<CallId, Slot>>,
    notices: Mutex<Vec<Inner>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    /// `first` is the call that came with the opening.
    fn new(pipe: Arc<Pipe>, ends: Ends, node: OpenedPayload, first: Option<(CallId, Slot)>) -> Self {
        let calls = Mutex::new(first.into_iter().collect());
        Channel(Arc::new(Shared { pipe, ends, node, calls, notices: Mutex::default() }))
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.0.pipe.channel()
    }

    /// What the node said when it answered.
    #[must_use]
    pub fn node(&self) -> &OpenedPayload {
        &self.0.node
    }

    /// Newer fleet-signed objects the node sent, unverified.
    #[must_use]
    pub fn take_notices(&self) -> Vec<Inner> {
        std::mem::take(&mut lock(&self.0.notices))
    }

    /// Hands a newer fleet-signed object to the node.
    pub async fn notify(&self, kind: &str, signed: Blob, chain: Vec<Blob>) -> Result<(), Failure> {
        let notice = Inner::Notice { kind: kind.into(), signed, chain }.encode();
        self.0.pipe.send_bulk(&[&notice]).await.map_err(lost)
    }

    /// Why it is over, if it is.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        self.0.pipe.ended()
    }

    /// A handle on the call that came with the opening.
    pub(crate) fn adopt(&self, stream: CallStream) -> CallHandle {
        CallHandle::new(self.clone(), stream)
    }

    /// Sends a call.
    pub async fn call(&self, spec: &CallSpec, now: Time) -> Result<CallHandle, Failure> {
        let ends = &self.0.ends;
        let Asked { id, message, expected } = if spec.quick {
            ends.quick(spec)?
        } else {
            let asked = ends.signed(spec, now)?;
            Asked { message: Inner::Call { signed: Blob(asked.message) }.encode(), ..asked }
        };
        let (slot, stream) = Slot::new(id, expected);
        lock(&self.0.calls).insert(id, slot);
        let handle = CallHandle::new(self.clone(), stream);
        self.0.pipe.send_bulk(&[&message]).await.map_err(lost)?;
        Ok(handle)
    }

    /// Takes up a call of a lost channel again.
    pub fn attach(&self, mut lost_call: CallHandle) -> Result<CallHandle, Failure> {
        let id = lost_call.stream.id;
        // Taken out of the old channel, so that dropping the old handle cancels nothing.
        let old = lock(&lost_call.channel.0.calls).remove(&id);
        let Some(old) = old else { return Err(Failure::new(Code::LinkLost, "the call has ended")) };
        let from = old.next;
        // The node forgets everything below `from`: what of it still waits in our hands no longer counts.
        let receive = ReceiveWindow::new(limits::CALL_WINDOW);
        lock(&self.0.calls).insert(id, Slot { receive, ..old });
        lost_call.channel = self.clone();
        self.0.pipe.send(&Inner::Attach { call: id, from }).map_err(lost)?;
        Ok(lost_call)
    }

    /// One opened frame of this channel. An error means that the channel is over.
    pub(crate) fn receive(&self, noise: &[u8]) -> Result<(), String> {
        let received = self.0.pipe.receive(noise).map_err(|ended| ended.0)?;
        match received {
            None => Ok(()),
            Some(Received::Data { call, lane, seq, bytes, cost }) => self.data(call, lane, seq, bytes, cost),
            Some(Received::Message(message, cost)) => self.message(message, cost),
        }
    }

    fn tell(&self, slot: &Slot, event: CallEvent, cost: u64) {
        // A receiver that is gone has dropped its handle, which cancels the call.
        let _ = slot.events.send(Happened { event, cost, pipe: self.0.pipe.clone() });
    }

    fn data(&self, call: CallId, lane: Lane, seq: u64, bytes: Bytes, cost: u64) -> Result<(), String> {
        let mut calls = lock(&self.0.calls);
        let Some(slot) = calls.get_mut(&call) else {
            // Its handle is gone; what is still under way is counted and dropped.
            drop(calls);
            return self.give_back(call, 0, cost);
        };
        if lane == Lane::Stdin || seq != slot.next {
            return Err("output out of order".into());
        }
        slot.receive.receive(call_cost(&bytes)).map_err(|overrun| overrun.to_string())?;
        slot.next += 1;
        slot.tally.add(lane, &bytes);
        self.tell(slot, CallEvent::Data { lane, bytes }, cost);
        Ok(())
    }

    fn message(&self, message: Inner, cost: u64) -> Result<(), String> {
        match message {
            Inner::Accepted { call } => {
                if let Some(slot) = lock(&self.0.calls).get(&call) {
                    self.tell(slot, CallEvent::Accepted, 0);
                }
                return self.give_back(call, 0, cost);
            }
            Inner::Credit { call, consumed, .. } => {
                if let Some(slot) = lock(&self.0.calls).get(&call) {
                    lock(&slot.input.window).acknowledge(consumed).map_err(|overrun| overrun.to_string())?;
                    slot.input.changed.notify_waiters();
                }
            }
            Inner::End { call, ending } => {
                let slot = lock(&self.0.calls).remove(&call);
                if let Some(mut slot) = slot {
                    slot.input.changed.notify_waiters();
                    let outcome = self.0.ends.outcome(call, ending, &slot.expected, std::mem::take(&mut slot.tally))?;
                    self.tell(&slot, CallEvent::Ended(Box::new(outcome)), 0);
                }
                return self.give_back(call, 0, cost);
            }
            Inner::Unknown { call } => {
                if let Some(slot) = lock(&self.0.calls).remove(&call) {
                    self.tell(&slot, CallEvent::Unknown, 0);
                }
            }
            notice @ Inner::Notice { .. } => {
                lock(&self.0.notices).push(notice);
                return self.give_back([0; 16], 0, cost);
            }
            _ => return Err("a message that only operators send".into()),
        }
        Ok(())
    }

    fn give_back(&self, call: CallId, next: u64, cost: u64) -> Result<(), String> {
        if self.0.pipe.consumed(cost) {
            self.0.pipe.credit(call, next).map_err(|ended| ended.0)?;
        }
        Ok(())
    }

    /// The channel is over for all its calls.
    pub(crate) fn lost(&self, reason: &str) {
        self.0.pipe.end(reason);
        // Slots stay: a call that is attached to again goes on where it was.
        for slot in lock(&self.0.calls).values() {
            slot.input.changed.notify_waiters();
            self.tell(slot, CallEvent::Lost(reason.to_owned()), 0);
        }
    }
}

fn lost(ended: PipeEnded) -> Failure {
    Failure::new(Code::LinkLost, ended.to_string())
}
