//! The owner's secrets: one file each in `agent/secrets`, by name, that only the owner can read. They are read anew at each use, so
//! that a changed one counts at once, and they are never on a command line, in a log or in `agent.toml`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use outhaul_home::{Home, create_private_dir, read_secret_bytes, remove, write_secret_bytes};
use outhaul_host::power::secrets;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::secret::{SECRET, SecretBytes};
use zeroize::Zeroizing;

use crate::config::AgentConfig;

/// The folder of the secrets.
#[derive(Debug, Clone)]
pub struct Vault {
    folder: PathBuf,
}

impl Vault {
    /// The vault of a home. Nothing is created yet.
    #[must_use]
    pub fn new(home: &Home) -> Self {
        Vault { folder: home.join("agent/secrets") }
    }

    /// Whether a name can be one, before anybody types a value for it.
    pub fn check(&self, name: &str) -> Result<(), Failure> {
        self.path(name).map(drop)
    }

    /// Sets a secret; whether there was one before.
    pub fn set(&self, name: &str, secret: &SecretBytes) -> Result<bool, Failure> {
        let path = self.path(name)?;
        match secret.expose().len() {
            0 => {
                return Err(Failure::new(
                    Code::BadUsage,
                    format!("secret `{name}` would be empty; to take it away: agent secret remove {name}"),
                ));
            }
            1..=SECRET => {}
            length => {
                return Err(Failure::new(Code::TooLarge, format!("secret `{name}` has {length} bytes or more, at most {SECRET} are kept")));
            }
        }
        create_private_dir(&self.folder)?;
        let before = path.exists();
        write_secret_bytes(&path, secret)?;
        Ok(before)
    }

    /// Removes a secret; whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool, Failure> {
        let path = self.path(name)?;
        let before = path.exists();
        remove(&path)?;
        Ok(before)
    }

    /// The names of all, sorted.
    pub fn names(&self) -> Result<Vec<String>, Failure> {
        let failed = |error: io::Error| Failure::new(Code::BadConfig, format!("read folder `{}`: {error}", self.folder.display()));
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            // What is not a name is a leftover of an interrupted write, or not ours.
            names.extend(name.to_str().filter(|name| secrets::Name::parse(name).is_ok()).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// A name is checked before it becomes part of a path.
    fn path(&self, name: &str) -> Result<PathBuf, Failure> {
        let name = secrets::Name::parse(name).map_err(|why| Failure::new(Code::BadUsage, why))?;
        Ok(self.folder.join(name.as_str()))
    }
}

impl secrets::Vault for Vault {
    fn get(&self, name: &str) -> Result<Option<SecretBytes>, String> {
        self.path(name).and_then(|path| read_secret_bytes(&path)).map_err(|failure| {
            tracing::error!(secret = name, reason = %failure.message, "a secret cannot be read");
            // Where it lies is the owner's business, not the caller's.
            format!("secret `{name}` cannot be read; the agent's log says why")
        })
    }
}

/// What a secret is for: which packs' headers have it, and which packs read it.
#[must_use]
pub fn uses(config: &AgentConfig) -> BTreeMap<String, Vec<String>> {
    let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, table) in &config.packs {
        let headers = table.http.iter().flat_map(|http| &http.headers);
        for (origin, fields) in headers {
            for (field, name) in fields.iter().flat_map(|(field, template)| template.secrets().map(move |name| (field, name))) {
                uses.entry(name.to_string()).or_default().push(format!("{key} ({field} for {origin})"));
            }
        }
        for name in &table.secrets.names {
            uses.entry(name.to_string()).or_default().push(format!("{key} (reads it)"));
        }
    }
    uses
}

/// Reads a value: a line that is typed without being shown, or all of what is piped in, without its last line break.
pub fn read_value(name: &str) -> Result<SecretBytes, Failure> {
    let failed = |error: io::Error| Failure::new(Code::BadUsage, format!("read the value of secret `{name}`: {error}"));
    let stdin = io::stdin();
    // Room for all of it at once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET + 2));
    if stdin.is_terminal() {
        let _quiet = Quiet::new().map_err(failed)?;
        eprint!("value of secret {name}, which is not shown: ");
        io::stderr().flush().map_err(failed)?;
        typed(&mut stdin.lock(), &mut bytes).map_err(failed)?;
        if bytes.last() == Some(&CTRL_C) {
            eprintln!();
            return Err(Failure::new(Code::Cancelled, "nothing was set"));
        }
    } else {
        stdin.lock().take(SECRET as u64 + 2).read_to_end(&mut bytes).map_err(failed)?;
    }
    let length = bytes.strip_suffix(b"\n").map_or(bytes.len(), |line| line.strip_suffix(b"\r").unwrap_or(line).len());
    bytes.truncate(length);
    Ok(SecretBytes::new(std::mem::take(&mut *bytes)))
}

/// What a terminal sends for Ctrl-C.
const CTRL_C: u8 = 3;

/// One line of a terminal, up to its end or Ctrl-C.
fn typed(from: &mut impl io::BufRead, into: &mut Vec<u8>) -> io::Result<()> {
    while into.len() <= SECRET {
        let piece = from.fill_buf()?;
        let length = piece.len();
        into.extend_from_slice(piece);
        from.consume(length);
        if length == 0 || into.last().is_some_and(|last| matches!(*last, b'\n' | CTRL_C)) {
            break;
        }
    }
    Ok(())
}

/// A terminal that shows nothing of what is typed, until it is dropped. Ctrl-C ends the line instead of the process, which would
/// leave the terminal dumb.
#[derive(Debug)]
struct Quiet(rustix::termios::Termios);

impl Quiet {
    fn new() -> io::Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        quiet.local_modes.insert(LocalModes::ECHONL);
        quiet.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Quiet(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // There is nothing left to try when a terminal refuses what it had before.
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::home;
    use outhaul_host::power::secrets::Vault as _;

    fn secret(text: &str) -> SecretBytes {
        SecretBytes::new(text.as_bytes().to_vec())
    }

    #[test]
    fn a_secret_is_kept_replaced_listed_and_removed() {
        let (_dir, home) = home();
        let vault = Vault::new(&home);
        assert_eq!((vault.names(), vault.get("token")), (Ok(Vec::new()), Ok(None)));
        assert_eq!(vault.set("token", &secret("one")), Ok(false));
        assert_eq!(vault.set("token", &secret("two")), Ok(true));
        assert_eq!(vault.set("other", &secret("x")), Ok(false));
        assert_eq!((vault.names().expect("read"), vault.get("token")), (vec!["other".into(), "token".into()], Ok(Some(secret("two")))));
        assert_eq!((vault.remove("token"), vault.remove("token"), vault.get("token")), (Ok(true), Ok(false), Ok(None)));
    }

    #[cfg(unix)]
    #[test]
    fn folder_and_file_are_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, home) = home();
        let vault = Vault::new(&home);
        vault.set("token", &secret("hunter2")).expect("set");
        let mode = |path: &str| std::fs::metadata(home.join(path)).expect(path).permissions().mode() & 0o777;
        assert_eq!((mode("agent/secrets"), mode("agent/secrets/token")), (0o700, 0o600));
        let path = home.join("agent/secrets/token");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("opened up");
        let said = vault.get("token").expect_err("refused");
        assert!(!said.contains("hunter2") && !said.contains("agent/secrets"), "{said}");
    }

    #[test]
    fn a_typed_line_ends_at_its_end_or_at_ctrl_c() {
        let read = |text: &[u8]| {
            let mut bytes = Vec::new();
            typed(&mut io::BufReader::with_capacity(3, text), &mut bytes).expect("read");
            bytes
        };
        assert_eq!((read(b"hunter2\n"), read(b"hun\x03"), read(b"")), (b"hunter2\n".to_vec(), b"hun\x03".to_vec(), Vec::new()));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let (_dir, home) = home();
        let vault = Vault::new(&home);
        for name in ["", "../agent.key", "a/b", "Token"] {
            assert_eq!(vault.set(name, &secret("x")).expect_err(name).code, Code::BadUsage);
            assert!(vault.get(name).is_err(), "{name}");
        }
        assert!(vault.set("empty", &secret("")).is_err());
        assert_eq!(vault.set("large", &secret(&"x".repeat(SECRET + 1))).expect_err("too large").code, Code::TooLarge);
        assert_eq!(vault.names(), Ok(Vec::new()));
    }
}
