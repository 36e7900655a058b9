//! One process at a time. The lock is the kernel's, on an open file: it ends with its holder, however that ends, and
//! no stale file can keep anybody out. The file's text is the holder's pid, for the sentence the second one reads.

use crate::file::failed;
use outhaul_protocol::error::{Code, Failure};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

/// Held until dropped; the file stays, since removing it would let two hold "the" lock.
#[derive(Debug)]
#[must_use = "the lock ends when this is dropped"]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or says who has it. `what` is who wants it, such as `agent run`.
    pub fn take(path: &Path, what: &str) -> Result<Lock, Failure> {
        let mut file = open(path).map_err(|error| failed("open", path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(&mut file, path, what)),
            Err(TryLockError::Error(error)) => return Err(failed("lock", path, &error)),
        }
        sign(&mut file).map_err(|error| failed("write", path, &error))?;
        Ok(Lock { _file: file })
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, crate::file::PRIVATE);
    options.open(path)
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn held(file: &mut File, path: &Path, what: &str) -> Failure {
    let mut text = String::new();
    // Its holder may not have signed yet; then nobody is named.
    let pid = file.take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    let (who, hint) = match pid {
        Some(pid) => (format!("process {pid}"), format!("stop it first (kill {pid}), or use another `--home`")),
        None => ("another process".to_owned(), "stop it first, or use another `--home`".to_owned()),
    };
    Failure::new(Code::Busy, format!("start `{what}`: {who} already runs here and holds `{}`", path.display())).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_was_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path, "agent run").unwrap();
        let failure = Lock::take(&path, "agent run").unwrap_err();
        let pid = std::process::id();
        assert_eq!(failure.message, format!("start `agent run`: process {pid} already runs here and holds `{}`", path.display()));
        assert_eq!(failure.code, Code::Busy);
        drop(first);
        assert!(Lock::take(&path, "agent run").is_ok());
    }

    #[test]
    fn an_old_file_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "4000000000 and more").unwrap();
        let _lock = Lock::take(&path, "agent run").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }
}
