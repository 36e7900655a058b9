//! Compiled code on disk: `ENGINE/SHA256`, the digest being the component's. Compiled code is executed as it is, so that a file counts
//! only with this agent's signature over it; anything else is compiled anew and overwritten.
//!
//! A file is a signature (HMAC-SHA-256 over engine, digest and content), the engine's kind, and the code.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::compile::Artefact;
use crate::engine::Kind;

const SIGNATURE: usize = 32;

/// The folder of one engine, or nothing.
pub(crate) struct Cache {
    folder: Option<PathBuf>,
    engine: String,
    key: [u8; 32],
}

impl Cache {
    /// The folder of this engine; those of engines from before an update are swept away.
    pub(crate) fn new(folder: Option<PathBuf>, engine: &str, key: [u8; 32]) -> Self {
        if let Some(folder) = &folder {
            sweep(folder, engine);
        }
        Cache { folder: folder.map(|folder| folder.join(engine)), engine: engine.to_owned(), key }
    }

    /// The code of a component, if it is here and ours.
    pub(crate) fn get(&self, digest: &[u8; 32]) -> Option<Artefact> {
        let path = self.path(digest)?;
        let file = match std::fs::read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), reason = %error, "compiled code cannot be read and is made anew");
                return None;
            }
        };
        let artefact = self.open(digest, file);
        if artefact.is_none() {
            tracing::warn!(path = %path.display(), "compiled code is not what this agent wrote and is made anew");
        }
        artefact
    }

    /// Keeps the code of a component. A cache that cannot be written costs time, nothing else.
    pub(crate) fn put(&self, digest: &[u8; 32], artefact: &Artefact) {
        if let Some(path) = self.path(digest)
            && let Err(error) = self.write(&path, digest, artefact)
        {
            tracing::warn!(path = %path.display(), reason = %error, "compiled code cannot be kept and will be made anew each time");
        }
    }

    fn path(&self, digest: &[u8; 32]) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(hex::encode(digest)))
    }

    fn open(&self, digest: &[u8; 32], mut file: Vec<u8>) -> Option<Artefact> {
        let (signature, content) = file.split_first_chunk::<SIGNATURE>()?;
        self.mac(digest, content).verify_slice(signature).ok()?;
        let kind = Kind::of_tag(*content.first()?)?;
        file.drain(..=SIGNATURE);
        Some(Artefact { kind, code: file })
    }

    fn write(&self, path: &std::path::Path, digest: &[u8; 32], artefact: &Artefact) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(path);
        std::fs::create_dir_all(folder)?;
        let content = [&[artefact.kind.tag()], artefact.code.as_slice()].concat();
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&self.mac(digest, &content).finalize().into_bytes())?;
        file.write_all(&content)?;
        file.persist(path)?;
        Ok(())
    }

    /// Engine and digest are signed with the content, so that no file can stand in for another.
    fn mac(&self, digest: &[u8; 32], content: &[u8]) -> Hmac<Sha256> {
        // `new` takes a key of the block's length, ours is half of it; the rest of a block is zeroes by definition.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.key);
        let mut mac = <Hmac<Sha256> as Mac>::new(&block.into());
        mac.update(self.engine.as_bytes());
        mac.update(digest);
        mac.update(content);
        mac
    }
}

/// Removes what other engines left. Only folders with an engine's name are touched, and what cannot be removed costs space only.
fn sweep(folder: &std::path::Path, engine: &str) {
    let Ok(found) = std::fs::read_dir(folder) else { return };
    for entry in found.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_engines = name.len() == engine.len() && name.chars().all(|c| c.is_ascii_hexdigit());
        if is_engines && name != engine && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &std::path::Path, engine: &str, key: u8) -> Cache {
        Cache::new(Some(folder.to_owned()), engine, [key; 32])
    }

    fn code(cache: &Cache, digest: u8) -> Option<(Kind, Vec<u8>)> {
        cache.get(&[digest; 32]).map(|artefact| (artefact.kind, artefact.code))
    }

    #[test]
    fn what_was_kept_is_found_under_its_engine_digest_and_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let ours = cache(folder.path(), "engine", 1);
        ours.put(&[7; 32], &Artefact { kind: Kind::Async, code: vec![1, 2, 3] });
        assert_eq!(code(&ours, 7), Some((Kind::Async, vec![1, 2, 3])));
        assert_eq!(code(&ours, 8), None);
        assert_eq!(code(&cache(folder.path(), "engine", 2), 7), None);
        assert_eq!(code(&cache(folder.path(), "other", 1), 7), None);
    }

    #[test]
    fn a_file_that_was_touched_or_moved_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let ours = cache(folder.path(), "engine", 1);
        ours.put(&[7; 32], &Artefact { kind: Kind::Sync, code: vec![9; 100] });
        let path = ours.path(&[7; 32]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(ours.path(&[8; 32]).unwrap(), &whole).unwrap();
        assert_eq!(code(&ours, 8), None);
        for at in [0, SIGNATURE - 1, SIGNATURE, whole.len() - 1] {
            let mut touched = whole.clone();
            touched[at] ^= 1;
            std::fs::write(&path, touched).unwrap();
            assert_eq!(code(&ours, 7), None, "{at}");
        }
        for cut in [0, 10, SIGNATURE, SIGNATURE + 1, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(code(&ours, 7), None, "{cut}");
        }
    }

    #[test]
    fn engines_from_before_an_update_are_swept_away_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = ("a".repeat(32), "b".repeat(32));
        cache(folder.path(), &old, 1).put(&[7; 32], &Artefact { kind: Kind::Sync, code: vec![] });
        std::fs::create_dir(folder.path().join("notes")).unwrap();
        std::fs::write(folder.path().join("c".repeat(32)), "a file").unwrap();
        cache(folder.path(), &new, 1).put(&[7; 32], &Artefact { kind: Kind::Sync, code: vec![] });
        let mut left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, [new, "c".repeat(32), "notes".into()]);
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let none = Cache::new(None, "engine", [0; 32]);
        none.put(&[1; 32], &Artefact { kind: Kind::Sync, code: vec![] });
        assert_eq!(code(&none, 1), None);
    }
}
