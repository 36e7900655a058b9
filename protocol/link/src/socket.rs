//! One WebSocket and the loop that moves its bytes: reads frames into a handler, drains an [`Outbox`] into the socket.
//! Reading never waits for writing: two ends that both only wrote would wait for each other for ever.

use std::future::Future;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use outhaul_protocol::limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::either::Either;

use crate::eager::Eager;
use crate::outbox::Outbox;

/// TCP, or TLS over it (boxed: a TLS state is a kilobyte that plain sockets need not carry).
pub(crate) type Transport = Eager<Either<TcpStream, Box<tokio_rustls::TlsStream<TcpStream>>>>;

/// A WebSocket whose handshake with the relay is done or under way.
#[derive(Debug)]
pub struct Socket {
    ws: WebSocketStream<Transport>,
    server: bool,
    read_buffer: usize,
}

/// Why a socket's loop ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The peer closed, or the network did.
    #[error("the connection ended")]
    Closed,
    /// Bytes that are no WebSocket, or larger than their ceiling.
    #[error("{0}")]
    Protocol(String),
    /// The handler or the owner stopped it.
    #[error("{0}")]
    Stopped(String),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) => Ended::Closed,
            other => Ended::Protocol(other.to_string()),
        }
    }
}

/// Bytes gathered before a write: large enough that a busy link writes in bulk, small beside a socket buffer.
const WRITE_BUFFER: usize = 64 << 10;
/// Read buffer of dialers: streams run fastest around 16 KiB.
pub(crate) const READ_BUFFER_DIALER: usize = 16 << 10;
/// Read buffer of the relay's side: tungstenite never gives a grown buffer back, and ten thousand idle nodes count.
pub(crate) const READ_BUFFER_RELAY: usize = 1 << 10;

/// Frames read in a row before what they caused may be written: two ends that take turns with whole batches would each
/// wait for the other, with half of the machine idle. Fewer would cost more system calls than the overlap saves.
const BURST: u32 = 32;

pub(crate) fn config(read_buffer: usize, frame: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(read_buffer)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER + 4 * limits::FRAME)
        .max_message_size(Some(frame))
        .max_frame_size(Some(frame))
}

impl Socket {
    pub(crate) fn new(ws: WebSocketStream<Transport>, server: bool, read_buffer: usize) -> Self {
        Socket { ws, server, read_buffer }
    }

    /// Sends one frame at once.
    pub async fn send(&mut self, frame: Vec<u8>) -> Result<(), Ended> {
        Ok(self.ws.send(Message::Binary(frame.into())).await?)
    }

    /// The next frame.
    pub async fn receive(&mut self) -> Result<Bytes, Ended> {
        receive(&mut self.ws).await
    }

    /// The peer is known: its frames may be large from here. Only where the peer has to wait for us, so that nothing of
    /// its is in the buffer.
    pub(crate) async fn authenticated(self) -> Self {
        let role = if self.server { Role::Server } else { Role::Client };
        let config = config(self.read_buffer, limits::FRAME);
        let ws = WebSocketStream::from_raw_socket(self.ws.into_inner(), role, Some(config)).await;
        Socket { ws, ..self }
    }

    /// Closes with a WebSocket close frame, without waiting for the peer's.
    pub async fn close(mut self) {
        let _ = self.ws.close(None).await;
    }
}

async fn receive<S>(stream: &mut S) -> Result<Bytes, Ended>
where
    S: StreamExt<Item = Result<Message, Error>> + Unpin,
{
    loop {
        match stream.next().await {
            Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
            // tungstenite answers pings itself; ours are frames.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Text(_))) => return Err(Ended::Protocol("text messages have no meaning here".into())),
            Some(Ok(Message::Close(_))) | None => return Err(Ended::Closed),
            Some(Err(error)) => return Err(error.into()),
        }
    }
}

/// Moves bytes until the connection ends, the handler refuses a frame, or `stop` resolves. The handler must not wait:
/// it queues, counts or refuses. What is in the outbox when `stop` resolves or the outbox closes is still written.
pub async fn pump(
    socket: Socket,
    outbox: &Outbox,
    mut on_frame: impl FnMut(Bytes) -> Result<(), String>,
    stop: impl Future<Output = String>,
) -> Ended {
    let (mut sink, mut stream) = socket.ws.split();
    let reading = async {
        let mut in_a_row = 0;
        loop {
            let frame = match receive(&mut stream).await {
                Ok(frame) => frame,
                Err(ended) => return ended,
            };
            if let Err(reason) = on_frame(frame) {
                return Ended::Stopped(reason);
            }
            in_a_row += 1;
            if in_a_row == BURST {
                in_a_row = 0;
                tokio::task::yield_now().await;
            }
        }
    };
    let stopping = async {
        let reason = stop.await;
        outbox.close();
        reason
    };
    let ended = tokio::select! {
        ended = reading => ended,
        written = write_all(&mut sink, outbox) => match written {
            Ok(()) => Ended::Stopped("closed by this side".into()),
            Err(error) => error.into(),
        },
        reason = stopping => Ended::Stopped(reason),
    };
    outbox.close();
    if let Ended::Stopped(_) = &ended {
        // A last word (a goodbye, a refusal) is worth a second, not more: the peer may not be reading.
        let farewell = async {
            let _ = write_all(&mut sink, outbox).await;
            let _ = sink.close().await;
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), farewell).await;
    }
    ended
}

/// Writes batches until the outbox is closed and empty. Flushes only when nothing more waits.
async fn write_all<S>(sink: &mut SplitSink<WebSocketStream<S>, Message>, outbox: &Outbox) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(batch) = outbox.take().await {
        for frame in batch.control {
            sink.feed(Message::Binary(frame)).await?;
        }
        let mut written = 0;
        for (frame, meter) in batch.bulk {
            let len = frame.len();
            sink.feed(Message::Binary(frame)).await?;
            if let Some(meter) = meter {
                meter.fetch_sub(len, Ordering::Relaxed);
            }
            // Told in bulk, as it is written: the queue's lock is shared with everybody who fills it.
            written += len;
            if written >= WRITE_BUFFER {
                outbox.written(std::mem::take(&mut written));
            }
            while let Some(control) = outbox.take_control() {
                sink.feed(Message::Binary(control)).await?;
            }
        }
        outbox.written(written);
        if outbox.is_empty() {
            sink.flush().await?;
        }
    }
    Ok(())
}
