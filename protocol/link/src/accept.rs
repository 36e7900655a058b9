//! The relay's side of a connection: TLS, one HTTP request head, then a WebSocket upgrade at [`LINK_PATH`] or a plain
//! HTTP answer. Judges nothing but form; who the peer is comes with the handshake.

use std::time::Duration;

use outhaul_protocol::error::Failure;
use outhaul_protocol::frame::{Frame, LINK_PATH, SUBPROTOCOL};
use outhaul_protocol::handshake::{Challenge, Exporter, Proven};
use outhaul_protocol::keys::SecretKey;
use outhaul_protocol::limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::either::Either;

use crate::eager::Eager;
use crate::socket::{self, Ended, Socket, Transport};
use crate::tls::{self, ServerTls};

/// Bytes of an HTTP request head.
const HEAD: usize = 8 << 10;
/// Headers in it.
const HEADERS: usize = 64;

/// Why a connection did not become a link. Nobody but the log hears of it.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It took longer than a handshake may.
    #[error("the handshake took too long")]
    Slow,
    /// TLS or TCP failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The request was answered as plain HTTP.
    #[error("plain HTTP request for `{0}`")]
    Http(String),
    /// The WebSocket ended.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The handshake failed; the peer was told the code.
    #[error(transparent)]
    Refused(#[from] Failure),
}

/// How the relay accepts.
#[derive(Debug, Clone)]
pub struct Acceptor {
    /// ends TLS here, when set
    pub tls: Option<ServerTls>,
    /// web pages that may connect; a browser always says where it comes from
    pub origins: Vec<String>,
}

impl Acceptor {
    /// Takes a TCP connection through TLS, upgrade and handshake to a proven peer. The socket is ready for large
    /// frames; the caller sends welcome or refusal.
    pub async fn accept(&self, tcp: TcpStream, key: &SecretKey) -> Result<(Socket, Proven), AcceptError> {
        let limit = Duration::from_secs(limits::HANDSHAKE_SECS);
        tokio::time::timeout(limit, self.handshake(tcp, key)).await.map_err(|_| AcceptError::Slow)?
    }

    async fn handshake(&self, tcp: TcpStream, key: &SecretKey) -> Result<(Socket, Proven), AcceptError> {
        let _ = tcp.set_nodelay(true);
        let (transport, exporter) = self.transport(tcp).await?;
        let mut socket = self.upgrade(transport).await?;
        let hello = socket.receive().await?;
        match prove(&mut socket, &hello, key, exporter).await {
            Ok(proven) => Ok((socket.authenticated().await, proven)),
            Err(AcceptError::Refused(failure)) => {
                refuse(socket, &failure).await;
                Err(failure.into())
            }
            Err(other) => Err(other),
        }
    }

    async fn transport(&self, tcp: TcpStream) -> Result<(Transport, Option<Exporter>), AcceptError> {
        let Some(tls) = &self.tls else { return Ok((Eager::new(Either::Left(tcp)), None)) };
        let stream = tls.0.accept(tcp).await?;
        let exporter = tls::exporter(stream.get_ref().1);
        Ok((Eager::new(Either::Right(Box::new(stream.into()))), exporter))
    }

    async fn upgrade(&self, mut stream: Transport) -> Result<Socket, AcceptError> {
        let mut head = Vec::with_capacity(512);
        let answer = loop {
            if head.len() >= HEAD {
                break Err((String::new(), "431 Request Header Fields Too Large"));
            }
            if stream.read_buf(&mut head).await? == 0 {
                return Err(Ended::Closed.into());
            }
            match self.judge(&head) {
                None => {}
                Some(answer) => break answer,
            }
        };
        match answer {
            Ok(accept_key) => {
                let response = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept_key}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
                );
                stream.write_all(response.as_bytes()).await?;
                let config = socket::config(socket::READ_BUFFER_RELAY, limits::FRAME_BEFORE_AUTH);
                let ws = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
                Ok(Socket::new(ws, true, socket::READ_BUFFER_RELAY))
            }
            Err((path, status)) => {
                let body = if status.starts_with("200") { "ok\n" } else { "" };
                let response = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(response.as_bytes()).await?;
                stream.shutdown().await?;
                Err(AcceptError::Http(path))
            }
        }
    }

    /// The accept key of an upgrade, or the status of a plain answer; `None` while the head is not whole.
    fn judge(&self, head: &[u8]) -> Option<Result<String, (String, &'static str)>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let end = match request.parse(head) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) => return None,
            Err(_) => return Some(Err((String::new(), "400 Bad Request"))),
        };
        let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
        let header = |name: &str| {
            let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok())
        };
        let lists = |name: &str, wanted: &str| {
            header(name).is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(wanted)))
        };
        let status = if request.method != Some("GET") {
            "405 Method Not Allowed"
        } else if path == "/healthz" {
            "200 OK"
        } else if path != LINK_PATH {
            "404 Not Found"
        } else if header("Origin").is_some_and(|origin| !self.origins.iter().any(|allowed| allowed == origin)) {
            "403 Forbidden"
        } else if !lists("Upgrade", "websocket") || !lists("Connection", "upgrade") || !lists("Sec-WebSocket-Protocol", SUBPROTOCOL) {
            "426 Upgrade Required"
        } else if header("Sec-WebSocket-Version") != Some("13") || end != head.len() {
            // Nothing may follow an upgrade request before it is answered.
            "400 Bad Request"
        } else {
            return Some(match header("Sec-WebSocket-Key") {
                Some(key) => Ok(derive_accept_key(key.as_bytes())),
                None => Err((path, "400 Bad Request")),
            });
        };
        Some(Err((path, status)))
    }
}

async fn prove(socket: &mut Socket, hello: &[u8], key: &SecretKey, exporter: Option<Exporter>) -> Result<Proven, AcceptError> {
    let challenge = Challenge::answer(hello, key, exporter)?;
    socket.send(challenge.frame().to_vec()).await?;
    let proof = socket.receive().await?;
    Ok(challenge.proven(&proof)?)
}

/// Tells a peer why it may not come in, and closes.
pub async fn refuse(mut socket: Socket, failure: &Failure) {
    let frame = Frame::Refused { code: failure.code.as_str().into(), message: failure.message.clone() };
    let _ = socket.send(frame.encode()).await;
    socket.close().await;
}
