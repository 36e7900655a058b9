//! The packs a machine was given, on disk: components by digest, each with its publisher's signature beside it, an index of
//! which version of a name is active, and the highest version there was of each publisher's packs.
//!
//! The order of writes is the promise: a component and its signature are on the disk before the index names them, and the index changes by
//! one rename. So whenever the power goes, there is exactly one known version of each pack, and at most a component
//! too many, which the next start sweeps away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use outhaul_home::{PRIVATE, create_private_dir, read_toml_optional, write_atomic};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, KeyId, sha256};
use outhaul_protocol::pack::compare_versions;
use serde::{Deserialize, Serialize};

/// Publishers' packs whose highest version is remembered. More names than any machine sees; an operator who made them
/// up would fill the disk.
const HIGHEST: usize = 4096;
/// Versions kept of a pack beside the active one and the one before it.
const KEPT: usize = 2;

/// What is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// By name.
    #[serde(default)]
    pub packs: BTreeMap<String, Entry>,
    /// The highest version there ever was, by publisher's key id and name. It never falls, also when the pack goes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub highest: BTreeMap<String, BTreeMap<String, String>>,
}

impl Index {
    /// The highest version of a name that there was from a publisher, known by any of these keys.
    #[must_use]
    pub fn highest(&self, publisher: impl Iterator<Item = KeyId>, name: &str) -> Option<&str> {
        let found = publisher.filter_map(|key| self.highest.get(&key.to_string())?.get(name));
        found.max_by(|a, b| compare_versions(a, b)).map(String::as_str)
    }

    /// Notes a version, under the key that signed it.
    pub fn note_version(&mut self, key: KeyId, name: &str, version: &str) -> Result<(), Failure> {
        let known: usize = self.highest.values().map(BTreeMap::len).sum();
        let noted = self.highest.entry(key.to_string()).or_default();
        match noted.get_mut(name) {
            Some(highest) if compare_versions(highest, version).is_lt() => version.clone_into(highest),
            Some(_) => {}
            None if known < HIGHEST => drop(noted.insert(name.to_owned(), version.to_owned())),
            None => {
                let text = format!("this machine has had {HIGHEST} packs of its publishers, and remembers no more");
                return Err(Failure::new(Code::TooLarge, text));
            }
        }
        Ok(())
    }
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
    /// The key whose signature lies beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
    /// The powers it asks for, for commands that load nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub powers: Vec<String>,
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

    /// A version that is here.
    #[must_use]
    pub fn version(&self, digest: Digest) -> Option<&Version> {
        let text = digest.to_string();
        self.versions.iter().find(|version| version.digest == text)
    }

    /// Whether a version is here.
    #[must_use]
    pub fn has(&self, digest: Digest) -> bool {
        self.version(digest).is_some()
    }

    /// Notes a version, or anew what is known of one.
    pub fn put(&mut self, version: Version) {
        match self.versions.iter_mut().find(|known| known.digest == version.digest) {
            Some(known) => *known = Version { installed_at: known.installed_at, ..version },
            None => self.versions.push(version),
        }
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

    /// Writes a component's signature; on return it is on the disk.
    pub fn put_signature(&self, digest: Digest, signature: &[u8]) -> Result<(), Failure> {
        create_private_dir(&self.0)?;
        write_atomic(&self.0.join(format!("{digest}.cose")), signature, PRIVATE)
    }

    /// Reads a component's signature, if there is one. What it proves is [`outhaul_protocol::publisher`]'s to say.
    pub fn signature(&self, digest: Digest) -> Result<Option<Vec<u8>>, Failure> {
        outhaul_home::read_optional(&self.0.join(format!("{digest}.cose")))
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.0.join(format!("{digest}.wasm"))
    }

    /// Removes components and signatures that no index names: leftovers of an install that was cut short. A file that cannot be
    /// removed costs space only.
    pub fn sweep(&self, index: &Index) {
        let Ok(found) = std::fs::read_dir(&self.0) else { return };
        for file in found.flatten() {
            let name = file.file_name();
            let digest = name.to_str().and_then(|name| name.strip_suffix(".wasm").or_else(|| name.strip_suffix(".cose")));
            let Some(digest) = digest else { continue };
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
        Version {
            digest: Digest([byte; 32]).to_string(),
            version: "1".into(),
            installed_at: u64::from(byte),
            publisher: None,
            powers: vec![],
        }
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
        let versions = vec![Version { digest: known.to_string(), ..version(1) }];
        index.packs.insert("p".into(), Entry { active: Some(known.to_string()), previous: None, versions });
        shelf.put(known, b"known").expect("written");
        shelf.put_signature(known, b"signed").expect("written");
        shelf.keep(&mut index).expect("kept");
        // The power goes between component and index.
        shelf.put(cut, b"cut").expect("written");
        shelf.put_signature(cut, b"signed").expect("written");
        let again = shelf.index().expect("whole");
        assert_eq!(again, index);
        shelf.sweep(&again);
        assert_eq!(shelf.get(known).expect("there"), Bytes::from_static(b"known"));
        assert_eq!(shelf.get(cut).expect_err("swept").code, Code::PackRejected);
        assert_eq!((shelf.signature(known), shelf.signature(cut)), (Ok(Some(b"signed".to_vec())), Ok(None)));
    }

    #[test]
    fn the_highest_version_never_falls_and_is_one_publishers() {
        let (one, heir, other) = (KeyId([1; 32]), KeyId([2; 32]), KeyId([3; 32]));
        let mut index = Index::default();
        for (key, version) in [(one, "1.9.0"), (one, "1.10.0"), (one, "1.2.0"), (heir, "1.3.0"), (other, "9.0.0")] {
            index.note_version(key, "thermal", version).expect("noted");
        }
        assert_eq!(index.highest([one, heir].into_iter(), "thermal"), Some("1.10.0"));
        assert_eq!((index.highest([heir].into_iter(), "thermal"), index.highest([one].into_iter(), "gpu")), (Some("1.3.0"), None));
        let text = toml::to_string(&index).expect("written");
        assert_eq!(toml::from_str::<Index>(&text).expect("read"), index);
        for n in 0..HIGHEST {
            let _ = index.note_version(other, &format!("p{n}"), "1");
        }
        assert_eq!(index.note_version(other, "one-more", "1").expect_err("too many").code, Code::TooLarge);
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
            highest: [("01".repeat(32), [("thermal".to_owned(), "1".to_owned())].into())].into(),
        };
        let text = toml::to_string(&index).expect("written");
        assert_eq!(toml::from_str::<Index>(&text).expect("read"), index);
    }
}
