//! What a child sends: its pipes, and the ceiling that policy may set over both together.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe::Receiver;

use super::child::{Group, lock};

/// What a child writes, as it comes. Non-blocking, and wide enough for reads of [`PIPE_BYTES`](super::PIPE_BYTES). It ends early, and the
/// child's group with it, where the ceiling is passed.
#[derive(Debug)]
pub struct Pipe {
    from: Receiver,
    ceiling: Option<Arc<Ceiling>>,
}

impl Pipe {
    pub(super) fn new(from: Receiver, ceiling: Option<Arc<Ceiling>>) -> Self {
        if let Some(ceiling) = &ceiling {
            ceiling.counts(&from);
        }
        Pipe { from, ceiling }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let me = self.get_mut();
        let Some(ceiling) = &me.ceiling else {
            return Pin::new(&mut me.from).poll_read(cx, buffer);
        };
        let before = buffer.filled().len();
        // Held over the read, so that no byte is between pipe and count when the other side looks at both.
        let mut tally = lock(&ceiling.tally);
        ready!(Pin::new(&mut me.from).poll_read(cx, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        let taken = read.min(tally.left);
        tally.left -= taken;
        if taken < read {
            tally.passed = true;
            drop(tally);
            buffer.set_filled(before + usize::try_from(taken).unwrap_or(usize::MAX));
            ceiling.end();
        }
        Poll::Ready(Ok(()))
    }
}

/// Bytes that a child may send.
#[derive(Debug)]
pub(super) struct Ceiling {
    bytes: u64,
    tally: Mutex<Tally>,
    group: OnceLock<Weak<Group>>,
}

#[derive(Debug)]
struct Tally {
    left: u64,
    passed: bool,
    /// the reading ends once more, to see what waits in them when their own are gone
    pipes: Vec<OwnedFd>,
}

impl Ceiling {
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Ceiling { bytes, tally: Mutex::new(Tally { left: bytes, passed: false, pipes: Vec::new() }), group: OnceLock::new() })
    }

    fn counts(&self, pipe: &Receiver) {
        // Without the second handle a child that ends with its last bytes unread is judged by those that were read.
        lock(&self.tally).pipes.extend(rustix::io::fcntl_dupfd_cloexec(pipe, 0));
    }

    /// Whose output it is.
    pub(super) fn watches(&self, group: Weak<Group>) {
        let _ = self.group.set(group);
    }

    fn end(&self) {
        if let Some(group) = self.group.get().and_then(Weak::upgrade) {
            group.signal(rustix::process::Signal::KILL);
        }
    }

    /// The ceiling in MiB, when more was sent, read or not.
    pub(super) fn passed(&self) -> Option<u64> {
        let tally = lock(&self.tally);
        let waiting: u64 = tally.pipes.iter().filter_map(|pipe| rustix::io::ioctl_fionread(pipe).ok()).sum();
        (tally.passed || waiting > tally.left).then_some(self.bytes >> 20)
    }
}
