//! Reads as much as is there with one system call while a socket is busy, and holds no memory while it is not.
//!
//! The relay's read buffers are a kilobyte, because ten thousand of them lie idle. A busy socket would pay for that with a
//! system call per kilobyte. So a read that fills its buffer is followed by one into a large buffer, which is lent by the
//! thread and given back as soon as the socket has nothing more.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a lent buffer: a full data frame, or two hundred small ones.
const LARGE: usize = 64 << 10;
/// Buffers a thread keeps for the next busy socket.
const SPARE: usize = 2;

thread_local! {
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn lend() -> Box<[u8]> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; LARGE].into_boxed_slice())
}

fn give_back(buffer: Box<[u8]>) {
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() < SPARE {
            buffers.push(buffer);
        }
    });
}

/// A stream with a read buffer for its busy moments.
#[derive(Debug)]
pub(crate) struct Eager<T> {
    inner: T,
    /// read, not yet handed on: `at..end` of the buffer
    held: Option<Box<[u8]>>,
    at: usize,
    end: usize,
    /// the last read filled the caller's buffer: more is likely there
    busy: bool,
}

impl<T> Eager<T> {
    pub(crate) fn new(inner: T) -> Self {
        Eager { inner, held: None, at: 0, end: 0, busy: false }
    }

    fn quiet(&mut self) {
        self.busy = false;
        if let Some(held) = self.held.take() {
            give_back(held);
        }
    }

    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) {
        let Some(held) = &self.held else { return };
        let length = buffer.remaining().min(self.end - self.at);
        buffer.put_slice(&held[self.at..self.at + length]);
        self.at += length;
    }
}

impl<T> Drop for Eager<T> {
    fn drop(&mut self) {
        self.quiet();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Eager<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.at < this.end {
            this.hand_on(buffer);
            return Poll::Ready(Ok(()));
        }
        // A caller whose own buffer is as large gains nothing.
        if !this.busy || buffer.remaining() >= LARGE {
            let (room, before) = (buffer.remaining(), buffer.filled().len());
            let read = Pin::new(&mut this.inner).poll_read(cx, buffer);
            this.busy = buffer.filled().len() - before == room;
            return read;
        }
        let held = this.held.get_or_insert_with(lend);
        let mut large = ReadBuf::new(held);
        let read = Pin::new(&mut this.inner).poll_read(cx, &mut large);
        (this.at, this.end) = (0, large.filled().len());
        if this.end == 0 {
            // Nothing there, the end of the stream, or an error.
            this.quiet();
        }
        ready!(read)?;
        this.hand_on(buffer);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Eager<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn every_byte_comes_in_order_whatever_the_sizes_of_reads() {
        let (mut writer, reader) = tokio::io::duplex(3 * LARGE);
        let sent: Vec<u8> = (0..10 * LARGE).map(|at| (at * 31 % 251) as u8).collect();
        let writing = tokio::spawn({
            let sent = sent.clone();
            async move {
                for piece in sent.chunks(LARGE / 3 + 7) {
                    writer.write_all(piece).await.expect("writes");
                }
            }
        });
        let (mut eager, mut got, mut size) = (Eager::new(reader), Vec::new(), 1);
        loop {
            let mut buffer = vec![0; size];
            match eager.read(&mut buffer).await.expect("reads") {
                0 => break,
                length => got.extend_from_slice(&buffer[..length]),
            }
            size = size * 5 % 4093 + 1;
        }
        writing.await.expect("wrote");
        assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    }

    #[tokio::test]
    async fn a_quiet_stream_holds_no_buffer() {
        let (mut writer, reader) = tokio::io::duplex(LARGE);
        let (mut eager, mut buffer) = (Eager::new(reader), [0; 8]);
        writer.write_all(&[7; 20]).await.expect("writes");
        assert_eq!(eager.read(&mut buffer).await.expect("reads"), 8);
        assert!(eager.held.is_none(), "the first read goes straight through");
        assert_eq!(eager.read(&mut buffer).await.expect("reads"), 8);
        assert!(eager.held.is_some(), "it filled its buffer: more is there");
        assert_eq!(eager.read(&mut buffer).await.expect("reads"), 4);
        let nothing = futures_util::poll!(std::pin::pin!(eager.read(&mut buffer)));
        assert!(nothing.is_pending() && eager.held.is_none());
    }
}
