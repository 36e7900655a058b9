//! A relay that means harm: it holds the relay's genuine key, speaks its side of the link, and does with the frames
//! whatever its owner tells it. It keeps all the bytes it ever saw, to be searched for what it must not know.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use outhaul_link::accept::Acceptor;
use outhaul_link::outbox::Outbox;
use outhaul_link::pump;
use outhaul_protocol::cbor::{Blob, Maybe};
use outhaul_protocol::describe::PackList;
use outhaul_protocol::frame::{Answer, Ask, ChannelFrame, ChannelId, Frame, NodeRecord, Role};
use outhaul_protocol::keys::{KeyId, SecretKey};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What to do with a channel frame instead of passing it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mischief {
    /// nothing: an honest relay
    None,
    /// changes one bit
    Flip,
    /// changes one bit of the first message only
    FlipOpen,
    /// passes it on twice
    Duplicate,
    /// passes it on after the next one
    Reorder,
    /// loses every second one
    Drop,
    /// cuts its end off
    Cut,
    /// passes what nodes send to nobody
    WithholdAnswers,
    /// keeps what operators send after the first message until told to let go
    Hold,
    /// sends everything of one channel into another
    CrossChannels,
    /// answers openings itself
    PoseAsNode,
}

/// A peer and the way to it.
#[derive(Debug, Clone)]
struct Peer {
    key: KeyId,
    outbox: Outbox,
}

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<KeyId, Peer>,
    records: HashMap<KeyId, NodeRecord>,
    routes: HashMap<ChannelId, (Peer, KeyId)>,
    operators: Vec<Peer>,
    mischief: Option<Mischief>,
    redirect: Option<KeyId>,
    record_override: Option<NodeRecord>,
    held: Vec<(Outbox, Vec<u8>)>,
    waiting: Option<(Outbox, Vec<u8>)>,
    /// every channel frame from an operator, as it came
    from_operators: Vec<Vec<u8>>,
    traffic: Vec<u8>,
    frames: u64,
    random: u64,
}

/// The relay.
#[derive(Debug, Clone)]
pub struct Hostile {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    server: Arc<JoinHandle<()>>,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        if Arc::strong_count(&self.server) == 1 {
            self.server.abort();
        }
    }
}

impl Hostile {
    /// Listens at an address with a relay's own key.
    pub async fn start(listen: &str, key: SecretKey) -> Result<Self> {
        let listener = TcpListener::bind(listen).await.context("bind the hostile relay")?;
        let (state, changed) = (Arc::new(Mutex::new(State { random: 0x9e37_79b9_7f4a_7c15, ..State::default() })), Arc::new(Notify::new()));
        let key = Arc::new(key);
        let server = {
            let (state, changed) = (state.clone(), changed.clone());
            tokio::spawn(async move {
                let mut peers = tokio::task::JoinSet::new();
                while let Ok((tcp, _)) = listener.accept().await {
                    let (state, changed, key) = (state.clone(), changed.clone(), key.clone());
                    peers.spawn(async move {
                        let acceptor = Acceptor { tls: None, origins: Vec::new() };
                        if let Ok((socket, proven)) = acceptor.accept(tcp, &key).await {
                            let _ = serve(socket, proven, &state, &changed).await;
                        }
                    });
                }
            })
        };
        Ok(Hostile { state, changed, server: Arc::new(server) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// From now on.
    pub fn mischief(&self, mischief: Mischief) {
        self.state().mischief = Some(mischief);
    }

    /// Sends what is for any node to this one.
    pub fn redirect(&self, to: Option<KeyId>) {
        self.state().redirect = to;
    }

    /// Tells operators this about nodes, instead of what nodes say.
    pub fn pretend(&self, record: Option<NodeRecord>) {
        self.state().record_override = record;
    }

    /// What it knows of a node.
    #[must_use]
    pub fn record(&self, node: &KeyId) -> Option<NodeRecord> {
        self.state().records.get(node).cloned()
    }

    /// Waits until a node is connected and has announced itself with a prekey that differs from `old`.
    pub async fn node(&self, node: &KeyId, old: Option<&Blob>) -> NodeRecord {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state();
                if state.nodes.contains_key(node)
                    && let Some(record) = state.records.get(node)
                    && record.prekey.is_some()
                    && record.announce.is_some()
                    && record.prekey.as_ref() != old
                {
                    return record.clone();
                }
            }
            changed.await;
        }
    }

    /// Waits until a node is gone.
    pub async fn without(&self, node: &KeyId) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.state().nodes.contains_key(node) {
                return;
            }
            changed.await;
        }
    }

    /// Passes on what it held.
    pub fn let_go(&self) {
        let held = std::mem::take(&mut self.state().held);
        for (outbox, frame) in held {
            let _ = outbox.push(frame, None);
        }
    }

    /// How many frames it holds.
    #[must_use]
    pub fn holding(&self) -> usize {
        self.state().held.len()
    }

    /// Sends a frame of its own to a node.
    pub fn inject(&self, node: &KeyId, frame: Vec<u8>) -> bool {
        let outbox = self.state().nodes.get(node).map(|peer| peer.outbox.clone());
        self.state().frames += 1;
        outbox.is_some_and(|outbox| outbox.push(frame, None).is_ok())
    }

    /// Every channel frame operators sent so far.
    #[must_use]
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.state().from_operators.clone()
    }

    /// Forgets the record.
    pub fn forget(&self) {
        self.state().from_operators.clear();
    }

    /// Hangs up on a node.
    pub fn hang_up(&self, node: &KeyId) {
        if let Some(peer) = self.state().nodes.get(node) {
            peer.outbox.close();
        }
    }

    /// Frames it changed, invented, repeated, lost or led astray.
    #[must_use]
    pub fn hostile_frames(&self) -> u64 {
        self.state().frames
    }

    /// Whether these bytes stand anywhere in what it ever saw.
    #[must_use]
    pub fn saw(&self, needle: &[u8]) -> bool {
        self.state().traffic.windows(needle.len()).any(|window| window == needle)
    }

    /// Bytes it saw.
    #[must_use]
    pub fn seen_bytes(&self) -> usize {
        self.state().traffic.len()
    }

    /// A random number of its own.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.state().next_random()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// xorshift: the same mischief in every run.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn flip(&mut self, frame: &mut [u8]) {
        // Beyond the head, so that the frame still arrives as one.
        let start = 20.min(frame.len() - 1);
        let at = start + (self.next_random() as usize) % (frame.len() - start);
        frame[at] ^= 1 << (self.next_random() % 8);
    }

    fn pass(&mut self, to: &Outbox, mut frame: Vec<u8>, opening: bool, from_operator: bool) {
        let mischief = self.mischief.unwrap_or(Mischief::None);
        let touched = match mischief {
            Mischief::None | Mischief::CrossChannels | Mischief::PoseAsNode => false,
            Mischief::FlipOpen => opening,
            Mischief::Hold => from_operator && !opening,
            Mischief::WithholdAnswers => !from_operator,
            Mischief::Drop => self.next_random().is_multiple_of(2),
            _ => true,
        };
        if !touched {
            let _ = to.push(frame, None);
            return;
        }
        self.frames += 1;
        match mischief {
            Mischief::Flip | Mischief::FlipOpen => {
                self.flip(&mut frame);
                let _ = to.push(frame, None);
            }
            Mischief::Cut => {
                // The Noise message is shortened, the frame around it is whole.
                let cut = cut(&frame).unwrap_or(frame);
                let _ = to.push(cut, None);
            }
            Mischief::Duplicate => {
                let _ = to.push(frame.clone(), None);
                let _ = to.push(frame, None);
            }
            Mischief::Reorder => match self.waiting.take() {
                Some((other, first)) => {
                    let _ = to.push(frame, None);
                    let _ = other.push(first, None);
                }
                None => self.waiting = Some((to.clone(), frame)),
            },
            Mischief::Hold => self.held.push((to.clone(), frame)),
            _ => {}
        }
    }
}

fn cut(frame: &[u8]) -> Option<Vec<u8>> {
    match ChannelFrame::peek(frame)?.ok()? {
        ChannelFrame::Open { channel, node, noise } => {
            Some(ChannelFrame::Open { channel, node, noise: &noise[..noise.len() - 1] }.encode())
        }
        ChannelFrame::Data { channel, noise } => Some(ChannelFrame::Data { channel, noise: &noise[..noise.len() - 1] }.encode()),
        ChannelFrame::Close { .. } => None,
    }
}

async fn serve(
    mut socket: outhaul_link::Socket,
    proven: outhaul_protocol::handshake::Proven,
    state: &Mutex<State>,
    changed: &Notify,
) -> Result<()> {
    let id = proven.key.id();
    let found = (proven.role == Role::Operator).then(|| lock(state).records());
    let welcome = Frame::Welcome { session: 1, window: outhaul_protocol::limits::LINK_WINDOW, heartbeat_ms: 15_000, found: Maybe(found) };
    socket.send(welcome.encode()).await?;
    let outbox = Outbox::new(8 << 20);
    let peer = Peer { key: id, outbox: outbox.clone() };
    match proven.role {
        Role::Node => {
            let mut state = lock(state);
            let record = NodeRecord {
                certificate: proven.credential,
                status: "online".into(),
                connected_at: 1,
                last_seen: 1,
                heartbeat: None,
                announce: None,
                prekey: None,
            };
            state.records.insert(id, record);
            state.nodes.insert(id, peer.clone());
        }
        _ => lock(state).operators.push(peer.clone()),
    }
    let handler = |bytes: Bytes| {
        let mut state = lock(state);
        state.traffic.extend_from_slice(&bytes);
        receive(&mut state, &peer, proven.role, &bytes);
        drop(state);
        changed.notify_waiters();
        Ok(())
    };
    pump(socket, &outbox, handler, std::future::pending()).await;
    let mut state = lock(state);
    if state.nodes.get(&id).is_some_and(|current| current.outbox.is_closed()) {
        state.nodes.remove(&id);
    }
    state.operators.retain(|operator| !operator.outbox.is_closed());
    drop(state);
    changed.notify_waiters();
    Ok(())
}

impl State {
    fn records(&self) -> Vec<NodeRecord> {
        match &self.record_override {
            Some(record) => vec![record.clone()],
            None => self.records.values().cloned().collect(),
        }
    }
}

fn receive(state: &mut State, peer: &Peer, role: Role, bytes: &[u8]) {
    if let Some(Ok(frame)) = ChannelFrame::peek(bytes) {
        channel_frame(state, peer, role, frame, bytes);
        return;
    }
    match Frame::decode(bytes) {
        Ok(Frame::Announce { signed }) => {
            if let Some(record) = state.records.get_mut(&peer.key) {
                record.announce = Some(signed);
            }
        }
        Ok(Frame::Prekey { signed }) => {
            if let Some(record) = state.records.get_mut(&peer.key) {
                record.prekey = Some(signed);
            }
        }
        Ok(Frame::Ping { token }) => {
            let _ = peer.outbox.control(Frame::Pong { token }.encode());
        }
        Ok(Frame::Request { id, body, .. }) => {
            let answer = match Ask::decode(&body.0) {
                Ok(Ask::Nodes { .. }) => Answer::Nodes { nodes: state.records() },
                Ok(Ask::NodesAfter { .. }) => Answer::Nodes { nodes: Vec::new() },
                // It keeps none and hands none out.
                Ok(Ask::DeploymentsAfter { .. }) => Answer::Deployments { documents: Vec::new() },
                // A list of packs, of no node's.
                Ok(Ask::Description { .. }) => Answer::Bytes { bytes: Blob(PackList::default().to_bytes()) },
                _ => Answer::Done {},
            };
            let reply = Frame::Reply { id, body: Maybe(Some(Blob(answer.encode()))), error: Maybe(None) };
            let _ = peer.outbox.control(reply.encode());
        }
        _ => {}
    }
}

fn channel_frame(state: &mut State, peer: &Peer, role: Role, frame: ChannelFrame<'_>, bytes: &[u8]) {
    let (channel, opening) = match frame {
        ChannelFrame::Open { channel, node, .. } => {
            let node = state.redirect.unwrap_or(node);
            state.routes.insert(channel, (peer.clone(), node));
            (channel, true)
        }
        ChannelFrame::Data { channel, .. } | ChannelFrame::Close { channel, .. } => (channel, false),
    };
    let from_operator = role == Role::Operator;
    if from_operator {
        state.from_operators.push(bytes.to_vec());
        if opening && state.mischief == Some(Mischief::PoseAsNode) {
            state.frames += 1;
            let lie: Vec<u8> = (0..200).map(|_| state.next_random() as u8).collect();
            let _ = peer.outbox.push(ChannelFrame::Data { channel, noise: &lie }.encode(), None);
            return;
        }
    }
    let Some((operator, node)) = state.routes.get(&channel).cloned() else { return };
    let to = match from_operator {
        true => state.nodes.get(&node).map(|peer| peer.outbox.clone()),
        false => Some(operator.outbox),
    };
    let Some(to) = to else { return };
    let mut frame = bytes.to_vec();
    if state.mischief == Some(Mischief::CrossChannels)
        && let ChannelFrame::Data { channel, noise } =
            ChannelFrame::peek(bytes).and_then(Result::ok).unwrap_or(ChannelFrame::Close { channel, code: "" })
        && let Some(other) = state.routes.keys().find(|other| **other != channel)
    {
        frame = ChannelFrame::Data { channel: *other, noise }.encode();
        state.frames += 1;
    }
    state.pass(&to, frame, opening, from_operator);
}
