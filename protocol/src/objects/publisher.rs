//! What publishers say: that a component is a pack of theirs, and that another key speaks for them from now on. Neither
//! names a fleet: a publisher signs for whoever trusts it, and who does is written down at each machine.

use crate::cbor::{self, Blob, DecodeError, cbor_map};
use crate::keys::{Digest, KeyId, PublicKey};
use crate::scan::Ceiling;
use crate::time::Time;

cbor_map! {
    /// This component, with this manifest, is this version of this pack.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Publication {
        /// the publisher
        1 => iss: KeyId,
        /// when it ends: later nobody installs the pack anew; where it is installed it stays
        4 => exp: Option<Time>,
        /// when
        6 => iat: Time,
        /// the pack's name
        16 => name: String,
        /// its version
        17 => version: String,
        /// SHA-256 of the whole component: of every byte there is
        18 => component: Digest,
        /// SHA-256 of the manifest's section, which alone tells what is asked for
        19 => manifest: Digest,
    }

    /// From now on the next key speaks for this publisher.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Succession {
        /// one of the two keys
        1 => iss: KeyId,
        /// when
        6 => iat: Time,
        /// the key so far
        16 => key: PublicKey,
        /// the key that follows it
        17 => next: PublicKey,
    }

    /// A succession as both keys signed it: the old one gives its word away, the new one takes it. With the old one's
    /// signature alone anybody's key could be made to answer for packs it never saw.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Rotation {
        /// signed `publisher`, by the key so far
        1 => old: Blob,
        /// signed `publisher`, by the key that follows
        2 => new: Blob,
    }
}

impl Rotation {
    /// Its CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads it; what is inside is not verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes, Ceiling::SIGNED)
    }
}
