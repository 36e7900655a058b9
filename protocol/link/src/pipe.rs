//! One end of an open channel on its link: seals and opens inner messages, and keeps the channel's windows.
//! Order of sealing is order of sending: both happen under one short lock, never across a wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use outhaul_protocol::channel::{ChannelError, Session};
use outhaul_protocol::credit::{ReceiveWindow, SendWindow};
use outhaul_protocol::frame::ChannelId;
use outhaul_protocol::inner::{CallId, DataMessage, Inner, Lane, cost};
use outhaul_protocol::limits::CHANNEL_WINDOW;
use tokio::sync::Notify;

use crate::outbox::Outbox;

/// One end of a channel.
#[derive(Debug)]
pub struct Pipe {
    channel: ChannelId,
    session: Mutex<Session>,
    flow: Mutex<Flow>,
    changed: Notify,
    outbox: Outbox,
}

#[derive(Debug)]
struct Flow {
    send: SendWindow,
    receive: ReceiveWindow,
    ended: Option<String>,
}

/// The channel is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the channel ended: {0}")]
pub struct PipeEnded(pub String);

impl From<ChannelError> for PipeEnded {
    fn from(error: ChannelError) -> Self {
        PipeEnded(error.to_string())
    }
}

/// One opened message.
#[derive(Debug)]
pub enum Received {
    /// Bytes of a lane.
    Data {
        /// whose
        call: CallId,
        /// which
        lane: Lane,
        /// its number in the call
        seq: u64,
        /// the bytes
        bytes: Bytes,
        /// to be given back with [`Pipe::consumed`]
        cost: u64,
    },
    /// Anything else, with its cost when it counts as bulk.
    Message(Inner, u64),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a message counts in the channel's windows: what carries values does, what steers does not.
fn is_bulk(message: &Inner) -> bool {
    matches!(message, Inner::Call { .. } | Inner::Quick { .. } | Inner::End { .. })
}

impl Pipe {
    /// A channel that is open now. `first` is the cost of a call that came with the first message.
    #[must_use]
    pub fn new(session: Session, outbox: Outbox) -> Arc<Self> {
        let flow = Flow { send: SendWindow::new(CHANNEL_WINDOW), receive: ReceiveWindow::new(CHANNEL_WINDOW), ended: None };
        Arc::new(Pipe { channel: session.channel(), session: Mutex::new(session), flow: Mutex::new(flow), changed: Notify::new(), outbox })
    }

    /// Its id.
    #[must_use]
    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    /// Seals and sends a message that steers, at once.
    pub fn send(&self, message: &Inner) -> Result<(), PipeEnded> {
        self.seal(&[&message.encode()])
    }

    /// Seals and sends a message that carries values or bytes, when the channel's window and the link have room.
    pub async fn send_bulk(&self, pieces: &[&[u8]]) -> Result<(), PipeEnded> {
        let cost = cost(pieces.iter().map(|piece| piece.len()).sum());
        self.outbox.ready().await;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut flow = lock(&self.flow);
                if let Some(reason) = &flow.ended {
                    return Err(PipeEnded(reason.clone()));
                }
                if flow.send.room() >= cost {
                    flow.send.take(cost);
                    break;
                }
            }
            changed.await;
        }
        self.seal(pieces)
    }

    /// Sends bytes of a lane.
    pub async fn send_data(&self, call: CallId, lane: Lane, seq: u64, bytes: &[u8]) -> Result<(), PipeEnded> {
        let head = DataMessage { call, lane, seq, bytes }.head();
        self.send_bulk(&[&head, bytes]).await
    }

    fn seal(&self, pieces: &[&[u8]]) -> Result<(), PipeEnded> {
        let mut refused = None;
        let mut session = lock(&self.session);
        let sealed = session.seal(pieces, |frame| {
            if let Err(why) = self.outbox.push_sealed(frame) {
                refused = Some(why);
            }
        });
        drop(session);
        let outcome = sealed.map_err(PipeEnded::from).and_then(|()| refused.map_or(Ok(()), |why| Err(PipeEnded(why.to_string()))));
        if let Err(ended) = &outcome {
            self.end(&ended.0);
        }
        outcome
    }

    /// Opens one Noise message. `None` while an inner message is not whole. An error ends the channel.
    pub fn receive(&self, noise: &[u8]) -> Result<Option<Received>, PipeEnded> {
        let outcome = self.open(noise);
        if let Err(ended) = &outcome {
            self.end(&ended.0);
        }
        outcome
    }

    fn open(&self, noise: &[u8]) -> Result<Option<Received>, PipeEnded> {
        let malformed = |error: &dyn std::fmt::Display| PipeEnded(format!("a message is malformed: {error}"));
        let received = {
            let mut session = lock(&self.session);
            let Some(message) = session.open(noise)? else { return Ok(None) };
            let cost = cost(message.len());
            match DataMessage::peek(message) {
                Some(Ok(data)) => {
                    Received::Data { call: data.call, lane: data.lane, seq: data.seq, bytes: Bytes::copy_from_slice(data.bytes), cost }
                }
                Some(Err(error)) => return Err(malformed(&error)),
                None => {
                    let message = Inner::decode(message).map_err(|error| malformed(&error))?;
                    let cost = if is_bulk(&message) { cost } else { 0 };
                    Received::Message(message, cost)
                }
            }
        };
        let (Received::Data { cost, .. } | Received::Message(_, cost)) = &received;
        if *cost > 0 {
            lock(&self.flow).receive.receive(*cost).map_err(|overrun| PipeEnded(overrun.to_string()))?;
        }
        Ok(Some(received))
    }

    /// Bulk left our hands. Gives the channel total to tell, when that is due.
    pub fn consumed(&self, cost: u64) -> Option<u64> {
        lock(&self.flow).receive.consume(cost)
    }

    /// Tells the peer that a call's data below `next` and the channel's bulk so far were consumed.
    pub fn credit(&self, call: CallId, next: u64) -> Result<(), PipeEnded> {
        let channel_total = lock(&self.flow).receive.tell();
        self.send(&Inner::Credit { call, consumed: next, channel_total })
    }

    /// The peer's credit for the channel.
    pub fn acknowledged(&self, channel_total: u64) -> Result<(), PipeEnded> {
        let outcome = lock(&self.flow).send.acknowledge(channel_total, CHANNEL_WINDOW);
        self.changed.notify_waiters();
        outcome.map_err(|overrun| {
            self.end(&overrun.to_string());
            PipeEnded(overrun.to_string())
        })
    }

    /// The channel is over; everybody who waits for it learns why. The first reason stays.
    pub fn end(&self, reason: &str) {
        lock(&self.flow).ended.get_or_insert_with(|| reason.to_owned());
        self.changed.notify_waiters();
    }

    /// Why it is over, if it is.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        lock(&self.flow).ended.clone()
    }

    /// Waits until it is over.
    pub async fn until_ended(&self) -> String {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(reason) = self.ended() {
                return reason;
            }
            changed.await;
        }
    }
}
