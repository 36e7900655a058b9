//! The `files` power: folders of the machine, each with the rights its owner gave, for packs that speak WASI's file system.
//!
//! Promises: a path is resolved by the kernel inside the granted folder and nowhere else (`openat2`: no `..` beyond it, no absolute
//! path, no symbolic link that leads out, no `/proc` link, no other mount); every operation is held against the folder's rights here,
//! not by the guest; only plain files and folders are ever opened, so that no pipe hangs a call and no device is touched; what a pack
//! makes in a folder with a quota stays under it; no grant reaches the agent's own folder.
//!
//! Not promised: what other programs of the machine do in the same folder meanwhile, and which of several hard links to a file is meant:
//! a file that somebody linked into a granted folder is in that folder. Packs make no links of either kind.
//!
//! All of it blocks: run it on a blocking thread. Linux 5.6 or later.

mod dir;
mod file;
mod grant;
mod path;
mod quota;
mod tree;

use rustix::io::Errno;
use thiserror::Error;

pub use dir::{Dir, Listed, Listing, Node, Open};
pub use file::{File, Stamp, Times};
pub use grant::{Folder, Grant, Rights, split_item};
pub use tree::{Entry, Kind, Stat, Tree};

/// Why an operation did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilesError {
    /// Policy does not allow it; a whole sentence for people.
    #[error("{0}")]
    Denied(String),
    /// The folder's quota is used up; a whole sentence.
    #[error("{0}")]
    Quota(String),
    /// The system's own answer.
    #[error("{0}")]
    System(Errno),
}

impl From<Errno> for FilesError {
    fn from(errno: Errno) -> Self {
        FilesError::System(errno)
    }
}

#[cfg(test)]
mod tests;
