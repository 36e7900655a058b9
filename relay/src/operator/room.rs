//! The operator's folder: `HOME/operator`.
//!
//! ```text
//! operator.toml    relay = "ws://…", ca = "…", allow_plaintext
//! operator.key     this operator's key
//! fleet.key        the fleet's, only where its owner keeps it
//! fleet.pub        the fleet's public key: the pin everything is verified under
//! relays           the newest signed `relays`
//! revocations      the newest signed `revocations`, with its chain and when it was accepted here
//! operators.toml   names for other operators' keys
//! publisher.key    signs packs; see [`super::publishers`] for what else there is about publishers
//! grants/own       the chain this operator acts by; grants/ID.json what it gave to others
//! nodes/ID.NAME    what is known of a node
//! cache/DIGEST     descriptions of packs
//! deployments/, pushed/  see [`super::deployments`]
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outhaul_home::{
    Home, PRIVATE, create_private_dir, load_or_create_secret_key, read_optional, read_secret_key, read_toml_optional, write_atomic,
};
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::{Authority, RevokedSet, verify_chain, verify_relays, verify_revocations};
use outhaul_protocol::credential::Chain;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{KeyId, PublicKey, SecretKey};
use outhaul_protocol::objects::{Relays, RevocationList};
use outhaul_protocol::signed::Verified;
use outhaul_protocol::time::{Reading, Time};
use serde::{Deserialize, Serialize};

/// Hexadecimal digits of a fingerprint that a person must compare or type: 80 bits, out of reach of a search.
pub const FINGERPRINT_DIGITS: usize = 20;

/// The time on this machine.
#[must_use]
pub fn now() -> Time {
    Time(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// `operator.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// the relay to use
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// certificate authorities instead of the system's
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// allows `ws://` to another machine
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_plaintext: bool,
}

/// `revocations` on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptRevocations {
    accepted: u64,
    list: String,
}

/// Whom this operator trusts and acts for.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// the pinned key
    pub key: PublicKey,
    /// what is revoked
    pub revoked: RevokedSet,
    /// the document that says so
    pub revocations: Option<RevocationList>,
    /// the fleet's relays
    pub relays: Option<Verified<Relays>>,
}

impl Fleet {
    /// Proves a chain of grants, now.
    pub fn authority(&self, chain: &[Blob]) -> Result<Authority, Failure> {
        verify_chain(&self.key, chain, Reading::sure(now()), &self.revoked).map_err(|error| {
            let failure = Failure::from(error);
            match failure.code {
                Code::Expired | Code::Revoked => {
                    failure.hint("ask the fleet's owner for a new grant; `relay operator show` prints your key")
                }
                _ => failure,
            }
        })
    }
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Room {
    dir: PathBuf,
    address: PathBuf,
}

impl Room {
    /// The operator's folder of a home; nothing is created.
    #[must_use]
    pub fn of(home: &Home) -> Room {
        Room { dir: home.join("operator"), address: home.join("relay/address") }
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Creates the folder and one inside it.
    pub fn create(&self, folder: &str) -> Result<PathBuf, Failure> {
        create_private_dir(&self.dir)?;
        let path = self.dir.join(folder);
        create_private_dir(&path)?;
        Ok(path)
    }

    /// `operator.toml`; missing is empty.
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(read_toml_optional(&self.path("operator.toml"))?.unwrap_or_default())
    }

    /// Writes `operator.toml`.
    pub fn set_config(&self, config: &Config) -> Result<(), Failure> {
        self.create("")?;
        let text = toml::to_string(config).map_err(|error| Failure::new(Code::Internal, format!("write operator.toml: {error}")))?;
        write_atomic(&self.path("operator.toml"), text.as_bytes(), PRIVATE)
    }

    /// The URL that `relay serve` of the same home listens on, while it does.
    pub fn own_relay(&self) -> Result<Option<String>, Failure> {
        let bytes = read_optional(&self.address)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|text| !text.is_empty()))
    }

    /// The operator's key.
    pub fn key(&self) -> Result<Arc<SecretKey>, Failure> {
        let path = self.path("operator.key");
        if !path.exists() {
            return Err(nobody(&self.dir));
        }
        read_secret_key(&path).map(Arc::new)
    }

    /// The operator's key, made on first use; whether it is new.
    pub fn key_or_new(&self) -> Result<(Arc<SecretKey>, bool), Failure> {
        self.create("")?;
        let (key, new) = load_or_create_secret_key(&self.path("operator.key"), SecretKey::generate)?;
        Ok((Arc::new(key), new))
    }

    /// The fleet's key, where its owner keeps it here.
    pub fn fleet_key(&self) -> Result<Option<SecretKey>, Failure> {
        let path = self.path("fleet.key");
        if path.exists() { read_secret_key(&path).map(Some) } else { Ok(None) }
    }

    /// The pinned fleet key, if there is one.
    pub fn fleet_pin(&self) -> Result<Option<PublicKey>, Failure> {
        let path = self.path("fleet.pub");
        let Some(bytes) = read_optional(&path)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        text.trim().parse().map(Some).map_err(|error| Failure::new(Code::BadConfig, format!("read `{}`: {error}", path.display())))
    }

    /// The fleet and what is known of it.
    pub fn fleet(&self) -> Result<Fleet, Failure> {
        let key = self.fleet_pin()?.ok_or_else(|| nobody(&self.dir))?;
        let at = |name: &str, failure: Failure| Failure {
            message: format!("read `{}`: {}", self.path(name).display(), failure.message),
            ..failure
        };
        let (revoked, revocations) = self.revocations(&key).map_err(|failure| at("revocations", failure))?;
        let relays = match read_optional(&self.path("relays"))? {
            Some(bytes) => Some(verify_relays(&key, &bytes, Reading::sure(now())).map_err(|error| at("relays", error.into()))?),
            None => None,
        };
        Ok(Fleet { key, revoked, revocations, relays })
    }

    fn revocations(&self, fleet: &PublicKey) -> Result<(RevokedSet, Option<RevocationList>), Failure> {
        let path = self.path("revocations");
        let Some(bytes) = read_optional(&path)? else { return Ok((RevokedSet::empty(), None)) };
        let bad = |what: &dyn std::fmt::Display| Failure::new(Code::BadConfig, what.to_string());
        let kept: KeptRevocations = serde_json::from_slice(&bytes).map_err(|error| bad(&error))?;
        let list = STANDARD.decode(kept.list).map_err(|error| bad(&error))?;
        let list = RevocationList::decode(&list).map_err(|error| bad(&error))?;
        // Judged by when it came: what its signer revoked stays revoked after the signer's own grant has ended.
        let accepted = Reading::sure(Time(kept.accepted));
        let empty = RevokedSet::empty();
        let verified = verify_revocations(fleet, &list, accepted, &empty)?;
        Ok((empty.follow(&verified, fleet)?, Some(list)))
    }

    /// Takes a newer document of revocations; what is revoked after it.
    pub fn take_revocations(&self, fleet: &Fleet, list: &RevocationList) -> Result<RevokedSet, Failure> {
        let at = now();
        let verified = verify_revocations(&fleet.key, list, Reading::sure(at), &fleet.revoked)?;
        let revoked = fleet.revoked.follow(&verified, &fleet.key)?;
        if revoked.serial() > fleet.revoked.serial() {
            let kept = KeptRevocations { accepted: at.0, list: STANDARD.encode(list.encode()) };
            let text = serde_json::to_vec(&kept).map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
            write_atomic(&self.path("revocations"), &text, PRIVATE)?;
        }
        Ok(revoked)
    }

    /// Takes a newer list of relays; an older one is left alone.
    pub fn take_relays(&self, fleet: &Fleet, signed: &[u8]) -> Result<Verified<Relays>, Failure> {
        let relays = verify_relays(&fleet.key, signed, Reading::sure(now()))?;
        match &fleet.relays {
            Some(known) if known.serial > relays.serial => return Ok(known.clone()),
            Some(known) if known.serial == relays.serial && known.bytes() != signed => {
                return Err(Failure::new(Code::BadSignature, format!("two different lists of relays have serial {}", relays.serial)));
            }
            Some(known) if known.serial == relays.serial => {}
            _ => write_atomic(&self.path("relays"), signed, PRIVATE)?,
        }
        Ok(relays)
    }

    /// The chain this operator acts by, unverified.
    pub fn chain(&self) -> Result<Vec<Blob>, Failure> {
        let path = self.path("grants/own");
        let bytes = read_optional(&path)?.ok_or_else(|| nobody(&self.dir))?;
        let chain = Chain::decode(&bytes).map_err(|error| Failure::new(Code::BadConfig, format!("read `{}`: {error}", path.display())))?;
        Ok(chain.grants)
    }

    /// Joins a fleet, or renews what is known of it: the pin, this operator's grants and the relays, all verified
    /// before anything is written. Another fleet's pin is never replaced.
    pub fn adopt(&self, fleet: &PublicKey, chain: &[Blob], relays: Option<&[u8]>) -> Result<Authority, Failure> {
        if let Some(pinned) = self.fleet_pin()?.filter(|pinned| pinned != fleet) {
            let text = format!("this home belongs to fleet {}, the grant is of fleet {}", pinned.id().short(), fleet.id().short());
            return Err(Failure::new(Code::BadKey, text).hint("use another `--home` for another fleet"));
        }
        let clock = Reading::sure(now());
        let known = match self.fleet_pin()? {
            Some(_) => self.fleet()?,
            None => Fleet { key: *fleet, revoked: RevokedSet::empty(), revocations: None, relays: None },
        };
        let authority = verify_chain(fleet, chain, clock, &known.revoked)?;
        let own = self.key_or_new()?.0.public();
        if *authority.holder() != own {
            let text = format!("the grant is for key {}, this operator's is {}", authority.holder().id().short(), own.id().short());
            return Err(Failure::new(Code::BadKey, text).hint("`relay operator show` prints the key to grant to"));
        }
        if let Some(relays) = relays {
            verify_relays(fleet, relays, clock)?;
        }
        self.create("grants")?;
        write_atomic(&self.path("fleet.pub"), format!("{fleet}\n").as_bytes(), PRIVATE)?;
        if let Some(relays) = relays {
            self.take_relays(&known, relays)?;
        }
        write_atomic(&self.path("grants/own"), &Chain { grants: chain.to_vec() }.encode(), PRIVATE)?;
        Ok(authority)
    }

    /// Names given to other operators' keys.
    pub fn operators(&self) -> Result<std::collections::BTreeMap<String, String>, Failure> {
        Ok(read_toml_optional(&self.path("operators.toml"))?.unwrap_or_default())
    }

    /// Gives a name to another operator's key.
    pub fn name_operator(&self, name: &str, key: &PublicKey) -> Result<(), Failure> {
        let mut all = self.operators()?;
        all.insert(name.to_owned(), key.to_string());
        self.create("")?;
        let text = toml::to_string(&all).map_err(|error| Failure::new(Code::Internal, format!("write operators.toml: {error}")))?;
        write_atomic(&self.path("operators.toml"), text.as_bytes(), PRIVATE)
    }

    /// The key of another operator, by name or in hexadecimal digits.
    pub fn operator_key(&self, text: &str) -> Result<PublicKey, Failure> {
        if let Ok(key) = text.parse() {
            return Ok(key);
        }
        let found = self.operators()?.remove(text);
        let key = found.ok_or_else(|| {
            Failure::new(
                Code::BadUsage,
                format!("`{}` is neither a key of 64 hexadecimal digits nor a known operator", text.escape_debug()),
            )
            .hint("`relay operator show` on their machine prints their key; `relay operator add NAME KEY` names it")
        })?;
        key.parse().map_err(|error| {
            Failure::new(Code::BadConfig, format!("read `{}`, key `{text}`: {error}", self.path("operators.toml").display()))
        })
    }

    /// The name given to a key, if any.
    pub fn operator_name(&self, id: &KeyId) -> Result<Option<String>, Failure> {
        let named = self.operators()?.into_iter();
        Ok(named.into_iter().find(|(_, key)| key.parse::<PublicKey>().is_ok_and(|key| key.id() == *id)).map(|(name, _)| name))
    }
}

fn nobody(dir: &Path) -> Failure {
    Failure::new(Code::NotPaired, format!("there is no fleet in `{}` yet", dir.display())).hint(
        "a fleet with its relay on this machine:  relay serve\n\
         a fleet whose relay is elsewhere:        relay init\n\
         somebody else's fleet:                   relay operator show, and have its owner grant that key",
    )
}
