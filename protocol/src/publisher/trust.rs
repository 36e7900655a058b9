//! Whom a machine trusts to publish, and what their signatures prove there.

use super::{RotationError, Unproven, replaced_by, verify_rotation};
use crate::chain::RevokedSet;
use crate::keys::{Digest, KeyId, PublicKey};
use crate::limits;
use crate::objects::{Publication, Rotation};
use crate::pack::Contents;
use crate::signed::{Signed, Verified};
use crate::time::Reading;

/// A publisher as somebody trusts it: the key that was trusted first and those that followed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// what it is called here
    pub name: Option<String>,
    keys: Vec<PublicKey>,
}

impl Publisher {
    /// The key that signs now.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        self.keys.last().expect("a publisher begins with a key")
    }

    /// All of its keys, oldest first.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// The ids of all of its keys, oldest first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(PublicKey::id)
    }

    fn find(&self, id: &KeyId) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.id() == *id)
    }
}

/// Publishers that are trusted. No key belongs to two of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publishers(Vec<Publisher>);

impl Publishers {
    /// Trusts a key; one that is trusted already gets the name if there is a new one.
    pub fn trust(&mut self, key: PublicKey, name: Option<String>) {
        match self.0.iter_mut().find(|known| known.keys.contains(&key)) {
            Some(known) => known.name = name.or(known.name.take()),
            None => self.0.push(Publisher { name, keys: vec![key] }),
        }
    }

    /// Follows a rotation of a key that is trusted; false when it is followed already, or is about nobody here.
    /// Whether the old key still counts is for the caller to say: what was followed once is not doubted later.
    pub fn follow(&mut self, rotation: &Rotation) -> Result<bool, RotationError> {
        let old = replaced_by(rotation)?;
        let Some(at) = self.0.iter().position(|publisher| publisher.find(&old).is_some()) else { return Ok(false) };
        let keys = &self.0[at].keys;
        let place = keys.iter().position(|key| key.id() == old).expect("it was found there");
        let next = verify_rotation(rotation, &keys[place])?;
        match keys.get(place + 1) {
            Some(known) if *known == next => return Ok(false),
            Some(known) => return Err(RotationError::Conflict { old, known: known.id(), found: next.id() }),
            None if keys.contains(&next) => return Err(RotationError::Keys),
            None if keys.len() >= limits::PUBLISHERS => return Err(RotationError::TooMany),
            None => {}
        }
        // The next key may be trusted by itself already: then the two are one publisher.
        let rest = match self.0.iter().position(|other| other.keys.contains(&next)) {
            Some(other) if self.0[other].keys[0] != next => return Err(RotationError::Keys),
            Some(other) => Some(self.0.remove(other)),
            None => None,
        };
        let publisher = self.0.iter_mut().find(|publisher| publisher.find(&old).is_some()).expect("it was found before");
        match rest {
            Some(rest) => {
                publisher.keys.extend(rest.keys);
                publisher.name = publisher.name.take().or(rest.name);
            }
            None => publisher.keys.push(next),
        }
        Ok(true)
    }

    /// Whose a key is.
    #[must_use]
    pub fn of(&self, id: &KeyId) -> Option<&Publisher> {
        self.0.iter().find(|publisher| publisher.find(id).is_some())
    }

    /// All of them, as they were trusted.
    pub fn iter(&self) -> impl Iterator<Item = &Publisher> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whom one machine trusts, and what it holds against whom, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// whose packs are taken
    pub publishers: Publishers,
    /// keys the machine's owner refuses, whoever else trusts them
    pub refused: Vec<KeyId>,
    /// keys that count no more
    pub revoked: RevokedSet,
}

/// A signature that stood under somebody's trust. Only [`Trust`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    publication: Verified<Publication>,
    publisher: Publisher,
}

impl Trust {
    /// What a signature proves of a component that is new here. The key of now must have signed it, in time.
    pub fn admit(&self, signature: Option<&[u8]>, component: Digest, clock: Reading) -> Result<Vouched, Unproven> {
        let vouched = self.keep(signature, component)?;
        let (key, now) = (vouched.publication.signer_id(), vouched.publisher.key().id());
        if key != now {
            return Err(Unproven::Replaced { key, by: now });
        }
        if let Some(exp) = vouched.publication.exp.filter(|exp| clock.now >= *exp) {
            return Err(Unproven::Expired(exp));
        }
        if !clock.allows(vouched.publication.iat) {
            return Err(Unproven::NotYet(vouched.publication.iat));
        }
        Ok(vouched)
    }

    /// The same for a component that was admitted before: its time is not asked again, and a key that was replaced
    /// since still vouches for it.
    pub fn keep(&self, signature: Option<&[u8]>, component: Digest) -> Result<Vouched, Unproven> {
        let signed = Signed::<Publication>::from_bytes(signature.ok_or(Unproven::Unsigned)?)?;
        let (publisher, key) = self.stands(&signed.kid())?;
        let publication = signed.verify(&key)?;
        if publication.component != component {
            return Err(Unproven::Component { signed: publication.component, found: component });
        }
        Ok(Vouched { publication, publisher })
    }

    /// The same again after trust has changed, for what is loaded: the signature itself was verified.
    pub fn review(&self, vouched: &Vouched) -> Result<Vouched, Unproven> {
        let publisher = self.judge(&vouched.publication.signer_id())?;
        Ok(Vouched { publisher, ..vouched.clone() })
    }

    /// Whose a key is, if it may vouch for anything here.
    pub fn judge(&self, id: &KeyId) -> Result<Publisher, Unproven> {
        self.stands(id).map(|(publisher, _)| publisher)
    }

    fn stands(&self, id: &KeyId) -> Result<(Publisher, PublicKey), Unproven> {
        if self.revoked.has_key(id) {
            return Err(Unproven::Revoked(*id));
        }
        let found = self.publishers.of(id).and_then(|publisher| publisher.find(id).map(|key| (publisher, key)));
        let refused = |publisher: &Publisher| publisher.ids().any(|key| self.refused.contains(&key));
        match found {
            Some((publisher, key)) if !refused(publisher) => Ok((publisher.clone(), *key)),
            None if !self.refused.contains(id) => Err(Unproven::Stranger(*id)),
            _ => Err(Unproven::Refused(*id)),
        }
    }
}

impl Vouched {
    /// What the publisher says.
    #[must_use]
    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    /// Who says it.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The key that signed.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        self.publication.signer()
    }

    /// The signed object, as it is kept beside the component.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        self.publication.bytes()
    }

    /// Whether it was said of these contents: the component's own name, version and manifest.
    pub fn check(&self, contents: &Contents) -> Result<(), Unproven> {
        let Publication { name, version, manifest, .. } = &*self.publication;
        let found = &contents.manifest;
        if (name, version) != (&found.name, &found.version) {
            let (signed, found) = (format!("{name} {version}"), format!("{} {}", found.name, found.version));
            return Err(Unproven::Identity { signed, found });
        }
        match *manifest == contents.manifest_digest {
            true => Ok(()),
            false => Err(Unproven::Manifest { signed: *manifest, found: contents.manifest_digest }),
        }
    }
}
