//! Publishers: whose packs a machine takes. A pack travels with a signed [`Publication`] in a file of its own, so that
//! its digest is the same signed or not and no byte of it is uncovered. Who is trusted is the machine's to know
//! ([`Trust`]); what a signature proves comes out of it as [`Vouched`], and nothing else lets a pack in.
//!
//! A publisher is its key, or a line of keys: the old one hands on to the new one by a [`Rotation`], which both sign.
//! What was granted to one of them is the publisher's, and stays so. A key that was replaced vouches for what it
//! vouched for before, and for nothing new; a revoked one for nothing at all.

mod refusal;
mod trust;

pub use refusal::{RotationError, Unproven};
pub use trust::{Publisher, Publishers, Trust, Vouched};

use crate::cbor::Blob;
use crate::keys::{Digest, KeyId, PublicKey, SecretKey};
use crate::objects::{Publication, Rotation, Succession};
use crate::pack::Contents;
use crate::signed::{Signed, Verified};
use crate::time::Time;
use std::fmt;
use zeroize::Zeroizing;

/// A publisher's private key. A type of its own, as its file is: one role for each key.
pub struct PublisherKey(SecretKey);

impl PublisherKey {
    /// A new key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        PublisherKey(SecretKey::generate())
    }

    /// The key of a stored seed.
    #[must_use]
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        PublisherKey(SecretKey::from_bytes(seed))
    }

    /// The seed, to be stored.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.to_bytes()
    }

    /// The public half: what others trust.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.0.public()
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.0.id()
    }

    /// Says that a component with these contents is this publisher's; until `exp`, where one is given.
    #[must_use]
    pub fn publish(&self, component: Digest, contents: &Contents, iat: Time, exp: Option<Time>) -> Verified<Publication> {
        let publication = Publication {
            iss: self.id(),
            exp,
            iat,
            name: contents.manifest.name.clone(),
            version: contents.manifest.version.clone(),
            component,
            manifest: contents.manifest_digest,
        };
        Signed::sign(&self.0, &publication)
    }

    /// Hands on to another key.
    #[must_use]
    pub fn hand_on(&self, next: &PublisherKey, iat: Time) -> Rotation {
        let by = |key: &SecretKey| {
            let succession = Succession { iss: key.id(), iat, key: self.public(), next: next.public() };
            Blob(Signed::sign(key, &succession).into_bytes())
        };
        Rotation { old: by(&self.0), new: by(&next.0) }
    }
}

impl fmt::Debug for PublisherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublisherKey(…)")
    }
}

/// The key that a rotation says follows `old`, which the caller has from a pin: both signatures stand, over the same
/// two keys.
pub fn verify_rotation(rotation: &Rotation, old: &PublicKey) -> Result<PublicKey, RotationError> {
    let given = Signed::<Succession>::from_bytes(&rotation.old.0)?.verify(old)?;
    if given.key != *old || given.next == *old {
        return Err(RotationError::Keys);
    }
    let taken = Signed::<Succession>::from_bytes(&rotation.new.0)?.verify(&given.next)?;
    if (taken.key, taken.next) != (given.key, given.next) {
        return Err(RotationError::Keys);
    }
    Ok(given.next)
}

/// The key that a rotation says it replaces, unproven: a hint which publisher it is about.
pub fn replaced_by(rotation: &Rotation) -> Result<KeyId, RotationError> {
    Ok(Signed::<Succession>::from_bytes(&rotation.old.0)?.kid())
}

#[cfg(test)]
mod tests;
