//! Whom a grant that is typed belongs to: the active version of a name, its publisher, and the table in the file.

use outhaul_host::Power;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::{Digest, PublicKey};
use outhaul_protocol::publisher::Trust;

use super::names;
use crate::config::PackKey;
use crate::edit::ConfigEdit;
use crate::packs::{active_of, is_embedded};
use crate::shelf::Index;
use crate::trust::Origin;

/// The active version of a name, by what the shelf says of it: nothing is loaded.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) origin: Origin,
    /// the key that signed it
    pub(crate) key: Option<PublicKey>,
    /// the powers it asks for, where the shelf tells
    pub(crate) powers: Vec<Power>,
    /// why it does not answer
    pub(crate) refused: Option<String>,
}

impl Known {
    pub(crate) fn of(index: &Index, trust: &Trust, name: &str) -> Option<Self> {
        let (digest, embedded) = active_of(index, name)?;
        let bare = Known { name: name.to_owned(), digest, origin: Origin::Embedded, key: None, powers: Vec::new(), refused: None };
        if embedded {
            return Some(bare);
        }
        let version = index.packs.get(name).and_then(|entry| entry.version(digest));
        let key = version.and_then(|version| version.publisher.as_ref()?.parse::<PublicKey>().ok());
        let powers = version.map(|version| version.powers.iter().filter_map(|power| Power::parse(power)).collect());
        let (origin, refused) = match key {
            None => (Origin::Nobody, Some("nobody signed it".to_owned())),
            Some(key) => {
                let publisher = trust.publishers.of(&key.id());
                let origin = publisher.map_or_else(|| Origin::Publisher([key.id()].into()), Origin::of);
                (origin, trust.judge(&key.id()).err().map(|why| why.to_string()))
            }
        };
        Some(Known { origin, key, powers: powers.unwrap_or_default(), refused, ..bare })
    }

    pub(crate) fn embedded(&self) -> bool {
        self.origin == Origin::Embedded
    }
}

/// A name that no pack here has.
pub(super) fn nowhere(index: &Index, name: &str) -> Failure {
    Failure::new(Code::BadUsage, format!("no pack `{name}` is on this machine; there are {}", names(index).join(", ")))
}

/// Whom a grant is for: the table's key, and the active version it is about.
#[derive(Debug)]
pub(super) struct Whose {
    pub(super) key: PackKey,
    pub(super) active: Option<Known>,
    pub(super) note: Option<String>,
}

impl Whose {
    pub(super) fn of(index: &Index, trust: &Trust, pack: &str, allow: bool) -> Result<Self, Failure> {
        let wrong = || {
            Failure::new(
                Code::BadUsage,
                format!("`{}` is neither a pack's name nor sha256: and 64 hexadecimal digits", pack.escape_debug()),
            )
        };
        let key = PackKey::parse(pack).ok_or_else(wrong)?;
        let PackKey::Name(name) = &key else {
            return Ok(Whose { key, active: None, note: None });
        };
        match Known::of(index, trust, name) {
            // The name stays the embedded pack's: what answers in its place is granted by digest.
            Some(active) if !active.embedded() && is_embedded(name) => {
                let about = if allow { "the grant is for" } else { "this is about" };
                let note = format!("a deployed version of `{name}` is active; {about} that version, {}", active.digest.short());
                Ok(Whose { key: PackKey::Digest(active.digest), active: Some(active), note: Some(note) })
            }
            Some(active) => Ok(Whose { key, active: Some(active), note: None }),
            // Denying needs no version: what narrows counts for the name.
            None if !allow => Ok(Whose { key, active: None, note: None }),
            None => Err(nowhere(index, name).hint("deploy it first, or grant one version ahead: agent allow sha256:DIGEST …")),
        }
    }

    /// Ties a name's table to the active version's publisher, or gives the digest to tie it to: where the owner pins
    /// versions, and where nobody signed.
    pub(super) fn pin(&self, edit: &mut ConfigEdit, trust: &Trust) -> Result<Option<Digest>, Failure> {
        let Some(active) = self.active.as_ref().filter(|active| !active.embedded()) else { return Ok(None) };
        match active.key {
            _ if matches!(self.key, PackKey::Digest(_)) => Ok(None),
            Some(key) if !edit.says(&self.key, "digest") => {
                let same = trust.publishers.of(&key.id()).map_or_else(|| vec![key], |publisher| publisher.keys().to_vec());
                edit.pin_publisher(&self.key, &key, &same)?;
                Ok(None)
            }
            _ => Ok(Some(active.digest)),
        }
    }

    /// The owner has seen what the active version asks for.
    pub(super) fn decided(&self, edit: &mut ConfigEdit) -> Result<(), Failure> {
        match &self.active {
            Some(active) if edit.says(&self.key, "publisher") && active.key.is_some() => {
                let powers: Vec<String> = active.powers.iter().map(|power| power.name().to_owned()).collect();
                edit.note_asked(&self.key, &powers)
            }
            _ => Ok(()),
        }
    }
}
