//! `relay.toml`, the flags of `relay serve` that override it, and what both come to. A key nobody reads, a value out of
//! range or a missing file is refused at start with path and key.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use outhaul_home::{Home, read_toml_optional};
use outhaul_link::url::DEFAULT_PORT;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::PublicKey;
use outhaul_protocol::limits;
use serde::Deserialize;

/// The longest a pairing code may live: a day. It is six digits.
pub const CODE_TTL_MAX_SECS: u64 = 24 * 3600;

/// What `relay serve` was told on its command line; what is absent comes from `relay.toml`.
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    /// where to listen; port 0 takes a free one
    pub listen: Option<SocketAddr>,
    /// the fleet's public key; with it the relay needs no secret of the fleet
    pub fleet: Option<PublicKey>,
    /// PEM file of the TLS certificate chain
    pub tls_cert: Option<PathBuf>,
    /// PEM file of its key
    pub tls_key: Option<PathBuf>,
    /// listens in plaintext on other addresses than this machine's
    pub allow_plaintext: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<SocketAddr>,
    allow_plaintext: bool,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    fleet: Option<String>,
    pairing: Pairing,
    status: Status,
    limits: Limits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Pairing {
    #[serde(alias = "pairing_timeout_secs")]
    code_ttl_secs: u64,
}

impl Default for Pairing {
    fn default() -> Self {
        Pairing { code_ttl_secs: limits::CODE_TTL_SECS }
    }
}

/// When a connected node that says nothing is called idle, then offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Status {
    /// seconds of silence from which it is idle
    pub idle_after: u64,
    /// seconds of silence beyond which it is offline
    pub offline_after: u64,
}

impl Default for Status {
    fn default() -> Self {
        Status { idle_after: 60, offline_after: 180 }
    }
}

impl Status {
    /// The word for a connected node that was last heard so many seconds ago.
    #[must_use]
    pub fn word(&self, silent_secs: u64) -> &'static str {
        match silent_secs {
            secs if secs < self.idle_after => "online",
            secs if secs <= self.offline_after => "idle",
            _ => "offline",
        }
    }
}

/// Ceilings that an owner may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// MiB of packs kept for nodes to fetch
    pub packs_mib: u64,
    /// guests connected at once
    pub guests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { packs_mib: 2048, guests: 256 }
    }
}

/// What the relay runs by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// where to listen
    pub listen: SocketAddr,
    /// plaintext also beyond this machine
    pub allow_plaintext: bool,
    /// certificate chain and key files
    pub tls: Option<(PathBuf, PathBuf)>,
    /// the fleet's key, when it was named
    pub fleet: Option<PublicKey>,
    /// how long a code lives unless its maker says otherwise
    pub code_ttl_secs: u64,
    /// words for silence
    pub status: Status,
    /// ceilings
    pub limits: Limits,
}

impl Settings {
    /// Reads `relay/relay.toml`, which may be missing, and lets the flags override it.
    pub fn read(home: &Home, options: &ServeOptions) -> Result<Settings, Failure> {
        let path = home.join("relay/relay.toml");
        Settings::merge(read_toml_optional(&path)?.unwrap_or_default(), options, &path)
    }

    fn merge(file: File, options: &ServeOptions, path: &Path) -> Result<Settings, Failure> {
        let bad = |key: &str, what: String| Failure::new(Code::BadConfig, format!("read `{}`: key `{key}`: {what}", path.display()));
        let parse = |text: &String| text.parse::<PublicKey>().map_err(|error| bad("fleet", error.to_string()));
        let fleet = match options.fleet {
            Some(key) => Some(key),
            None => file.fleet.as_ref().map(parse).transpose()?,
        };
        let ttl = file.pairing.code_ttl_secs;
        if ttl == 0 || ttl > CODE_TTL_MAX_SECS {
            return Err(bad("pairing.code_ttl_secs", format!("{ttl} is not between 1 and {CODE_TTL_MAX_SECS}")));
        }
        let Status { idle_after, offline_after } = file.status;
        if idle_after > offline_after {
            return Err(bad("status.offline_after", format!("{offline_after} is less than idle_after, {idle_after}")));
        }
        if file.limits.packs_mib == 0 {
            return Err(bad("limits.packs_mib", "0 leaves no room for any pack".into()));
        }
        let beside = |file: PathBuf| path.parent().map_or(file.clone(), |folder| folder.join(&file));
        let tls = match (&options.tls_cert, &options.tls_key) {
            (None, None) => (file.tls_cert.map(beside), file.tls_key.map(beside)),
            (cert, key) => (cert.clone(), key.clone()),
        };
        let settings = Settings {
            listen: options.listen.or(file.listen).unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT)),
            allow_plaintext: options.allow_plaintext || file.allow_plaintext,
            tls: both(tls)?,
            fleet,
            code_ttl_secs: ttl,
            status: file.status,
            limits: file.limits,
        };
        settings.check_plaintext()?;
        Ok(settings)
    }

    /// Who can listen in on the network could see everything that is not sealed, and take the link over.
    fn check_plaintext(&self) -> Result<(), Failure> {
        if self.tls.is_some() || self.allow_plaintext || self.listen.ip().is_loopback() {
            return Ok(());
        }
        Err(Failure::new(Code::BadConfig, format!("listen on `{}`: without TLS only addresses of this machine itself are served", self.listen))
            .hint("give --tls-cert and --tls-key, or set allow_plaintext = true in relay.toml where a proxy or a private network protects the path"))
    }
}

fn both(tls: (Option<PathBuf>, Option<PathBuf>)) -> Result<Option<(PathBuf, PathBuf)>, Failure> {
    match tls {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => {
            Err(Failure::new(Code::BadConfig, "a TLS certificate without its key").hint("give --tls-key, or tls_key in relay.toml, too"))
        }
        (None, Some(_)) => {
            Err(Failure::new(Code::BadConfig, "a TLS key without its certificate").hint("give --tls-cert, or tls_cert in relay.toml, too"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_home::parse_toml;
    use outhaul_protocol::keys::SecretKey;

    fn merged(text: &str, options: &ServeOptions) -> Result<Settings, Failure> {
        let path = Path::new("/x/relay/relay.toml");
        Settings::merge(parse_toml(text, path)?, options, path)
    }

    fn refusal(text: &str) -> String {
        let failure = merged(text, &ServeOptions::default()).expect_err(text);
        assert_eq!(failure.code, Code::BadConfig);
        failure.message
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        let settings = merged("", &ServeOptions::default()).expect("defaults");
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8765");
        assert_eq!((settings.code_ttl_secs, settings.status), (300, Status { idle_after: 60, offline_after: 180 }));
        assert!(settings.tls.is_none() && !settings.allow_plaintext && settings.fleet.is_none());
    }

    #[test]
    fn flags_override_the_file() {
        let key = SecretKey::generate().public();
        let text = format!(
            "listen = \"127.0.0.1:1\"\nfleet = \"{key}\"\ntls_cert = \"a.pem\"\ntls_key = \"/k.pem\"\n[pairing]\npairing_timeout_secs = 60"
        );
        let settings = merged(&text, &ServeOptions::default()).expect("reads");
        assert_eq!((settings.fleet, settings.code_ttl_secs), (Some(key), 60));
        assert_eq!(settings.tls, Some(("/x/relay/a.pem".into(), "/k.pem".into())));
        let other = SecretKey::generate().public();
        let options = ServeOptions {
            listen: "[::1]:0".parse().ok(),
            fleet: Some(other),
            tls_cert: Some("c".into()),
            tls_key: Some("k".into()),
            allow_plaintext: false,
        };
        let settings = merged(&text, &options).expect("reads");
        assert_eq!((settings.fleet, settings.listen.to_string().as_str()), (Some(other), "[::1]:0"));
        assert_eq!(settings.tls, Some(("c".into(), "k".into())));
    }

    #[test]
    fn mistakes_name_path_and_key() {
        for (text, says) in [
            ("lsiten = \"x\"", "line 1, key `lsiten`: unknown field"),
            ("listen = \"nowhere\"", "line 1, key `listen`: invalid socket address"),
            ("fleet = \"12\"", "key `fleet`: 64 hexadecimal digits"),
            ("[pairing]\ncode_ttl_secs = 0", "key `pairing.code_ttl_secs`: 0 is not between"),
            ("[status]\nidle_after = 200", "key `status.offline_after`: 180 is less than"),
            ("[status]\nidle = 1", "key `status.idle`: unknown field"),
            ("[limits]\npacks_mib = 0", "key `limits.packs_mib`"),
        ] {
            let message = refusal(text);
            assert!(message.starts_with("read `/x/relay/relay.toml`: ") && message.contains(says), "{message}");
        }
        assert!(refusal("tls_cert = \"a\"").contains("without its key"));
    }

    #[test]
    fn plaintext_beyond_this_machine_must_be_asked_for_by_name() {
        assert!(refusal("listen = \"0.0.0.0:8765\"").contains("without TLS"));
        assert!(merged("listen = \"0.0.0.0:8765\"\nallow_plaintext = true", &ServeOptions::default()).is_ok());
        assert!(merged("listen = \"0.0.0.0:8765\"\ntls_cert = \"a\"\ntls_key = \"b\"", &ServeOptions::default()).is_ok());
    }

    #[test]
    fn the_words_for_silence_at_their_boundaries() {
        let status = Status::default();
        assert_eq!([59, 60, 180, 181].map(|secs| status.word(secs)), ["online", "idle", "idle", "offline"]);
    }
}
