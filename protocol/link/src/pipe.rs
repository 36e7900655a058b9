//! One end of an open channel on its link: seals and opens inner messages, and keeps the channel's windows.
//! Order of sealing is order of sending: both happen under one short lock, never across a wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use outhaul_protocol::channel::{ChannelError, Session};
use outhaul_protocol::credit::Overrun;
use outhaul_protocol::frame::ChannelId;
use outhaul_protocol::inner::{CallId, DataMessage, Inner, Lane, cost};
use tokio::sync::Notify;

use crate::budget::Budget;
use crate::flow::{Flow, Room, Windows};
use crate::outbox::Outbox;

/// One end of a channel.
#[derive(Debug)]
pub struct Pipe {
    channel: ChannelId,
    session: Mutex<Session>,
    flow: Mutex<Flow>,
    changed: Notify,
    outbox: Outbox,
    budget: Budget,
    /// as in `flow`, for those who hold the budget's lock
    over: AtomicBool,
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

impl From<Overrun> for PipeEnded {
    fn from(overrun: Overrun) -> Self {
        PipeEnded(overrun.to_string())
    }
}

/// A place in the line for room. Whoever steps out lets the next one look.
struct Place<'a> {
    pipe: &'a Pipe,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if lock(&self.pipe.flow).step_out(self.ticket) {
            self.pipe.changed.notify_waiters();
        }
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

impl Pipe {
    /// A channel that is open now.
    #[must_use]
    pub fn new(session: Session, outbox: Outbox, budget: Budget, windows: Windows) -> Arc<Self> {
        let (channel, flow) = (session.channel(), Mutex::new(Flow::new(windows)));
        let pipe = Arc::new(Pipe {
            channel,
            session: Mutex::new(session),
            flow,
            changed: Notify::new(),
            outbox,
            budget,
            over: AtomicBool::new(false),
        });
        pipe.budget.attach(&pipe);
        pipe
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
        self.room(cost).await?;
        self.seal(pieces)
    }

    /// Takes room in the channel's window, in turn.
    async fn room(&self, cost: u64) -> Result<(), PipeEnded> {
        let ticket = {
            let mut flow = self.flow()?;
            if flow.take(cost) {
                return Ok(());
            }
            flow.line_up()
        };
        let _place = Place { pipe: self, ticket };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let room = self.flow()?.take_in_turn(ticket, cost);
            match room {
                Room::Taken => return Ok(()),
                Room::Ask(limit) => self.send(&Inner::Want { limit })?,
                Room::Wait => {}
            }
            changed.await;
        }
    }

    /// The windows, while the channel lives.
    fn flow(&self) -> Result<MutexGuard<'_, Flow>, PipeEnded> {
        let flow = lock(&self.flow);
        match &flow.ended {
            Some(reason) => Err(PipeEnded(reason.clone())),
            None => Ok(flow),
        }
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

    /// Opens one Noise message. `None` while an inner message is not whole, and for what was about the channel's own
    /// windows. An error ends the channel.
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
                    let cost = if message.is_bulk() { cost } else { 0 };
                    Received::Message(message, cost)
                }
            }
        };
        let (Received::Data { cost, .. } | Received::Message(_, cost)) = &received;
        if *cost > 0 {
            lock(&self.flow).receive.receive(*cost)?;
            return Ok(Some(received));
        }
        match received {
            Received::Message(message, _) => self.steer(message),
            data => Ok(Some(data)),
        }
    }

    /// What a message says about the channel's windows; what else it says is handed on.
    fn steer(&self, message: Inner) -> Result<Option<Received>, PipeEnded> {
        match message {
            Inner::Credit { call, consumed, channel_consumed, channel_limit } => {
                lock(&self.flow).send.credit(channel_consumed, channel_limit)?;
                self.changed.notify_waiters();
                Ok(Some(Received::Message(Inner::Credit { call, consumed, channel_consumed, channel_limit }, 0)))
            }
            Inner::Want { limit } => {
                lock(&self.flow).receive.ask(limit);
                self.credit([0; 16], 0).map(|()| None)
            }
            Inner::Recall { keep } => {
                let room = lock(&self.flow).send.give_back(keep);
                self.send(&Inner::GiveBack { room }).map(|()| None)
            }
            Inner::GiveBack { room } => {
                let (channel_consumed, channel_limit) = {
                    let mut flow = lock(&self.flow);
                    let told = flow.receive.given_back(room)?;
                    self.budget.given_back(&self.channel, flow.receive.unused());
                    told
                };
                self.send(&Inner::Credit { call: [0; 16], consumed: 0, channel_consumed, channel_limit })?;
                self.budget.settle(false);
                Ok(None)
            }
            other => Ok(Some(Received::Message(other, 0))),
        }
    }

    /// Bulk left our hands; whether a credit is due.
    #[must_use]
    pub fn consumed(&self, cost: u64) -> bool {
        lock(&self.flow).receive.consume(cost)
    }

    /// Tells the peer that a call's data below `next` and the channel's bulk so far were consumed, and how much may come.
    pub fn credit(&self, call: CallId, next: u64) -> Result<(), PipeEnded> {
        let short = self.tell(call, next)?;
        if short {
            self.budget.settle(false);
        }
        Ok(())
    }

    /// The same; whether other channels are short of room.
    fn tell(&self, call: CallId, next: u64) -> Result<bool, PipeEnded> {
        let (channel_consumed, channel_limit, short) = {
            let mut flow = lock(&self.flow);
            let (granted, short) = self.budget.renew(&self.channel, flow.receive.need());
            let (consumed, limit) = flow.receive.grant(granted);
            (consumed, limit, short)
        };
        self.send(&Inner::Credit { call, consumed: next, channel_consumed, channel_limit })?;
        Ok(short)
    }

    /// Credit for the channel alone, on behalf of the budget. A channel that is over needs none; its end is told elsewhere.
    pub(crate) fn renew(&self) {
        let _ = self.tell([0; 16], 0);
    }

    /// Asks the peer to give back what it does not use.
    pub(crate) fn recall(&self, keep: u64) {
        let _ = self.send(&Inner::Recall { keep });
    }

    /// The channel is over; everybody who waits for it learns why. The first reason stays.
    pub fn end(&self, reason: &str) {
        lock(&self.flow).ended.get_or_insert_with(|| reason.to_owned());
        self.over.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Why it is over, if it is.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        lock(&self.flow).ended.clone()
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
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
