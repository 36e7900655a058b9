//! Dialing a relay: TCP, TLS where the URL says so, WebSocket, and the handshake. One deadline covers it all.

use std::net::SocketAddr;
use std::time::Duration;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::credit::pool;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Frame, Lookup, NodeRecord, Role, SUBPROTOCOL};
use outhaul_protocol::handshake::{PeerHello, welcome_or_refusal};
use outhaul_protocol::keys::{Digest, PublicKey, SecretKey};
use outhaul_protocol::limits;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_util::either::Either;

use crate::eager::Eager;
use crate::socket::{self, Ended, Socket, Transport};
use crate::tls::{self, Roots};
use crate::url::RelayUrl;

/// Where and how to dial.
#[derive(Debug, Clone)]
pub struct Target {
    /// the relay
    pub url: RelayUrl,
    /// whom to trust for TLS
    pub roots: Roots,
    /// allows `ws://` to something that is not this machine
    pub allow_plaintext: bool,
}

/// As whom.
#[derive(Debug)]
pub struct Identity<'a> {
    /// as what
    pub role: Role,
    /// proven by signing
    pub key: &'a SecretKey,
    /// certificate, chain, or nothing
    pub credential: Blob,
    /// an operator's first question
    pub lookup: Option<Lookup>,
}

/// A link that is up.
#[derive(Debug)]
pub struct Connected {
    /// its socket
    pub socket: Socket,
    /// the relay's key, proven and trusted
    pub relay: PublicKey,
    /// what control requests are signed over
    pub transcript: Digest,
    /// this session's number at the relay
    pub session: u64,
    /// bytes of bulk that may be under way to this end, in all its channels
    pub window: u32,
    /// time between heartbeats
    pub heartbeat: Duration,
    /// the answer to the lookup
    pub found: Option<Vec<NodeRecord>>,
}

/// Dials. `trust` judges the relay's proven key before anything of ours is shown.
pub async fn dial(
    target: &Target,
    identity: Identity<'_>,
    trust: impl FnOnce(&PublicKey) -> Result<(), Failure>,
) -> Result<Connected, Failure> {
    let limit = Duration::from_secs(limits::HANDSHAKE_SECS);
    match tokio::time::timeout(limit, connect(target, identity, trust)).await {
        Ok(done) => done,
        Err(_) => Err(unreachable(target, &format!("no answer within {} s", limit.as_secs()), THERE)),
    }
}

async fn connect(
    target: &Target,
    identity: Identity<'_>,
    trust: impl FnOnce(&PublicKey) -> Result<(), Failure>,
) -> Result<Connected, Failure> {
    let (transport, exporter) = transport(target).await?;
    let mut socket = upgrade(target, transport).await?;
    let lost = |ended: Ended| unreachable(target, &format!("during the handshake: {ended}"), THERE);

    let hello = PeerHello::new();
    socket.send(hello.frame().to_vec()).await.map_err(lost)?;
    let challenged = hello.challenged(&socket.receive().await.map_err(lost)?, exporter)?;
    trust(challenged.relay())?;
    let relay = *challenged.relay();
    let (proof, transcript) = challenged.prove(identity.role, identity.key, identity.credential, identity.lookup);
    // The relay has nothing more to say before our proof: the buffer is empty here.
    let mut socket = socket.authenticated().await;
    socket.send(proof).await.map_err(lost)?;
    match welcome_or_refusal(&socket.receive().await.map_err(lost)?)? {
        Frame::Welcome { window, .. } if u64::from(window) < pool::least() => Err(Failure::new(
            Code::RelayRefused,
            format!("the relay has room for {window} bytes under way to this end, less than two messages need"),
        )),
        Frame::Welcome { session, window, heartbeat_ms, found } => {
            let heartbeat = Duration::from_millis(heartbeat_ms.clamp(1_000, 60_000));
            // No more than what our own ceilings were made for, whatever it says.
            let window = window.min(limits::SOCKET_QUEUE as u32);
            Ok(Connected { socket, relay, transcript, session, window, heartbeat, found: found.0 })
        }
        _ => Err(Failure::new(Code::RelayRefused, "a welcome was expected")),
    }
}

async fn transport(target: &Target) -> Result<(Transport, Option<[u8; 32]>), Failure> {
    let (host, port) = (target.url.host(), target.url.port());
    let looked_up = tokio::net::lookup_host((host, port)).await;
    let addresses: Vec<SocketAddr> = looked_up.map_err(|error| unreachable(target, &error.to_string(), NAME))?.collect();
    let local = !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback());
    if !target.url.is_tls() && !local && !target.allow_plaintext {
        return Err(Failure::new(Code::BadConfig, format!("`{}` is plaintext and not this machine", target.url))
            .hint("use wss://, or set allow_plaintext = true (agent.toml, operator.toml) where the path is protected otherwise"));
    }
    let tcp = TcpStream::connect(addresses.as_slice()).await.map_err(|error| unreachable(target, &error.to_string(), THERE))?;
    // Frames are batched before they are written; Nagle would only add a round trip.
    let _ = tcp.set_nodelay(true);
    if !target.url.is_tls() {
        return Ok((Eager::new(Either::Left(tcp)), None));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| unreachable(target, "the host is no TLS server name", NAME))?;
    let stream = tokio_rustls::TlsConnector::from(target.roots.client()?).connect(name, tcp).await.map_err(|error| {
        let (why, hint) = tls::trouble(&error);
        unreachable(target, &format!("TLS: {why}"), hint)
    })?;
    let exporter = tls::exporter(stream.get_ref().1);
    Ok((Eager::new(Either::Right(Box::new(stream.into()))), exporter))
}

async fn upgrade(target: &Target, transport: Transport) -> Result<Socket, Failure> {
    let mut request = target
        .url
        .endpoint()
        .into_client_request()
        .map_err(|error| Failure::new(Code::BadUsage, format!("relay URL `{}`: {error}", target.url)))?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(SUBPROTOCOL));
    let config = socket::config(socket::READ_BUFFER_DIALER, limits::FRAME_BEFORE_AUTH);
    let (ws, _) = tokio_tungstenite::client_async_with_config(request, transport, Some(config))
        .await
        .map_err(|error| unreachable(target, &format!("no Outhaul relay answers there: {error}"), SCHEME))?;
    Ok(Socket::new(ws, false, socket::READ_BUFFER_DIALER))
}

const THERE: &str = "is `relay serve` running there, is the port right, and does a firewall stand between?";
const NAME: &str = "is the host's name right, and does this machine know it?";
const SCHEME: &str = "is the port right? a relay with TLS is wss://, one without is ws://";

fn unreachable(target: &Target, why: &str, hint: &str) -> Failure {
    Failure::new(Code::RelayUnreachable, format!("reach relay `{}`: {why}", target.url)).hint(hint)
}
