//! The digest of what a pack is made from: every file's path and content, in one order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The SHA-256, in hex, of files below a root: of their paths from there and of what is in them.
pub fn digest(root: &Path, files: &[PathBuf]) -> io::Result<String> {
    let mut digest = Sha256::new();
    for path in files {
        let bytes = fs::read(path)?;
        // Lengths before both, so that nothing can move from one file, or from a name, to its neighbour.
        let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(&name);
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(&bytes);
    }
    Ok(hex::encode(digest.finalize()))
}

/// All files below a folder, sorted; `skip` says which folders and files are passed over. Links are not followed.
pub fn files(folder: &Path, skip: &dyn Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries.into_iter().filter(|entry| !skip(entry)) {
        let kind = fs::symlink_metadata(&entry)?;
        if kind.is_dir() {
            found.extend(files(&entry, skip)?);
        } else if kind.is_file() {
            found.push(entry);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_names_contents_and_their_borders_apart() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("below the folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        let now = || digest(dir.path(), &files(dir.path(), &|path| path.ends_with("build")).expect("listed")).expect("read");
        write("a", "bc");
        write("d/e", "");
        let first = now();
        write("build/x", "made");
        assert_eq!(now(), first);
        write("a", "b");
        write("d/e", "c");
        assert_ne!(now(), first);
        write("a", "bc");
        write("d/e", "");
        assert_eq!(now(), first);
    }
}
