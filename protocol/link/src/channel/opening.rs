//! A channel's opening: what the operator seals into the first message, and what becomes of the node's answer.

use std::sync::Arc;
use std::time::Instant;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::channel::{Binding, ChannelError, Initiator, Session, first_payload_ceiling};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::ChannelId;
use outhaul_protocol::inner::{CallId, OpenPayload, OpenedPayload, Serials};
use outhaul_protocol::keys::{Digest, KeyId, PublicKey, SecretKey, X25519Secret};
use outhaul_protocol::objects::{Opening, Prekey};
use outhaul_protocol::signed::{Signed, Verified};
use outhaul_protocol::time::Time;
use tokio::sync::oneshot;

use super::Channel;
use super::asked::CallSpec;
use super::call::{CallStream, Slot};
use crate::budget::Budget;
use crate::flow::Windows;
use crate::outbox::Outbox;
use crate::pipe::Pipe;

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

/// The two ends of a channel, and what binds calls to it.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) caller: Caller,
    pub(super) target: NodeTarget,
    /// digest of the signed opening
    pub(super) opening: Digest,
    /// the channel's clock
    pub(super) opened_at: Instant,
}

/// A channel whose first message is sealed; the link's reader holds it until the node answers.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    initiator: Initiator,
    ends: Ends,
    /// granted to the node
    window: u64,
    first: Option<(CallId, Slot)>,
    answered: oneshot::Sender<Result<Channel, Failure>>,
}

/// The first message, what waits for its answer, and the first call's handle.
pub(crate) struct FirstMessage {
    pub(crate) noise: Vec<u8>,
    pub(crate) waiting: HalfOpen,
    pub(crate) first: Option<CallStream>,
}

/// Seals the first message of a channel that the node may send so much in. A first call that does not fit is left to be
/// sent after the answer.
pub(crate) fn open(
    caller: &Caller,
    target: &NodeTarget,
    (channel, window): (ChannelId, u64),
    first: Option<&CallSpec>,
    now: Time,
    answered: oneshot::Sender<Result<Channel, Failure>>,
) -> Result<FirstMessage, Failure> {
    let (version, own) = (version(&target.prekey)?, X25519Secret::generate());
    let (node, prekey) = (target.key.id(), target.prekey.digest());
    let opening = Opening { iss: caller.key.id(), aud: node, iat: now, prekey, channel, key: own.public() };
    let opening = Signed::sign(&caller.key, &opening);
    let ends = Ends { caller: caller.clone(), target: target.clone(), opening: opening.digest(), opened_at: Instant::now() };
    let mut payload =
        OpenPayload { opening: Blob(opening.into_bytes()), chain: caller.chain.clone(), serials: caller.serials, call: None, window };
    let (mut slot, mut stream) = (None, None);
    if let Some(spec) = first {
        let asked = ends.signed(spec, now)?;
        payload.call = Some(Blob(asked.message));
        if payload.encode().len() <= first_payload_ceiling() {
            let (kept, handle) = Slot::new(asked.id, asked.expected);
            (slot, stream) = (Some((asked.id, kept)), Some(handle));
        } else {
            payload.call = None;
        }
    }
    let binding = Binding { version, fleet: target.fleet, node, prekey, channel };
    let broken = |error: ChannelError| Failure::new(Code::Internal, format!("open channel: {error}"));
    let (initiator, noise) = Initiator::open(&binding, &own, &target.prekey.key, &payload.encode()).map_err(broken)?;
    let waiting = HalfOpen { initiator, ends, window, first: slot, answered };
    Ok(FirstMessage { noise, waiting, first: stream })
}

/// The newest version that both ends speak.
fn version(prekey: &Prekey) -> Result<u16, Failure> {
    let version = CHANNEL_VERSION.min(prekey.max_version);
    if version >= prekey.min_version {
        return Ok(version);
    }
    let text = format!("the node speaks channel versions {}–{}, this side 1–{CHANNEL_VERSION}", prekey.min_version, prekey.max_version);
    Err(Failure::new(Code::Version, text).hint("update the older side"))
}

impl HalfOpen {
    /// The node's answer.
    pub(crate) fn answered(self, noise: &[u8], outbox: Outbox, budget: Budget) -> Option<Channel> {
        let HalfOpen { initiator, ends, window, first, answered } = self;
        let outcome = read_answer(initiator, noise).map(|(session, node)| {
            let windows = Windows { theirs: node.window, ours: window };
            Channel::new(Pipe::new(session, outbox, budget, windows), ends, node, first)
        });
        let channel = outcome.as_ref().ok().cloned();
        let _ = answered.send(outcome);
        channel
    }

    /// The relay or the node closed it before it opened.
    pub(crate) fn failed(self, failure: Failure) {
        let _ = self.answered.send(Err(failure));
    }
}

fn read_answer(initiator: Initiator, noise: &[u8]) -> Result<(Session, OpenedPayload), Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::new(Code::BadSignature, format!("the node's answer does not verify: {error}"));
    let (session, payload) = initiator.answered(noise).map_err(|error| bad(&error))?;
    let node = OpenedPayload::decode(&payload).map_err(|error| bad(&error))?;
    Ok((session, node))
}
