//! A file as a stream of bytes. One read or write is under way at a time, on a blocking thread; nothing is read ahead of what was
//! asked for, and nothing written waits in between, so that what a guest was told is written is written.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::filesystem::{Refusal, code};
use crate::limits::FILE_CHUNK;
use crate::power::files::{File, FilesError};

/// Reads on from a place.
pub(super) struct Reader {
    file: Arc<File>,
    offset: u64,
    state: Reading,
}

enum Reading {
    Idle,
    Waiting(JoinHandle<Result<Vec<u8>, FilesError>>),
    Ready(Bytes),
    Failed(FilesError),
    Ended,
}

impl Reader {
    pub(super) fn new(file: Arc<File>, offset: u64) -> Self {
        Reader { file, offset, state: Reading::Idle }
    }

    fn begin(&mut self, size: usize) {
        let (file, offset, most) = (Arc::clone(&self.file), self.offset, size.min(FILE_CHUNK));
        self.state = Reading::Waiting(tokio::task::spawn_blocking(move || file.read(offset, most)));
    }

    async fn finish(&mut self) {
        if let Reading::Waiting(task) = &mut self.state {
            self.state = match joined(task.await) {
                Ok(bytes) if bytes.is_empty() => Reading::Ended,
                Ok(bytes) => {
                    self.offset += bytes.len() as u64;
                    Reading::Ready(bytes.into())
                }
                Err(error) => Reading::Failed(error),
            };
        }
    }

    /// What is there.
    fn take(&mut self, size: usize) -> StreamResult<Bytes> {
        match std::mem::replace(&mut self.state, Reading::Ended) {
            Reading::Ready(mut bytes) => {
                let taken = bytes.split_to(bytes.len().min(size));
                self.state = if bytes.is_empty() { Reading::Idle } else { Reading::Ready(bytes) };
                Ok(taken)
            }
            Reading::Failed(error) => Err(StreamError::LastOperationFailed(error.into())),
            Reading::Ended => Err(StreamError::Closed),
            other => {
                self.state = other;
                Ok(Bytes::new())
            }
        }
    }
}

/// A blocking thread that panicked or was shut down has read and written nothing anybody may rely on.
fn joined<T>(done: Result<Result<T, FilesError>, tokio::task::JoinError>) -> Result<T, FilesError> {
    done.unwrap_or(Err(FilesError::System(rustix::io::Errno::IO)))
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {
        self.finish().await;
    }
}

#[async_trait]
impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if matches!(self.state, Reading::Idle) && size > 0 {
            self.begin(size);
        }
        self.take(size)
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        if matches!(self.state, Reading::Idle) && size > 0 {
            self.begin(size);
        }
        self.finish().await;
        self.take(size)
    }

    async fn cancel(&mut self) {
        self.finish().await;
    }
}

/// Writes on from a place, or at the end.
pub(super) struct Writer {
    file: Arc<File>,
    /// none appends
    offset: Option<u64>,
    state: Writing,
    refusal: Refusal,
}

enum Writing {
    Idle,
    Waiting(JoinHandle<Result<u64, FilesError>>),
    Failed(FilesError),
    Closed,
}

impl Writer {
    pub(super) fn new(file: Arc<File>, offset: Option<u64>, refusal: Refusal) -> Self {
        Writer { file, offset, state: Writing::Idle, refusal }
    }

    async fn finish(&mut self) {
        if let Writing::Waiting(task) = &mut self.state {
            self.state = match joined(task.await) {
                Ok(written) => {
                    self.offset = self.offset.map(|offset| offset + written);
                    Writing::Idle
                }
                Err(error) => {
                    // A guest need not ask what went wrong, and its caller still wants to know.
                    code(&error, &self.refusal);
                    Writing::Failed(error)
                }
            };
        }
    }

    /// An error is told once; then the stream is closed.
    fn failed(&mut self) -> StreamResult<()> {
        match std::mem::replace(&mut self.state, Writing::Closed) {
            Writing::Failed(error) => Err(StreamError::LastOperationFailed(error.into())),
            Writing::Closed => Err(StreamError::Closed),
            other => {
                self.state = other;
                Ok(())
            }
        }
    }
}

/// All of it, or an error: a beginning that was written is in the file all the same.
fn write_all(file: &File, offset: Option<u64>, mut bytes: &[u8]) -> Result<u64, FilesError> {
    let mut total = 0;
    while !bytes.is_empty() {
        let written = file.write(offset.map(|offset| offset + total), bytes)?;
        if written == 0 {
            return Err(rustix::io::Errno::IO.into());
        }
        total += written as u64;
        bytes = &bytes[written..];
    }
    Ok(total)
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        self.finish().await;
    }
}

#[async_trait]
impl OutputStream for Writer {
    fn check_write(&mut self) -> StreamResult<usize> {
        self.failed()?;
        Ok(if matches!(self.state, Writing::Idle) { FILE_CHUNK } else { 0 })
    }

    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.check_write()? < bytes.len() {
            return Err(StreamError::trap("the pack wrote more than it was permitted to"));
        }
        let (file, offset) = (Arc::clone(&self.file), self.offset);
        self.state = Writing::Waiting(tokio::task::spawn_blocking(move || write_all(&file, offset, &bytes)));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.failed()
    }

    async fn cancel(&mut self) {
        self.finish().await;
    }
}
