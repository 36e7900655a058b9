//! Programs that take it for another time than it is: Debian's libfaketime, preloaded, with the time in a file so that
//! it can change while they run. Only the wall clock is faked; what waits for time waits for the real one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tempfile::TempDir;

use crate::tools::Missing;

const LIBRARY: &str = "libfaketime.so.1";

/// 1970-01-02 00:00 UTC: what a machine without a battery starts with.
pub const IN_1970: u64 = 86_400;
/// 2099-01-01 00:00 UTC.
pub const IN_2099: u64 = 4_070_908_800;

/// A clock that can be set.
#[derive(Debug)]
pub struct FakeClock {
    library: PathBuf,
    folder: TempDir,
}

/// The real time.
#[must_use]
pub fn real_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl FakeClock {
    /// A clock that is right, where the library is installed.
    pub fn find() -> Result<Self, Missing> {
        let library = find(&["/usr/lib", "/usr/local/lib", "/usr/lib64"].map(Path::new))
            .ok_or_else(|| Missing(format!("`{LIBRARY}` is not installed (Debian's package libfaketime)")))?;
        let folder = tempfile::tempdir().map_err(|error| Missing(format!("there is no folder for a clock: {error}")))?;
        let clock = FakeClock { library, folder };
        clock.set(real_time()).map_err(|error| Missing(format!("a clock cannot be set: {error}")))?;
        Ok(clock)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// Sets it; it goes on from there.
    pub fn set(&self, unix: u64) -> Result<()> {
        let (unix, now) = (i128::from(unix), i128::from(real_time()));
        // By rename: programs read the file at any moment.
        let next = self.folder.path().join("next");
        std::fs::write(&next, format!("{:+}\n", unix - now))?;
        Ok(std::fs::rename(next, self.file())?)
    }

    /// Sets it right.
    pub fn set_right(&self) -> Result<()> {
        self.set(real_time())
    }

    /// A command that goes by it.
    #[must_use]
    pub fn on(&self, mut command: Command) -> Command {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", self.file());
        for name in ["FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC", "FAKETIME_DISABLE_SHM"] {
            command.env(name, "1");
        }
        command
    }
}

/// In one of these folders or one below it, in `faketime/`: `/usr/lib/x86_64-linux-gnu/faketime` on Debian.
fn find(folders: &[&Path]) -> Option<PathBuf> {
    let below = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()));
    let all = folders.iter().map(|folder| folder.to_path_buf()).chain(below);
    all.map(|folder| folder.join("faketime").join(LIBRARY)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_sees_the_time_that_is_set_and_set_again() -> Result<()> {
        let clock = match FakeClock::find() {
            Ok(clock) => clock,
            Err(missing) => return crate::tools::skip("a_program_sees_the_time_that_is_set_and_set_again", &missing),
        };
        let year = || -> Result<String> {
            let mut date = Command::new("date");
            date.args(["-u", "+%Y"]);
            Ok(String::from_utf8(clock.on(date).output()?.stdout)?.trim().to_owned())
        };
        for (unix, wanted) in [(IN_1970, "1970"), (IN_2099, "2099")] {
            clock.set(unix)?;
            assert_eq!(year()?, wanted);
        }
        clock.set_right()?;
        assert!(!["1970", "2099"].contains(&year()?.as_str()));
        Ok(())
    }

    #[test]
    fn where_there_is_no_library_none_is_found() {
        assert_eq!(find(&[Path::new("/no/such/folder")]), None);
    }
}
