//! What Outhaul keeps on disk, and how: the home folder and its three rooms, files that are whole or not there,
//! secret keys nobody else can read, configuration whose mistakes have a line, one process per agent. Blocking
//! `std::fs` only; what is *in* the files is their owners' business. Every error names the path and a way out.
//!
//! ```text
//! HOME/              OUTHAUL_HOME, else $XDG_DATA_HOME/outhaul, else ~/.local/share/outhaul
//!   relay/           relay.toml relay.key relay.db packs/ address
//!   agent/           agent.toml agent.key pins packs/ cache/ secrets/ lock
//!   operator/        operator.toml operator.key publisher.key grants/ nodes/ fleet.key
//! ```

mod config;
mod file;
mod lock;
pub mod log;
mod secret;

pub use config::{parse_toml, read_toml, read_toml_optional};
pub use file::{PRIVATE, create_private_dir, read_optional, remove, write_atomic};
pub use lock::Lock;
pub use secret::{Secret, create_secret_key, load_or_create_secret_key, read_secret_bytes, read_secret_key, write_secret_bytes};

use outhaul_protocol::error::{Code, Failure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The folder everything of this user lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// The home of `--home`, else of the environment. Nothing is created yet.
    pub fn find(flag: Option<PathBuf>) -> Result<Home, Failure> {
        Home::find_in(flag, |name| std::env::var_os(name))
    }

    fn find_in(flag: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> Result<Home, Failure> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // The XDG specification has relative paths ignored: they would mean another folder in each directory.
        let absolute = |path: &PathBuf| path.is_absolute();
        let found = flag
            .or_else(|| set("OUTHAUL_HOME"))
            .or_else(|| set("XDG_DATA_HOME").filter(absolute).map(|data| data.join("outhaul")))
            .or_else(|| set("HOME").filter(absolute).map(|home| home.join(".local/share/outhaul")));
        let path = found.ok_or_else(|| {
            Failure::new(Code::BadConfig, "find a home folder: none of `OUTHAUL_HOME`, `XDG_DATA_HOME` and `HOME` is set")
                .hint("pass `--home DIR`, as a service `--home /var/lib/outhaul`")
        })?;
        std::path::absolute(&path).map(Home).map_err(|error| file::failed("find", &path, &error))
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it, such as `relay/address`, without creating anything.
    #[must_use]
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// The relay's folder, created when it is not there.
    pub fn relay(&self) -> Result<PathBuf, Failure> {
        self.room("relay")
    }

    /// The agent's folder, created when it is not there.
    pub fn agent(&self) -> Result<PathBuf, Failure> {
        self.room("agent")
    }

    /// The operator's folder, created when it is not there.
    pub fn operator(&self) -> Result<PathBuf, Failure> {
        self.room("operator")
    }

    fn room(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.0.join(name);
        create_private_dir(&path)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(flag: Option<&str>, variables: &[(&str, &str)]) -> Result<PathBuf, Failure> {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        Home::find_in(flag.map(PathBuf::from), variable).map(|home| home.0)
    }

    #[test]
    fn the_flag_comes_first_then_the_environment_in_order() {
        let all = [("OUTHAUL_HOME", "/o"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(find(Some("/f"), &all), Ok("/f".into()));
        assert_eq!(find(None, &all), Ok("/o".into()));
        assert_eq!(find(None, &all[1..]), Ok("/x/outhaul".into()));
        assert_eq!(find(None, &[("XDG_DATA_HOME", "relative"), ("HOME", "/h")]), Ok("/h/.local/share/outhaul".into()));
        assert_eq!(find(None, &[("OUTHAUL_HOME", ""), ("HOME", "/h")]), Ok("/h/.local/share/outhaul".into()));
        assert!(find(None, &[]).unwrap_err().hint.unwrap().contains("--home"));
    }

    #[test]
    fn a_relative_home_is_made_absolute() {
        assert!(find(Some("here"), &[]).unwrap().is_absolute());
    }

    #[cfg(unix)]
    #[test]
    fn rooms_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let home = Home(dir.path().join("a/b"));
        std::fs::create_dir_all(home.join("agent")).unwrap();
        std::fs::set_permissions(home.join("agent"), std::fs::Permissions::from_mode(0o755)).unwrap();
        for room in [home.relay().unwrap(), home.agent().unwrap(), home.operator().unwrap()] {
            assert_eq!(std::fs::metadata(&room).unwrap().permissions().mode() & 0o777, 0o700, "{}", room.display());
        }
    }
}
