//! How much a folder with a quota holds. All calls that add to the same folder share one count, and whatever changes it happens under
//! its lock, so that two calls cannot each take the last megabyte. It is counted when the first of them adds something, and again when
//! it seems to be full: others may have made room.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;

use super::path::open;
use super::{FilesError, Kind, Stat};

/// What each file and folder counts beside its bytes, so that empty ones have an end too.
const ENTRY: u64 = 4_096;
/// Entries that are counted; a folder of more has no quota that can be kept.
const ENTRIES: u64 = 200_000;
/// Nesting that is followed: each level is an open folder.
const DEPTH: usize = 64;
/// How soon a full folder is counted again.
const AGAIN: Duration = Duration::from_secs(1);

/// The quota of one open folder.
#[derive(Debug)]
pub(super) struct Quota {
    most: u64,
    /// for sentences
    folder: String,
    used: Arc<Used>,
}

#[derive(Debug, Default)]
struct Used(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    bytes: Option<u64>,
    at: Option<Instant>,
}

/// Counts in use, by device and inode of their folder.
static FOLDERS: Mutex<BTreeMap<(u64, u64), Weak<Used>>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Quota {
    /// Of the folder with this identity.
    pub(super) fn of(identity: (u64, u64), folder: String, max_mib: u64) -> Self {
        let mut folders = lock(&FOLDERS);
        folders.retain(|_, used| used.strong_count() > 0);
        let used = folders.get(&identity).and_then(Weak::upgrade).unwrap_or_default();
        folders.insert(identity, Arc::downgrade(&used));
        Quota { most: max_mib.saturating_mul(1 << 20), folder, used }
    }

    /// Holds the folder still for one change.
    pub(super) fn hold(&self, root: &OwnedFd) -> Result<Held<'_>, FilesError> {
        let mut count = lock(&self.used.0);
        if count.bytes.is_none() {
            *count = Count { bytes: Some(measure(root, &self.folder)?), at: Some(Instant::now()) };
        }
        Ok(Held { quota: self, count })
    }
}

/// A folder that nobody else of ours changes meanwhile.
pub(super) struct Held<'quota> {
    quota: &'quota Quota,
    count: MutexGuard<'quota, Count>,
}

impl Held<'_> {
    /// Makes room for so many bytes and entries, or refuses.
    pub(super) fn take(&mut self, root: &OwnedFd, bytes: u64, entries: u64) -> Result<(), FilesError> {
        let wanted = bytes.saturating_add(entries.saturating_mul(ENTRY));
        let fits = |used: u64| used.saturating_add(wanted) <= self.quota.most;
        let used = self.count.bytes.unwrap_or(u64::MAX);
        if wanted > 0 && !fits(used) && self.count.at.is_none_or(|at| at.elapsed() >= AGAIN) {
            *self.count = Count { bytes: Some(measure(root, &self.quota.folder)?), at: Some(Instant::now()) };
        }
        let used = self.count.bytes.unwrap_or(u64::MAX);
        if wanted > 0 && !fits(used) {
            let Quota { most, folder, .. } = self.quota;
            return Err(FilesError::Quota(format!("`{folder}` may hold {} MiB, and {wanted} bytes more are too many", most >> 20)));
        }
        self.count.bytes = Some(used.saturating_add(wanted));
        Ok(())
    }

    /// Gives room back.
    pub(super) fn give(&mut self, bytes: u64, entries: u64) {
        let freed = bytes.saturating_add(entries.saturating_mul(ENTRY));
        self.count.bytes = self.count.bytes.map(|used| used.saturating_sub(freed));
    }
}

/// Counts a folder.
fn measure(root: &OwnedFd, folder: &str) -> Result<u64, FilesError> {
    let mut tally = Tally { bytes: 0, entries: 0 };
    match tally.folder(root, DEPTH) {
        Ok(()) => Ok(tally.bytes.saturating_add(tally.entries.saturating_mul(ENTRY))),
        Err(Errno::OVERFLOW) => Err(FilesError::Quota(format!(
            "`{folder}` has a quota, and more than {ENTRIES} entries or {DEPTH} levels, which are too many to count"
        ))),
        Err(errno) => Err(errno.into()),
    }
}

struct Tally {
    bytes: u64,
    entries: u64,
}

impl Tally {
    fn folder(&mut self, folder: impl AsFd, depth: usize) -> Result<(), Errno> {
        let depth = depth.checked_sub(1).ok_or(Errno::OVERFLOW)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        for entry in Dir::new(open(&folder, ".", flags, Mode::empty())?)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > ENTRIES {
                return Err(Errno::OVERFLOW);
            }
            // What is gone by now needs no room.
            let Ok(stat) = Stat::of_name(&folder, name) else { continue };
            match stat.kind {
                Kind::File => self.bytes = self.bytes.saturating_add(stat.size),
                Kind::Folder => {
                    let Ok(name) = name.to_str() else { continue };
                    match open(&folder, name, flags, Mode::empty()) {
                        Ok(inner) => self.folder(inner, depth)?,
                        // A mount of its own, or gone, or not ours to read.
                        Err(Errno::XDEV | Errno::NOENT | Errno::ACCESS | Errno::LOOP) => {}
                        Err(errno) => return Err(errno),
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
