//! Packs on their way from operators to nodes: files named by their SHA-256 in `relay/packs`. A file gets its name only
//! after its bytes have that digest; until then it grows as `SHA256.WHO.part`, where an upload that was cut goes on.
//! The folder has a ceiling: what was not fetched for the longest makes room. Nodes check the digest again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use outhaul_home::{PRIVATE, create_private_dir};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, Hasher, KeyId};
use outhaul_protocol::limits;

/// Uploads under way, of all operators; the oldest gives way.
const PARTS: usize = 64;

/// The folder. Lives on its own thread.
#[derive(Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
    ceiling: u64,
}

/// One part of an upload.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) digest: Digest,
    pub(crate) offset: u64,
    pub(crate) total: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Part {
    fn check(&self) -> Result<(), Failure> {
        let end = self.offset.checked_add(self.bytes.len() as u64);
        if self.total == 0 || self.total > limits::PACK as u64 {
            return Err(Failure::new(Code::TooLarge, format!("a pack has 1 to {} bytes, this one says {}", limits::PACK, self.total)));
        }
        match end {
            Some(end) if end <= self.total => Ok(()),
            _ => Err(Failure::new(Code::BadParams, "a part of the pack lies beyond its end")),
        }
    }
}

/// Whatever the disk says is for the log; the operator hears that it failed.
fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    tracing::error!(path = %path.display(), %error, "{what} failed");
    let failure = Failure::new(Code::Internal, format!("the relay could not {what} the pack"));
    if error.kind() == io::ErrorKind::StorageFull { failure.hint("its disk is full") } else { failure }
}

impl Blobs {
    /// The folder, made when it is not there.
    pub(crate) fn open(folder: PathBuf, ceiling: u64) -> Result<Self, Failure> {
        create_private_dir(&folder)?;
        Ok(Blobs { folder, ceiling })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    /// Takes a part; says how many bytes are here now, which equals the total when the blob is whole and checked. A part
    /// that does not begin where the last one ended changes nothing: the answer tells where to go on.
    pub(crate) fn put(&mut self, by: &KeyId, part: &Part) -> Result<u64, Failure> {
        part.check()?;
        let whole = self.path(&part.digest);
        if let Ok(found) = fs::metadata(&whole) {
            return Ok(found.len());
        }
        let path = self.folder.join(format!("{}.{}.part", part.digest, by.short()));
        if !path.exists() {
            self.make_room(part.total)?;
        }
        let length = append(&path, part).map_err(|error| failed("store", &path, &error))?;
        if length < part.total {
            tracing::debug!(digest = %part.digest.short(), bytes = length, total = part.total, "took a part of a pack");
            return Ok(length);
        }
        match finish(&path, &whole, &part.digest) {
            Ok(true) => {
                tracing::info!(digest = %part.digest.short(), bytes = length, "pack kept");
                Ok(length)
            }
            Ok(false) => {
                let _ = fs::remove_file(&path);
                Err(Failure::new(Code::DigestMismatch, "the pack's bytes do not have the digest it was sent under").hint("send it again"))
            }
            Err(error) => Err(failed("store", &path, &error)),
        }
    }

    /// A part of a blob and its total; total 0 when there is none.
    pub(crate) fn get(&mut self, digest: &Digest, offset: u64) -> (u64, Vec<u8>) {
        let path = self.path(digest);
        let read = || -> io::Result<(u64, Vec<u8>)> {
            let file = File::open(&path)?;
            let total = file.metadata()?.len();
            let length = total.saturating_sub(offset).min(limits::BLOB_CHUNK as u64);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_exact_at(&mut bytes, offset.min(total))?;
            if offset == 0 {
                // What is fetched is in use: its turn to make room moves back.
                let _ = file.set_modified(SystemTime::now());
            }
            Ok((total, bytes))
        };
        match read() {
            Ok(part) => part,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(path = %path.display(), %error, "read failed");
                }
                (0, Vec::new())
            }
        }
    }

    /// Deletes what was used the longest ago until so many bytes more fit.
    fn make_room(&self, bytes: u64) -> Result<(), Failure> {
        if bytes > self.ceiling {
            return Err(Failure::new(Code::TooLarge, format!("the relay keeps at most {} bytes of packs", self.ceiling))
                .hint("its owner sets limits.packs_mib in relay.toml"));
        }
        let mut files = self.files().map_err(|error| failed("store", &self.folder, &error))?;
        files.sort_by_key(|file| file.used);
        let mut total: u64 = files.iter().map(|file| file.length).sum();
        let mut parts = files.iter().filter(|file| file.part).count();
        for file in files {
            if total + bytes <= self.ceiling && parts < PARTS {
                break;
            }
            if total + bytes <= self.ceiling && !file.part {
                continue;
            }
            tracing::info!(path = %file.path.display(), "deleted a pack to make room");
            fs::remove_file(&file.path).map_err(|error| failed("store", &file.path, &error))?;
            total -= file.length;
            parts -= usize::from(file.part);
        }
        Ok(())
    }

    fn files(&self) -> io::Result<Vec<Stored>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let (entry, path) = entry.map(|entry| (entry.metadata(), entry.path()))?;
            let found = entry?;
            let part = path.extension().is_some_and(|kind| kind == "part");
            files.push(Stored { part, length: found.len(), used: found.modified().unwrap_or(SystemTime::UNIX_EPOCH), path });
        }
        Ok(files)
    }
}

struct Stored {
    path: PathBuf,
    length: u64,
    used: SystemTime,
    part: bool,
}

fn append(path: &Path, part: &Part) -> io::Result<u64> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(PRIVATE).open(path)?;
    let length = file.metadata()?.len();
    if part.offset != length || length > part.total {
        return Ok(length.min(part.total.saturating_sub(1)));
    }
    file.write_all(&part.bytes)?;
    Ok(length + part.bytes.len() as u64)
}

/// Gives a whole blob its name, when its bytes are what the name says.
fn finish(path: &Path, whole: &Path, digest: &Digest) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(0))?;
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    if hasher.finish() != *digest {
        return Ok(false);
    }
    file.sync_all()?;
    fs::rename(path, whole)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_protocol::keys::sha256;

    fn blobs(ceiling: u64) -> (Blobs, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a folder");
        (Blobs::open(dir.path().join("packs"), ceiling).expect("opens"), dir)
    }

    fn part(whole: &[u8], from: usize, to: usize) -> Part {
        Part { digest: sha256(whole), offset: from as u64, total: whole.len() as u64, bytes: whole[from..to].to_vec() }
    }

    const WHO: KeyId = KeyId([7; 32]);

    #[test]
    fn an_upload_goes_on_where_it_was_cut() {
        let (mut blobs, _dir) = blobs(1000);
        let whole = b"a pack of some bytes";
        assert_eq!(blobs.put(&WHO, &part(whole, 0, 5)), Ok(5));
        assert_eq!(blobs.put(&WHO, &part(whole, 0, 5)), Ok(5), "a repeated part says where to go on");
        assert_eq!(blobs.put(&WHO, &part(whole, 9, 12)), Ok(5));
        assert_eq!(blobs.get(&sha256(whole), 0), (0, vec![]), "half a blob has no name");
        assert_eq!(blobs.put(&WHO, &part(whole, 5, 20)), Ok(20));
        assert_eq!(blobs.get(&sha256(whole), 0), (20, whole.to_vec()));
        assert_eq!(blobs.get(&sha256(whole), 15), (20, whole[15..].to_vec()));
        assert_eq!(blobs.get(&sha256(whole), 99), (20, vec![]));
        assert_eq!(blobs.put(&KeyId([8; 32]), &part(whole, 0, 1)), Ok(20), "it is here already");
    }

    #[test]
    fn bytes_of_another_digest_never_get_the_name() {
        let (mut blobs, dir) = blobs(1000);
        let lie = Part { digest: sha256(b"good"), ..part(b"evil", 0, 4) };
        assert_eq!(blobs.put(&WHO, &lie).expect_err("refused").code, Code::DigestMismatch);
        assert_eq!(fs::read_dir(dir.path().join("packs")).expect("reads").count(), 0);
        let beyond = Part { total: 3, ..part(b"good", 0, 4) };
        assert_eq!(blobs.put(&WHO, &beyond).expect_err("refused").code, Code::BadParams);
        let huge = Part { total: u64::MAX, ..part(b"good", 0, 4) };
        assert_eq!(blobs.put(&WHO, &huge).expect_err("refused").code, Code::TooLarge);
    }

    #[test]
    fn a_full_folder_forgets_what_was_not_fetched_the_longest() {
        let (mut blobs, _dir) = blobs(10);
        let (one, two, three) = ([1; 4], [2; 4], [3; 4]);
        for whole in [&one, &two] {
            blobs.put(&WHO, &part(whole, 0, 4)).expect("fits");
        }
        let old = SystemTime::UNIX_EPOCH;
        for (whole, secs) in [(&one, 2), (&two, 1)] {
            let file = File::options().append(true).open(blobs.path(&sha256(whole))).expect("opens");
            file.set_modified(old + std::time::Duration::from_secs(secs)).expect("sets");
        }
        assert_eq!(blobs.put(&WHO, &part(&three, 0, 4)), Ok(4));
        assert_eq!([&one, &two, &three].map(|whole| blobs.get(&sha256(whole), 0).0), [4, 0, 4]);
        assert_eq!(blobs.put(&WHO, &part(&[9; 11], 0, 4)).expect_err("never fits").code, Code::TooLarge);
    }
}
