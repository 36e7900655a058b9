//! An operator's link to a relay: requests, pairing messages and channels over one socket. One task moves the bytes;
//! everything here is a handle on it, and dropping the last handle closes the link.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use outhaul_protocol::cbor::{Blob, Maybe};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Answer, Ask, ChannelFrame, ChannelId, Frame, NodeRecord};
use outhaul_protocol::keys::{Digest, PublicKey, SecretKey, random, sha256};
use outhaul_protocol::limits;
use outhaul_protocol::objects::Control;
use outhaul_protocol::signed::Signed;
use outhaul_protocol::time::Time;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::budget::Budget;
use crate::channel::{self, CallHandle, CallSpec, Caller, Channel, HalfOpen, NodeTarget};
use crate::dial::Connected;
use crate::outbox::{Outbox, Refused};
use crate::socket::pump;

/// How long the relay may take to answer a request.
const REPLY: Duration = Duration::from_secs(15);
/// Pairing frames that may wait for their reader.
const PAIRING_FRAMES: usize = 64;
/// What answers are counted in, of [`limits::ANSWERS`].
const ANSWER_UNIT: usize = 64 << 10;

/// The link.
#[derive(Debug, Clone)]
pub struct Operator(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    outbox: Outbox,
    budget: Budget,
    /// room for answers, in units
    answers: Semaphore,
    relay: PublicKey,
    transcript: Digest,
    key: Arc<SecretKey>,
    state: Mutex<State>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    replies: HashMap<u64, oneshot::Sender<Result<Answer, Failure>>>,
    channels: HashMap<ChannelId, Slot>,
    pairing: Option<mpsc::Sender<Frame>>,
    requests: u64,
    ended: Option<String>,
}

#[derive(Debug)]
enum Slot {
    Opening(Box<HalfOpen>),
    Open(Channel),
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Operator {
    /// Takes over a link that is up. `key` is the one it was dialed with.
    #[must_use]
    pub fn start(connected: Connected, key: Arc<SecretKey>) -> (Operator, Vec<NodeRecord>) {
        let outbox = Outbox::new(limits::SOCKET_QUEUE / 4);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            outbox: outbox.clone(),
            budget: Budget::new(connected.window),
            answers: Semaphore::new(limits::ANSWERS / ANSWER_UNIT),
            relay: connected.relay,
            transcript: connected.transcript,
            key,
            state: Mutex::default(),
            stop: stop.clone(),
        });
        let reader = Arc::downgrade(&shared);
        let heartbeat = connected.heartbeat;
        tokio::spawn(async move {
            let heard = Arc::new(tokio::sync::Notify::new());
            let handler = {
                let (reader, heard) = (reader.clone(), heard.clone());
                move |frame: Bytes| {
                    heard.notify_one();
                    reader.upgrade().map_or(Ok(()), |shared| Operator(shared).receive(&frame))
                }
            };
            let silence = watch(heartbeat, heard, outbox.clone());
            let until = async {
                tokio::select! {
                    () = stop.cancelled() => "closed".to_owned(),
                    () = silence => "the relay fell silent".to_owned(),
                }
            };
            let ended = pump(connected.socket, &outbox, handler, until).await;
            if let Some(shared) = reader.upgrade() {
                Operator(shared).ended(&ended.to_string());
            }
        });
        (Operator(shared), connected.found.unwrap_or_default())
    }

    /// The relay's key.
    #[must_use]
    pub fn relay(&self) -> &PublicKey {
        &self.0.relay
    }

    /// Asks the relay; what changes something is signed over this link. Large answers are asked for in turn: together
    /// they must not fill the relay's queue for this link.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, Failure> {
        let _room = self.0.answers.acquire_many(units(&ask)).await.map_err(|_| unreachable("the link ended"))?;
        let body = ask.encode();
        let (sender, answer) = oneshot::channel();
        {
            // Numbered and queued under one lock: the relay wants rising counters.
            let mut state = self.0.state();
            if let Some(reason) = &state.ended {
                return Err(unreachable(reason));
            }
            state.requests += 1;
            let id = state.requests;
            let control = ask.changes().then(|| {
                let control = Control { iss: self.0.key.id(), transcript: self.0.transcript, counter: id, body: sha256(&body) };
                Blob(Signed::sign(&self.0.key, &control).into_bytes())
            });
            let frame = Frame::Request { id, body: Blob(body), control: Maybe(control) };
            self.0.outbox.push(frame.encode(), None).map_err(|why| unreachable(&why.to_string()))?;
            state.replies.insert(id, sender);
        }
        match tokio::time::timeout(REPLY, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unreachable("the link ended")),
            Err(_) => Err(Failure::new(Code::RelayUnreachable, format!("the relay did not answer within {} s", REPLY.as_secs()))),
        }
    }

    /// Waits until what was queued is on its way: for senders of large things.
    pub async fn ready(&self) {
        self.0.outbox.ready().await;
    }

    /// Sends a pairing frame.
    pub fn send(&self, frame: &Frame) -> Result<(), Failure> {
        self.0.outbox.control(frame.encode()).map_err(|why: Refused| unreachable(&why.to_string()))
    }

    /// Pairing frames from here on; a later call replaces the receiver.
    #[must_use]
    pub fn pairing_frames(&self) -> mpsc::Receiver<Frame> {
        let (sender, receiver) = mpsc::channel(PAIRING_FRAMES);
        self.0.state().pairing = Some(sender);
        receiver
    }

    /// Opens a channel to a node, with a first call in its first message where it fits.
    pub async fn open(
        &self,
        caller: &Caller,
        target: &NodeTarget,
        first: Option<&CallSpec>,
        now: Time,
    ) -> Result<(Channel, Option<CallHandle>), Failure> {
        let (sender, answered) = oneshot::channel();
        let limit = Duration::from_secs(limits::CHANNEL_OPEN_SECS);
        let id: ChannelId = random();
        let window = tokio::time::timeout(limit, self.0.budget.join_in_turn(id)).await.map_err(|_| {
            Failure::new(Code::Busy, "this link has as many channels as its window has room for").hint("close one that is not needed")
        })?;
        let opening = channel::open(caller, target, (id, window), first, now, sender).inspect_err(|_| self.0.budget.leave(&id))?;
        let frame = ChannelFrame::Open { channel: id, node: target.key.id(), noise: &opening.noise }.encode();
        {
            let mut state = self.0.state();
            if let Some(reason) = &state.ended {
                return Err(unreachable(reason));
            }
            state.channels.insert(id, Slot::Opening(Box::new(opening.waiting)));
        }
        self.0.outbox.push(frame, None).map_err(|why| unreachable(&why.to_string()))?;
        let channel = match tokio::time::timeout(limit, answered).await {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_)) => return Err(Failure::new(Code::LinkLost, "the link ended while the channel opened")),
            Err(_) => {
                self.close(id);
                return Err(Failure::new(Code::NodeOffline, format!("the node did not answer within {} s", limit.as_secs()))
                    .hint("it may just have lost its link; try again"));
            }
        };
        let handle = match (opening.first, first) {
            (Some(stream), _) => Some(channel.adopt(stream)),
            (None, Some(spec)) => Some(channel.call(spec, now).await?),
            (None, None) => None,
        };
        Ok((channel, handle))
    }

    /// Closes a channel.
    pub fn close(&self, channel: ChannelId) {
        if self.0.state().channels.remove(&channel).is_some() {
            self.send_close(channel);
        }
    }

    /// Its part of the budget is free when the relay has said that nothing more of it comes.
    fn send_close(&self, channel: ChannelId) {
        let _ = self.0.outbox.push(ChannelFrame::Close { channel, code: "done" }.encode(), None);
    }

    /// Why the link is over, if it is.
    #[must_use]
    pub fn over(&self) -> Option<String> {
        self.0.state().ended.clone()
    }

    /// Closes the link once everything queued is written.
    pub fn shutdown(&self) {
        self.0.stop.cancel();
    }

    fn receive(&self, bytes: &[u8]) -> Result<(), String> {
        if let Some(frame) = ChannelFrame::peek(bytes) {
            let frame = frame.map_err(|error| format!("malformed channel frame: {error}"))?;
            self.channel_frame(frame);
            return Ok(());
        }
        match Frame::decode(bytes).map_err(|error| format!("malformed frame: {error}"))? {
            Frame::Reply { id, body, error } => self.reply(id, body.0, error.0),
            Frame::Ping { token } => {
                let _ = self.0.outbox.control(Frame::Pong { token }.encode());
            }
            Frame::Pong { .. } => {}
            Frame::Goodbye { message, .. } => return Err(format!("the relay closes: {message}")),
            frame @ (Frame::PairOffer { .. } | Frame::PairMessage { .. } | Frame::PairEnd { .. }) => {
                // A reader that is gone or sixty-four frames behind is not pairing any more.
                if let Some(pairing) = &self.0.state().pairing {
                    let _ = pairing.try_send(frame);
                }
            }
            _ => return Err("a frame that only peers send".into()),
        }
        Ok(())
    }

    fn reply(&self, id: u64, body: Option<Blob>, error: Option<outhaul_protocol::frame::Trouble>) {
        let Some(sender) = self.0.state().replies.remove(&id) else { return };
        let answer = match (body, error) {
            (_, Some(trouble)) => Err(trouble.into()),
            (Some(body), None) => Answer::decode(&body.0)
                .map_err(|error| Failure::new(Code::RelayRefused, format!("the relay's answer is malformed: {error}"))),
            (None, None) => Err(Failure::new(Code::RelayRefused, "the relay's answer is empty")),
        };
        let _ = sender.send(answer);
    }

    fn channel_frame(&self, frame: ChannelFrame<'_>) {
        match frame {
            ChannelFrame::Data { channel, noise } => {
                let mut state = self.0.state();
                match state.channels.remove(&channel) {
                    Some(Slot::Opening(opening)) => match opening.answered(noise, self.0.outbox.clone(), self.0.budget.clone()) {
                        Some(open) => drop(state.channels.insert(channel, Slot::Open(open))),
                        None => self.send_close(channel),
                    },
                    Some(Slot::Open(open)) => {
                        state.channels.insert(channel, Slot::Open(open.clone()));
                        drop(state);
                        if let Err(reason) = open.receive(noise) {
                            open.lost(&reason);
                            self.close(channel);
                        }
                    }
                    None => {}
                }
            }
            ChannelFrame::Close { channel, code } => {
                let slot = self.0.state().channels.remove(&channel);
                match slot {
                    Some(Slot::Opening(opening)) => opening.failed(closed(code)),
                    Some(Slot::Open(open)) => open.lost(&closed(code).message),
                    None => {}
                }
                self.0.budget.leave(&channel);
            }
            ChannelFrame::Open { .. } => {}
        }
    }

    fn ended(&self, reason: &str) {
        let mut state = self.0.state();
        state.ended = Some(reason.to_owned());
        state.replies.clear();
        state.pairing = None;
        self.0.answers.close();
        let channels: Vec<Slot> = state.channels.drain().map(|(_, slot)| slot).collect();
        drop(state);
        for slot in channels {
            match slot {
                Slot::Opening(opening) => opening.failed(unreachable(reason)),
                Slot::Open(channel) => channel.lost(reason),
            }
        }
    }
}

/// What a closing code of the relay or of the node means to a caller. It comes in the clear: advice, not proof.
fn closed(code: &str) -> Failure {
    let code = Code::parse(code).unwrap_or(Code::LinkLost);
    let message = match code {
        Code::NodeOffline => "the node is not connected",
        Code::UnknownNode => "the relay knows no such node",
        Code::NotGranted => "the node does not accept this operator's grants",
        Code::Revoked => "the node says that this operator is revoked",
        Code::Expired => "the node says that a grant or prekey is past its time",
        Code::Busy => "the node has too many channels open, or was asked to open too many within a second",
        Code::BadSignature | Code::BadKey | Code::WrongNode | Code::Replayed => "the node could not verify the channel's opening",
        Code::Version => "the node speaks another version",
        _ => "the channel was closed",
    };
    let failure = Failure::new(code, message);
    match code {
        Code::NodeOffline => failure.hint("is `agent run` running there? `relay nodes` shows when it was last seen"),
        Code::Busy => failure.hint("try again in a second"),
        Code::Expired => failure.hint("are the clocks of both machines right? `relay operator show` tells until when the grant stands"),
        _ => failure,
    }
}

/// Room that an answer may need.
fn units(ask: &Ask) -> u32 {
    match ask {
        Ask::Nodes { .. } | Ask::NodesAfter { .. } | Ask::DeploymentsAfter { .. } | Ask::PairList {} => {
            (limits::FRAME / ANSWER_UNIT) as u32
        }
        Ask::Description { .. } => (limits::DESCRIPTION / ANSWER_UNIT) as u32,
        _ => 1,
    }
}

fn unreachable(reason: &str) -> Failure {
    Failure::new(Code::RelayUnreachable, format!("the link to the relay is over: {reason}"))
}

/// Pings when nothing was heard for a heartbeat; resolves when the peer is silent for two.
pub async fn watch(heartbeat: Duration, heard: Arc<tokio::sync::Notify>, outbox: Outbox) {
    let mut missed = 0;
    loop {
        match tokio::time::timeout(heartbeat, heard.notified()).await {
            Ok(()) => missed = 0,
            Err(_) if missed >= limits::HEARTBEATS_MISSED => return,
            Err(_) => {
                missed += 1;
                let _ = outbox.control(Frame::Ping { token: u64::from(missed) }.encode());
            }
        }
    }
}
