//! The `kv` power: small values that outlive a call, each pack's own.
//!
//! Promises: a value that was set is on the disk when the call that set it goes on, whole or not at all; what one pack keeps no other
//! sees, because each grant names whose folder it opens; a pack stays under its quota whatever it does. One file holds one value, so that
//! setting one costs no more than its own bytes; which keys there are is kept in memory.
//!
//! Not promised: order between values, or several of them changing together. All of it blocks.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outhaul_home::{PRIVATE, create_private_dir, remove, write_atomic};
use serde::Serialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::shown;
use crate::limits::{KV_ENTRY as ENTRY, KV_KEY as KEY, KV_KEYS as KEYS, KV_VALUE as VALUE};

/// What one pack may keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// KiB of keys and values, with some bytes for each.
    pub max_kib: u64,
    /// Whose values they are: the name of their folder. Who grants decides, so that it outlives versions and is never two packs'.
    #[serde(skip)]
    pub owner: String,
}

/// Why a value was not kept or not given. Each text is a whole sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KvError {
    /// Policy does not allow it.
    #[error("{0}")]
    Denied(String),
    /// The quota, or the size of a key or value.
    #[error("{0}")]
    Quota(String),
    /// The disk.
    #[error("{0}")]
    Failed(String),
}

/// KiB where policy names no number: a few settings, a token, a cursor.
pub const USUAL_KIB: u64 = 1_024;
/// KiB that policy may name at most. What is larger is a file.
pub const MOST_KIB: u64 = 64 << 10;
/// Begins each file, so that what lies in the folder by mistake is no value.
const MAGIC: &[u8] = b"okv1";
/// Bytes before the key: that, and the key's length.
const HEAD: usize = MAGIC.len() + 2;

/// The values of all packs.
#[derive(Debug)]
pub struct Store {
    root: Option<PathBuf>,
    spaces: Mutex<BTreeMap<String, Arc<Space>>>,
}

/// One pack's.
#[derive(Debug, Default)]
struct Space(Mutex<Option<Index>>);

/// Which keys there are, and how long their values.
#[derive(Debug)]
struct Index {
    folder: PathBuf,
    keys: BTreeMap<String, u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cost(key: &str, value: u64) -> u64 {
    key.len() as u64 + value + ENTRY
}

fn failed(error: impl std::fmt::Display) -> KvError {
    KvError::Failed(error.to_string())
}

impl Store {
    /// Values in this folder; none are kept without one.
    #[must_use]
    pub fn new(root: Option<PathBuf>) -> Self {
        Store { root, spaces: Mutex::default() }
    }

    /// The value of a key.
    pub fn get(&self, grant: &Grant, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        check_key(key)?;
        self.with(grant, |index| index.get(key))
    }

    /// Sets a value.
    pub fn set(&self, grant: &Grant, key: &str, value: &[u8]) -> Result<(), KvError> {
        check_key(key)?;
        self.with(grant, |index| index.set(grant, key, value))
    }

    /// Sets a value if the key has the expected one; whether it had.
    pub fn swap(&self, grant: &Grant, key: &str, expected: Option<&[u8]>, value: &[u8]) -> Result<bool, KvError> {
        check_key(key)?;
        self.with(grant, |index| {
            if index.get(key)?.as_deref() != expected {
                return Ok(false);
            }
            index.set(grant, key, value).map(|()| true)
        })
    }

    /// Removes a key; whether it was there.
    pub fn delete(&self, grant: &Grant, key: &str) -> Result<bool, KvError> {
        check_key(key)?;
        self.with(grant, |index| index.delete(key))
    }

    /// The keys that begin so.
    pub fn list(&self, grant: &Grant, prefix: &str) -> Result<Vec<String>, KvError> {
        self.with(grant, |index| {
            let from = index.keys.range(prefix.to_owned()..);
            Ok(from.map(|(key, _)| key).take_while(|key| key.starts_with(prefix)).cloned().collect())
        })
    }

    /// One at a time for each pack; packs do not wait for each other.
    fn with<T>(&self, grant: &Grant, work: impl FnOnce(&mut Index) -> Result<T, KvError>) -> Result<T, KvError> {
        let root = self.root.as_ref().ok_or_else(|| KvError::Failed("this agent keeps no values".into()))?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if grant.owner.is_empty() || !grant.owner.chars().all(plain) {
            return Err(KvError::Failed(format!("`{}` is no name for a folder of values", shown(&grant.owner))));
        }
        let space = Arc::clone(lock(&self.spaces).entry(grant.owner.clone()).or_default());
        let mut index = lock(&space.0);
        match index.as_mut() {
            Some(index) => work(index),
            None => work(index.insert(Index::read(root.join(&grant.owner))?)),
        }
    }
}

fn check_key(key: &str) -> Result<(), KvError> {
    match key.len() {
        1..=KEY => Ok(()),
        bytes => Err(KvError::Quota(format!("a key has 1 to {KEY} bytes, this one has {bytes}"))),
    }
}

impl Index {
    /// Reads a folder; one that is not there holds nothing. What is no value is left alone, what a cut write left is removed.
    fn read(folder: PathBuf) -> Result<Self, KvError> {
        let mut index = Index { folder, keys: BTreeMap::new() };
        let entries = match fs::read_dir(&index.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(index),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with('.') && name.ends_with(".tmp") {
                // It would be overwritten one day; until then it takes room that no quota counts.
                let _ = fs::remove_file(&path);
            } else if let Some((key, value)) = Index::head(&path).filter(|(key, _)| file_of(key) == name) {
                index.keys.insert(key, value);
            } else {
                tracing::warn!(path = %path.display(), "what lies among a pack's values is none");
            }
        }
        Ok(index)
    }

    /// Key of a file, and the length of its value.
    fn head(path: &Path) -> Option<(String, u64)> {
        let file = fs::File::open(path).ok()?;
        let length = file.metadata().ok().filter(fs::Metadata::is_file)?.len();
        let mut head = Vec::with_capacity(HEAD + KEY);
        file.take((HEAD + KEY) as u64).read_to_end(&mut head).ok()?;
        let (key, rest) = Index::split(&head)?;
        let before = head.len() - rest.len();
        Some((key, length.checked_sub(before as u64).filter(|value| *value <= VALUE as u64)?))
    }

    /// Key and value of a file.
    fn parse(path: &Path) -> Option<(String, Vec<u8>)> {
        let most = (HEAD + KEY + VALUE) as u64;
        let bytes = fs::metadata(path).ok().filter(|meta| meta.is_file() && meta.len() <= most).and_then(|_| fs::read(path).ok())?;
        let (key, value) = Index::split(&bytes)?;
        Some((key, value.to_vec()))
    }

    fn split(bytes: &[u8]) -> Option<(String, &[u8])> {
        let (length, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
        let (key, value) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        Some((String::from_utf8(key.to_vec()).ok()?, value))
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(file_of(key))
    }

    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        if !self.keys.contains_key(key) {
            return Ok(None);
        }
        let path = self.path(key);
        match Index::parse(&path) {
            Some((found, value)) if found == key => Ok(Some(value)),
            // The owner of the machine removed it.
            None if !path.exists() => {
                self.keys.remove(key);
                Ok(None)
            }
            _ => Err(KvError::Failed(format!("the value of `{}` was changed on the disk and is not whole", shown(key)))),
        }
    }

    fn set(&mut self, grant: &Grant, key: &str, value: &[u8]) -> Result<(), KvError> {
        if value.len() > VALUE {
            return Err(KvError::Quota(format!("a value has at most {VALUE} bytes, this one has {}", value.len())));
        }
        let old = self.keys.get(key).copied();
        if old.is_none() && self.keys.len() >= KEYS {
            return Err(KvError::Quota(format!("there are {KEYS} keys already, which is as many as a pack may have")));
        }
        let used: u64 = self.keys.iter().map(|(key, value)| cost(key, *value)).sum();
        let before = old.map_or(0, |old| cost(key, old));
        let after = cost(key, value.len() as u64);
        let most = grant.max_kib.saturating_mul(1 << 10);
        // What shrinks is taken even where policy was narrowed below what is there.
        if after > before && used - before + after > most {
            let kib = grant.max_kib;
            return Err(KvError::Quota(format!(
                "{kib} KiB are all that this machine's policy lets the pack keep, and {used} bytes are in use"
            )));
        }
        create_private_dir(&self.folder).map_err(failed)?;
        let length = u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes();
        write_atomic(&self.path(key), &[MAGIC, &length, key.as_bytes(), value].concat(), PRIVATE).map_err(failed)?;
        self.keys.insert(key.to_owned(), value.len() as u64);
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<bool, KvError> {
        if !self.keys.contains_key(key) {
            return Ok(false);
        }
        remove(&self.path(key)).map_err(failed)?;
        Ok(self.keys.remove(key).is_some())
    }
}

/// The file of a key. A key may hold any character and be longer than a name; its digest is neither.
fn file_of(key: &str) -> String {
    hex::encode(Sha256::digest(key))
}

#[cfg(test)]
mod tests;
