//! The operator's end of a channel: opens it to a node's prekey, sends calls, hands out their output as it comes.
//! A call is never sent twice; after a lost link it is attached to by its id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::channel::{Binding, Initiator, first_payload_ceiling};
use outhaul_protocol::credit::{CallWindow, ReceiveWindow};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::evidence::Tally;
use outhaul_protocol::frame::ChannelId;
use outhaul_protocol::inner::{CallId, Ending, Inner, Lane, OpenPayload, OpenedPayload, QuickCall, Serials, cost};
use outhaul_protocol::keys::{Digest, KeyId, PublicKey, SecretKey, X25519Secret, random, salted, sha256};
use outhaul_protocol::limits;
use outhaul_protocol::objects::{Call, Evidence, Opening, Prekey, Receipt};
use outhaul_protocol::signed::{Signed, Verified};
use outhaul_protocol::time::Time;
use outhaul_protocol::value::Value;
use tokio::sync::{Notify, mpsc};

use crate::outbox::Outbox;
use crate::pipe::{Pipe, Received};

/// The newest version of the messages inside a channel.
pub const CHANNEL_VERSION: u16 = 1;

/// The node a channel goes to: everything here was verified under the fleet key before.
#[derive(Debug, Clone)]
pub struct NodeTarget {
    /// the fleet key's id
    pub fleet: KeyId,
    /// the node's key
    pub key: PublicKey,
    /// its current prekey, signed by that key
    pub prekey: Verified<Prekey>,
}

/// The operator that opens.
#[derive(Debug, Clone)]
pub struct Caller {
    /// its key
    pub key: Arc<SecretKey>,
    /// its grants, the fleet key's first
    pub chain: Vec<Blob>,
    /// the newest serials it knows
    pub serials: Serials,
}

/// One command to run.
#[derive(Debug, Clone)]
pub struct CallSpec {
    /// `<interface>.<function>`
    pub command: String,
    /// parameters by name
    pub params: Value,
    /// how long it may run
    pub deadline: Option<Duration>,
    /// the pack it was typed against
    pub pack: Option<Digest>,
    /// how long it may wait for its start
    pub start_within: Duration,
    /// evidence `channel`: not signed, where the grants allow it
    pub quick: bool,
    /// input follows
    pub input: bool,
}

impl CallSpec {
    /// A signed call without deadline.
    pub fn new(command: impl Into<String>, params: Value) -> Self {
        let start_within = Duration::from_secs(limits::START_WITHIN_SECS);
        CallSpec { command: command.into(), params, deadline: None, pack: None, start_within, quick: false, input: false }
    }
}

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

/// How a call ended, with the node's word for it.
#[derive(Debug)]
pub struct Outcome {
    /// the result, or why not
    pub result: Result<Value, Failure>,
    /// verified against the node's key and this call
    pub receipt: Verified<Receipt>,
}

/// A channel being opened; the link's reader holds it until the node answers.
#[derive(Debug)]
pub(crate) struct Opening1 {
    initiator: Initiator,
    shared: ChannelSeed,
    pub(crate) answered: tokio::sync::oneshot::Sender<Result<Channel, Failure>>,
}

#[derive(Debug)]
struct ChannelSeed {
    caller: Caller,
    target: NodeTarget,
    opening: Digest,
    opened_at: Instant,
    first: Option<(CallId, Slot)>,
}

/// An open channel.
#[derive(Debug, Clone)]
pub struct Channel(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pipe: Arc<Pipe>,
    caller: Caller,
    target: NodeTarget,
    opening: Digest,
    opened_at: Instant,
    node: OpenedPayload,
    calls: Mutex<HashMap<CallId, Slot>>,
    notices: Mutex<Vec<Inner>>,
}

/// What the reader keeps of a call.
#[derive(Debug)]
struct Slot {
    events: mpsc::UnboundedSender<Happened>,
    receive: ReceiveWindow,
    input: Arc<Input>,
    next: u64,
    expected: Expected,
    tally: Tally,
}

/// An event with what taking it gives back, and to which channel.
#[derive(Debug)]
struct Happened {
    event: CallEvent,
    cost: u64,
    pipe: Arc<Pipe>,
}

/// What the receipt must say.
#[derive(Debug, Clone)]
struct Expected {
    payload: Digest,
    command: String,
    salt: [u8; 16],
    params: Digest,
    evidence: Evidence,
}

#[derive(Debug)]
struct Input {
    window: Mutex<CallWindow>,
    changed: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first message's frame, what waits for the answer, and the first call's handle.
pub(crate) struct Opening0 {
    pub(crate) channel: ChannelId,
    pub(crate) noise: Vec<u8>,
    pub(crate) waiting: Opening1,
    pub(crate) first: Option<CallStream>,
}

/// Seals the first message. A first call that does not fit is left to be sent after the answer.
pub(crate) fn open(
    caller: &Caller,
    target: &NodeTarget,
    first: Option<&CallSpec>,
    now: Time,
    answered: tokio::sync::oneshot::Sender<Result<Channel, Failure>>,
) -> Result<Opening0, Failure> {
    let prekey = &target.prekey;
    let version = CHANNEL_VERSION.min(prekey.max_version);
    if version < prekey.min_version {
        let text = format!("the node speaks channel versions {}–{}, this side 1–{CHANNEL_VERSION}", prekey.min_version, prekey.max_version);
        return Err(Failure::new(Code::Version, text).hint("update the older side"));
    }
    let (channel, own) = (random(), X25519Secret::generate());
    let node = target.key.id();
    let prekey_digest = prekey.digest();
    let opening = Opening { iss: caller.key.id(), aud: node, iat: now, prekey: prekey_digest, channel, key: own.public() };
    let opening = Signed::sign(&caller.key, &opening);
    let opened_at = Instant::now();
    let mut seed = ChannelSeed { caller: caller.clone(), target: target.clone(), opening: opening.digest(), opened_at, first: None };
    let mut payload = OpenPayload { opening: Blob(opening.into_bytes()), chain: caller.chain.clone(), serials: caller.serials, call: None };
    let mut stream = None;
    if let Some(spec) = first {
        let (id, slot, handle, signed) = seed.prepare(spec, now)?;
        payload.call = Some(Blob(signed));
        if payload.encode().len() <= first_payload_ceiling() {
            seed.first = Some((id, slot));
            stream = Some(handle);
        } else {
            payload.call = None;
        }
    }
    let binding = Binding { version, fleet: target.fleet, node, prekey: prekey_digest, channel };
    let broken = |error: outhaul_protocol::channel::ChannelError| Failure::new(Code::Internal, format!("open channel: {error}"));
    let (initiator, noise) = Initiator::open(&binding, &own, &prekey.key, &payload.encode()).map_err(broken)?;
    Ok(Opening0 { channel, noise, waiting: Opening1 { initiator, shared: seed, answered }, first: stream })
}

impl Opening1 {
    /// The node's answer.
    pub(crate) fn answered(self, noise: &[u8], outbox: Outbox) -> Option<Channel> {
        let outcome = Self::finish(self.initiator, self.shared, noise, outbox);
        let channel = outcome.as_ref().ok().cloned();
        let _ = self.answered.send(outcome);
        channel
    }

    fn finish(initiator: Initiator, seed: ChannelSeed, noise: &[u8], outbox: Outbox) -> Result<Channel, Failure> {
        let bad = |error: &dyn std::fmt::Display| Failure::new(Code::BadSignature, format!("the node's answer does not verify: {error}"));
        let (session, payload) = initiator.answered(noise).map_err(|error| bad(&error))?;
        let node = OpenedPayload::decode(&payload).map_err(|error| bad(&error))?;
        let calls = Mutex::new(seed.first.into_iter().collect());
        let (caller, target, opening, opened_at) = (seed.caller, seed.target, seed.opening, seed.opened_at);
        let shared =
            Shared { pipe: Pipe::new(session, outbox), caller, target, opening, opened_at, node, calls, notices: Mutex::default() };
        Ok(Channel(Arc::new(shared)))
    }

    /// The relay or the node closed it before it opened.
    pub(crate) fn failed(self, failure: Failure) {
        let _ = self.answered.send(Err(failure));
    }
}

impl ChannelSeed {
    fn prepare(&self, spec: &CallSpec, now: Time) -> Result<(CallId, Slot, CallStream, Vec<u8>), Failure> {
        signed_call(&self.caller, &self.target, self.opening, self.opened_at, spec, now)
    }
}

fn params_of(spec: &CallSpec) -> Result<Vec<u8>, Failure> {
    let params = spec.params.to_cbor();
    if params.len() > limits::VALUE {
        let text = format!("parameters are {} bytes, at most {} are allowed", params.len(), limits::VALUE);
        return Err(Failure::new(Code::TooLarge, text).hint("send large data as the call's input"));
    }
    Ok(params)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn signed_call(
    caller: &Caller,
    target: &NodeTarget,
    opening: Digest,
    opened_at: Instant,
    spec: &CallSpec,
    now: Time,
) -> Result<(CallId, Slot, CallStream, Vec<u8>), Failure> {
    let (id, salt, params) = (random(), random(), params_of(spec)?);
    let digest = salted(&salt, &params);
    let call = Call {
        iss: caller.key.id(),
        aud: target.key.id(),
        exp: None,
        iat: now,
        id,
        opening: Some(opening),
        seq: None,
        command: spec.command.clone(),
        params: Blob(params),
        salt,
        at: millis(opened_at.elapsed()),
        start_within_ms: millis(spec.start_within),
        deadline_ms: spec.deadline.map(millis),
        pack: spec.pack,
        input: spec.input.then_some(true),
    };
    let signed = Signed::sign(&caller.key, &call);
    let expected = Expected { payload: signed.payload_digest(), command: call.command, salt, params: digest, evidence: Evidence::Signed };
    let (slot, stream) = slot(id, expected);
    Ok((id, slot, stream, signed.into_bytes()))
}

fn slot(id: CallId, expected: Expected) -> (Slot, CallStream) {
    // Unbounded in form only: what is in it is bounded by the call's window, which the node may not overrun.
    let (events, receiver) = mpsc::unbounded_channel();
    let input = Arc::new(Input { window: Mutex::new(CallWindow::new(limits::CALL_WINDOW)), changed: Notify::new() });
    let slot =
        Slot { events, receive: ReceiveWindow::new(limits::CALL_WINDOW), input: input.clone(), next: 0, expected, tally: Tally::default() };
    (slot, CallStream { id, events: receiver, input, taken: 0 })
}

impl Channel {
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
    pub fn notify(&self, kind: &str, signed: Blob, chain: Vec<Blob>) -> Result<(), Failure> {
        self.0.pipe.send(&Inner::Notice { kind: kind.into(), signed, chain }).map_err(lost)
    }

    /// Why it is over, if it is.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        self.0.pipe.ended()
    }

    /// A handle on the call that came with the opening.
    pub(crate) fn adopt(&self, stream: CallStream) -> CallHandle {
        CallHandle { channel: self.clone(), stream, ended: false }
    }

    /// Sends a call.
    pub async fn call(&self, spec: &CallSpec, now: Time) -> Result<CallHandle, Failure> {
        let shared = &self.0;
        let (id, slot, stream, message) = if spec.quick {
            self.quick(spec)?
        } else {
            let (id, slot, stream, signed) = signed_call(&shared.caller, &shared.target, shared.opening, shared.opened_at, spec, now)?;
            (id, slot, stream, Inner::Call { signed: Blob(signed) }.encode())
        };
        lock(&shared.calls).insert(id, slot);
        let handle = CallHandle { channel: self.clone(), stream, ended: false };
        shared.pipe.send_bulk(&[&message]).await.map_err(lost)?;
        Ok(handle)
    }

    fn quick(&self, spec: &CallSpec) -> Result<(CallId, Slot, CallStream, Vec<u8>), Failure> {
        let (id, params) = (random(), params_of(spec)?);
        let digest = salted(&id, &params);
        let call = QuickCall {
            id,
            command: spec.command.clone(),
            params: Blob(params),
            at: millis(self.0.opened_at.elapsed()),
            start_within_ms: millis(spec.start_within),
            deadline_ms: spec.deadline.map(millis),
            pack: spec.pack,
            input: spec.input.then_some(true),
        };
        let payload = sha256(&call.encode());
        let expected = Expected { payload, command: call.command.clone(), salt: id, params: digest, evidence: Evidence::Channel };
        let (slot, stream) = slot(id, expected);
        Ok((id, slot, stream, Inner::Quick { call }.encode()))
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
        slot.receive.receive(cost).map_err(|overrun| overrun.to_string())?;
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
            }
            Inner::Credit { call, consumed, channel_total } => {
                self.0.pipe.acknowledged(channel_total).map_err(|ended| ended.0)?;
                if let Some(slot) = lock(&self.0.calls).get(&call) {
                    lock(&slot.input.window).acknowledge(consumed).map_err(|overrun| overrun.to_string())?;
                    slot.input.changed.notify_waiters();
                }
            }
            Inner::End { call, ending } => {
                let slot = lock(&self.0.calls).remove(&call);
                if let Some(mut slot) = slot {
                    slot.input.changed.notify_waiters();
                    let event = self.ending(call, ending, &slot.expected, std::mem::take(&mut slot.tally))?;
                    self.tell(&slot, event, 0);
                }
                return self.give_back(call, 0, cost);
            }
            Inner::Unknown { call } => {
                if let Some(slot) = lock(&self.0.calls).remove(&call) {
                    self.tell(&slot, CallEvent::Unknown, 0);
                }
            }
            notice @ Inner::Notice { .. } => lock(&self.0.notices).push(notice),
            _ => return Err("a message that only operators send".into()),
        }
        Ok(())
    }

    /// Checks an ending against the call and its receipt. A wrong receipt ends the channel: the node, or somebody who
    /// has its prekey, is lying.
    fn ending(&self, id: CallId, ending: Ending, expected: &Expected, tally: Tally) -> Result<CallEvent, String> {
        let receipt = Signed::<Receipt>::from_bytes(&ending.receipt.0)
            .and_then(|signed| signed.verify(&self.0.target.key))
            .map_err(|error| format!("the receipt does not verify: {error}"))?;
        let outcome = ending.failure.as_ref().map_or("done", |failure| failure.code.as_str());
        let value = ending.value.as_ref().map_or(&[][..], |value| &value.0);
        let lanes = tally.lanes();
        let fits = receipt.call == id
            && receipt.payload == expected.payload
            && receipt.signer == self.0.caller.key.id()
            && receipt.evidence == expected.evidence
            && receipt.command == expected.command
            && receipt.params == expected.params
            && receipt.outcome == outcome
            && receipt.lanes == lanes
            && receipt.output == Some(tally.digest(&expected.salt, value));
        if !fits {
            return Err("the receipt is for another call or output".into());
        }
        let malformed = |error: &dyn std::fmt::Display| format!("the ending is malformed: {error}");
        let result = match ending.failure {
            Some(failure) => Err(failure.read().map_err(|error| malformed(&error))?),
            None => Ok(if value.is_empty() { Value::Null } else { Value::from_cbor(value).map_err(|error| malformed(&error))? }),
        };
        Ok(CallEvent::Ended(Box::new(Outcome { result, receipt })))
    }

    fn give_back(&self, call: CallId, next: u64, cost: u64) -> Result<(), String> {
        if self.0.pipe.consumed(cost).is_some() {
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

fn lost(ended: crate::pipe::PipeEnded) -> Failure {
    Failure::new(Code::LinkLost, ended.to_string())
}

/// The receiving half of a call, before it is tied to its channel.
#[derive(Debug)]
pub(crate) struct CallStream {
    id: CallId,
    events: mpsc::UnboundedReceiver<Happened>,
    input: Arc<Input>,
    taken: u64,
}

/// A call under way. Dropping it cancels the call.
#[derive(Debug)]
pub struct CallHandle {
    channel: Channel,
    stream: CallStream,
    ended: bool,
}

impl CallHandle {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> CallId {
        self.stream.id
    }

    /// What happens next; nothing after the ending. Taking output gives its credit back.
    pub async fn next(&mut self) -> Option<CallEvent> {
        let Happened { event, cost, pipe } = self.stream.events.recv().await?;
        match &event {
            CallEvent::Data { .. } => self.took(cost, &pipe),
            CallEvent::Ended(_) | CallEvent::Unknown => self.ended = true,
            CallEvent::Accepted | CallEvent::Lost(_) => {}
        }
        Some(event)
    }

    /// Gives credit back to the channel that the bytes came through, and to the call while it is the same.
    fn took(&mut self, cost: u64, pipe: &Arc<Pipe>) {
        self.stream.taken += 1;
        let (id, current) = (self.stream.id, Arc::ptr_eq(pipe, &self.channel.0.pipe));
        let call_due = current && {
            let mut calls = lock(&self.channel.0.calls);
            calls.get_mut(&id).is_some_and(|slot| slot.receive.consume(cost).is_some())
        };
        let channel_due = pipe.consumed(cost).is_some();
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
                let cost = cost(part.len());
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

impl Drop for CallHandle {
    fn drop(&mut self) {
        if !self.ended && lock(&self.channel.0.calls).remove(&self.stream.id).is_some() {
            let _ = self.cancel();
        }
    }
}
