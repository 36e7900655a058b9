//! Keeps one connection to the relay: frames in, frames out. States: dialing → connected → gone; [`crate::run`] dials
//! again. Opens no payload; channels are judged in [`crate::channel`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use outhaul_link::budget::Budget;
use outhaul_link::dial::Connected;
use outhaul_link::operator::watch;
use outhaul_link::outbox::Outbox;
use outhaul_link::pump;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::describe::PackList;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{ChannelFrame, ChannelId, Frame};
use outhaul_protocol::keys::{Digest, sha256};
use outhaul_protocol::limits;
use outhaul_protocol::objects::DeploymentDocument;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::channel::{self, OpenChannel, Slot};
use crate::deployments::{self, DEPLOYMENT};
use crate::run::Node;

/// How long the relay may take to send the next part of a blob.
const BLOB_PART: Duration = Duration::from_secs(30);
/// How soon a change of policy is announced; calls see it at once.
const POLICY: Duration = Duration::from_secs(1);
/// Of the ping behind the first announce; those of [`watch`] count up from nothing.
const SHOWN: u64 = u64::MAX;
/// Blobs fetched at once.
const FETCHES: usize = 4;

/// One link while it lives.
#[derive(Debug)]
pub struct Link {
    /// whose
    pub node: Arc<Node>,
    /// what waits to be written
    pub outbox: Outbox,
    /// what may be under way to us
    pub budget: Budget,
    parts: Semaphore,
    state: Mutex<State>,
}

/// Length of the whole blob, and a part of it.
type Part = (u64, Vec<u8>);

#[derive(Debug)]
struct State {
    channels: HashMap<ChannelId, Slot>,
    fetches: HashMap<(Digest, u64), oneshot::Sender<Part>>,
    announced: Digest,
    /// of the policy that the announce tells
    policy: u64,
    /// the packs that it names
    listed: Option<PackList>,
    openings: Openings,
}

/// A bucket of openings: so many a second are tried, whoever sends them.
#[derive(Debug)]
struct Openings {
    left: u32,
    since: Instant,
}

impl Openings {
    fn take(&mut self) -> bool {
        if self.since.elapsed() >= Duration::from_secs(1) {
            *self = Openings { left: limits::OPENINGS_PER_SEC, since: Instant::now() };
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

impl Link {
    fn new(node: Arc<Node>, window: u32) -> Arc<Self> {
        let openings = Openings { left: limits::OPENINGS_PER_SEC, since: Instant::now() };
        let state =
            State { channels: HashMap::new(), fetches: HashMap::new(), announced: Digest([0; 32]), policy: 0, listed: None, openings };
        let (outbox, budget) = (Outbox::new(limits::SOCKET_QUEUE / 4), Budget::new(window));
        Arc::new(Link { node, outbox, budget, parts: Semaphore::new(limits::ANSWERS / limits::BLOB_CHUNK), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Digest of the signed announce the relay has.
    #[must_use]
    pub fn announced(&self) -> Digest {
        self.state().announced
    }

    /// Keeps a place for a channel that is being judged. `None` for a channel that is here already: a repeated first
    /// message must not harm the one it repeats.
    pub(crate) fn reserve(&self, channel: ChannelId) -> Option<bool> {
        let mut state = self.state();
        if state.channels.contains_key(&channel) {
            return None;
        }
        let taken = state.channels.len() < limits::CHANNELS && state.openings.take();
        if taken {
            state.channels.insert(channel, Slot::Opening);
        }
        Some(taken)
    }

    /// The channel is open, unless the link has dropped it meanwhile. An operator that has its share of channels loses
    /// the oldest that carries no call: a relay that hides their closing must not lock it out.
    pub(crate) fn admit_channel(&self, channel: ChannelId, open: Arc<OpenChannel>) -> bool {
        let operator = open.operator_id();
        let idle = {
            let mut state = self.state();
            if !state.channels.contains_key(&channel) {
                return false;
            }
            let own = state.channels.values().filter_map(|slot| match slot {
                Slot::Open(other) if other.operator_id() == operator => Some(other),
                _ => None,
            });
            let own: Vec<&Arc<OpenChannel>> = own.collect();
            let idle = match own.len() < limits::CHANNELS_PER_OPERATOR {
                true => None,
                false => match own.into_iter().filter(|other| other.is_idle()).min_by_key(|other| other.opened) {
                    Some(oldest) => Some(oldest.clone()),
                    None => return false,
                },
            };
            state.channels.insert(channel, Slot::Open(open));
            idle
        };
        if let Some(idle) = idle {
            channel::close(self, &idle, Code::Busy, "a newer channel of the same operator took its place");
        }
        true
    }

    /// An open channel.
    pub(crate) fn channel(&self, channel: &ChannelId) -> Option<Arc<OpenChannel>> {
        match self.state().channels.get(channel) {
            Some(Slot::Open(open)) => Some(open.clone()),
            _ => None,
        }
    }

    /// Takes a channel out.
    pub(crate) fn remove_channel(&self, channel: &ChannelId) -> Option<Arc<OpenChannel>> {
        match self.state().channels.remove(channel) {
            Some(Slot::Open(open)) => Some(open),
            _ => None,
        }
    }

    /// Gives a place up.
    pub(crate) fn remove_slot(&self, channel: &ChannelId) {
        self.state().channels.remove(channel);
    }

    /// All open channels.
    pub(crate) fn open_channels(&self) -> Vec<Arc<OpenChannel>> {
        let state = self.state();
        let open = state.channels.values().filter_map(|slot| match slot {
            Slot::Open(open) => Some(open.clone()),
            Slot::Opening => None,
        });
        open.collect()
    }

    /// Tells the relay and the other end that a channel is over.
    pub(crate) fn close_frame(&self, channel: &ChannelId, code: Code) {
        let frame = ChannelFrame::Close { channel: *channel, code: code.as_str() };
        let _ = self.outbox.push(frame.encode(), None);
    }

    /// A signed object from whoever: judged and kept when it is newer.
    pub(crate) fn accept_notice(self: &Arc<Self>, kind: &str, signed: &[u8], chain: Vec<Blob>) {
        if kind == DEPLOYMENT {
            return self.node.deployments.offer(DeploymentDocument { document: Blob(signed.to_vec()), chain });
        }
        match self.node.accept_notice(kind, signed, chain) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(kind, "took a newer fleet-signed object");
                self.recheck();
                // Another name or label, or a signer who counts no more.
                self.node.deployments.retry();
            }
            Err(failure) => tracing::warn!(kind, code = %failure.code, reason = %failure.message, "refused a fleet-signed object"),
        }
    }

    /// Closes what no longer stands: after a revocation, and from time to time for what expired.
    pub(crate) fn recheck(&self) {
        self.node.review_trust();
        for open in self.open_channels() {
            // The clock first, as everywhere: a notice that comes on a channel holds it when it wants the membership.
            let reading = self.node.reading();
            let standing = open.authority.stands(reading, self.node.membership().revoked());
            if let Err(refusal) = standing {
                channel::close_revoked(self, &open, &refusal.into());
            } else if open.opened.elapsed() >= Duration::from_secs(limits::CHANNEL_LIFE_SECS) {
                channel::close_revoked(self, &open, &Failure::new(Code::Expired, "the channel is a day old"));
            }
        }
        for open in self.budget.overdue().iter().filter_map(|channel| self.channel(channel)) {
            channel::close(self, &open, Code::Busy, "it does not give back room that other channels wait for");
        }
    }

    /// Signs and sends what this node has to offer.
    pub(crate) fn announce(&self) {
        // Read first: a change in between is announced once more.
        let policy = self.node.policy.edition();
        let list = self.node.pack_list();
        let signed = self.node.announce(&list);
        let before = {
            let mut state = self.state();
            (state.announced, state.policy) = (sha256(&signed), policy);
            state.listed.replace(list.clone())
        };
        // What is new goes ahead, so that whoever sees the announce finds what it names. On a new link the relay most
        // likely has it all, and asks for the rest.
        if let Some(before) = before.filter(|before| *before != list) {
            let known: HashSet<_> = before.0.iter().map(|pack| pack.description).collect();
            list.0.iter().filter(|pack| !known.contains(&pack.description)).for_each(|pack| self.describe(Digest(pack.description)));
            self.describe(Digest(list.digest()));
        }
        let _ = self.outbox.control(Frame::Announce { signed: Blob(signed) }.encode());
    }

    /// Sends the list of packs or the description of this digest, if it is one of now.
    fn describe(&self, digest: Digest) {
        let list = || Some(self.node.pack_list()).filter(|list| list.digest() == digest.0).map(|list| list.to_bytes());
        if let Some(bytes) = self.node.packs.description(&digest.0).or_else(list) {
            let _ = self.outbox.control(Frame::Description { digest, bytes: Blob(bytes) }.encode());
        }
    }

    fn prekey(&self) {
        let _ = self.outbox.control(Frame::Prekey { signed: Blob(self.node.prekeys.signed()) }.encode());
    }

    /// Fetches a blob from the relay's store by digest; the digest is what is believed, not the relay.
    pub async fn fetch(&self, digest: Digest) -> Result<Vec<u8>, Failure> {
        let missing = || Failure::new(Code::DigestMismatch, "the relay does not hold the pack").hint("deploy it again");
        let mut whole = Vec::new();
        loop {
            let (total, part) = self.part(digest, whole.len() as u64).await?;
            if total == 0 || total > limits::PACK as u64 {
                return Err(if total == 0 { missing() } else { Failure::new(Code::TooLarge, format!("the pack is {total} bytes")) });
            }
            if part.is_empty() || (whole.len() + part.len()) as u64 > total {
                return Err(Failure::new(Code::Truncated, "the relay sends the pack in parts that do not fit"));
            }
            whole.extend_from_slice(&part);
            if whole.len() as u64 == total {
                break;
            }
        }
        match sha256(&whole) == digest {
            true => Ok(whole),
            false => Err(Failure::new(Code::DigestMismatch, "the pack the relay sent is not the one that was named")
                .hint("the relay's copy is damaged, or is no copy: look into its folder `packs`")),
        }
    }

    async fn part(&self, digest: Digest, offset: u64) -> Result<(u64, Vec<u8>), Failure> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state();
            if state.fetches.len() >= FETCHES || state.fetches.contains_key(&(digest, offset)) {
                return Err(Failure::new(Code::Busy, "this pack or too many others are being fetched").hint("try again in a moment"));
            }
            state.fetches.insert((digest, offset), sender);
        }
        let _clean = Fetching { link: self, key: (digest, offset) };
        let lost = || Failure::new(Code::LinkLost, "the link was lost while the pack was fetched");
        // So many parts under way: more could fill the relay's queue for this link.
        let _room = self.parts.acquire().await.map_err(|_| lost())?;
        self.outbox.control(Frame::BlobGet { digest, offset }.encode()).map_err(|_| lost())?;
        match tokio::time::timeout(BLOB_PART, receiver).await {
            Ok(Ok(part)) => Ok(part),
            Ok(Err(_)) => Err(lost()),
            Err(_) => Err(Failure::new(Code::Deadline, format!("the relay sent no part of the pack within {} s", BLOB_PART.as_secs()))),
        }
    }

    fn receive(self: &Arc<Self>, bytes: &[u8]) -> Result<(), String> {
        if let Some(frame) = ChannelFrame::peek(bytes) {
            channel::frame(self, frame.map_err(|error| format!("malformed channel frame: {error}"))?);
            return Ok(());
        }
        match Frame::decode(bytes).map_err(|error| format!("malformed frame: {error}"))? {
            Frame::Ping { token } => {
                let _ = self.outbox.control(Frame::Pong { token }.encode());
            }
            Frame::Pong { .. } => {}
            Frame::Want { digest } => self.describe(digest),
            Frame::BlobPart { digest, offset, total, bytes } => {
                if let Some(sender) = self.state().fetches.remove(&(digest, offset)) {
                    let _ = sender.send((total, bytes.0));
                }
            }
            Frame::Notice { signed, kind, chain } => self.accept_notice(&kind, &signed.0, chain),
            Frame::Goodbye { message, .. } => return Err(format!("the relay closes: {message}")),
            _ => return Err("a frame that only peers send".into()),
        }
        Ok(())
    }

    fn lost(&self, reason: &str) {
        let channels = std::mem::take(&mut self.state().channels);
        for slot in channels.into_values() {
            if let Slot::Open(open) = slot {
                open.lost(reason);
            }
        }
        self.state().fetches.clear();
    }
}

struct Fetching<'a> {
    link: &'a Link,
    key: (Digest, u64),
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.link.state().fetches.remove(&self.key);
    }
}

/// Serves a connection until it ends; says why. `alive` is told once the relay has shown life beyond the handshake.
pub async fn serve(node: Arc<Node>, relay: String, connected: Connected, shutdown: CancellationToken, mut alive: impl FnMut()) -> String {
    let link = Link::new(node.clone(), connected.window);
    // Whoever lost us the link may have kept what it carried: each link has a prekey of its own. The one before stays
    // good, for operators who looked just before.
    node.rotate_prekey();
    link.prekey();
    link.announce();
    // Behind all of that in the queue: when its answer is here, the relay shows this node to operators.
    let _ = link.outbox.push(Frame::Ping { token: SHOWN }.encode(), None);
    let (shown, session) = (Frame::Pong { token: SHOWN }.encode(), connected.session);
    node.publish(Some(link.clone()));
    // The owner may have spoken while nobody was connected.
    node.review_trust();
    let heard = Arc::new(Notify::new());
    let handler = {
        let (link, heard) = (link.clone(), heard.clone());
        move |frame: Bytes| {
            heard.notify_one();
            alive();
            if frame == shown {
                tracing::info!(relay = %relay, session, "connected");
            }
            link.receive(&frame)
        }
    };
    let stop = {
        let (link, outbox) = (link.clone(), link.outbox.clone());
        async move {
            tokio::select! {
                () = shutdown.cancelled() => {
                    let goodbye = Frame::Goodbye { code: "drain".into(), message: "the agent stops".into() };
                    let _ = outbox.control(goodbye.encode());
                    "the agent stops".to_owned()
                }
                () = watch(connected.heartbeat, heard, outbox.clone()) => "the relay fell silent".to_owned(),
                () = upkeep(&link, connected.heartbeat) => unreachable!("never ends"),
            }
        }
    };
    // On a task of its own: a pack of many megabytes must not keep frames waiting.
    let _following = AbortOnDropHandle::new(tokio::spawn(deployments::work(link.clone())));
    let outbox = link.outbox.clone();
    let ended = pump(connected.socket, &outbox, handler, stop).await.to_string();
    node.publish(None);
    link.lost(&ended);
    ended
}

/// What happens from time to time while connected: heartbeats, a new prekey, a new announce, expiry.
async fn upkeep(link: &Arc<Link>, heartbeat: Duration) {
    let node = &link.node;
    let mut beat = tokio::time::interval(heartbeat);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut policy = tokio::time::interval(POLICY);
    policy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut prekey_at = tokio::time::Instant::now() + Duration::from_secs(limits::PREKEY_SECS);
    loop {
        tokio::select! {
            _ = beat.tick() => {
                let figures = tokio::task::spawn_blocking(crate::run::heartbeat).await;
                if let Ok(figures) = figures {
                    let _ = link.outbox.control(Frame::Heartbeat { figures: Blob(figures) }.encode());
                }
                node.upkeep();
                link.recheck();
            }
            () = tokio::time::sleep_until(prekey_at) => {
                prekey_at += Duration::from_secs(limits::PREKEY_SECS);
                node.rotate_prekey();
                link.prekey();
            }
            () = node.wake.notified() => {
                node.rotate_prekey();
                link.prekey();
                prekey_at = tokio::time::Instant::now() + Duration::from_secs(limits::PREKEY_SECS);
            }
            _ = policy.tick() => {
                let told = link.state().policy;
                if node.policy.edition() != told {
                    node.review_trust();
                    node.deployments.retry();
                    link.announce();
                }
            }
            () = node.packs.changed() => link.announce(),
        }
    }
}
