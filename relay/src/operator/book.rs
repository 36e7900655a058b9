//! The nodes this operator knows: each with its newest verified certificate and announce, one file per node, its name
//! in the file's name so that a name is resolved without opening any.
//!
//! A name is what the newest certificate says and stays with its node until a certificate says `replaces`; older
//! certificates and announces than the ones kept are refused, whoever brings them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outhaul_home::{PRIVATE, read_optional, remove, write_atomic};
use outhaul_protocol::chain::{verify_certificate, verify_kept_certificate, verify_successor};
use outhaul_protocol::describe::{AnnounceContent, Heartbeat};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::NodeRecord;
use outhaul_protocol::keys::KeyId;
use outhaul_protocol::objects::{Announce, Certificate, Node, Prekey};
use outhaul_protocol::signed::{Signed, Verified};
use outhaul_protocol::time::{Reading, Time};
use serde::{Deserialize, Serialize};

use super::room::{Fleet, Room, now};

/// Fewest digits of an id that are taken for a prefix: shorter ones are names mistyped.
const PREFIX_DIGITS: usize = 4;
/// Candidates an error lists.
const CANDIDATES: usize = 8;

/// A node as it is kept: everything verified.
#[derive(Debug, Clone)]
pub struct Known {
    /// what its certificate says
    pub node: Node,
    /// the certificate with its chain, as received
    pub certificate: Vec<u8>,
    /// when it was accepted here
    pub accepted: Time,
    /// its newest announce
    pub announce: Option<Announced>,
}

/// A verified announce.
#[derive(Debug, Clone)]
pub struct Announced {
    /// as received
    pub bytes: Vec<u8>,
    /// boot count and serial: newer ones are higher
    pub order: (u64, u64),
    /// what it says
    pub content: AnnounceContent,
}

/// A node with the relay's word about it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// what is verified
    pub known: Known,
    /// `online`, `idle`, `offline`
    pub status: String,
    /// Unix seconds, 0 when never
    pub connected_at: u64,
    /// Unix seconds, 0 when never
    pub last_seen: u64,
    /// its last figures
    pub heartbeat: Option<Heartbeat>,
    /// its prekey, signed by its key
    pub prekey: Option<Verified<Prekey>>,
}

impl Known {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.node.node.id()
    }

    /// A fact it announced, or nothing.
    #[must_use]
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.announce.as_ref()?.content.facts.get(key).map(String::as_str)
    }
}

/// A node's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    certificate: String,
    accepted: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    announce: Option<String>,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    room: Room,
    fleet: Fleet,
    names: BTreeMap<KeyId, String>,
    read: HashMap<KeyId, Known>,
}

impl Book {
    /// Reads the names; entries are read when they are needed.
    pub fn open(room: &Room, fleet: &Fleet) -> Result<Book, Failure> {
        let mut names = BTreeMap::new();
        let folder = room.path("nodes");
        let listed = match std::fs::read_dir(&folder) {
            Ok(listed) => listed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Book { room: room.clone(), fleet: fleet.clone(), names, read: HashMap::new() });
            }
            Err(error) => return Err(Failure::new(Code::BadConfig, format!("read `{}`: {error}", folder.display()))),
        };
        for entry in listed.flatten() {
            let file = entry.file_name();
            let parts = file.to_str().and_then(|file| file.split_once('.'));
            let Some((id, name)) = parts.and_then(|(id, name)| Some((id.parse::<KeyId>().ok()?, name))) else { continue };
            names.entry(id).or_insert_with(|| name.to_owned());
        }
        Ok(Book { room: room.clone(), fleet: fleet.clone(), names, read: HashMap::new() })
    }

    /// All ids with their names.
    pub fn names(&self) -> impl Iterator<Item = (&KeyId, &str)> {
        self.names.iter().map(|(id, name)| (id, name.as_str()))
    }

    /// Which node is meant: exact id, then unique name, then unique prefix of an id. `None` when the book has none.
    pub fn resolve(&self, text: &str) -> Result<Option<KeyId>, Failure> {
        if let Ok(id) = text.parse::<KeyId>() {
            return Ok(self.names.contains_key(&id).then_some(id));
        }
        let named: Vec<KeyId> = self.names.iter().filter(|(_, name)| *name == text).map(|(id, _)| *id).collect();
        let found = if named.is_empty() && is_prefix(text) {
            self.names.keys().filter(|id| id.to_string().starts_with(text)).copied().collect()
        } else {
            named
        };
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            many => {
                Err(Failure::new(Code::AmbiguousNode, format!("`{text}` means {} nodes: {}", many.len(), self.candidates(many.iter())))
                    .hint("name one by more digits of its id; `relay nodes rename ID NAME` gives it a name of its own"))
            }
        }
    }

    /// The error for a node nobody knows.
    #[must_use]
    pub fn unknown(&self, text: &str) -> Failure {
        let failure = Failure::new(Code::UnknownNode, format!("no node is called `{}`", text.escape_debug()));
        match self.names.len() {
            0 => failure.hint("no node is paired yet: `relay pair new` makes a code for one"),
            _ => failure.hint(format!("the nodes are {}", self.candidates(self.names.keys()))),
        }
    }

    fn candidates<'a>(&self, ids: impl Iterator<Item = &'a KeyId>) -> String {
        let mut all: Vec<String> = ids.map(|id| format!("{} ({})", self.names.get(id).map_or("?", String::as_str), id.short())).collect();
        all.sort_unstable();
        let more = all.len().saturating_sub(CANDIDATES);
        all.truncate(CANDIDATES);
        if more > 0 {
            all.push(format!("{more} more"));
        }
        all.join(", ")
    }

    /// What is kept of a node.
    pub fn known(&mut self, id: &KeyId) -> Result<Option<Known>, Failure> {
        if let Some(known) = self.read.get(id) {
            return Ok(Some(known.clone()));
        }
        let Some(name) = self.names.get(id) else { return Ok(None) };
        let path = self.file(id, name);
        let Some(bytes) = read_optional(&path)? else { return Ok(None) };
        let bad = |what: &dyn std::fmt::Display| {
            Failure::new(Code::BadConfig, format!("read `{}`: {what}", path.display())).hint("remove the file: the relay tells it again")
        };
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| bad(&error))?;
        let certificate = STANDARD.decode(&kept.certificate).map_err(|error| bad(&error))?;
        let accepted = Time(kept.accepted);
        let node = self.prove(&certificate, Some(accepted)).map_err(|failure| Failure { message: bad(&failure).message, ..failure })?;
        let mut known = Known { node, certificate, accepted, announce: None };
        if let Some(announce) = kept.announce {
            let bytes = STANDARD.decode(announce).map_err(|error| bad(&error))?;
            known.announce = Some(self.announced(&known.node, bytes)?);
        }
        self.read.insert(*id, known.clone());
        Ok(Some(known))
    }

    /// Takes what the relay says of a node: verified, compared with what is kept, and kept when it is newer.
    pub fn learn(&mut self, record: &NodeRecord) -> Result<Seen, Failure> {
        let unproven = certificate(&record.certificate.0).and_then(|certificate| Ok(Signed::<Node>::from_bytes(&certificate.node.0)?))?;
        let id = unproven.unverified().node.id();
        let before = self.known(&id)?;
        let mut known = match &before {
            Some(known) if known.certificate == record.certificate.0 => known.clone(),
            Some(known) => self.succeed(known, &record.certificate.0)?,
            None => self.introduce(&record.certificate.0)?,
        };
        if let Some(signed) = &record.announce {
            let next = self.announced(&known.node, signed.0.clone())?;
            // An older one may be a slow relay's or a hostile one's: what is known stays.
            if known.announce.as_ref().is_none_or(|kept| kept.order < next.order) {
                known.announce = Some(next);
            }
        }
        let order = |known: &Known| known.announce.as_ref().map(|announce| announce.order);
        let unchanged = before.as_ref().is_some_and(|before| before.certificate == known.certificate && order(before) == order(&known));
        if !unchanged {
            self.keep(&known)?;
        }
        let prekey = record.prekey.as_ref().map(|signed| self.prekey(&known.node, &signed.0)).transpose()?;
        Ok(Seen {
            status: word(&record.status).to_owned(),
            connected_at: record.connected_at,
            last_seen: record.last_seen,
            heartbeat: record.heartbeat.as_ref().and_then(|bytes| Heartbeat::from_bytes(&bytes.0).ok()),
            prekey,
            known,
        })
    }

    /// Keeps a node whose certificate this operator signed or verified.
    pub fn keep(&mut self, known: &Known) -> Result<(), Failure> {
        self.room.create("nodes")?;
        let (id, name) = (known.id(), known.node.name.clone());
        let kept = Kept {
            certificate: STANDARD.encode(&known.certificate),
            accepted: known.accepted.0,
            announce: known.announce.as_ref().map(|announce| STANDARD.encode(&announce.bytes)),
        };
        let text = serde_json::to_vec(&kept).map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        write_atomic(&self.file(&id, &name), &text, PRIVATE)?;
        if let Some(old) = self.names.insert(id, name.clone()).filter(|old| *old != name) {
            remove(&self.file(&id, &old))?;
        }
        self.read.insert(id, known.clone());
        if let Some(replaced) = known.node.replaces.filter(|replaced| self.names.get(replaced) == Some(&name)) {
            self.forget(&replaced)?;
        }
        Ok(())
    }

    /// Forgets a node.
    pub fn forget(&mut self, id: &KeyId) -> Result<(), Failure> {
        self.read.remove(id);
        match self.names.remove(id) {
            Some(name) => remove(&self.file(id, &name)),
            None => Ok(()),
        }
    }

    fn file(&self, id: &KeyId, name: &str) -> PathBuf {
        self.room.path(format!("nodes/{id}.{name}"))
    }

    /// A certificate for a node that is known: the same or a newer one.
    fn succeed(&self, known: &Known, bytes: &[u8]) -> Result<Known, Failure> {
        let certificate = certificate(bytes)?;
        let serial = Signed::<Node>::from_bytes(&certificate.node.0)?.unverified().serial;
        if serial < known.node.serial {
            return Ok(known.clone());
        }
        if serial == known.node.serial {
            // The same certificate may come with a renewed chain; another one of this serial is a second truth.
            let node = self.prove(bytes, None)?;
            if node != known.node {
                let text = format!("two different certificates of `{}` have serial {serial}", known.node.name);
                return Err(Failure::new(Code::BadSignature, text)
                    .hint("somebody with the right to enrol signed both: find out who before you trust either"));
            }
            return Ok(known.clone());
        }
        let node = verify_successor(&self.fleet.key, &known.node, &certificate, Reading::sure(now()), &self.fleet.revoked)?;
        Ok(Known { node: node.into_content(), certificate: bytes.to_vec(), accepted: now(), announce: known.announce.clone() })
    }

    /// A node that is new here. One that takes another's name over must be allowed to.
    fn introduce(&mut self, bytes: &[u8]) -> Result<Known, Failure> {
        let certificate = certificate(bytes)?;
        let clock = Reading::sure(now());
        let node = verify_certificate(&self.fleet.key, &certificate, clock, &self.fleet.revoked)?.into_content();
        if let Some(replaced) = node.replaces
            && let Some(old) = self.known(&replaced)?
            && old.node.name == node.name
        {
            verify_successor(&self.fleet.key, &old.node, &certificate, clock, &self.fleet.revoked)?;
        }
        Ok(Known { node, certificate: bytes.to_vec(), accepted: clock.now, announce: None })
    }

    fn prove(&self, bytes: &[u8], accepted: Option<Time>) -> Result<Node, Failure> {
        let clock = Reading::sure(now());
        let accepted = accepted.map_or(clock, Reading::sure);
        let node = verify_kept_certificate(&self.fleet.key, &certificate(bytes)?, accepted, clock, &self.fleet.revoked)?;
        Ok(node.into_content())
    }

    fn announced(&self, node: &Node, bytes: Vec<u8>) -> Result<Announced, Failure> {
        let announce = Signed::<Announce>::from_bytes(&bytes)?.verify(&node.node)?;
        self.for_this_fleet(announce.aud, "announce", node)?;
        let content = AnnounceContent::from_bytes(&announce.content.0)
            .map_err(|error| Failure::new(Code::BadSignature, format!("the announce of `{}` is malformed: {error}", node.name)))?;
        Ok(Announced { order: (announce.boot_count, announce.serial), content, bytes })
    }

    fn prekey(&self, node: &Node, bytes: &[u8]) -> Result<Verified<Prekey>, Failure> {
        let prekey = Signed::<Prekey>::from_bytes(bytes)?.verify(&node.node)?;
        self.for_this_fleet(prekey.aud, "prekey", node)?;
        Ok(prekey)
    }

    fn for_this_fleet(&self, found: KeyId, what: &str, node: &Node) -> Result<(), Failure> {
        match found == self.fleet.key.id() {
            true => Ok(()),
            false => Err(Failure::new(Code::BadKey, format!("the {what} of `{}` is for fleet {}", node.name, found.short()))),
        }
    }
}

fn certificate(bytes: &[u8]) -> Result<Certificate, Failure> {
    Certificate::decode(bytes)
        .map_err(|error| Failure::new(Code::BadSignature, format!("a certificate from the relay is malformed: {error}")))
}

fn is_prefix(text: &str) -> bool {
    (PREFIX_DIGITS..64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The relay's word, in our words.
fn word(status: &str) -> &'static str {
    match status {
        "online" => "online",
        "idle" => "idle",
        _ => "offline",
    }
}

#[cfg(test)]
pub(super) mod tests;
