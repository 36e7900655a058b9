//! A relay with a key of its own before the true one: every machine that dials it finds a relay, and the relay finds a
//! guest. It passes everything on and keeps it, to be searched for what it must not know.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use outhaul_link::accept::Acceptor;
use outhaul_link::dial::{self, Identity, Target};
use outhaul_protocol::cbor::{Blob, Maybe};
use outhaul_protocol::frame::{Frame, Role};
use outhaul_protocol::keys::SecretKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

fn lock(traffic: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    traffic.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The relay.
#[derive(Debug)]
pub struct Impostor {
    address: SocketAddr,
    traffic: Arc<Mutex<Vec<u8>>>,
    server: JoinHandle<()>,
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Impostor {
    /// Stands before the relay of this target.
    pub async fn before(target: Target) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind the impostor")?;
        let address = listener.local_addr()?;
        let traffic = Arc::new(Mutex::new(Vec::new()));
        let server = {
            let traffic = traffic.clone();
            tokio::spawn(async move {
                let mut peers = tokio::task::JoinSet::new();
                while let Ok((tcp, _)) = listener.accept().await {
                    let (target, traffic) = (target.clone(), traffic.clone());
                    peers.spawn(async move { between(tcp, &target, &traffic).await });
                }
            })
        };
        Ok(Impostor { address, traffic, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Whether these bytes stand anywhere in what it ever saw.
    #[must_use]
    pub fn saw(&self, needle: &[u8]) -> bool {
        lock(&self.traffic).windows(needle.len()).any(|window| window == needle)
    }

    /// Bytes it saw.
    #[must_use]
    pub fn seen_bytes(&self) -> usize {
        lock(&self.traffic).len()
    }
}

/// Passes all frames on after the handshakes, which are the impostor's own at both ends.
async fn between(tcp: TcpStream, target: &Target, traffic: &Mutex<Vec<u8>>) -> Result<()> {
    let (own, guest) = (SecretKey::generate(), SecretKey::generate());
    let (mut machine, proven) = Acceptor { tls: None, origins: Vec::new() }.accept(tcp, &own).await?;
    lock(traffic).extend_from_slice(proven.key.as_bytes());
    let identity = Identity { role: Role::Guest, key: &guest, credential: Blob(Vec::new()), lookup: None };
    let mut relay = dial::dial(target, identity, |_| Ok(())).await?.socket;
    let welcome = Frame::Welcome { session: 1, window: 4 << 20, heartbeat_ms: 15_000, found: Maybe(None) };
    machine.send(welcome.encode()).await?;
    loop {
        let (bytes, to) = tokio::select! {
            bytes = machine.receive() => (bytes?, &mut relay),
            bytes = relay.receive() => (bytes?, &mut machine),
        };
        lock(traffic).extend_from_slice(&bytes);
        to.send(bytes.to_vec()).await?;
    }
}
