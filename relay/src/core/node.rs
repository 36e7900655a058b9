//! Frames from nodes. What a node signs about itself is checked before it is kept; what it says unsigned is bounded and
//! shown as the relay's word.

use std::sync::Arc;

use bytes::Bytes;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::describe::{AnnounceContent, Heartbeat, PackDescription, PackList};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{ChannelFrame, Frame};
use outhaul_protocol::keys::{Digest, sha256};
use outhaul_protocol::limits;
use outhaul_protocol::objects::{Announce, Prekey};
use outhaul_protocol::signed::Signed;
use outhaul_protocol::time::Time;

use super::clock;
use super::connection::{Over, Peer};
use super::hub::Hub;
use super::sessions::{NodeSession, NodeState, Session};
use super::store::Db;

/// Bytes of a heartbeat's figures: a handful of numbers.
const HEARTBEAT: usize = 512;
/// Bytes of the envelope around an announce or prekey: header, claims, signature.
const ENVELOPE: usize = 512;

impl Peer for NodeSession {
    fn session(&self) -> &Session {
        &self.session
    }

    fn come(self: &Arc<Self>, hub: &Arc<Hub>) {
        hub.sessions.add_node(self);
        // Only now: a notice that came between the judgement and the list would have passed this node by.
        let notices = hub.notices.known();
        notices.frames().iter().for_each(|frame| self.session.say(frame));
        hub.deployments.frames().into_iter().for_each(|frame| self.session.say_bytes(frame));
        if notices.revoked.has_key(&self.id) {
            self.session.end(Code::Revoked.as_str(), "this machine's key is revoked");
        }
        drop(notices);
        tracing::info!(node = %self.id.short(), session = self.session.number, "node connected");
    }

    fn receive(self: &Arc<Self>, hub: &Arc<Hub>, bytes: Bytes) -> Result<(), Over> {
        match ChannelFrame::peek(&bytes) {
            Some(Ok(ChannelFrame::Data { channel, .. })) => hub.channels.forward(&self.session, &channel, bytes),
            Some(Ok(ChannelFrame::Close { channel, code })) => hub.channels.closed_by(&self.session, &channel, code),
            Some(Ok(ChannelFrame::Open { .. })) => return Err("nodes open no channels".into()),
            Some(Err(error)) => return Err(format!("malformed channel frame: {error}").into()),
            None => return control(hub, self, &bytes),
        }
        Ok(())
    }

    fn part(&self, reason: &str) {
        tracing::info!(node = %self.id.short(), session = self.session.number, reason, "node disconnected");
    }

    fn leave(&self, hub: &Hub) {
        hub.sessions.remove_node(self);
        hub.channels.node_gone(self);
        let seen = clock::now().0.saturating_sub(self.session.silence().as_secs());
        let id = self.id;
        let _ = hub.store.submit(move |db| {
            if let Err(error) = db.seen(&[(id, Time(seen))]) {
                tracing::warn!(%error, "could not note when a node was last seen");
            }
        });
    }
}

fn control(hub: &Arc<Hub>, node: &Arc<NodeSession>, bytes: &[u8]) -> Result<(), Over> {
    match Frame::decode(bytes).map_err(|error| format!("malformed frame: {error}"))? {
        Frame::Ping { token } => ping(node, token),
        Frame::Pong { .. } => {}
        Frame::Heartbeat { figures } => heartbeat(node, figures)?,
        Frame::Announce { signed } => announce(hub, node, signed.0)?,
        Frame::Prekey { signed } => prekey(hub, node, signed.0)?,
        Frame::Description { digest, bytes } => description(hub, node, digest, bytes.0)?,
        Frame::BlobGet { digest, offset } => blob(hub, node, digest, offset)?,
        Frame::Goodbye { .. } => return Err(Over::Goodbye),
        _ => return Err("a frame that nodes do not send".into()),
    }
    Ok(())
}

/// Answered once operators find what the node announced before, descriptions included, so that it knows when it is there. One ping waits; a
/// second is a heartbeat, whatever became of the announce.
fn ping(node: &NodeSession, token: u64) {
    let mut state = node.state();
    if state.unshown && state.ping.is_none() {
        state.ping = Some(token);
    } else {
        node.session.say(&Frame::Pong { token });
    }
}

fn heartbeat(node: &NodeSession, figures: Blob) -> Result<(), String> {
    if figures.0.len() > HEARTBEAT {
        return Err(format!("a heartbeat has at most {HEARTBEAT} bytes"));
    }
    Heartbeat::from_bytes(&figures.0).map_err(|error| format!("malformed heartbeat: {error}"))?;
    node.state().heartbeat = Some(figures.0.into());
    Ok(())
}

fn prekey(hub: &Hub, node: &NodeSession, signed: Vec<u8>) -> Result<(), String> {
    let prekey = Signed::<Prekey>::from_bytes(&signed).and_then(|prekey| prekey.verify(&node.key)).map_err(|error| error.to_string())?;
    if prekey.aud != hub.fleet.id() || signed.len() > ENVELOPE {
        return Err("the prekey is not for this fleet".into());
    }
    node.state().prekey = Some(signed.into());
    Ok(())
}

fn announce(hub: &Arc<Hub>, node: &Arc<NodeSession>, signed: Vec<u8>) -> Result<(), String> {
    if signed.len() > limits::ANNOUNCE + ENVELOPE {
        return Err(format!("an announce has at most {} bytes", limits::ANNOUNCE));
    }
    let announce =
        Signed::<Announce>::from_bytes(&signed).and_then(|announce| announce.verify(&node.key)).map_err(|error| error.to_string())?;
    if announce.aud != hub.fleet.id() {
        return Err("the announce is not for this fleet".into());
    }
    let content = AnnounceContent::from_bytes(&announce.content.0).map_err(|error| format!("malformed announce: {error}"))?;
    let node = node.clone();
    node.state().unshown = true;
    hub.store.submit(move |db| log(keep_announce(db, &node, signed, Digest(content.packs)))).map_err(|full| full.to_string())
}

/// Keeps an announce once the list of packs it names is here, and asks for what nobody has sent yet: an operator that
/// sees the announce finds the list.
fn keep_announce(db: &mut Db, node: &NodeSession, signed: Vec<u8>, list: Digest) -> Result<(), Failure> {
    if !db.unknown_descriptions(vec![list], clock::now())?.is_empty() {
        node.state().awaited = Some((list, signed.into()));
        node.session.say(&Frame::Want { digest: list });
        return Ok(());
    }
    node.state().awaited = None;
    db.put_announce(&node.id, &signed)?;
    tracing::debug!(node = %node.id.short(), "announce kept");
    // What is kept under its digest was read before it was kept.
    let packs = db.description(&list)?.and_then(|bytes| PackList::from_bytes(&bytes).ok()).unwrap_or_default();
    let digests = packs.0.iter().map(|pack| Digest(pack.description)).collect();
    let wanted = db.unknown_descriptions(digests, clock::now())?;
    wanted.iter().for_each(|digest| node.session.say(&Frame::Want { digest: *digest }));
    let mut state = node.state();
    state.wanted = wanted.into_iter().collect();
    shown(node, &mut state);
    Ok(())
}

/// Answers the ping that waited, once nothing is wanted any more.
fn shown(node: &NodeSession, state: &mut NodeState) {
    if state.awaited.is_some() || !state.wanted.is_empty() {
        return;
    }
    state.unshown = false;
    if let Some(token) = state.ping.take() {
        node.session.say(&Frame::Pong { token });
    }
}

/// A list of packs or a description, asked for or ahead of the announce that names it. Its digest is its name: whoever
/// sends it, it is what it is, and what is used by nobody is forgotten first.
fn description(hub: &Arc<Hub>, node: &Arc<NodeSession>, digest: Digest, bytes: Vec<u8>) -> Result<(), String> {
    if sha256(&bytes) != digest {
        return Err("a description has another digest than its own".into());
    }
    if let Err(error) = PackDescription::from_bytes(&bytes)
        && PackList::from_bytes(&bytes).is_err()
    {
        return Err(format!("malformed description: {error}"));
    }
    let node = node.clone();
    hub.store.submit(move |db| log(keep_description(db, &node, digest, &bytes))).map_err(|full| full.to_string())
}

fn keep_description(db: &mut Db, node: &NodeSession, digest: Digest, bytes: &[u8]) -> Result<(), Failure> {
    db.put_description(&digest, bytes, clock::now())?;
    let mut state = node.state();
    if let Some((list, signed)) = state.awaited.take_if(|(list, _)| *list == digest) {
        drop(state);
        return keep_announce(db, node, signed.into_vec(), list);
    }
    if state.wanted.remove(&digest) {
        shown(node, &mut state);
    }
    Ok(())
}

fn blob(hub: &Arc<Hub>, node: &Arc<NodeSession>, digest: Digest, offset: u64) -> Result<(), String> {
    let node = node.clone();
    let answer = move |blobs: &mut super::blobs::Blobs| {
        let (total, bytes) = blobs.get(&digest, offset);
        tracing::debug!(node = %node.id.short(), digest = %digest.short(), offset, total, "hands out a part of a pack");
        node.session.send(&Frame::BlobPart { digest, offset, total, bytes: Blob(bytes) });
    };
    hub.blobs.submit(answer).map_err(|full| full.to_string())
}

/// What nobody waits for still has to be heard of.
fn log(outcome: Result<(), Failure>) {
    if let Err(failure) = outcome {
        tracing::warn!(reason = %failure.message, "could not keep what a node sent");
    }
}
