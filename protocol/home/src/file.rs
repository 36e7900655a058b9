//! Files that are whole or not there. A write goes to a temporary file beside its target, is synced, takes the
//! target's name, and the folder is synced: after a power cut there is the old file or the new one.

use outhaul_protocol::error::{Code, Failure};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Mode of a file that only its owner reads.
pub const PRIVATE: u32 = 0o600;

/// Names tried for a temporary file: leftovers of a crash may hold some.
const TEMPORARY_NAMES: u32 = 100;

/// What went wrong with a path, in one voice.
pub(crate) fn failed(verb: &str, path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(Code::BadConfig, format!("{verb} `{}`: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => failure.hint("run as the user who owns it, or point `--home` at a folder of yours"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failure.hint("free some space on that disk"),
        io::ErrorKind::ReadOnlyFilesystem => failure.hint("point `--home` at a folder that can be written"),
        _ => failure,
    }
}

/// Creates a folder and those above it with mode 0700; one that others could enter is closed to them.
pub fn create_private_dir(path: &Path) -> Result<(), Failure> {
    private_dir(path).map_err(|error| failed("create folder", path, &error))
}

#[cfg(unix)]
fn private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match fs::metadata(path)?.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(path, fs::Permissions::from_mode(0o700)),
    }
}

#[cfg(not(unix))]
fn private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Reads a file that may not be there.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}

/// Removes a file and syncs its folder; one that is not there is removed already.
pub fn remove(path: &Path) -> Result<(), Failure> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other,
    };
    removed.and_then(|()| sync_folder(path)).map_err(|error| failed("remove", path, &error))
}

/// Replaces a file as a whole; on return it is on the disk. A symbolic link stays, what it points to is replaced.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let replace = || {
        let temporary = Temporary::create(&target, bytes, mode)?;
        fs::rename(&temporary.0, &target)?;
        temporary.moved();
        sync_folder(&target)
    };
    replace().map_err(|error| failed("write", path, &error))
}

/// The same for a file that must not be there yet: of two writers one fails.
pub(crate) fn create_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = Temporary::create(path, bytes, mode)?;
    // Unlike a rename, a link refuses a name that is taken; unlike O_EXCL on the name itself, it never shows half a file.
    fs::hard_link(&temporary.0, path)?;
    drop(temporary);
    sync_folder(path)
}

/// A synced file beside its target, removed unless it became it.
struct Temporary(PathBuf);

impl Temporary {
    fn create(target: &Path, bytes: &[u8], mode: u32) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
        for _ in 0..TEMPORARY_NAMES {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = target.with_file_name(format!(".{}.{}.{number}.tmp", name.to_string_lossy(), std::process::id()));
            match options(mode).open(&path) {
                Ok(mut file) => {
                    let temporary = Temporary(path);
                    file.write_all(bytes)?;
                    file.sync_all()?;
                    return Ok(temporary);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many temporary files lie beside it"))
    }

    fn moved(self) {
        std::mem::forget(self);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing is lost when it stays: its name is never read.
        let _ = fs::remove_file(&self.0);
    }
}

fn options(mode: u32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options
}

/// Makes a new name survive a power cut.
fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all()?,
        None => File::open(".")?.sync_all()?,
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_write_replaces_the_whole_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pins");
        write_atomic(&path, b"first and longer", PRIVATE).unwrap();
        write_atomic(&path, b"second", PRIVATE).unwrap();
        assert_eq!(read_optional(&path).unwrap().as_deref(), Some(&b"second"[..]));
        assert_eq!(names(dir.path()), ["pins"]);
    }

    #[cfg(unix)]
    #[test]
    fn the_mode_holds_also_over_an_older_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pins");
        fs::write(&path, "open").unwrap();
        write_atomic(&path, b"closed", PRIVATE).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_configuration_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.toml"), dir.path().join("agent.toml"));
        fs::write(&real, "a").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_atomic(&link, b"b", PRIVATE).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"b");
    }

    #[test]
    fn what_must_be_new_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.key");
        create_new(&path, b"first", PRIVATE).unwrap();
        assert_eq!(create_new(&path, b"second", PRIVATE).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(dir.path()), ["agent.key"]);
    }

    #[test]
    fn errors_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none/pins");
        let failure = write_atomic(&path, b"x", PRIVATE).unwrap_err();
        assert!(failure.message.starts_with(&format!("write `{}`: ", path.display())), "{failure}");
        assert!(read_optional(dir.path()).unwrap_err().message.starts_with("read `"));
        assert_eq!(read_optional(&path), Ok(None));
        assert_eq!(remove(&path), Ok(()));
    }
}
