//! Byte streams between host, guest and caller. A stream that the host made and gets back is recognised and pumped past the guest: its
//! bytes never enter guest memory. A stream the guest made is read from the guest's memory as it is written.

use std::any::{Any, TypeId};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use outhaul_protocol::value::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, PollSender};
use wasmtime::StoreContextMut;
use wasmtime::component::{
    Access, Accessor, AccessorTask, Destination, Source, StreamConsumer, StreamProducer, StreamReader, StreamResult, VecBuffer,
};

use crate::limits::CHUNK;
use crate::power::call::Place;
use crate::power::process::{Pipe, drain};
use crate::sink::{Closed, Lane, Output, Sink};
use crate::state::State;

/// A stream that the host made.
#[derive(Debug)]
pub(crate) struct HostStream {
    from: From,
    over: CancellationToken,
}

#[derive(Debug)]
enum From {
    Caller { queue: mpsc::Receiver<Bytes>, rest: Bytes, _place: Option<Place> },
    Pipe { pipe: Pipe, buffer: BytesMut },
    Bytes(Bytes),
    Ended,
}

impl HostStream {
    /// What the caller sends.
    pub(crate) fn caller(queue: mpsc::Receiver<Bytes>, over: CancellationToken) -> Self {
        HostStream { from: From::Caller { queue, rest: Bytes::new(), _place: None }, over }
    }

    /// What another pack says. As long as it is held, so is the place of its call.
    pub(crate) fn called(queue: mpsc::Receiver<Bytes>, place: Place, over: CancellationToken) -> Self {
        HostStream { from: From::Caller { queue, rest: Bytes::new(), _place: Some(place) }, over }
    }

    /// What a child writes. `over` ends with the call: until then a stream that nobody wants is drained.
    pub(crate) fn pipe(pipe: Pipe, over: CancellationToken) -> Self {
        HostStream { from: From::Pipe { pipe, buffer: BytesMut::new() }, over }
    }

    /// Bytes that are there already.
    pub(crate) fn bytes(bytes: Bytes) -> Self {
        HostStream { from: From::Bytes(bytes), over: CancellationToken::new() }
    }

    /// A stream without bytes.
    pub(crate) fn empty() -> Self {
        HostStream { from: From::Ended, over: CancellationToken::new() }
    }

    /// The next bytes; none at its end. A pipe that fails has ended: its child's status says more than we could.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let next = match &mut self.from {
            From::Caller { rest, .. } if !rest.is_empty() => Some(std::mem::take(rest)),
            From::Caller { queue, .. } => queue.recv().await,
            From::Pipe { pipe, buffer } => {
                // One allocation serves several reads, and again once all its pieces are sent.
                if buffer.capacity() < CHUNK / 4 {
                    buffer.reserve(CHUNK);
                }
                match pipe.read_buf(buffer).await {
                    Ok(1..) => Some(buffer.split().freeze()),
                    Ok(0) | Err(_) => None,
                }
            }
            From::Bytes(bytes) if !bytes.is_empty() => Some(std::mem::take(bytes)),
            From::Bytes(_) | From::Ended => None,
        };
        if next.is_none() {
            self.from = From::Ended;
        }
        next
    }

    /// Fills a guest's buffer with what is there; zero at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<usize> {
        let copied = |from: &mut Bytes, buffer: &mut [u8]| {
            let length = from.len().min(buffer.len());
            from.copy_to_slice(&mut buffer[..length]);
            length
        };
        let filled = match &mut self.from {
            From::Caller { queue, rest, .. } => {
                while rest.is_empty() {
                    match ready!(queue.poll_recv(cx)) {
                        Some(bytes) => *rest = bytes,
                        None => break,
                    }
                }
                copied(rest, buffer)
            }
            From::Pipe { pipe, .. } => {
                let mut buffer = ReadBuf::new(buffer);
                match ready!(Pin::new(pipe).poll_read(cx, &mut buffer)) {
                    Ok(()) => buffer.filled().len(),
                    Err(_) => 0,
                }
            }
            From::Bytes(bytes) => copied(bytes, buffer),
            From::Ended => 0,
        };
        if filled == 0 {
            self.from = From::Ended;
        }
        Poll::Ready(filled)
    }
}

impl AsyncRead for HostStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if buffer.remaining() > 0 {
            let filled = ready!(self.get_mut().poll_fill(cx, buffer.initialize_unfilled()));
            buffer.advance(filled);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for HostStream {
    fn drop(&mut self) {
        if let From::Pipe { pipe, .. } = std::mem::replace(&mut self.from, From::Ended)
            && !self.over.is_cancelled()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let over = self.over.clone();
            runtime.spawn(async move { over.run_until_cancelled(drain(pipe)).await });
        }
    }
}

impl StreamProducer<State> for HostStream {
    type Item = u8;
    type Buffer = VecBuffer<u8>;

    fn poll_produce<'a>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, State>,
        destination: Destination<'a, u8, VecBuffer<u8>>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let mut direct = destination.as_direct(store, CHUNK);
        match self.get_mut().poll_fill(cx, direct.remaining()) {
            Poll::Ready(0) => Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Ready(filled) => {
                direct.mark_written(filled);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn try_into(me: Pin<Box<Self>>, ty: TypeId) -> Result<Box<dyn Any>, Pin<Box<Self>>> {
        if ty != TypeId::of::<HostStream>() {
            return Err(me);
        }
        let stream: Box<HostStream> = Pin::into_inner(me);
        Ok(stream)
    }
}

/// How a stream was sent to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) bytes: u64,
    pub(crate) closed: Option<Closed>,
    /// of the bytes, where somebody wants it: on the result lane
    pub(crate) digest: [u8; 32],
}

impl Sent {
    /// What stands for the stream in the result.
    pub(crate) fn value(&self) -> Value {
        Value::stream(self.bytes, self.digest)
    }
}

/// Sends a stream to a lane until it ends or nobody takes any more.
pub(crate) async fn send(accessor: &Accessor<State>, sink: &Sink, lane: Lane, stream: StreamReader<u8>) -> wasmtime::Result<Sent> {
    let mut tally = Tally::new(lane);
    match accessor.with(|mut access| stream.try_into::<HostStream>(&mut access)) {
        Ok(mut stream) => {
            let mut closed = None;
            while closed.is_none()
                && let Some(bytes) = stream.next().await
            {
                let mut taken = bytes.clone();
                let sent;
                (sent, closed) = sink.send(lane, bytes).await;
                taken.truncate(usize::try_from(sent).unwrap_or(usize::MAX));
                tally.count(&taken);
            }
            Ok(tally.sent(closed))
        }
        Err(stream) => {
            let (tell, told) = oneshot::channel();
            let queue = PollSender::new(sink.queue());
            let consumer = ToLane { sink: sink.clone(), queue, lane, done: Some((tally, tell)) };
            accessor.with(|mut access| stream.pipe(&mut access, consumer))?;
            told.await.map_err(|_| wasmtime::format_err!("a stream ended without saying how"))
        }
    }
}

/// What went to a lane so far.
struct Tally {
    bytes: u64,
    hash: Option<Sha256>,
}

impl Tally {
    fn new(lane: Lane) -> Self {
        Tally { bytes: 0, hash: (lane == Lane::Result).then(Sha256::new) }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
    }

    fn sent(self, closed: Option<Closed>) -> Sent {
        Sent { bytes: self.bytes, closed, digest: self.hash.map_or([0; 32], |hash| hash.finalize().into()) }
    }
}

/// Takes what a guest writes. It tells how it went when it is closed, or else when the guest's end is.
struct ToLane {
    sink: Sink,
    queue: PollSender<Output>,
    lane: Lane,
    done: Option<(Tally, oneshot::Sender<Sent>)>,
}

impl ToLane {
    fn close(&mut self, closed: Option<Closed>) -> StreamResult {
        if let Some((tally, tell)) = self.done.take() {
            // Whoever waited may be gone with the whole call.
            let _ = tell.send(tally.sent(closed));
        }
        self.queue.close();
        StreamResult::Dropped
    }
}

impl Drop for ToLane {
    fn drop(&mut self) {
        self.close(None);
    }
}

impl StreamConsumer<State> for ToLane {
    type Item = u8;

    fn poll_consume(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, State>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let me = self.get_mut();
        match me.queue.poll_reserve(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(me.close(Some(Closed::Cancelled)))),
            Poll::Ready(Ok(())) => {}
        }
        let mut source = source.as_direct(store);
        let written = source.remaining();
        let wanted = written.len().min(CHUNK);
        if wanted == 0 {
            // The guest asked whether there is room, and may ask on another lane next: it must not keep the place meanwhile.
            me.queue.abort_send();
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let taken = me.sink.take(wanted);
        let bytes = Bytes::copy_from_slice(&written[..taken]);
        source.mark_read(taken);
        if let Some((tally, _)) = &mut me.done {
            tally.count(&bytes);
        }
        if taken > 0 && me.queue.send_item(Output::Data { lane: me.lane, bytes }).is_err() {
            return Poll::Ready(Ok(me.close(Some(Closed::Cancelled))));
        }
        Poll::Ready(Ok(if taken < wanted { me.close(Some(Closed::Ceiling)) } else { StreamResult::Completed }))
    }
}

/// Connects a stream to what reads it outside, until either ends.
pub(crate) fn connect(
    access: &mut Access<'_, State>,
    from: StreamReader<u8>,
    to: impl AsyncWrite + Unpin + Send + 'static,
) -> wasmtime::Result<()> {
    match from.try_into::<HostStream>(&mut *access) {
        Ok(stream) => drop(access.spawn(Feed(stream, to))?),
        Err(guests) => guests.pipe(&mut *access, ToChild(to))?,
    }
    Ok(())
}

/// Feeds a host's stream to a child. Runs in the call's store, so that it ends with it.
struct Feed<W>(HostStream, W);

impl<W: AsyncWrite + Unpin + Send + 'static> AccessorTask<State> for Feed<W> {
    async fn run(self, _: &Accessor<State>) -> wasmtime::Result<()> {
        let Feed(mut stream, mut stdin) = self;
        while let Some(bytes) = stream.next().await {
            // A child that reads no more has closed its end.
            if stdin.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // A socket has to be told; a pipe ends with its last writer.
        let _ = stdin.shutdown().await;
        Ok(())
    }
}

/// Takes what a guest writes to a child.
struct ToChild<W>(W);

impl<W: AsyncWrite + Unpin + Send + 'static> StreamConsumer<State> for ToChild<W> {
    type Item = u8;

    fn poll_consume(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, State>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut source = source.as_direct(store);
        let written = source.remaining();
        if written.is_empty() {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        match Pin::new(&mut self.get_mut().0).poll_write(cx, written) {
            Poll::Ready(Ok(taken)) if taken > 0 => {
                source.mark_read(taken);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(_) => Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
        }
    }
}
