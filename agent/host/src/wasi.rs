//! WASI 0.2 for packs of any language: clocks, randomness, standard streams, and the folders that the machine's owner granted; no
//! address may be reached, there is no environment. What a pack prints is the call's output, what it reads is the call's input.

mod file_stream;
pub(crate) mod filesystem;

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::{AsyncWrite, empty};
use tokio_util::sync::PollSender;
use wasmtime::component::Linker;
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{AsyncStdinStream, IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::limits::{CHUNK, RANDOM};
use crate::sink::{Lane, Output, Sink};
use crate::state::State;
use crate::stream::HostStream;

/// Interfaces of WASI 0.2 that are linked, without their version.
pub(crate) const INTERFACES: [&str; 27] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// Whether an import is one of [`INTERFACES`] in version 0.2.
pub(crate) fn offers(import: &str) -> bool {
    import.split_once('@').is_some_and(|(name, version)| version.starts_with("0.2.") && INTERFACES.contains(&name))
}

/// Whether an import is how a guest asks for folders.
pub(crate) fn asks_for_files(import: &str) -> bool {
    offers(import) && import.starts_with("wasi:filesystem/preopens@")
}

/// Links all of them.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    filesystem::link(linker)
}

/// What a call's guest sees of WASI.
pub(crate) fn context(sink: &Sink, input: Option<HostStream>) -> WasiCtx {
    let mut wasi = WasiCtx::builder();
    wasi.stdout(Printed::new(sink, Lane::Stdout))
        .stderr(Printed::new(sink, Lane::Stderr))
        .allow_tcp(false)
        .allow_udp(false)
        .max_random_size(RANDOM);
    match input {
        Some(input) => wasi.stdin(AsyncStdinStream::new(input)),
        None => wasi.stdin(empty()),
    };
    wasi.build()
}

/// A standard stream that is a lane of the call. What is written waits for room in the call's queue and nowhere else, so that nothing is
/// lost when the guest ends without a flush.
struct Printed {
    sink: Sink,
    queue: PollSender<Output>,
    lane: Lane,
}

impl Printed {
    fn new(sink: &Sink, lane: Lane) -> Self {
        Printed { sink: sink.clone(), queue: PollSender::new(sink.queue()), lane }
    }

    fn again(&self) -> Self {
        Printed::new(&self.sink, self.lane)
    }

    /// Puts bytes into a place that was reserved; how many were taken.
    fn put(&mut self, bytes: &[u8]) -> Result<usize, Closed> {
        let taken = self.sink.take(bytes.len());
        if taken == 0 && !bytes.is_empty() {
            return Err(Closed);
        }
        self.queue.send_item(Output::Data { lane: self.lane, bytes: Bytes::copy_from_slice(&bytes[..taken]) }).map_err(|_| Closed)?;
        Ok(taken)
    }
}

/// The caller left, or the output ceiling was reached.
struct Closed;

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.again())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.again())
    }
}

#[async_trait]
impl Pollable for Printed {
    async fn ready(&mut self) {
        // A closed queue is ready to say so.
        drop(std::future::poll_fn(|cx| self.queue.poll_reserve(cx)).await);
    }
}

#[async_trait]
impl OutputStream for Printed {
    fn check_write(&mut self) -> StreamResult<usize> {
        match self.queue.poll_reserve(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Ok(CHUNK),
            Poll::Ready(Err(_)) => Err(StreamError::Closed),
            Poll::Pending => Ok(0),
        }
    }

    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.check_write()? < bytes.len() {
            return Err(StreamError::trap("the pack wrote more than it was permitted to"));
        }
        match self.put(&bytes) {
            Ok(taken) if taken == bytes.len() => Ok(()),
            Ok(_) | Err(Closed) => Err(StreamError::Closed),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    /// What nearly every guest prints with. It keeps no place in the queue when it is done: the next lane may need the last one.
    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.queue.abort_send();
        match self.sink.send(self.lane, bytes).await {
            (_, None) => Ok(()),
            (_, Some(_)) => Err(StreamError::Closed),
        }
    }
}

impl AsyncWrite for Printed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let me = self.get_mut();
        let closed = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        ready!(me.queue.poll_reserve(cx)).map_err(|_| closed())?;
        Poll::Ready(me.put(&bytes[..bytes.len().min(CHUNK)]).map_err(|Closed| closed()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_two_of_known_interfaces_is_offered() {
        assert!(offers("wasi:cli/environment@0.2.6") && offers("wasi:sockets/udp-create-socket@0.2.0"));
        for import in ["wasi:cli/environment@0.3.0", "wasi:keyvalue/store@0.2.0", "wasi:cli/environment", "cli/environment@0.2.0"] {
            assert!(!offers(import), "{import}");
        }
    }
}
