//! Who is connected. Each connection is a session with a number that only rises. A node has one session, and a newer one
//! replaces the older; an operator's key may have many. What ends takes itself out by its number, so an old socket's
//! clean-up can never remove a newer session.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use outhaul_link::outbox::{Meter, Outbox, Refused};
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::Authority;
use outhaul_protocol::error::Code;
use outhaul_protocol::frame::{ChannelId, Frame};
use outhaul_protocol::keys::{Digest, KeyId, PublicKey};
use outhaul_protocol::limits;
use tokio::sync::Notify;

/// What all sessions have. Kept small: ten thousand of them lie idle.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) number: u64,
    pub(crate) outbox: Outbox,
    /// milliseconds between `EPOCH` and the last frame
    heard: AtomicU64,
    ended: Mutex<Option<Box<str>>>,
    stop: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since this process first asked.
fn millis() -> u64 {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(EPOCH.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Session {
    fn new(number: u64) -> Self {
        let heard = AtomicU64::new(millis());
        Session { number, outbox: Outbox::new(limits::SOCKET_QUEUE), heard, ended: Mutex::new(None), stop: Notify::new() }
    }

    /// A frame has come.
    pub(crate) fn hear(&self) {
        self.heard.store(millis(), Ordering::Relaxed);
    }

    /// How long no frame has come.
    pub(crate) fn silence(&self) -> Duration {
        Duration::from_millis(millis().saturating_sub(self.heard.load(Ordering::Relaxed)))
    }

    /// Ends the session with a last word to its peer. The first reason stays.
    pub(crate) fn end(&self, code: &str, message: &str) {
        let mut ended = lock(&self.ended);
        if ended.is_none() {
            *ended = Some(message.into());
            let _ = self.outbox.control(Frame::Goodbye { code: code.into(), message: message.into() }.encode());
            self.stop.notify_one();
        }
    }

    /// Tells the peer what it did wrong, as the last word before its connection ends; gives the reason on.
    pub(crate) fn blame(&self, what: String) -> String {
        let _ = self.outbox.control(Frame::Goodbye { code: Code::BadParams.as_str().into(), message: what.clone() }.encode());
        what
    }

    /// Waits until somebody ends it; the reason.
    pub(crate) async fn until_ended(&self) -> String {
        loop {
            if let Some(reason) = &*lock(&self.ended) {
                return reason.to_string();
            }
            self.stop.notified().await;
        }
    }

    /// Pings when the peer says nothing for a heartbeat; resolves when it is silent for two more.
    pub(crate) async fn until_silent(&self) {
        let heartbeat = Duration::from_secs(limits::HEARTBEAT_SECS);
        let mut missed = 0;
        loop {
            let silence = self.silence();
            if silence < heartbeat {
                missed = 0;
                tokio::time::sleep(heartbeat - silence).await;
                continue;
            }
            if missed >= limits::HEARTBEATS_MISSED {
                return;
            }
            missed += 1;
            let _ = self.outbox.control(Frame::Ping { token: u64::from(missed) }.encode());
            tokio::time::sleep(heartbeat).await;
        }
    }

    /// Queues a control frame; a peer that does not keep up is disconnected.
    pub(crate) fn say(&self, frame: &Frame) {
        self.say_bytes(frame.encode().into());
    }

    /// The same with a frame that many are told.
    pub(crate) fn say_bytes(&self, frame: Bytes) {
        if self.outbox.control(frame) == Err(Refused::Full) {
            self.overrun();
        }
    }

    /// Queues a large frame behind other bulk.
    pub(crate) fn send(&self, frame: &Frame) {
        if self.outbox.push(frame.encode(), None) == Err(Refused::Full) {
            self.overrun();
        }
    }

    /// The peer does not read what it is sent.
    pub(crate) fn overrun(&self) {
        self.end(Code::Busy.as_str(), "the peer does not keep up with what is sent to it");
    }
}

/// A connected node.
#[derive(Debug)]
pub(crate) struct NodeSession {
    pub(crate) session: Session,
    pub(crate) key: PublicKey,
    pub(crate) id: KeyId,
    /// bytes of openings that wait to be written to it
    pub(crate) openings: Meter,
    pub(crate) state: Mutex<NodeState>,
}

/// What changes about a connected node.
#[derive(Debug, Default)]
pub(crate) struct NodeState {
    pub(crate) heartbeat: Option<Box<[u8]>>,
    pub(crate) prekey: Option<Box<[u8]>>,
    /// the newest announce, while the list of packs that it names has not come
    pub(crate) awaited: Option<(Digest, Box<[u8]>)>,
    /// descriptions that the newest announce names and nobody has sent yet
    pub(crate) wanted: HashSet<Digest>,
    /// something of what it announced last is still to come
    pub(crate) unshown: bool,
    /// a ping that is answered when all is here
    pub(crate) ping: Option<u64>,
    /// channels to it, with their openers
    pub(crate) channels: Vec<(ChannelId, KeyId)>,
    /// set when its clean-up has taken the channels
    pub(crate) closed: bool,
}

impl NodeSession {
    pub(crate) fn state(&self) -> MutexGuard<'_, NodeState> {
        lock(&self.state)
    }
}

/// A connected operator.
#[derive(Debug)]
pub(crate) struct OperatorSession {
    pub(crate) session: Session,
    pub(crate) key: PublicKey,
    pub(crate) id: KeyId,
    pub(crate) authority: Authority,
    /// what its control requests are signed over
    pub(crate) transcript: Digest,
    /// of the last control request
    pub(crate) counter: AtomicU64,
    /// requests whose answer is not yet queued
    pub(crate) asking: AtomicUsize,
    pub(crate) channels: Mutex<HashSet<ChannelId>>,
}

impl OperatorSession {
    pub(crate) fn channels(&self) -> MutexGuard<'_, HashSet<ChannelId>> {
        lock(&self.channels)
    }
}

/// A machine that is not paired yet.
#[derive(Debug)]
pub(crate) struct GuestSession {
    pub(crate) session: Session,
    pub(crate) key: PublicKey,
    pub(crate) id: KeyId,
    pub(crate) address: IpAddr,
}

/// All sessions of nodes and operators.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    last: AtomicU64,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    nodes: HashMap<KeyId, Arc<NodeSession>>,
    operators: HashMap<u64, Arc<OperatorSession>>,
}

impl Sessions {
    fn live(&self) -> MutexGuard<'_, Live> {
        lock(&self.live)
    }

    /// A new session: its number is higher than all before it.
    pub(crate) fn begin(&self) -> Session {
        Session::new(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A node is here. An older session of its key is told and ends; a session that is itself older ends at once.
    pub(crate) fn add_node(&self, node: &Arc<NodeSession>) {
        let mut live = self.live();
        let older = match live.nodes.get(&node.id) {
            Some(other) if other.session.number > node.session.number => Some(node.clone()),
            _ => live.nodes.insert(node.id, node.clone()),
        };
        drop(live);
        if let Some(older) = older {
            older.session.end("replaced", "a newer connection of this node has taken over");
        }
    }

    /// A node's connection is over. Only its own entry goes.
    pub(crate) fn remove_node(&self, node: &NodeSession) {
        let mut live = self.live();
        if live.nodes.get(&node.id).is_some_and(|entry| entry.session.number == node.session.number) {
            live.nodes.remove(&node.id);
        }
    }

    pub(crate) fn node(&self, id: &KeyId) -> Option<Arc<NodeSession>> {
        self.live().nodes.get(id).cloned()
    }

    pub(crate) fn nodes(&self) -> Vec<Arc<NodeSession>> {
        self.live().nodes.values().cloned().collect()
    }

    pub(crate) fn add_operator(&self, operator: &Arc<OperatorSession>) {
        self.live().operators.insert(operator.session.number, operator.clone());
    }

    pub(crate) fn remove_operator(&self, operator: &OperatorSession) {
        self.live().operators.remove(&operator.session.number);
    }

    pub(crate) fn operators(&self) -> Vec<Arc<OperatorSession>> {
        self.live().operators.values().cloned().collect()
    }

    /// Nodes and operators connected.
    pub(crate) fn count(&self) -> (usize, usize) {
        let live = self.live();
        (live.nodes.len(), live.operators.len())
    }
}

/// A frame's bytes as a blob.
pub(crate) fn blob(bytes: &[u8]) -> Blob {
    Blob(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_protocol::keys::SecretKey;

    fn node(sessions: &Sessions, key: &PublicKey) -> Arc<NodeSession> {
        Arc::new(NodeSession { session: sessions.begin(), key: *key, id: key.id(), openings: Meter::default(), state: Mutex::default() })
    }

    #[tokio::test]
    async fn a_newer_session_replaces_and_an_old_clean_up_leaves_it() {
        let (sessions, key) = (Sessions::default(), SecretKey::generate().public());
        let (old, new) = (node(&sessions, &key), node(&sessions, &key));
        sessions.add_node(&old);
        sessions.add_node(&new);
        assert!(old.session.until_ended().await.contains("newer connection"));
        sessions.remove_node(&old);
        assert_eq!(sessions.node(&key.id()).map(|node| node.session.number), Some(new.session.number));
        sessions.remove_node(&new);
        assert!(sessions.node(&key.id()).is_none());
    }

    #[tokio::test]
    async fn a_session_that_was_overtaken_before_it_was_added_ends_itself() {
        let (sessions, key) = (Sessions::default(), SecretKey::generate().public());
        let (old, new) = (node(&sessions, &key), node(&sessions, &key));
        sessions.add_node(&new);
        sessions.add_node(&old);
        old.session.until_ended().await;
        assert_eq!(sessions.node(&key.id()).map(|node| node.session.number), Some(new.session.number));
    }
}
