//! What this machine knows of its fleet, on disk: the pinned fleet key and what that key vouches for.
//!
//! ```text
//! agent/pins/current           id of the fleet this agent serves; written last, so a pairing stands whole or not at all
//! agent/pins/FLEET/fleet.toml  fleet key, certificate, relays, revocations, publishers
//! agent/pins/FLEET/state.toml  boot count, floor of the clock
//! agent/pins/FLEET/deployments.toml  see [`crate::deployments`]
//! agent/mailbox.key            where offline calls will be sealed to
//! ```
//!
//! Signatures are checked again when the files are read, by the time they were accepted at: a certificate outlives the
//! grant of who signed it, and whether others still take it is theirs to judge. Serials only rise.

mod publishers;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outhaul_home::{Home, PRIVATE, create_private_dir, read_optional, read_toml, read_toml_optional, write_atomic};
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::{RevokedSet, verify_kept_certificate, verify_relays, verify_revocations, verify_successor};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::inner::Serials;
use outhaul_protocol::keys::{Digest, KeyId, PublicKey, X25519Secret};
use outhaul_protocol::objects::{Certificate, Node, NodeLabels, Relays, RevocationList, Revocations, Rotation};
use outhaul_protocol::pairing::Welcome;
use outhaul_protocol::signed::{Signed, Verified};
use outhaul_protocol::time::{Clock, Reading, Time};
use serde::{Deserialize, Serialize};

use self::publishers::{Pinned, PinnedRecord};

/// Seconds by which the floor on disk may lie behind: one write an hour, not one a heartbeat.
const FLOOR_STEP: u64 = 3600;

/// One fleet, as this machine belongs to it.
#[derive(Debug)]
pub struct Membership {
    folder: PathBuf,
    fleet: PublicKey,
    successor: Option<Digest>,
    publishers: Vec<Pinned>,
    rotations: Vec<Rotation>,
    certificate: Certificate,
    node: Verified<Node>,
    labels: NodeLabels,
    relays: Verified<Relays>,
    revocations: Option<RevocationList>,
    revoked: RevokedSet,
    accepted: Accepted,
    state: Kept,
}

/// When each object was accepted: what its chain is judged by from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    certificate: u64,
    revocations: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    fleet: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    successor: Option<String>,
    certificate: String,
    relays: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocations: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rotations: Vec<String>,
    accepted: Accepted,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    publishers: Vec<PinnedRecord>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Kept {
    boot_count: u64,
    clock_floor: u64,
}

/// A time as a chain is judged by later: what was believed then is not doubted again.
fn at(accepted: u64) -> Reading {
    Reading { now: Time(accepted), sure: false }
}

fn pins(home: &Home) -> PathBuf {
    home.join("agent/pins")
}

/// The key offline calls are sealed to; made on first use.
pub fn mailbox(home: &Home) -> Result<X25519Secret, Failure> {
    let path = home.agent()?.join("mailbox.key");
    outhaul_home::load_or_create_secret_key(&path, X25519Secret::generate).map(|(key, _)| key)
}

/// Which fleet this machine serves, if it is paired.
pub fn current_fleet(home: &Home) -> Result<Option<KeyId>, Failure> {
    let path = pins(home).join("current");
    let Some(bytes) = read_optional(&path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    text.trim().parse().map(Some).map_err(|_| damaged(&path, "it names no fleet"))
}

fn damaged(path: &Path, what: &str) -> Failure {
    Failure::new(Code::BadConfig, format!("read `{}`: {what}", path.display()))
        .hint("pair this machine again: agent pair --relay URL --code CODE --replace")
}

impl Membership {
    /// What a pairing brought, checked; nothing is on disk yet.
    #[must_use]
    pub fn from_welcome(
        home: &Home,
        welcome: &Welcome,
        node: Verified<Node>,
        relays: Verified<Relays>,
        revoked: RevokedSet,
        now: Reading,
    ) -> Self {
        let folder = pins(home).join(welcome.fleet.id().to_string());
        let labels = node.labels();
        Membership {
            folder,
            fleet: welcome.fleet,
            successor: welcome.successor,
            publishers: welcome.publishers.iter().copied().map(Pinned::new).collect(),
            rotations: Vec::new(),
            certificate: welcome.certificate.clone(),
            node,
            labels,
            relays,
            revocations: welcome.revocations.clone(),
            revoked,
            accepted: Accepted { certificate: now.now.0, revocations: now.now.0 },
            state: Kept { boot_count: 0, clock_floor: now.now.0 },
        }
    }

    /// Keeps what an earlier pairing with this fleet knew better: counters never fall, newer lists stay.
    pub fn absorb(&mut self, home: &Home) -> Result<(), Failure> {
        let Some(state) = read_toml_optional::<Kept>(&self.folder.join("state.toml"))? else { return Ok(()) };
        self.state = Kept { boot_count: state.boot_count, clock_floor: self.state.clock_floor.max(state.clock_floor) };
        // A record that cannot be read is about to be replaced.
        let Ok(before) = Membership::load_fleet(home, self.fleet.id()) else { return Ok(()) };
        self.keep_publishers_of(&before.publishers);
        self.rotations = before.rotations;
        if before.relays.serial > self.relays.serial {
            self.relays = before.relays;
        }
        if before.revoked.serial() > self.revoked.serial() {
            (self.revocations, self.revoked) = (before.revocations, before.revoked);
            self.accepted.revocations = before.accepted.revocations;
        }
        Ok(())
    }

    /// Writes all of it, and last that this is the fleet. On return it is on the disk.
    pub fn store(&self, home: &Home) -> Result<(), Failure> {
        create_private_dir(&self.folder)?;
        self.keep_state()?;
        self.keep_record()?;
        write_atomic(&pins(home).join("current"), format!("{}\n", self.fleet.id()).as_bytes(), PRIVATE)
    }

    /// Reads the fleet this machine serves.
    pub fn load(home: &Home) -> Result<Self, Failure> {
        let unpaired = || {
            Failure::new(Code::NotPaired, "this machine is not paired")
                .hint("on an operator's machine: relay pair new; then here the command it prints")
        };
        Membership::load_fleet(home, current_fleet(home)?.ok_or_else(unpaired)?)
    }

    fn load_fleet(home: &Home, id: KeyId) -> Result<Self, Failure> {
        let folder = pins(home).join(id.to_string());
        let path = folder.join("fleet.toml");
        let record: Record = read_toml(&path)?;
        let state = read_toml_optional(&folder.join("state.toml"))?.unwrap_or_default();
        let membership = Membership::of_record(folder, record, state).map_err(|what| damaged(&path, &what))?;
        match membership.fleet.id() == id {
            true => Ok(membership),
            false => Err(damaged(&path, "its fleet key is another fleet's")),
        }
    }

    fn of_record(folder: PathBuf, record: Record, state: Kept) -> Result<Self, String> {
        let key = |text: &str| text.parse::<PublicKey>().map_err(|error| format!("key `fleet` or `publishers`: {error}"));
        let bytes = |name: &str, text: &str| STANDARD.decode(text).map_err(|error| format!("key `{name}`: {error}"));
        let fleet = key(&record.fleet)?;
        let successor = record.successor.map(|text| text.parse()).transpose().map_err(|error| format!("key `successor`: {error}"))?;
        let certificate =
            Certificate::decode(&bytes("certificate", &record.certificate)?).map_err(|error| format!("key `certificate`: {error}"))?;
        let nothing = RevokedSet::empty();
        let accepted = at(record.accepted.certificate);
        let node = verify_kept_certificate(&fleet, &certificate, accepted, accepted, &nothing)
            .map_err(|error| format!("key `certificate`: {error}"))?;
        let relays =
            verify_relays(&fleet, &bytes("relays", &record.relays)?, accepted).map_err(|error| format!("key `relays`: {error}"))?;
        let (revocations, revoked) = match record.revocations {
            None => (None, nothing),
            Some(text) => {
                let wrong = |error: &dyn std::fmt::Display| format!("key `revocations`: {error}");
                let list = RevocationList::decode(&bytes("revocations", &text)?).map_err(|error| wrong(&error))?;
                let verified =
                    verify_revocations(&fleet, &list, at(record.accepted.revocations), &nothing).map_err(|error| wrong(&error))?;
                // It was judged against its predecessor when it came, so here nobody's serial steps too far.
                let revoked = nothing.follow(&verified, verified.signer()).map_err(|error| wrong(&error))?;
                (Some(list), revoked)
            }
        };
        let publishers = record.publishers.iter().map(Pinned::of_record).collect::<Result<_, _>>()?;
        let rotation = |text: &String| Rotation::decode(&bytes("rotations", text)?).map_err(|error| format!("key `rotations`: {error}"));
        let rotations = record.rotations.iter().map(rotation).collect::<Result<_, _>>()?;
        let labels = node.labels();
        Ok(Membership {
            folder,
            fleet,
            successor,
            publishers,
            rotations,
            certificate,
            node,
            labels,
            relays,
            revocations,
            revoked,
            accepted: record.accepted,
            state,
        })
    }

    fn keep_record(&self) -> Result<(), Failure> {
        let record = Record {
            fleet: self.fleet.to_string(),
            successor: self.successor.map(|digest| digest.to_string()),
            publishers: self.publishers.iter().map(Pinned::record).collect(),
            rotations: self.rotations.iter().map(|rotation| STANDARD.encode(rotation.encode())).collect(),
            certificate: STANDARD.encode(self.certificate.encode()),
            relays: STANDARD.encode(self.relays.bytes()),
            revocations: self.revocations.as_ref().map(|list| STANDARD.encode(list.encode())),
            accepted: self.accepted,
        };
        write_toml(&self.folder.join("fleet.toml"), &record)
    }

    fn keep_state(&self) -> Result<(), Failure> {
        write_toml(&self.folder.join("state.toml"), &self.state)
    }

    /// Counts this start, on disk before it is told to anybody.
    pub fn bump_boot(&mut self) -> Result<u64, Failure> {
        self.state.boot_count += 1;
        self.keep_state()?;
        Ok(self.state.boot_count)
    }

    /// Starts so far.
    #[must_use]
    pub fn boot_count(&self) -> u64 {
        self.state.boot_count
    }

    /// The floor of the clock that was kept, if one was.
    #[must_use]
    pub fn clock_floor(&self) -> Option<Time> {
        Some(Time(self.state.clock_floor)).filter(|floor| floor.0 > 0)
    }

    /// Keeps the floor, once in a while.
    pub fn keep_clock_floor(&mut self, floor: Time) -> Result<(), Failure> {
        if floor.since(Time(self.state.clock_floor)) < FLOOR_STEP {
            return Ok(());
        }
        self.state.clock_floor = floor.0;
        self.keep_state()
    }

    /// Takes a newer object of the fleet: `relays`, `revocations`, or this node's own `certificate`. False when what is
    /// known is as new. It counts from when it is on the disk.
    pub fn accept_notice(&mut self, kind: &str, signed: &[u8], chain: Vec<Blob>, clock: &mut Clock, own: Time) -> Result<bool, Failure> {
        match kind {
            "relays" => self.accept_relays(signed, clock, own),
            "revocations" => self.accept_revocations(signed, chain, clock, own),
            "certificate" => self.accept_certificate(signed, chain, clock.read(own)),
            _ => Ok(false),
        }
    }

    fn accept_relays(&mut self, signed: &[u8], clock: &mut Clock, own: Time) -> Result<bool, Failure> {
        // Looked at before it is verified: what is known is offered on every connect.
        if Signed::<Relays>::from_bytes(signed)?.unverified().serial < self.relays.serial {
            return Ok(false);
        }
        let relays = verify_relays(&self.fleet, signed, clock.read(own))?;
        if relays.serial == self.relays.serial {
            return match relays.digest() == self.relays.digest() {
                true => Ok(false),
                false => {
                    Err(Failure::new(Code::BadSignature, format!("the fleet key signed two lists of relays with serial {}", relays.serial)))
                }
            };
        }
        clock.saw(relays.iat, own).map_err(|error| Failure::new(Code::Expired, error.to_string()))?;
        let before = std::mem::replace(&mut self.relays, relays);
        self.kept_or(|this| this.relays = before)
    }

    fn accept_revocations(&mut self, signed: &[u8], chain: Vec<Blob>, clock: &mut Clock, own: Time) -> Result<bool, Failure> {
        if Signed::<Revocations>::from_bytes(signed)?.unverified().serial < self.revoked.serial() {
            return Ok(false);
        }
        let list = RevocationList { list: Blob(signed.to_vec()), chain };
        let reading = clock.read(own);
        let verified = verify_revocations(&self.fleet, &list, reading, &self.revoked)?;
        let revoked = self.revoked.follow(&verified, &self.fleet)?;
        if revoked.serial() == self.revoked.serial() {
            return Ok(false);
        }
        if verified.signer() == &self.fleet {
            clock.saw(verified.iat, own).map_err(|error| Failure::new(Code::Expired, error.to_string()))?;
        }
        let before = (self.revocations.replace(list), std::mem::replace(&mut self.revoked, revoked), self.accepted);
        self.accepted.revocations = reading.now.0;
        self.kept_or(|this| (this.revocations, this.revoked, this.accepted) = before)
    }

    fn accept_certificate(&mut self, signed: &[u8], chain: Vec<Blob>, reading: Reading) -> Result<bool, Failure> {
        let said = Signed::<Node>::from_bytes(signed)?;
        if said.unverified().node != self.node.node {
            return Err(Failure::new(Code::WrongNode, "the certificate is another node's"));
        }
        if said.unverified().serial <= self.node.serial {
            return Ok(false);
        }
        let certificate = Certificate { node: Blob(signed.to_vec()), chain };
        let node = verify_successor(&self.fleet, &self.node, &certificate, reading, &self.revoked)?;
        if node.mailbox != self.node.mailbox {
            return Err(Failure::new(Code::BadKey, "the certificate names another mailbox key than this machine's"));
        }
        let before = (std::mem::replace(&mut self.certificate, certificate), std::mem::replace(&mut self.node, node), self.accepted);
        self.accepted.certificate = reading.now.0;
        let kept = self.kept_or(|this| (this.certificate, this.node, this.accepted) = before);
        self.labels = self.node.labels();
        kept
    }

    /// Writes the record; what cannot be kept is taken back, or a restart would forget what was acted on.
    fn kept_or(&mut self, undo: impl FnOnce(&mut Self)) -> Result<bool, Failure> {
        match self.keep_record() {
            Ok(()) => Ok(true),
            Err(failure) => {
                undo(self);
                Err(failure)
            }
        }
    }

    /// Where what is known of this fleet is kept.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The pinned key.
    #[must_use]
    pub fn fleet(&self) -> &PublicKey {
        &self.fleet
    }

    /// SHA-256 of the fleet key that would follow.
    #[must_use]
    pub fn successor(&self) -> Option<Digest> {
        self.successor
    }

    /// What is revoked.
    #[must_use]
    pub fn revoked(&self) -> &RevokedSet {
        &self.revoked
    }

    /// This node's id, name and labels.
    #[must_use]
    pub fn labels(&self) -> &NodeLabels {
        &self.labels
    }

    /// Serial of its certificate.
    #[must_use]
    pub fn certificate_serial(&self) -> u64 {
        self.node.serial
    }

    /// The certificate with its chain, as it is shown to the relay.
    #[must_use]
    pub fn certificate_bytes(&self) -> Vec<u8> {
        self.certificate.encode()
    }

    /// The newest serials known.
    #[must_use]
    pub fn serials(&self) -> Serials {
        Serials { relays: self.relays.serial, revocations: self.revoked.serial() }
    }

    /// The signed list of relays.
    #[must_use]
    pub fn relays_bytes(&self) -> Vec<u8> {
        self.relays.bytes().to_vec()
    }

    /// The keys a relay may prove.
    #[must_use]
    pub fn relay_keys(&self) -> Vec<PublicKey> {
        self.relays.keys.clone()
    }

    /// Where the relays are, best first.
    #[must_use]
    pub fn relay_urls(&self) -> &[String] {
        &self.relays.urls
    }

    /// The signed revocations and their signer's chain.
    #[must_use]
    pub fn revocations_bytes(&self) -> Option<(Vec<u8>, Vec<Blob>)> {
        self.revocations.as_ref().map(|list| (list.list.0.clone(), list.chain.clone()))
    }
}

fn write_toml<T: Serialize>(path: &Path, content: &T) -> Result<(), Failure> {
    let text = toml::to_string(content).map_err(|error| Failure::new(Code::Internal, format!("write `{}`: {error}", path.display())))?;
    write_atomic(path, text.as_bytes(), PRIVATE)
}

#[cfg(test)]
mod tests;
