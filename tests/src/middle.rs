//! A man in the middle of pairings: a relay that holds the key it is given, speaks the relay's side to machines and makers
//! of codes, and does to the five messages of a pairing what it is told. It keeps all it saw, to be searched for what it
//! must not know.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use outhaul_link::Socket;
use outhaul_link::accept::Acceptor;
use outhaul_link::outbox::Outbox;
use outhaul_link::pump;
use outhaul_protocol::cbor::{Blob, Maybe};
use outhaul_protocol::frame::{Answer, Ask, Facts, Frame, PAIR_DONE, Role};
use outhaul_protocol::handshake::Proven;
use outhaul_protocol::keys::{PublicKey, SecretKey};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The messages of a pairing, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// the machine's SPAKE2 message
    Join,
    /// the maker's
    Answer,
    /// the machine's keys, sealed
    Confirm,
    /// the fleet's, sealed
    Welcome,
    /// the machine's word that all is on disk, sealed
    Stored,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 5] = [Part::Join, Part::Answer, Part::Confirm, Part::Welcome, Part::Stored];

    fn to_maker(self) -> bool {
        !matches!(self, Part::Answer | Part::Welcome)
    }
}

/// What to do with one of the messages instead of passing it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trick {
    /// changes one bit
    Flip,
    /// cuts its last byte off
    Cut,
    /// passes it on twice
    Twice,
    /// sends it back to whom it came from
    Reflect,
    /// gives it to another pairing, and that one's to this
    Swap,
    /// keeps it until told to let go
    Hold,
    /// passes it on and hangs up on the machine, before any answer
    HangUp,
}

/// The number of its first pairing: as long, in frames, as those of many that follow.
const FIRST_RUN: u64 = 1 << 20;

/// How far a pairing went, as the relay sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tale {
    /// messages of the machine after its join that came here
    pub from_guest: u32,
    /// messages of the maker that came here
    pub from_maker: u32,
}

#[derive(Debug, Clone)]
struct Peer {
    session: u64,
    key: PublicKey,
    outbox: Outbox,
}

#[derive(Debug)]
struct Run {
    guest: Peer,
    maker: Peer,
    slot: u64,
    facts: Facts,
    tale: Tale,
    over: bool,
}

#[derive(Debug, Default)]
struct State {
    sessions: u64,
    guests: usize,
    makers: BTreeMap<u64, Peer>,
    runs: BTreeMap<u64, Run>,
    trick: Option<(Part, Trick)>,
    /// messages it keeps, with the runs they belong to
    kept: Vec<(u64, Vec<u8>)>,
    touched: u32,
    traffic: Vec<u8>,
}

/// The relay in the middle.
#[derive(Debug)]
pub struct Middle {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    server: JoinHandle<()>,
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Middle {
    /// Listens with a relay's own key.
    pub async fn start(key: SecretKey) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind the relay in the middle")?;
        let address = listener.local_addr()?;
        let (state, changed) = (Arc::new(Mutex::new(State::default())), Arc::new(Notify::new()));
        let server = {
            let (state, changed, key) = (state.clone(), changed.clone(), Arc::new(key));
            tokio::spawn(async move {
                let mut peers = tokio::task::JoinSet::new();
                while let Ok((tcp, _)) = listener.accept().await {
                    let (state, changed, key) = (state.clone(), changed.clone(), key.clone());
                    peers.spawn(async move {
                        let acceptor = Acceptor { tls: None, origins: Vec::new() };
                        if let Ok((socket, proven)) = acceptor.accept(tcp, &key).await {
                            serve(socket, proven, &state, &changed).await;
                        }
                    });
                }
            })
        };
        Ok(Middle { address, state, changed, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The same for programs.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Plays a trick from now on, or none.
    pub fn play(&self, trick: Option<(Part, Trick)>) {
        lock(&self.state).trick = trick;
    }

    /// Messages it did not just pass on.
    #[must_use]
    pub fn touched(&self) -> u32 {
        lock(&self.state).touched
    }

    /// Passes on what it kept.
    pub fn let_go(&self) {
        let mut state = lock(&self.state);
        if let Some((part, Trick::Hold)) = state.trick.take() {
            for (run, message) in std::mem::take(&mut state.kept) {
                state.deliver(run, part, message);
            }
        }
    }

    /// The pairings so far, oldest first.
    #[must_use]
    pub fn tales(&self) -> Vec<Tale> {
        lock(&self.state).runs.values().map(|run| run.tale).collect()
    }

    /// Whether these bytes stand anywhere in what it ever saw.
    #[must_use]
    pub fn saw(&self, needle: &[u8]) -> bool {
        lock(&self.state).traffic.windows(needle.len()).any(|window| window == needle)
    }

    /// Waits until it keeps a message.
    pub async fn keeps_one(&self) {
        self.until(|state| !state.kept.is_empty()).await;
    }

    /// Waits until no machine is connected.
    pub async fn quiet(&self) {
        self.until(|state| state.guests == 0).await;
    }

    async fn until(&self, fits: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if fits(&lock(&self.state)) {
                return;
            }
            changed.await;
        }
    }
}

async fn serve(mut socket: Socket, proven: Proven, state: &Mutex<State>, changed: &Notify) {
    let guest = proven.role == Role::Guest;
    let peer = {
        let mut state = lock(state);
        state.traffic.extend_from_slice(proven.key.as_bytes());
        state.traffic.extend_from_slice(&proven.credential.0);
        (state.sessions, state.guests) = (state.sessions + 1, state.guests + usize::from(guest));
        Peer { session: state.sessions, key: proven.key, outbox: Outbox::new(1 << 20) }
    };
    let welcome = Frame::Welcome { session: peer.session, window: 4 << 20, heartbeat_ms: 15_000, found: Maybe(None) };
    if socket.send(welcome.encode()).await.is_ok() {
        let handler = |bytes: Bytes| {
            let mut state = lock(state);
            state.traffic.extend_from_slice(&bytes);
            let done = match Frame::decode(&bytes) {
                Ok(frame) => state.receive(&peer, guest, frame),
                Err(error) => Err(error.to_string()),
            };
            drop(state);
            changed.notify_waiters();
            done
        };
        pump(socket, &peer.outbox, handler, std::future::pending()).await;
    }
    {
        let mut state = lock(state);
        state.guests -= usize::from(guest);
        state.gone(peer.session);
    }
    changed.notify_waiters();
}

impl State {
    fn receive(&mut self, peer: &Peer, guest: bool, frame: Frame) -> Result<(), String> {
        match frame {
            Frame::Ping { token } => say(peer, &Frame::Pong { token }),
            Frame::Request { id, body, .. } => {
                let answer = match Ask::decode(&body.0) {
                    Ok(Ask::PairNew { ttl_secs }) => self.slot(peer, ttl_secs),
                    Ok(Ask::PairClose { slot }) => {
                        self.makers.remove(&slot);
                        Answer::Done {}
                    }
                    Ok(Ask::Nodes { .. } | Ask::NodesAfter { .. }) => Answer::Nodes { nodes: Vec::new() },
                    _ => Answer::Done {},
                };
                say(peer, &Frame::Reply { id, body: Maybe(Some(Blob(answer.encode()))), error: Maybe(None) });
            }
            Frame::PairJoin { slot, message, facts } => self.join(peer, slot, message.0, facts),
            Frame::PairMessage { pairing, message } => self.message(pairing, guest, message.0),
            Frame::PairEnd { pairing, code, message } => self.end(pairing, !guest, &code, &message),
            Frame::Goodbye { .. } => return Err("goodbye".into()),
            _ => {}
        }
        Ok(())
    }

    fn slot(&mut self, maker: &Peer, ttl_secs: u64) -> Answer {
        let slot = (1..).find(|slot| !self.makers.contains_key(slot)).unwrap_or(u64::MAX);
        self.makers.insert(slot, maker.clone());
        Answer::Slot { slot, expires_at: crate::faketime::real_time() + ttl_secs }
    }

    fn join(&mut self, guest: &Peer, slot: u64, message: Vec<u8>, facts: Facts) {
        let Some(maker) = self.makers.get(&slot).cloned() else {
            let end = Frame::PairEnd { pairing: 0, code: "not_paired".into(), message: "no such code is waiting here".into() };
            return say(guest, &end);
        };
        let pairing = FIRST_RUN + self.runs.len() as u64;
        self.runs.insert(pairing, Run { guest: guest.clone(), maker, slot, facts, tale: Tale::default(), over: false });
        self.pass(pairing, Part::Join, message);
    }

    fn message(&mut self, pairing: u64, guest: bool, message: Vec<u8>) {
        let Some(run) = self.runs.get_mut(&pairing).filter(|run| !run.over) else { return };
        let said = if guest { &mut run.tale.from_guest } else { &mut run.tale.from_maker };
        *said += 1;
        let part = match (guest, *said) {
            (true, 1) => Part::Confirm,
            (true, _) => Part::Stored,
            (false, 1) => Part::Answer,
            (false, _) => Part::Welcome,
        };
        self.pass(pairing, part, message);
        if part == Part::Stored
            && let Some(run) = self.runs.get_mut(&pairing)
        {
            // As the true relay does, whether it has passed the message on or not.
            run.over = true;
            say(&run.guest, &Frame::PairEnd { pairing, code: PAIR_DONE.into(), message: String::new() });
        }
    }

    /// Passes a message on, or plays its trick.
    fn pass(&mut self, pairing: u64, part: Part, mut message: Vec<u8>) {
        let trick = self.trick.filter(|(which, _)| *which == part).map(|(_, trick)| trick);
        self.touched += u32::from(trick.is_some());
        match trick {
            None => self.deliver(pairing, part, message),
            Some(Trick::Flip) => {
                let middle = message.len() / 2;
                message[middle] ^= 1;
                self.deliver(pairing, part, message);
            }
            Some(Trick::Cut) => {
                message.pop();
                self.deliver(pairing, part, message);
            }
            Some(Trick::Twice) => {
                self.deliver(pairing, part, message.clone());
                self.deliver(pairing, part, message);
            }
            Some(Trick::Reflect) => {
                if let Some(run) = self.runs.get(&pairing) {
                    let sender = if part.to_maker() { &run.guest } else { &run.maker };
                    say(sender, &Frame::PairMessage { pairing, message: Blob(message) });
                }
            }
            Some(Trick::Swap) => match self.kept.pop() {
                Some((other, first)) => {
                    self.deliver(other, part, message);
                    self.deliver(pairing, part, first);
                }
                None => self.kept.push((pairing, message)),
            },
            Some(Trick::Hold) => self.kept.push((pairing, message)),
            Some(Trick::HangUp) => {
                self.deliver(pairing, part, message);
                if let Some(run) = self.runs.get(&pairing) {
                    run.guest.outbox.close();
                }
            }
        }
    }

    fn deliver(&self, pairing: u64, part: Part, message: Vec<u8>) {
        let Some(run) = self.runs.get(&pairing) else { return };
        let message = Blob(message);
        match part {
            Part::Join => {
                let (slot, key, facts) = (run.slot, run.guest.key, run.facts.clone());
                say(&run.maker, &Frame::PairOffer { pairing, slot, message, key, facts });
            }
            _ if part.to_maker() => say(&run.maker, &Frame::PairMessage { pairing, message }),
            _ => say(&run.guest, &Frame::PairMessage { pairing, message }),
        }
    }

    /// One side ends a pairing; the other is told.
    fn end(&mut self, pairing: u64, to_guest: bool, code: &str, message: &str) {
        if let Some(run) = self.runs.get_mut(&pairing).filter(|run| !run.over) {
            run.over = true;
            let other = if to_guest { &run.guest } else { &run.maker };
            say(other, &Frame::PairEnd { pairing, code: code.into(), message: message.into() });
        }
    }

    /// A session is over, and with it its codes and pairings.
    fn gone(&mut self, session: u64) {
        self.makers.retain(|_, maker| maker.session != session);
        let ended = self.runs.iter().filter(|(_, run)| run.guest.session == session || run.maker.session == session);
        for (pairing, to_guest) in ended.map(|(pairing, run)| (*pairing, run.maker.session == session)).collect::<Vec<_>>() {
            self.end(pairing, to_guest, "link_lost", "the other side is gone");
        }
    }
}

fn say(peer: &Peer, frame: &Frame) {
    let _ = peer.outbox.control(frame.encode());
}
