//! A wire between a program and a relay: it remembers the bytes that went by, and breaks after any one of them. What
//! came through before it broke still arrives, as on a real one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How long the relay may take to notice that a wire broke.
const NOTICE: Duration = Duration::from_secs(10);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// to the relay
    Up,
    /// from the relay
    Down,
}

/// Where a wire breaks: after so many bytes this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Break {
    /// this way
    pub way: Way,
    /// so many bytes
    pub after: usize,
}

/// What one connection carried.
#[derive(Debug, Clone, Default)]
pub struct Carried {
    /// to the relay
    pub up: Vec<u8>,
    /// from the relay
    pub down: Vec<u8>,
    /// how far each way was whenever a piece had passed: nearly always the end of a message
    pub marks: Vec<(bool, usize)>,
}

impl Carried {
    /// Every place where a message ends.
    #[must_use]
    pub fn boundaries(&self) -> Vec<Break> {
        let way = |up: bool| if up { Way::Up } else { Way::Down };
        self.marks.iter().map(|(up, after)| Break { way: way(*up), after: *after }).collect()
    }
}

#[derive(Debug, Default)]
struct State {
    breaks: Option<Break>,
    connections: usize,
    open: usize,
    last: Carried,
}

/// The wire.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    server: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// A wire to the relay that listens there.
    pub async fn to(relay: &str) -> Result<Self> {
        let relay: SocketAddr = relay.parse().with_context(|| format!("`{relay}` is no address"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind the wire")?;
        let address = listener.local_addr()?;
        let (state, changed) = (Arc::new(Mutex::new(State::default())), Arc::new(Notify::new()));
        let server = {
            let (state, changed) = (state.clone(), changed.clone());
            tokio::spawn(async move {
                let mut carriers = tokio::task::JoinSet::new();
                while let Ok((program, _)) = listener.accept().await {
                    {
                        let mut state = lock(&state);
                        (state.connections, state.open, state.last) = (state.connections + 1, state.open + 1, Carried::default());
                    }
                    let (state, changed) = (state.clone(), changed.clone());
                    carriers.spawn(async move {
                        carry(program, relay, &state).await;
                        lock(&state).open -= 1;
                        changed.notify_waiters();
                    });
                }
            })
        };
        Ok(Wire { address, state, changed, server })
    }

    /// Where programs dial.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Breaks every connection from now on there, or none.
    pub fn breaks(&self, at: Option<Break>) {
        lock(&self.state).breaks = at;
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// What the last connection carried.
    #[must_use]
    pub fn carried(&self) -> Carried {
        lock(&self.state).last.clone()
    }

    /// Waits until no connection is open, at either end.
    pub async fn quiet(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if lock(&self.state).open == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// Carries one connection until it breaks or one of its ends closes.
async fn carry(program: TcpStream, relay: SocketAddr, state: &Mutex<State>) {
    let breaks = lock(state).breaks;
    let limit = |way: Way| breaks.filter(|at| at.way == way).map_or(usize::MAX, |at| at.after);
    let Ok(relay) = TcpStream::connect(relay).await else { return };
    let (_, _) = (program.set_nodelay(true), relay.set_nodelay(true));
    let (mut from_program, mut to_program) = program.into_split();
    let (mut from_relay, mut to_relay) = relay.into_split();
    tokio::select! {
        () = pass(&mut from_program, &mut to_relay, limit(Way::Up), state, Way::Up) => {}
        () = pass(&mut from_relay, &mut to_program, limit(Way::Down), state, Way::Down) => {}
    }
    drop((from_program, to_program));
    // The relay reads what came through, then sees the end; it is done with it when it closes.
    let _ = to_relay.shutdown().await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(NOTICE, from_relay.read_to_end(&mut rest)).await;
}

async fn pass(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, limit: usize, state: &Mutex<State>, way: Way) {
    let (mut passed, mut piece) = (0, vec![0; 16 << 10]);
    while passed < limit {
        let room = piece.len().min(limit - passed);
        let Ok(read @ 1..) = from.read(&mut piece[..room]).await else { return };
        passed += read;
        {
            let mut state = lock(state);
            state.last.marks.push((way == Way::Up, passed));
            if way == Way::Up { &mut state.last.up } else { &mut state.last.down }.extend_from_slice(&piece[..read]);
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}
