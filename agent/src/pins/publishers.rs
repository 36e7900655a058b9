//! Whom the fleet's operators have this machine trust to publish: the keys they named, and how those went on to others.

use outhaul_protocol::error::Failure;
use outhaul_protocol::keys::{KeyId, PublicKey};
use outhaul_protocol::limits;
use outhaul_protocol::objects::Rotation;
use outhaul_protocol::publisher::{Publishers, RotationError, replaced_by};
use serde::{Deserialize, Serialize};

use super::Membership;

/// A publisher as it was trusted first; where its key went from there, the rotations tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pinned {
    key: PublicKey,
    name: Option<String>,
}

/// The same on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PinnedRecord {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl Pinned {
    pub(super) fn new(key: PublicKey) -> Self {
        Pinned { key, name: None }
    }

    pub(super) fn of_record(record: &PinnedRecord) -> Result<Self, String> {
        let key = record.key.parse().map_err(|error| format!("key `publishers.key`: {error}"))?;
        Ok(Pinned { key, name: record.name.clone() })
    }

    pub(super) fn record(&self) -> PinnedRecord {
        PinnedRecord { key: self.key.to_string(), name: self.name.clone() }
    }
}

impl Membership {
    /// Whose packs the fleet's operators have this machine take.
    #[must_use]
    pub fn publishers(&self) -> Publishers {
        let mut publishers = Publishers::default();
        self.publishers.iter().for_each(|pinned| publishers.trust(pinned.key, pinned.name.clone()));
        for rotation in &self.rotations {
            // Some lead on from keys that the machine's owner trusts, and say nothing here.
            let _ = publishers.follow(rotation);
        }
        publishers
    }

    /// How publishers' keys went on to others, as it was accepted.
    #[must_use]
    pub fn rotations(&self) -> &[Rotation] {
        &self.rotations
    }

    /// Trusts a publisher from now on. False when it is trusted under this name already.
    pub fn trust_publisher(&mut self, key: PublicKey, name: Option<String>) -> Result<bool, Failure> {
        let mut publishers = self.publishers.clone();
        let at = publishers.iter().position(|pinned| pinned.key == key);
        match at {
            Some(at) if name.is_none() || publishers[at].name == name => return Ok(false),
            Some(at) => publishers[at].name = name,
            None if publishers.len() >= limits::PUBLISHERS => return Err(RotationError::TooMany.into()),
            None => publishers.push(Pinned { key, name }),
        }
        let before = std::mem::replace(&mut self.publishers, publishers);
        self.kept_or(|this| this.publishers = before)
    }

    /// Trusts a publisher no more, by any of its keys. False when it was not trusted.
    pub fn distrust_publisher(&mut self, key: &KeyId) -> Result<bool, Failure> {
        let all = self.publishers();
        let Some(publisher) = all.of(key) else { return Ok(false) };
        let mut publishers = self.publishers.clone();
        publishers.retain(|pinned| !publisher.keys().contains(&pinned.key));
        let before = std::mem::replace(&mut self.publishers, publishers);
        self.kept_or(|this| this.publishers = before)
    }

    /// Follows rotations of publishers that are trusted here, by whomever: `trusted` is changed as this is. A key that
    /// counts no more has no heir, or a thief could name one. True when there was news.
    pub fn follow_rotations(&mut self, rotations: &[Rotation], trusted: &mut Publishers) -> Result<bool, Failure> {
        let (mut kept, mut publishers) = (self.rotations.clone(), trusted.clone());
        for rotation in rotations {
            let old = replaced_by(rotation)?;
            let is_new = publishers.clone().follow(rotation)?;
            if !is_new {
                continue;
            }
            if self.revoked.has_key(&old) {
                return Err(RotationError::Revoked(old).into());
            }
            if kept.len() >= limits::PUBLISHERS {
                return Err(RotationError::TooMany.into());
            }
            publishers.follow(rotation)?;
            kept.push(rotation.clone());
        }
        if kept.len() == self.rotations.len() {
            return Ok(false);
        }
        let before = std::mem::replace(&mut self.rotations, kept);
        let kept = self.kept_or(|this| this.rotations = before)?;
        *trusted = publishers;
        Ok(kept)
    }

    /// Whom the machine came to trust since is not forgotten by pairing again: that takes a word of its own.
    pub(super) fn keep_publishers_of(&mut self, before: &[Pinned]) {
        for pinned in before {
            match self.publishers.iter_mut().find(|known| known.key == pinned.key) {
                Some(known) => known.name = known.name.take().or(pinned.name.clone()),
                None => self.publishers.push(pinned.clone()),
            }
        }
    }
}
