//! The node's end of channels: judges openings, then turns opened messages into calls, input, credit and cancels.
//!
//! An opening is judged in this order: it opens under a prekey of ours → its chain stands under the pinned fleet key →
//! the chain's holder signed it → it is addressed to us, for this prekey and channel → the static key in it is the one
//! Noise proved → ephemeral and channel id are new. Only then does it count against anything, and only a peer whose
//! chain verified learns more than a bare code.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use outhaul_link::Windows;
use outhaul_link::pipe::{Pipe, Received};
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::{Authority, verify_chain};
use outhaul_protocol::channel::{Binding, Opened, Responder};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{ChannelFrame, ChannelId};
use outhaul_protocol::inner::{CallId, Inner, Lane, OpenPayload, OpenedPayload};
use outhaul_protocol::keys::{Digest, KeyId, PublicKey};
use outhaul_protocol::limits;
use outhaul_protocol::objects::{Call, Opening};
use outhaul_protocol::signed::Signed;

use crate::call::{self, Said};
use crate::calls::{CallKey, Running};
use crate::link::Link;
use crate::prekey::Seen;

/// One open channel.
#[derive(Debug)]
pub struct OpenChannel {
    /// seals, opens, counts
    pub pipe: Arc<Pipe>,
    /// who opened it
    pub operator: PublicKey,
    /// what its chain allows
    pub authority: Authority,
    /// digest of its signed opening: what calls are bound to
    pub opening: Digest,
    /// when we took it: the channel's clock
    pub opened: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: HashMap<CallId, Arc<Running>>,
    /// ids of signed calls that could still begin; older ones are refused as late
    seen: HashSet<CallId>,
    seen_until: VecDeque<(Instant, CallId)>,
}

/// A channel's place at the link.
#[derive(Debug)]
pub(crate) enum Slot {
    /// Its opening is being judged.
    Opening,
    /// It is open.
    Open(Arc<OpenChannel>),
}

impl OpenChannel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The operator's key id.
    #[must_use]
    pub fn operator_id(&self) -> KeyId {
        self.operator.id()
    }

    /// Whether no call is under way in it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state().calls.is_empty()
    }

    /// A call is over for this channel.
    pub fn forget(&self, id: &CallId) {
        self.state().calls.remove(id);
    }

    /// Takes a signed call's id for as long as it could begin; false when it was taken before.
    fn first_time(&self, id: CallId, until: Instant) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        while state.seen_until.front().is_some_and(|(until, _)| *until < now) {
            if let Some((_, id)) = state.seen_until.pop_front() {
                state.seen.remove(&id);
            }
        }
        state.seen_until.push_back((until, id));
        state.seen.insert(id) && !state.calls.contains_key(&id)
    }

    /// The channel is over: its calls go on for a while without a caller.
    pub fn lost(&self, reason: &str) {
        self.pipe.end(reason);
        for running in self.state().calls.drain().map(|(_, running)| running) {
            // Its input stays open: what stopped in the middle must not look like its end. A caller who comes back goes
            // on with it; one who does not has the call stopped when its time to come back is over.
            running.outlet.detach(&self.pipe);
        }
    }

    /// Cancels its calls: the authority they ran under is gone.
    pub fn revoke(&self, why: &Failure) {
        for running in self.state().calls.values() {
            running.stop(why.clone());
        }
    }
}

/// A frame of a channel, from the relay.
pub(crate) fn frame(link: &Arc<Link>, frame: ChannelFrame<'_>) {
    match frame {
        ChannelFrame::Open { channel, node, noise } => opening(link, channel, node, noise),
        ChannelFrame::Data { channel, noise } => match link.channel(&channel) {
            Some(open) => {
                if let Err(reason) = data(link, &open, noise) {
                    close(link, &open, Code::LinkLost, &reason);
                }
            }
            None => link.close_frame(&channel, Code::LinkLost),
        },
        ChannelFrame::Close { channel, .. } => {
            if let Some(open) = link.remove_channel(&channel) {
                open.lost("closed by the relay or the operator");
            }
            link.budget.leave(&channel);
        }
    }
}

pub(crate) fn close(link: &Link, open: &OpenChannel, code: Code, reason: &str) {
    tracing::info!(operator = %open.operator_id().short(), reason, "channel closed");
    link.remove_channel(&open.pipe.channel());
    link.close_frame(&open.pipe.channel(), code);
    open.lost(reason);
}

/// Closes a channel whose authority is gone.
pub(crate) fn close_revoked(link: &Link, open: &OpenChannel, why: &Failure) {
    open.revoke(why);
    close(link, open, why.code, &why.message);
}

fn opening(link: &Arc<Link>, channel: ChannelId, node: KeyId, noise: &[u8]) {
    match link.reserve(channel) {
        Some(true) => {}
        Some(false) => return link.close_frame(&channel, Code::Busy),
        None => return,
    }
    let (link, noise) = (link.clone(), noise.to_vec());
    // A quarter of a millisecond of curve arithmetic: off the reader's path.
    tokio::spawn(async move {
        if let Err(failure) = judge(&link, channel, node, &noise) {
            tracing::info!(channel = %hex::encode(&channel[..6]), code = %failure.code, reason = %failure.message, "opening refused");
            link.remove_slot(&channel);
            link.close_frame(&channel, failure.code);
        }
    });
}

fn judge(link: &Arc<Link>, channel: ChannelId, meant: KeyId, noise: &[u8]) -> Result<(), Failure> {
    let node = &link.node;
    if meant != node.id {
        return Err(Failure::new(Code::WrongNode, format!("the relay brought an opening for node {}", meant.short())));
    }
    let fleet = node.fleet_id();
    let (prekey, responder, opened) = open_noise(link, fleet, channel, noise)?;
    let payload = OpenPayload::decode(&opened.payload).map_err(|error| Failure::new(Code::BadSignature, format!("opening: {error}")))?;
    let reading = node.reading();
    let authority = {
        let membership = node.membership();
        verify_chain(membership.fleet(), &payload.chain, reading, membership.revoked())?
    };
    let operator = *authority.holder();
    let opening = Signed::<Opening>::from_bytes(&payload.opening.0).and_then(|signed| signed.verify(&operator))?;
    let ours = opening.aud == node.id && opening.prekey == prekey && opening.channel == channel;
    if !ours {
        return Err(Failure::new(Code::WrongNode, "the opening is for another node, prekey or channel"));
    }
    // snow accepts an all-zero exchange: this comparison with a key that cannot be of low order is what stands there.
    if opening.key.as_bytes() != &opened.remote {
        return Err(Failure::new(Code::BadKey, "the opening's key is not the one that was proven"));
    }
    if reading.sure && reading.now.apart(opening.iat) > limits::CLOCK_SKEW_SECS {
        return Err(Failure::new(Code::Expired, format!("the opening was signed {} s from now", reading.now.apart(opening.iat)))
            .hint("set the clocks of both machines"));
    }
    match node.prekeys.take(prekey, opened.ephemeral, channel) {
        Ok(worn) => {
            if worn {
                node.wake.notify_one();
            }
        }
        Err(Seen::Replayed) => return Err(Failure::new(Code::Replayed, "the opening was seen before")),
        Err(Seen::Expired) => return Err(Failure::new(Code::Expired, "the prekey is past its time")),
    }
    let busy = || Failure::new(Code::Busy, "this node or this operator has too many channels");
    let window = link.budget.join(channel).ok_or_else(busy)?;
    // Until the answer is on its way, nothing can come for what was granted.
    let unanswered = Unanswered { link, channel: Some(channel) };
    let (session, second) =
        responder.answer(&answer(link, window).encode()).map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    let windows = Windows { theirs: payload.window, ours: window };
    let pipe = Pipe::new(session, link.outbox.clone(), link.budget.clone(), windows);
    let opening = opening.digest();
    let open = Arc::new(OpenChannel { pipe, operator, authority, opening, opened: Instant::now(), state: Mutex::default() });
    if !link.admit_channel(channel, open.clone()) {
        return Err(busy());
    }
    unanswered.answered();
    tracing::debug!(operator = %open.operator_id().short(), "channel opened");
    // Known before the answer is on its way: whoever has that sends input at once, and it must find its call.
    let call = payload.call.as_ref().map(|call| signed_call(link, &open, &call.0, 0)).transpose();
    let call = call.map_err(|reason| Failure::new(Code::BadSignature, reason))?;
    let frame = ChannelFrame::Data { channel, noise: &second }.encode();
    link.outbox.push(frame, None).map_err(|why| Failure::new(Code::LinkLost, why.to_string()))?;
    catch_up(link, &open, &payload);
    if let Some(call) = call {
        tokio::spawn(call);
    }
    Ok(())
}

fn open_noise(link: &Link, fleet: KeyId, channel: ChannelId, noise: &[u8]) -> Result<(Digest, Responder, Opened), Failure> {
    for (prekey, secret) in link.node.prekeys.candidates() {
        let binding = Binding { version: outhaul_link::channel::CHANNEL_VERSION, fleet, node: link.node.id, prekey, channel };
        if let Ok((responder, opened)) = Responder::open(&binding, &secret, noise) {
            return Ok((prekey, responder, opened));
        }
    }
    Err(Failure::new(Code::Expired, "the first message opens under no prekey of this node"))
}

/// Leaves the budget again, unless the answer goes out.
struct Unanswered<'a> {
    link: &'a Link,
    channel: Option<ChannelId>,
}

impl Unanswered<'_> {
    fn answered(mut self) {
        self.channel = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(channel) = &self.channel {
            self.link.budget.leave(channel);
        }
    }
}

fn answer(link: &Link, window: u64) -> OpenedPayload {
    let node = &link.node;
    let reading = node.reading();
    let membership = node.membership();
    OpenedPayload {
        boot: node.boot,
        clock: reading.now.0,
        sure: reading.sure,
        certificate: membership.certificate_serial(),
        announce: link.announced(),
        serials: membership.serials(),
        window,
    }
}

/// Sends the operator the fleet-signed objects it is behind on; it does the same for us.
fn catch_up(link: &Link, open: &OpenChannel, payload: &OpenPayload) {
    let membership = link.node.membership();
    let mine = membership.serials();
    let mut notices = Vec::new();
    if payload.serials.relays < mine.relays {
        notices.push(("relays", membership.relays_bytes(), Vec::new()));
    }
    if payload.serials.revocations < mine.revocations
        && let Some((list, chain)) = membership.revocations_bytes()
    {
        notices.push(("revocations", list, chain));
    }
    drop(membership);
    if notices.is_empty() {
        return;
    }
    let pipe = open.pipe.clone();
    tokio::spawn(async move {
        for (kind, signed, chain) in notices {
            let notice = Inner::Notice { kind: kind.into(), signed: Blob(signed), chain };
            let _ = pipe.send_bulk(&[&notice.encode()]).await;
        }
    });
}

fn data(link: &Arc<Link>, open: &Arc<OpenChannel>, noise: &[u8]) -> Result<(), String> {
    let received = open.pipe.receive(noise).map_err(|ended| ended.0)?;
    match received {
        None => Ok(()),
        Some(Received::Data { call, lane: Lane::Stdin, seq, bytes, cost }) => {
            let running = open.state().calls.get(&call).cloned();
            match running {
                Some(running) => running.inlet.put(seq, bytes, cost, open.pipe.clone()).map_err(str::to_owned),
                // The call ended while its input was on the way.
                None => give_back(open, call, cost),
            }
        }
        Some(Received::Data { .. }) => Err("a lane that only nodes send".into()),
        Some(Received::Message(message, cost)) => steer(link, open, message, cost),
    }
}

fn give_back(open: &OpenChannel, call: CallId, cost: u64) -> Result<(), String> {
    if open.pipe.consumed(cost) {
        open.pipe.credit(call, 0).map_err(|ended| ended.0)?;
    }
    Ok(())
}

fn steer(link: &Arc<Link>, open: &Arc<OpenChannel>, message: Inner, cost: u64) -> Result<(), String> {
    match message {
        Inner::Call { signed } => signed_call(link, open, &signed.0, cost).map(|call| drop(tokio::spawn(call))),
        Inner::Quick { call } => {
            let said = Said::quick(call);
            begin(link, open, said, cost).map(|call| drop(tokio::spawn(call)))
        }
        Inner::Credit { call, consumed, .. } => {
            // Zero says nothing about the call: it is the channel's credit.
            if consumed > 0
                && let Some(running) = link.node.calls.find(&CallKey { operator: open.operator_id(), id: call })
            {
                running.outlet.acknowledged(consumed).map_err(|overrun| overrun.to_string())?;
            }
            Ok(())
        }
        Inner::Cancel { call } => {
            if let Some(running) = open.state().calls.get(&call) {
                running.cancel.cancel();
            }
            Ok(())
        }
        Inner::InputEnd { call } => {
            if let Some(running) = open.state().calls.get(&call) {
                running.inlet.end();
            }
            Ok(())
        }
        Inner::Attach { call, from } => attach(link, open, call, from),
        Inner::Notice { kind, signed, chain } => {
            link.accept_notice(&kind, &signed.0, chain);
            give_back(open, [0; 16], cost)
        }
        Inner::Accepted { .. } | Inner::End { .. } | Inner::Unknown { .. } => Err("a message that only nodes send".into()),
        Inner::Want { .. } | Inner::Recall { .. } | Inner::GiveBack { .. } => Ok(()),
    }
}

fn signed_call(
    link: &Arc<Link>,
    open: &Arc<OpenChannel>,
    bytes: &[u8],
    cost: u64,
) -> Result<impl Future<Output = ()> + Send + use<>, String> {
    let signed = Signed::<Call>::from_bytes(bytes).map_err(|error| error.to_string())?;
    let said = Said::signed(signed);
    let late = Duration::from_millis(said.at.saturating_add(said.start_within_ms.min(limits::START_WITHIN_MAX_SECS * 1000)));
    let until = open.opened.checked_add(late).unwrap_or_else(Instant::now);
    if !open.first_time(said.id, until) {
        // Only its own operator can do this: everybody else's copy does not open.
        return Err(format!("{}: call id was used before", Code::Replayed));
    }
    begin(link, open, said, cost)
}

/// Registers a call before it is judged, so that its input, cancel and credit find it; gives the task that judges and runs it.
fn begin(link: &Arc<Link>, open: &Arc<OpenChannel>, said: Said, cost: u64) -> Result<impl Future<Output = ()> + Send + use<>, String> {
    let running = call::register(open, &said);
    if open.state().calls.insert(said.id, running.clone()).is_some() {
        return Err(format!("{}: call id is in use", Code::Replayed));
    }
    let (link, open) = (link.clone(), open.clone());
    Ok(async move {
        let id = said.id;
        if cost > 0 {
            let _ = give_back(&open, id, cost);
        }
        call::serve(&link, &open, running, said).await;
        open.forget(&id);
    })
}

fn attach(link: &Arc<Link>, open: &Arc<OpenChannel>, call: CallId, from: u64) -> Result<(), String> {
    let key = CallKey { operator: open.operator_id(), id: call };
    let Some(running) = link.node.calls.find(&key) else {
        return open.pipe.send(&Inner::Unknown { call }).map_err(|ended| ended.0);
    };
    running.outlet.attach(open.pipe.clone(), from).map_err(|_| "attached where nothing is kept any more".to_owned())?;
    open.state().calls.insert(call, running.clone());
    let open = open.clone();
    tokio::spawn(async move {
        let _ = open.pipe.send_bulk(&[&Inner::Accepted { call }.encode()]).await;
        if running.outlet.ended() {
            running.outlet.send().await;
            open.forget(&call);
        }
    });
    Ok(())
}
