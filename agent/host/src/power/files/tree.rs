//! A granted folder, open for one call: its handle, its rights, its quota, and the sentences of its refusals.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags, fstatfs};
use rustix::io::Errno;
use rustix::path::Arg;

use super::grant::withheld;
use super::quota::{Held, Quota};
use super::{Dir, FilesError, Folder, Grant, Rights, path};
use crate::limits::{OPEN_FILES, OPEN_FILES_PER_CALL};
use crate::power::{shell_word, shown};

/// `f_type` of procfs. Its files act on processes, the agent's own included, though they look like files.
const PROCFS: u64 = 0x9fa0;

/// A granted folder.
#[derive(Debug)]
pub struct Tree {
    pub(super) root: OwnedFd,
    pub(super) rights: Rights,
    quota: Option<Quota>,
    folder: PathBuf,
    pack: String,
    places: Arc<Places>,
}

/// A folder, and what a guest calls it.
#[derive(Debug)]
pub struct Entry {
    /// The guest's name for it.
    pub name: String,
    /// It.
    pub dir: Dir,
}

impl Tree {
    /// Opens what a grant names. A folder that cannot be opened is left out, with the reason.
    pub fn open_all(pack: &str, grant: &Grant) -> (Vec<Entry>, Vec<FilesError>) {
        let places = Arc::new(Places::default());
        let (mut entries, mut errors) = (Vec::new(), Vec::new());
        for folder in &grant.folders {
            match Tree::open(pack, folder, &grant.keep_out, &places) {
                Ok(dir) => entries.push(Entry { name: folder.name(), dir }),
                Err(error) => errors.push(error),
            }
        }
        (entries, errors)
    }

    fn open(pack: &str, folder: &Folder, keep_out: &[PathBuf], places: &Arc<Places>) -> Result<Dir, FilesError> {
        let said = folder.path.display();
        let denied = |why: &str| FilesError::Denied(format!("the folder `{said}` of pack `{pack}` {why}"));
        // The owner's own path may lead through links; the handle is what is checked, and the kernel says where it is.
        let root = rustix::fs::open(&folder.path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| denied(&format!("cannot be opened: {error}")))?;
        let real =
            fs::read_link(path::entrance(&root)).map_err(|error| denied(&format!("does not resolve (is /proc mounted?): {error}")))?;
        if withheld(&real, keep_out) {
            return Err(denied("holds what is the agent's own, which no policy gives away; grant the folders beside it"));
        }
        if u64::try_from(fstatfs(&root)?.f_type) == Ok(PROCFS) {
            return Err(denied("is in `/proc`, whose files act on processes; no policy gives it away"));
        }
        match path::look(&root, ".", true) {
            Ok(_) => {}
            Err(Errno::NOSYS | Errno::PERM) => {
                return Err(denied("cannot be kept apart: the kernel has no `openat2` (Linux 5.6 or later has)"));
            }
            Err(errno) => return Err(errno.into()),
        }
        let identity = Stat::of(&root)?.identity;
        let quota = folder.max_mib.map(|mib| Quota::of(identity, said.to_string(), mib));
        let tree =
            Tree { root, rights: folder.rights, quota, folder: folder.path.clone(), pack: pack.to_owned(), places: Arc::clone(places) };
        Dir::root(Arc::new(tree))
    }

    /// Refuses unless `allowed`. The sentence names the command that gives `wanted` beside what there is.
    pub(super) fn need(&self, allowed: bool, doing: &str, path: &str, wanted: &str) -> Result<(), FilesError> {
        if allowed {
            return Ok(());
        }
        let (pack, folder) = (&self.pack, self.folder.display());
        let rights = Rights::parse(wanted).unwrap_or_default().with(self.rights).letters();
        let item = shell_word(&format!("{folder}:{rights}"));
        let what = if path.is_empty() { String::new() } else { format!(" `{}`", shown(path)) };
        Err(FilesError::Denied(format!(
            "this machine's policy does not let pack `{pack}` {doing}{what} in `{folder}`; on that machine: agent allow {pack} files {item}"
        )))
    }

    /// What no right allows.
    pub(super) fn never(&self, path: &str, why: &str) -> FilesError {
        FilesError::Denied(format!("`{}` in `{}` {why}", shown(path), self.folder.display()))
    }

    /// The kernel's answer to a path, made a refusal where it is one.
    pub(super) fn judged(&self, path: &str, errno: Errno) -> FilesError {
        match errno {
            Errno::XDEV => self.never(path, "leads out of the granted folder, or to another mount, and pack paths stay inside"),
            errno => errno.into(),
        }
    }

    /// Holds the folder still where it has a quota.
    pub(super) fn hold(&self) -> Result<Option<Held<'_>>, FilesError> {
        self.quota.as_ref().map(|quota| quota.hold(&self.root)).transpose()
    }

    /// A place among the open files of this call and of all.
    pub(super) fn place(&self) -> Result<Place, FilesError> {
        self.places.take()
    }

    /// The owner's folder.
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }
}

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block device.
    Block,
    /// A character device.
    Character,
    /// Something else.
    Unknown,
}

impl From<FileType> for Kind {
    fn from(ty: FileType) -> Self {
        match ty {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            FileType::Symlink => Kind::Link,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::BlockDevice => Kind::Block,
            FileType::CharacterDevice => Kind::Character,
            FileType::Unknown => Kind::Unknown,
        }
    }
}

/// What is known of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Names it has.
    pub links: u64,
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds since 1970: last access, change of content, change of status.
    pub times: [(i64, u32); 3],
    /// Device and inode.
    pub identity: (u64, u64),
    pub(super) mode: u32,
}

impl Stat {
    /// Of what a handle stands for.
    pub(super) fn of(handle: &OwnedFd) -> Result<Self, Errno> {
        Stat::read(handle, "", AtFlags::EMPTY_PATH)
    }

    /// Of what has a name in a folder; a link is itself.
    pub(super) fn of_name(folder: impl AsFd, name: impl Arg) -> Result<Self, Errno> {
        Stat::read(folder, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn read(folder: impl AsFd, name: impl Arg, flags: AtFlags) -> Result<Self, Errno> {
        let stat = rustix::fs::statx(folder, name, flags, StatxFlags::BASIC_STATS)?;
        let mode = u32::from(stat.stx_mode);
        let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
        Ok(Stat {
            kind: FileType::from_raw_mode(mode).into(),
            links: stat.stx_nlink.into(),
            size: stat.stx_size,
            times: [time(stat.stx_atime), time(stat.stx_mtime), time(stat.stx_ctime)],
            identity: (u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor), stat.stx_ino),
            mode,
        })
    }
}

/// Open files of one call.
#[derive(Debug, Default)]
struct Places(AtomicUsize);

static ALL: AtomicUsize = AtomicUsize::new(0);

impl Places {
    fn take(self: &Arc<Self>) -> Result<Place, FilesError> {
        let place = Place(Arc::clone(self));
        let (own, all) = (self.0.fetch_add(1, Ordering::Relaxed), ALL.fetch_add(1, Ordering::Relaxed));
        // Dropping the place gives both back.
        if own >= OPEN_FILES_PER_CALL || all >= OPEN_FILES { Err(Errno::MFILE.into()) } else { Ok(place) }
    }
}

/// One open file's or folder's place.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
        ALL.fetch_sub(1, Ordering::Relaxed);
    }
}
