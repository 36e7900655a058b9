//! Paths of a guest: how the kernel resolves them inside a folder, and their last part.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// Tries where the kernel cannot say for sure that a path stayed inside, because something was renamed meanwhile.
const TRIES: usize = 16;

/// How a path may be resolved. Another mount is another folder: what is mounted below a granted one may be `/proc`.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// Opens a path inside a folder. `XDEV` when it leads out.
pub(super) fn open(folder: impl AsFd, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    // A handle that opens nothing takes no other flags.
    let more = if flags.contains(OFlags::PATH) { OFlags::CLOEXEC } else { OFlags::CLOEXEC | OFlags::NOCTTY };
    for _ in 0..TRIES {
        match openat2(&folder, path, flags | more, mode, INSIDE) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::BUSY)
}

/// A handle on what is there, without opening it: no device notices, no pipe waits.
pub(super) fn look(folder: impl AsFd, path: &str, follow: bool) -> Result<OwnedFd, Errno> {
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    open(folder, path, flags, Mode::empty())
}

/// Opens what a handle already stands for; its name may lead elsewhere by now.
pub(super) fn reopen(handle: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = entrance(handle);
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK, Mode::empty())
}

/// A path that leads to what a handle stands for.
pub(super) fn entrance(handle: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

/// A path's last part and the folder it is in, which is open.
pub(super) struct Place {
    pub(super) folder: OwnedFd,
    pub(super) name: String,
    /// the path ended with a slash, so that only a folder can be meant
    pub(super) slash: bool,
}

impl Place {
    pub(super) fn find(folder: impl AsFd, path: &str) -> Result<Self, Errno> {
        let trimmed = path.trim_end_matches('/');
        let slash = trimmed.len() < path.len();
        // Left whole, a path from the root is the kernel's to refuse.
        let (parent, name) = match trimmed.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some((parent, name)) => (parent, name),
            None if path.starts_with('/') => ("/", ""),
            None => (".", trimmed),
        };
        let folder = open(folder, parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        match name {
            "" if path.is_empty() => Err(Errno::NOENT),
            // The folder itself has no name in itself.
            "" | "." | ".." => Err(Errno::INVAL),
            name => Ok(Place { folder, name: name.to_owned(), slash }),
        }
    }
}
