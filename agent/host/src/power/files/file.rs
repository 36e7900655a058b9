//! An open file: bytes at places.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::{Errno, ReadWriteFlags};

use super::tree::Place;
use super::{FilesError, Stat, Tree};

/// An open file.
#[derive(Debug)]
pub struct File {
    tree: Arc<Tree>,
    handle: OwnedFd,
    reads: bool,
    writes: bool,
    _place: Place,
}

/// Times to set: of last access and of last change. Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Of last access.
    pub access: Stamp,
    /// Of last change.
    pub change: Stamp,
}

/// What a time becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// What it was.
    Keep,
    /// Now.
    Now,
    /// This.
    At(i64, u32),
}

impl Times {
    pub(super) fn stamps(self) -> Timestamps {
        let spec = |stamp| match stamp {
            Stamp::Keep => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            Stamp::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            Stamp::At(secs, nanos) => Timespec { tv_sec: secs, tv_nsec: nanos.into() },
        };
        Timestamps { last_access: spec(self.access), last_modification: spec(self.change) }
    }
}

impl File {
    pub(super) fn new(tree: Arc<Tree>, handle: OwnedFd, reads: bool, writes: bool, place: Place) -> Self {
        File { tree, handle, reads, writes, _place: place }
    }

    /// Whether it was opened for reading.
    #[must_use]
    pub fn reads(&self) -> bool {
        self.reads
    }

    /// Whether it was opened for writing.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// What it is.
    pub fn stat(&self) -> Result<Stat, FilesError> {
        Ok(Stat::of(&self.handle)?)
    }

    /// Reads at most so many bytes; none at the end.
    pub fn read(&self, offset: u64, most: usize) -> Result<Vec<u8>, FilesError> {
        if !self.reads {
            return Err(Errno::BADF.into());
        }
        let mut buffer = vec![0; most];
        let read = again(|| rustix::io::pread(&self.handle, &mut buffer, offset))?;
        buffer.truncate(read);
        Ok(buffer)
    }

    /// Writes bytes, or a beginning of them; at the end without an offset. How many were written.
    pub fn write(&self, offset: Option<u64>, bytes: &[u8]) -> Result<usize, FilesError> {
        if !self.writes {
            return Err(Errno::BADF.into());
        }
        let write = || match offset {
            Some(offset) => again(|| rustix::io::pwrite(&self.handle, bytes, offset)),
            None => again(|| rustix::io::pwritev2(&self.handle, &[std::io::IoSlice::new(bytes)], 0, ReadWriteFlags::APPEND)),
        };
        let Some(mut held) = self.tree.hold()? else {
            return Ok(write()?);
        };
        let size = Stat::of(&self.handle)?.size;
        let end = |from: u64| from.saturating_add(bytes.len() as u64);
        let growth = end(offset.unwrap_or(size)).saturating_sub(size);
        held.take(&self.tree.root, growth, 0)?;
        let written = write();
        // A write that stopped early has grown the file by less.
        let grown = Stat::of(&self.handle)?.size.saturating_sub(size);
        held.give(growth.saturating_sub(grown), 0);
        Ok(written?)
    }

    /// Cuts or stretches it.
    pub fn set_size(&self, wanted: u64) -> Result<(), FilesError> {
        if !self.writes {
            return Err(Errno::BADF.into());
        }
        let mut held = self.tree.hold()?;
        let size = Stat::of(&self.handle)?.size;
        if let Some(held) = &mut held {
            held.take(&self.tree.root, wanted.saturating_sub(size), 0)?;
        }
        let done = again(|| rustix::fs::ftruncate(&self.handle, wanted));
        if let Some(held) = &mut held {
            held.give(if done.is_ok() { size.saturating_sub(wanted) } else { wanted.saturating_sub(size) }, 0);
        }
        Ok(done?)
    }

    /// Sets its times.
    pub fn set_times(&self, times: Times) -> Result<(), FilesError> {
        self.tree.need(self.tree.rights.write, "change the times of a file", "", "w")?;
        if !self.reads && !self.writes {
            return Err(Errno::BADF.into());
        }
        Ok(rustix::fs::futimens(&self.handle, &times.stamps())?)
    }

    /// Puts what was written on the disk.
    pub fn sync(&self) -> Result<(), FilesError> {
        match self.reads || self.writes {
            true => Ok(again(|| rustix::fs::fsync(&self.handle))?),
            false => Ok(()),
        }
    }
}

fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
