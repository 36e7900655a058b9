//! The packs a machine was given, on disk: components by digest, and an index of which version of a name is active.
//!
//! The order of writes is the promise: a component is on the disk before the index names it, and the index changes by
//! one rename. So whenever the power goes, there is exactly one known version of each pack, and at most a component
//! too many, which the next start sweeps away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use outhaul_home::{PRIVATE, create_private_dir, read_toml_optional, write_atomic};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, sha256};
use serde::{Deserialize, Serialize};

/// Versions kept of a pack beside the active one and the one before it.
const KEPT: usize = 2;

/// What is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// By name.
    #[serde(default)]
    pub packs: BTreeMap<String, Entry>,
}

/// One name's versions. No active version means the embedded pack of that name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What answers, when it is not the embedded one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// What answered before it, when that is not the embedded one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// All that are here, oldest first.
    #[serde(default)]
    pub versions: Vec<Version>,
}

/// One component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// SHA-256, which is also its file's name.
    pub digest: String,
    /// What it calls itself.
    pub version: String,
    /// Unix seconds.
    pub installed_at: u64,
}

impl Entry {
    /// The digest of what is active here.
    #[must_use]
    pub fn active(&self) -> Option<Digest> {
        self.active.as_deref().and_then(|text| text.parse().ok())
    }

    /// The digest of what was active before.
    #[must_use]
    pub fn previous(&self) -> Option<Digest> {
        self.previous.as_deref().and_then(|text| text.parse().ok())
    }

    /// Whether a version is here.
    #[must_use]
    pub fn has(&self, digest: Digest) -> bool {
        let text = digest.to_string();
        self.versions.iter().any(|version| version.digest == text)
    }

    /// Makes a version the active one (`None`: the embedded). The one before is remembered.
    pub fn activate(&mut self, digest: Option<Digest>) {
        let text = digest.map(|digest| digest.to_string());
        if self.active != text {
            self.previous = std::mem::replace(&mut self.active, text);
        }
    }

    /// Forgets the oldest versions that are neither active nor the one before.
    fn prune(&mut self) {
        let used = [self.active.clone(), self.previous.clone()];
        let idle = |version: &Version| !used.iter().flatten().any(|digest| *digest == version.digest);
        let mut over = self.versions.iter().filter(|version| idle(version)).count().saturating_sub(KEPT);
        self.versions.retain(|version| {
            let goes = over > 0 && idle(version);
            over -= usize::from(goes);
            !goes
        });
    }
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Shelf(PathBuf);

impl Shelf {
    /// `agent/packs` of a home's agent folder.
    #[must_use]
    pub fn new(agent: &Path) -> Self {
        Shelf(agent.join("packs"))
    }

    /// What is installed.
    pub fn index(&self) -> Result<Index, Failure> {
        Ok(read_toml_optional(&self.0.join("index.toml"))?.unwrap_or_default())
    }

    /// Replaces the index, and sweeps what it names no more.
    pub fn keep(&self, index: &mut Index) -> Result<(), Failure> {
        index.packs.values_mut().for_each(Entry::prune);
        index.packs.retain(|_, entry| !entry.versions.is_empty());
        create_private_dir(&self.0)?;
        let text = toml::to_string(index).map_err(|error| Failure::new(Code::Internal, format!("write the packs' index: {error}")))?;
        write_atomic(&self.0.join("index.toml"), text.as_bytes(), PRIVATE)?;
        self.sweep(index);
        Ok(())
    }

    /// Writes a component; on return it is on the disk.
    pub fn put(&self, digest: Digest, bytes: &[u8]) -> Result<(), Failure> {
        create_private_dir(&self.0)?;
        write_atomic(&self.blob(digest), bytes, PRIVATE)
    }

    /// Reads a component; bytes that are not the digest's are refused.
    pub fn get(&self, digest: Digest) -> Result<Bytes, Failure> {
        let path = self.blob(digest);
        let bytes = outhaul_home::read_optional(&path)?
            .ok_or_else(|| Failure::new(Code::PackRejected, format!("read `{}`: there is no such file", path.display())))?;
        match sha256(&bytes) == digest {
            true => Ok(bytes.into()),
            false => {
                Err(Failure::new(Code::DigestMismatch, format!("read `{}`: its content is another than its name says", path.display()))
                    .hint("deploy the pack again"))
            }
        }
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.0.join(format!("{digest}.wasm"))
    }

    /// Removes components that no index names: leftovers of an install that was cut short. A file that cannot be
    /// removed costs space only.
    pub fn sweep(&self, index: &Index) {
        let Ok(found) = std::fs::read_dir(&self.0) else { return };
        for file in found.flatten() {
            let name = file.file_name();
            let Some(digest) = name.to_str().and_then(|name| name.strip_suffix(".wasm")) else { continue };
            let named = index.packs.values().any(|entry| entry.versions.iter().any(|version| version.digest == digest));
            if digest.len() == 64 && !named {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(byte: u8) -> Version {
        Version { digest: Digest([byte; 32]).to_string(), version: "1".into(), installed_at: u64::from(byte) }
    }

    fn entry(active: u8, previous: u8, versions: &[u8]) -> Entry {
        let digest = |byte: u8| Some(Digest([byte; 32]).to_string());
        Entry { active: digest(active), previous: digest(previous), versions: versions.iter().copied().map(version).collect() }
    }

    #[test]
    fn the_active_the_previous_and_two_more_are_kept() {
        let mut entry = entry(1, 2, &[1, 2, 3, 4, 5]);
        entry.prune();
        assert_eq!(entry.versions, [1, 2, 4, 5].map(version));
        entry.activate(Some(Digest([4; 32])));
        assert_eq!((entry.active(), entry.previous()), (Some(Digest([4; 32])), Some(Digest([1; 32]))));
        entry.activate(Some(Digest([4; 32])));
        assert_eq!(entry.previous(), Some(Digest([1; 32])), "twice is once");
    }

    #[test]
    fn an_install_cut_short_leaves_the_known_version_and_is_swept() {
        let dir = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::new(dir.path());
        let (known, cut) = (sha256(b"known"), sha256(b"cut"));
        let mut index = Index::default();
        let versions = vec![Version { digest: known.to_string(), version: "1".into(), installed_at: 1 }];
        index.packs.insert("p".into(), Entry { active: Some(known.to_string()), previous: None, versions });
        shelf.put(known, b"known").expect("written");
        shelf.keep(&mut index).expect("kept");
        // The power goes between component and index.
        shelf.put(cut, b"cut").expect("written");
        let again = shelf.index().expect("whole");
        assert_eq!(again, index);
        shelf.sweep(&again);
        assert_eq!(shelf.get(known).expect("there"), Bytes::from_static(b"known"));
        assert_eq!(shelf.get(cut).expect_err("swept").code, Code::PackRejected);
    }

    #[test]
    fn a_component_that_changed_on_disk_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::new(dir.path());
        let digest = sha256(b"good");
        shelf.put(digest, b"good").expect("written");
        std::fs::write(shelf.blob(digest), b"evil").expect("altered");
        assert_eq!(shelf.get(digest).expect_err("refused").code, Code::DigestMismatch);
    }

    #[test]
    fn the_index_reads_back() {
        let index = Index {
            packs: [("thermal".to_owned(), entry(1, 2, &[2, 1])), ("gpu".to_owned(), Entry { active: None, ..entry(0, 3, &[3]) })].into(),
        };
        let text = toml::to_string(&index).expect("written");
        assert_eq!(toml::from_str::<Index>(&text).expect("read"), index);
    }
}
