//! Keys, their ids, digests and the only source of randomness. Ed25519 signs, X25519 agrees; one role each, and
//! neither is ever derived from the other. Secrets are wiped when dropped and blank when printed.

use crate::cbor::{Blob, Cbor, DecodeError, Item};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand_core::{OsRng, RngCore};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Why bytes or text are not a key, id or digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the wanted number of hexadecimal digits.
    #[error("64 hexadecimal digits were expected")]
    Hex,
    /// Not a point of the curve.
    #[error("not a point of the curve")]
    NotAPoint,
    /// A point of small order: signatures and secrets made with it prove nothing.
    #[error("a point of small order is not a key")]
    SmallOrder,
}

impl From<KeyError> for DecodeError {
    fn from(error: KeyError) -> Self {
        DecodeError::shape(error.to_string())
    }
}

/// `N` bytes from the operating system. Panics when the system has none to give: nothing here is safe without.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

fn parse_hex(text: &str) -> Result<[u8; 32], KeyError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| KeyError::Hex)?;
    Ok(bytes)
}

macro_rules! hash_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The first 12 digits, for people and logs.
            #[must_use]
            pub fn short(&self) -> String {
                hex::encode(&self.0[..6])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}…", self.short())
            }
        }

        impl FromStr for $name {
            type Err = KeyError;
            fn from_str(text: &str) -> Result<Self, KeyError> {
                parse_hex(text).map($name)
            }
        }

        impl Cbor for $name {
            fn to_item(&self) -> Item {
                self.0.to_item()
            }
            fn from_item(item: Item) -> Result<Self, DecodeError> {
                Cbor::from_item(item).map($name)
            }
        }
    };
}

hash_type! {
    /// The id of a key: SHA-256 of its 32 raw bytes.
    KeyId
}
hash_type! {
    /// A SHA-256 digest.
    Digest
}

/// A node is known by the id of its agent's key.
pub type NodeId = KeyId;

/// SHA-256 of bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Eats bytes as they come and gives their digest: streams are never held whole.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Nothing eaten yet.
    #[must_use]
    pub fn new() -> Self {
        Hasher::default()
    }

    /// Eats bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was eaten.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// The running digest of a lane's bytes. BLAKE3, not SHA-256: both ends hash all that streams, and a machine without SHA
/// instructions would spend more on this than on everything else together.
#[derive(Debug, Clone, Default)]
pub struct LaneHasher(blake3::Hasher);

impl LaneHasher {
    /// Eats bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was eaten.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// SHA-256 of a salt and bytes: what a receipt says about parameters and output without giving away short ones.
#[must_use]
pub fn salted(salt: &[u8; 16], bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(salt);
    hasher.update(bytes);
    hasher.finish()
}

/// The public half of an ed25519 key: a point of the curve, not of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Checks 32 raw bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        if key.is_weak() { Err(KeyError::SmallOrder) } else { Ok(PublicKey(key)) }
    }

    /// The raw bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The raw bytes, borrowed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(sha256(self.0.as_bytes()).0)
    }

    /// Strict (cofactorless, canonical) verification.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

/// A private X25519 key: for prekeys, mailboxes and channels.
pub struct X25519Secret(x25519_dalek::StaticSecret);

/// A private ed25519 key.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        SecretKey::from_bytes(&Zeroizing::new(random()))
    }

    /// The key of a stored seed.
    #[must_use]
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        SecretKey(SigningKey::from_bytes(seed))
    }

    /// The seed, to be stored.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.public().id()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl X25519Secret {
    /// A new key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        X25519Secret::from_bytes(&Zeroizing::new(random()))
    }

    /// The key of stored bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        X25519Secret(x25519_dalek::StaticSecret::from(*bytes))
    }

    /// The bytes, to be stored or handed to Noise.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> X25519Public {
        X25519Public(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }
}

/// The public half of an X25519 key, not of low order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct X25519Public([u8; 32]);

/// Every encoding of a point of low order (RFC 7748, section 6.1, and its non-canonical twins), top bit cleared: a
/// secret agreed with one is zero whoever holds the other half.
const LOW_ORDER: [[u8; 32]; 7] = {
    const fn filled(first: u8, middle: u8, last: u8) -> [u8; 32] {
        let mut bytes = [middle; 32];
        bytes[0] = first;
        bytes[31] = last;
        bytes
    }
    [
        filled(0, 0, 0),
        filled(1, 0, 0),
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c,
            0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58,
            0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
        ],
        filled(0xec, 0xff, 0x7f),
        filled(0xed, 0xff, 0x7f),
        filled(0xee, 0xff, 0x7f),
    ]
};

impl X25519Public {
    /// Checks 32 raw bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let mut masked = *bytes;
        masked[31] &= 0x7f;
        if LOW_ORDER.contains(&masked) { Err(KeyError::SmallOrder) } else { Ok(X25519Public(*bytes)) }
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

macro_rules! public_forms {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.raw()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({}…)", stringify!($name), hex::encode(&self.raw()[..6]))
            }
        }

        impl FromStr for $name {
            type Err = KeyError;
            fn from_str(text: &str) -> Result<Self, KeyError> {
                Self::from_bytes(&parse_hex(text)?)
            }
        }

        impl Cbor for $name {
            fn to_item(&self) -> Item {
                Item::Bytes(self.raw().to_vec())
            }
            fn from_item(item: Item) -> Result<Self, DecodeError> {
                let bytes = Blob::from_item(item)?.0.try_into().map_err(|_| DecodeError::shape("a key of 32 bytes was expected"))?;
                Ok(Self::from_bytes(&bytes)?)
            }
        }
    };
}

impl PublicKey {
    fn raw(&self) -> [u8; 32] {
        self.to_bytes()
    }
}

impl X25519Public {
    fn raw(&self) -> [u8; 32] {
        self.0
    }
}

public_forms!(PublicKey);
public_forms!(X25519Public);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl fmt::Debug for X25519Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("X25519Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_digest_of_the_raw_key() {
        // RFC 8032, section 7.1, test 1.
        let seed = parse_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = SecretKey::from_bytes(&seed);
        assert_eq!(key.public().to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(key.id().to_string(), sha256(&key.public().to_bytes()).to_string());
        assert_eq!(key.id().short(), "21fe31dfa154");
        assert_eq!(key.id().to_string().parse(), Ok(key.id()));
    }

    #[test]
    fn ed25519_points_of_small_order_are_refused() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let order_eight = parse_hex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a").unwrap();
        for bytes in [[0; 32], neutral, order_eight] {
            assert_eq!(PublicKey::from_bytes(&bytes), Err(KeyError::SmallOrder));
        }
        let mut off_the_curve = [0; 32];
        off_the_curve[0] = 2;
        assert_eq!(PublicKey::from_bytes(&off_the_curve), Err(KeyError::NotAPoint));
    }

    #[test]
    fn x25519_points_of_low_order_are_refused_and_really_are() {
        for bytes in LOW_ORDER {
            for top in [0, 0x80] {
                let mut bytes = bytes;
                bytes[31] |= top;
                assert_eq!(X25519Public::from_bytes(&bytes), Err(KeyError::SmallOrder));
                let secret = x25519_dalek::StaticSecret::from(random::<32>());
                assert!(!secret.diffie_hellman(&x25519_dalek::PublicKey::from(bytes)).was_contributory());
            }
        }
        let good = X25519Secret::generate().public();
        assert_eq!(X25519Public::from_bytes(good.as_bytes()), Ok(good));
    }

    #[test]
    fn secrets_print_blank_and_survive_storage() {
        let (signing, agreeing) = (SecretKey::generate(), X25519Secret::generate());
        assert_eq!(format!("{signing:?} {agreeing:?}"), "SecretKey(…) X25519Secret(…)");
        assert_eq!(SecretKey::from_bytes(&signing.to_bytes()).id(), signing.id());
        assert_eq!(X25519Secret::from_bytes(&agreeing.to_bytes()).public(), agreeing.public());
    }
}
