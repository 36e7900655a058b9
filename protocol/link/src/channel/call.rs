//! A call under way: what the link's reader keeps of it, the handle its caller takes events from, and the half that
//! sends input.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use outhaul_protocol::credit::{CallWindow, ReceiveWindow};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::evidence::Tally;
use outhaul_protocol::inner::{CallId, Inner, Lane, call_cost};
use outhaul_protocol::limits;
use tokio::sync::{Notify, mpsc};

use super::asked::{Expected, Outcome};
use super::{Channel, lock, lost};
use crate::pipe::Pipe;

/// What a call says as it goes.
#[derive(Debug)]
pub enum CallEvent {
    /// It was taken up.
    Accepted,
    /// Output.
    Data {
        /// on this lane
        lane: Lane,
        /// these bytes
        bytes: Bytes,
    },
    /// The one ending.
    Ended(Box<Outcome>),
    /// The node knows nothing of a call that was attached to: its outcome is unknown.
    Unknown,
    /// The link or channel was lost; the call may go on, and can be attached to.
    Lost(String),
}

/// What the reader keeps of a call.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) events: mpsc::UnboundedSender<Happened>,
    pub(super) receive: ReceiveWindow,
    pub(super) input: Arc<Input>,
    pub(super) next: u64,
    pub(super) expected: Expected,
    pub(super) tally: Tally,
}

/// An event with what taking it gives back, and to which channel.
#[derive(Debug)]
pub(super) struct Happened {
    pub(super) event: CallEvent,
    pub(super) cost: u64,
    pub(super) pipe: Arc<Pipe>,
}

#[derive(Debug)]
pub(super) struct Input {
    pub(super) window: Mutex<CallWindow>,
    pub(super) changed: Notify,
}

impl Slot {
    /// A new call's, and what its handle is made of.
    pub(super) fn new(id: CallId, expected: Expected) -> (Slot, CallStream) {
        // Unbounded in form only: what is in it is bounded by the call's window, which the node may not overrun.
        let (events, receiver) = mpsc::unbounded_channel();
        let input = Arc::new(Input { window: Mutex::new(CallWindow::new(limits::CALL_WINDOW)), changed: Notify::new() });
        let receive = ReceiveWindow::new(limits::CALL_WINDOW);
        let slot = Slot { events, receive, input: input.clone(), next: 0, expected, tally: Tally::default() };
        (slot, CallStream { id, events: receiver, input, taken: 0 })
    }
}

/// The receiving half of a call, before it is tied to its channel.
#[derive(Debug)]
pub(crate) struct CallStream {
    pub(super) id: CallId,
    events: mpsc::UnboundedReceiver<Happened>,
    input: Arc<Input>,
    taken: u64,
}

/// A call under way. Dropping it cancels the call.
#[derive(Debug)]
pub struct CallHandle {
    pub(super) channel: Channel,
    pub(super) stream: CallStream,
    ended: bool,
}

impl CallHandle {
    pub(super) fn new(channel: Channel, stream: CallStream) -> Self {
        CallHandle { channel, stream, ended: false }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> CallId {
        self.stream.id
    }

    /// What happens next; nothing after the ending. Taking output gives its credit back.
    pub async fn next(&mut self) -> Option<CallEvent> {
        let Happened { event, cost, pipe } = self.stream.events.recv().await?;
        match &event {
            CallEvent::Data { bytes, .. } => self.took(call_cost(bytes), cost, &pipe),
            CallEvent::Ended(_) | CallEvent::Unknown => self.ended = true,
            CallEvent::Accepted | CallEvent::Lost(_) => {}
        }
        Some(event)
    }

    /// Gives credit back to the channel that the bytes came through, and to the call while it is the same.
    fn took(&mut self, call_cost: u64, cost: u64, pipe: &Arc<Pipe>) {
        self.stream.taken += 1;
        let (id, current) = (self.stream.id, Arc::ptr_eq(pipe, &self.channel.0.pipe));
        let channel_due = pipe.consumed(cost);
        let call_due = current && {
            let mut calls = lock(&self.channel.0.calls);
            calls.get_mut(&id).is_some_and(|slot| {
                let due = slot.receive.consume(call_cost).is_some();
                if channel_due {
                    // The channel's credit tells the call's too, and what the peer was told is what it may send on.
                    slot.receive.tell();
                }
                due
            })
        };
        if call_due || channel_due {
            // A channel that is over needs no credit; its end is told as an event.
            let _ = pipe.credit(id, if current { self.stream.taken } else { 0 });
        }
    }

    /// The sending half on the channel the call is on now: for a task that sends while another reads.
    #[must_use]
    pub fn sender(&self) -> CallSender {
        CallSender { channel: self.channel.clone(), id: self.stream.id, input: self.stream.input.clone() }
    }

    /// Sends input; waits for the node's credit.
    pub async fn input(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.sender().input(bytes).await
    }

    /// The input is at its end.
    pub fn input_end(&self) -> Result<(), Failure> {
        self.sender().input_end()
    }

    /// Asks the node to stop it; the ending still comes.
    pub fn cancel(&self) -> Result<(), Failure> {
        self.sender().cancel()
    }

    /// Waits for the ending, handing output to `on_data`.
    pub async fn finish(mut self, mut on_data: impl FnMut(Lane, &Bytes)) -> Result<Outcome, Failure> {
        while let Some(event) = self.next().await {
            match event {
                CallEvent::Accepted => {}
                CallEvent::Data { lane, bytes } => on_data(lane, &bytes),
                CallEvent::Ended(outcome) => return Ok(*outcome),
                CallEvent::Lost(reason) => return Err(Failure::new(Code::LinkLost, reason)),
                CallEvent::Unknown => {
                    return Err(Failure::new(Code::LinkLost, "the node no longer knows the call; its outcome is unknown"));
                }
            }
        }
        Err(Failure::new(Code::LinkLost, "the channel ended"))
    }
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        if !self.ended && lock(&self.channel.0.calls).remove(&self.stream.id).is_some() {
            let _ = self.cancel();
        }
        // Output that nobody takes any more must not keep the channel's window.
        while let Ok(Happened { cost, pipe, .. }) = self.stream.events.try_recv() {
            if pipe.consumed(cost) {
                let _ = pipe.credit(self.stream.id, 0);
            }
        }
    }
}

/// The sending half of a call. It stays on the channel it was made for; a call that is attached to gives a new one.
#[derive(Debug, Clone)]
pub struct CallSender {
    channel: Channel,
    id: CallId,
    input: Arc<Input>,
}

impl CallSender {
    /// Sends input; waits for the node's credit.
    pub async fn input(&self, bytes: &[u8]) -> Result<(), Failure> {
        for part in bytes.chunks(limits::DATA_CHUNK) {
            let seq = self.room_for(part).await?;
            self.channel.0.pipe.send_data(self.id, Lane::Stdin, seq, part).await.map_err(lost)?;
        }
        Ok(())
    }

    async fn room_for(&self, part: &[u8]) -> Result<u64, Failure> {
        let input = &self.input;
        loop {
            let changed = input.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !lock(&self.channel.0.calls).contains_key(&self.id) {
                return Err(Failure::new(Code::LinkLost, "the call takes no more input"));
            }
            if let Some(reason) = self.channel.ended() {
                return Err(Failure::new(Code::LinkLost, reason));
            }
            {
                let mut window = lock(&input.window);
                let cost = call_cost(part);
                if window.has_room(cost) {
                    return Ok(window.take(cost));
                }
            }
            changed.await;
        }
    }

    /// Whether the node has consumed all input that was sent: only then nothing of it can be lost with a link.
    #[must_use]
    pub fn settled(&self) -> bool {
        lock(&self.input.window).is_settled()
    }

    /// The input is at its end.
    pub fn input_end(&self) -> Result<(), Failure> {
        self.channel.0.pipe.send(&Inner::InputEnd { call: self.id }).map_err(lost)
    }

    /// Asks the node to stop it; the ending still comes.
    pub fn cancel(&self) -> Result<(), Failure> {
        self.channel.0.pipe.send(&Inner::Cancel { call: self.id }).map_err(lost)
    }
}
