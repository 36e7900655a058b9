//! Secret keys on disk: one line of text, `outhaul ed25519 secret key v1: <64 hex digits>`, mode 0600. A file that
//! others can read is refused, since its key may be known already; a key is created once and never replaced.

use crate::file::{PRIVATE, create_new, failed, write_atomic};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{SecretKey, X25519Secret};
use outhaul_protocol::publisher::PublisherKey;
use outhaul_protocol::secret::{SECRET, SecretBytes};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use zeroize::Zeroizing;

/// A key file is one line; more is another file.
const LONGEST: u64 = 256;
/// What reading a key is called in a failure.
const KEY: &str = "read key";

/// A key of 32 secret bytes with a name for its file's line.
pub trait Secret: Sized {
    /// What the line begins with, before the colon.
    const LABEL: &'static str;
    /// The key of its bytes.
    fn of(bytes: &[u8; 32]) -> Self;
    /// Its bytes.
    fn bytes(&self) -> Zeroizing<[u8; 32]>;
}

impl Secret for SecretKey {
    const LABEL: &'static str = "outhaul ed25519 secret key v1";
    fn of(bytes: &[u8; 32]) -> Self {
        SecretKey::from_bytes(bytes)
    }
    fn bytes(&self) -> Zeroizing<[u8; 32]> {
        self.to_bytes()
    }
}

impl Secret for X25519Secret {
    const LABEL: &'static str = "outhaul x25519 secret key v1";
    fn of(bytes: &[u8; 32]) -> Self {
        X25519Secret::from_bytes(bytes)
    }
    fn bytes(&self) -> Zeroizing<[u8; 32]> {
        self.to_bytes()
    }
}

impl Secret for PublisherKey {
    const LABEL: &'static str = "outhaul publisher secret key v1";
    fn of(bytes: &[u8; 32]) -> Self {
        PublisherKey::from_bytes(bytes)
    }
    fn bytes(&self) -> Zeroizing<[u8; 32]> {
        self.to_bytes()
    }
}

/// Reads a key; a file that others can read, or that holds anything else, is refused.
pub fn read_secret_key<S: Secret>(path: &Path) -> Result<S, Failure> {
    let text = open(path).map_err(|error| failed(KEY, path, &error)).and_then(|file| read(file, path, KEY, LONGEST))?;
    parse(&text).ok_or_else(|| {
        Failure::new(
            Code::BadConfig,
            format!("read key `{}`: it is not one line `{}: …` with 64 hexadecimal digits", path.display(), S::LABEL),
        )
        .hint("restore it from a backup; when there is none, move it away and a new key is made, which must be paired anew")
    })
}

/// Stores a new key. A file of that name is an error: a key is never replaced by accident.
pub fn create_secret_key<S: Secret>(path: &Path, key: &S) -> Result<(), Failure> {
    create(path, key).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(Code::BadConfig, format!("create key `{}`: there is one already", path.display()))
            .hint("move it away first if it is to be replaced"),
        _ => failed("create key", path, &error),
    })
}

/// The key of a file, made and stored when there is none; whether it is new.
pub fn load_or_create_secret_key<S: Secret>(path: &Path, make: impl FnOnce() -> S) -> Result<(S, bool), Failure> {
    match path.try_exists() {
        Ok(true) => return read_secret_key(path).map(|key| (key, false)),
        Ok(false) => {}
        Err(error) => return Err(failed("read key", path, &error)),
    }
    let key = make();
    match create(path, &key) {
        Ok(()) => Ok((key, true)),
        // Another process was faster: its key is the one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_secret_key(path).map(|key| (key, false)),
        Err(error) => Err(failed("create key", path, &error)),
    }
}

/// Reads an owner's secret as it stands in its file; none where there is no file. One that others can read is refused.
pub fn read_secret_bytes(path: &Path) -> Result<Option<SecretBytes>, Failure> {
    const VERB: &str = "read secret";
    let file = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| failed(VERB, path, &error))?,
    };
    let mut bytes = read(file, path, VERB, SECRET as u64)?;
    match bytes.len() {
        0..=SECRET => Ok(Some(SecretBytes::new(std::mem::take(&mut *bytes)))),
        _ => Err(Failure::new(Code::BadConfig, format!("{VERB} `{}`: it is longer than {SECRET} bytes", path.display()))),
    }
}

/// Stores an owner's secret in place of the one before.
pub fn write_secret_bytes(path: &Path, secret: &SecretBytes) -> Result<(), Failure> {
    write_atomic(path, secret.expose(), PRIVATE)
}

fn create<S: Secret>(path: &Path, key: &S) -> io::Result<()> {
    let mut digits = Zeroizing::new([0u8; 64]);
    hex::encode_to_slice(*key.bytes(), &mut digits[..]).expect("64 digits are 32 bytes");
    let mut line = Zeroizing::new(Vec::with_capacity(128));
    for part in [S::LABEL.as_bytes(), b": ", &digits[..], b"\n"] {
        line.extend_from_slice(part);
    }
    create_new(path, &line, PRIVATE)
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")),
    }
}

/// At most one byte more than `longest`, so that the caller sees when there is more.
fn read(file: File, path: &Path, verb: &str, longest: u64) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Asked of the open file, not of its name: nobody can put another in between.
    only_owner_reads(&file, path, verb)?;
    // Room for all of it at once: a vector that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(longest).unwrap_or(usize::MAX).saturating_add(1)));
    file.take(longest + 1).read_to_end(&mut text).map_err(|error| failed(verb, path, &error))?;
    Ok(text)
}

#[cfg(unix)]
fn only_owner_reads(file: &File, path: &Path, verb: &str) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = file.metadata().map_err(|error| failed(verb, path, &error))?.mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let sentence =
        format!("{verb} `{}`: its mode is {mode:04o}, so others than its owner can read or change it; 0600 is wanted", path.display());
    Err(Failure::new(Code::BadConfig, sentence)
        .hint(format!("chmod 600 '{}', and replace what is in it if somebody may have read it", path.display())))
}

#[cfg(not(unix))]
fn only_owner_reads(_: &File, _: &Path, _: &str) -> Result<(), Failure> {
    Ok(())
}

fn parse<S: Secret>(text: &[u8]) -> Option<S> {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let digits = line.strip_prefix(S::LABEL.as_bytes())?.strip_prefix(b": ")?;
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, &mut bytes[..]).ok()?;
    Some(S::of(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn key() -> SecretKey {
        SecretKey::from_bytes(&[7; 32])
    }

    #[test]
    fn a_key_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.key");
        create_secret_key(&path, &key()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("outhaul ed25519 secret key v1: {}\n", "07".repeat(32)));
        assert_eq!(read_secret_key::<SecretKey>(&path).unwrap().id(), key().id());
        let failure = read_secret_key::<X25519Secret>(&path).err().unwrap();
        assert!(failure.message.contains("it is not one line `outhaul x25519 secret key v1: …`"), "{failure}");
    }

    #[test]
    fn a_key_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.key");
        create_secret_key(&path, &key()).unwrap();
        let failure = create_secret_key(&path, &SecretKey::generate()).unwrap_err();
        assert!(failure.message.ends_with("there is one already"), "{failure}");
        let (same, new) = load_or_create_secret_key(&path, || -> SecretKey { panic!("there is one") }).unwrap();
        assert!(!new && same.id() == key().id());
        let (made, new) = load_or_create_secret_key(&dir.path().join("other.key"), key).unwrap();
        assert!(new && made.id() == key().id());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.key");
        create_secret_key(&path, &key()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let failure = read_secret_key::<SecretKey>(&path).err().unwrap();
            assert!(failure.message.contains(&format!("its mode is {mode:04o}")), "{failure}");
            assert!(failure.hint.unwrap().starts_with("chmod 600 '"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn an_owners_secret_is_kept_to_the_byte_and_from_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api_token");
        assert_eq!(read_secret_bytes(&path), Ok(None));
        let secret = SecretBytes::new(b"hunter2\n\0".to_vec());
        write_secret_bytes(&path, &secret).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_secret_bytes(&path), Ok(Some(secret)));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read_secret_bytes(&path).unwrap_err().message.starts_with("read secret `"));
        write_secret_bytes(&path, &SecretBytes::new(vec![b'x'; SECRET + 1])).unwrap();
        assert!(read_secret_bytes(&path).unwrap_err().message.ends_with("longer than 65536 bytes"));
    }

    #[test]
    fn what_is_not_a_key_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_secret_key::<SecretKey>(dir.path()).err().unwrap().message.contains("it is not a file"));
        assert!(read_secret_key::<SecretKey>(&dir.path().join("none")).err().unwrap().message.starts_with("read key `"));
        let good = format!("outhaul ed25519 secret key v1: {}", "07".repeat(32));
        assert!(parse::<SecretKey>(good.as_bytes()).is_some());
        for bad in ["", "07", &good[..90], &format!("{good}0"), &format!("{good}\n\n"), &good.replace(": ", ":"), &good.replace("v1", "v2")]
        {
            assert!(parse::<SecretKey>(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse::<SecretKey>(&bytes).is_none());
        }
    }
}
