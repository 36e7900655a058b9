//! nats-server, and a client for it that does only what is measured and does it in bulk: everything read at once is
//! answered with one write. Any real client is slower, which would be to our advantage.

use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use outhaul_tests::Process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::load::{Load, payload};

/// More than any burst of 128 requests.
const BUFFER: usize = 64 << 10;
/// Requests that may be in flight.
const SLOTS: usize = 256;

/// The installed server's own word for itself, when there is one.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("nats-server").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().replace("nats-server: v", "nats-server "))
}

/// A server with a requester and a responder on two connections.
#[derive(Debug)]
pub(crate) struct Nats {
    requester: Connection,
    _responder: Connection,
    load: Arc<Load>,
    requests: Arc<Vec<Vec<u8>>>,
    _server: Process,
}

impl Nats {
    pub(crate) async fn start() -> Result<Self> {
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", "-1"]);
        let mut server = Process::start(command)?;
        let line = server.wait_for("Listening for client connections on ")?;
        let address = line.text().rsplit(' ').next().context("an address")?.to_owned();
        server.wait_for("Server is ready")?;
        let load = Arc::new(Load::default());
        let responder = Connection::open(&address, "SUB service 1\r\n", &load, |message, out| publish(out, message.reply, message.payload));
        let responder = responder.await?;
        let requests: Arc<Vec<Vec<u8>>> = Arc::new((0..SLOTS).map(request).collect());
        let answers = {
            let (load, requests) = (load.clone(), requests.clone());
            move |message: Message<'_>, out: &mut Vec<u8>| {
                let slot = usize::from(message.payload[0]);
                if load.answered(slot) {
                    out.extend_from_slice(&requests[slot]);
                }
            }
        };
        let requester = Connection::open(&address, "SUB inbox.* 1\r\n", &load, answers).await?;
        Ok(Nats { requester, _responder: responder, load, requests, _server: server })
    }

    /// One round of request and reply.
    pub(crate) async fn round(&self, in_flight: usize, time: std::time::Duration) -> Result<crate::load::Round> {
        self.load
            .round(in_flight, time, |slot| {
                self.requester.send(&self.requests[slot]);
                Ok(())
            })
            .await
    }
}

fn request(slot: usize) -> Vec<u8> {
    let payload = payload(slot);
    [format!("PUB service inbox.{slot} {}\r\n", payload.len()).as_bytes(), &payload, b"\r\n"].concat()
}

fn publish(out: &mut Vec<u8>, subject: &str, payload: &[u8]) {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(subject.as_bytes());
    out.extend_from_slice(format!(" {}\r\n", payload.len()).as_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// What the server delivers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    reply: &'a str,
    payload: &'a [u8],
}

/// One connection and the task that serves it.
#[derive(Debug)]
struct Connection {
    queued: Arc<(Mutex<Vec<u8>>, Notify)>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Connects and subscribes; returns when the server has taken the subscription.
    async fn open(
        address: &str,
        subscribe: &str,
        load: &Arc<Load>,
        on_message: impl FnMut(Message<'_>, &mut Vec<u8>) + Send + 'static,
    ) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let hello = format!("CONNECT {{\"verbose\":false,\"pedantic\":false,\"lang\":\"bench\"}}\r\n{subscribe}PING\r\n");
        stream.write_all(hello.as_bytes()).await?;
        let queued = Arc::new((Mutex::new(Vec::new()), Notify::new()));
        let (ready, is_ready) = oneshot::channel();
        let serving = serve(stream, queued.clone(), ready, on_message);
        let load = load.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = serving.await {
                load.broke(&format!("{error:#}"));
            }
        });
        is_ready.await.context("nats-server did not take the subscription")?;
        Ok(Connection { queued, task })
    }

    fn send(&self, bytes: &[u8]) {
        self.queued.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        self.queued.1.notify_one();
    }
}

async fn serve(
    mut stream: TcpStream,
    queued: Arc<(Mutex<Vec<u8>>, Notify)>,
    ready: oneshot::Sender<()>,
    mut on_message: impl FnMut(Message<'_>, &mut Vec<u8>),
) -> Result<()> {
    let (mut input, mut out, mut ready) = (Vec::with_capacity(BUFFER), Vec::with_capacity(BUFFER), Some(ready));
    loop {
        tokio::select! {
            read = stream.read_buf(&mut input) => ensure!(read? > 0, "nats-server hung up"),
            () = queued.1.notified() => out.append(&mut queued.0.lock().unwrap_or_else(PoisonError::into_inner)),
        }
        let mut at = 0;
        while let Some((event, used)) = parse(&input[at..])? {
            match event {
                Event::Message(message) => on_message(message, &mut out),
                Event::Ping => out.extend_from_slice(b"PONG\r\n"),
                Event::Pong => drop(ready.take().map(|ready| ready.send(()))),
                Event::Other => {}
            }
            at += used;
        }
        input.drain(..at);
        if !out.is_empty() {
            stream.write_all(&out).await?;
            out.clear();
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Event<'a> {
    Message(Message<'a>),
    Ping,
    Pong,
    Other,
}

/// The first whole event of some bytes and how many it took.
fn parse(bytes: &[u8]) -> Result<Option<(Event<'_>, usize)>> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = std::str::from_utf8(&bytes[..end])?;
    let after = end + 2;
    let event = match line.split_once(' ').map_or(line, |(word, _)| word) {
        "MSG" => {
            let words: Vec<&str> = line.split(' ').collect();
            let length: usize = words.last().context("a length")?.parse()?;
            let Some(payload) = bytes.get(after..after + length) else { return Ok(None) };
            if bytes.len() < after + length + 2 {
                return Ok(None);
            }
            let reply = if words.len() == 5 { words[3] } else { "" };
            return Ok(Some((Event::Message(Message { reply, payload }), after + length + 2)));
        }
        "PING" => Event::Ping,
        "PONG" => Event::Pong,
        "-ERR" => bail!("nats-server says {line}"),
        _ => Event::Other,
    };
    Ok(Some((event, after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_is_read_whole_events_only() {
        let whole = b"MSG service 1 inbox.7 3\r\nabc\r\nPING\r\n";
        let message = Event::Message(Message { reply: "inbox.7", payload: b"abc" });
        assert_eq!(parse(whole).unwrap(), Some((message, whole.len() - 6)));
        assert_eq!(parse(&whole[whole.len() - 6..]).unwrap(), Some((Event::Ping, 6)));
        for cut in [0, 10, 26, 29] {
            assert_eq!(parse(&whole[..cut]).unwrap(), None, "{cut}");
        }
        assert!(parse(b"-ERR 'no'\r\n").is_err());
    }
}
