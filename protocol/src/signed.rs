//! Signed objects: COSE_Sign1 (RFC 9052) with exactly one accepted form, untagged:
//! `[<<{1: -19, 4: signer's key id}>>, {}, payload, signature]`, Ed25519 over the Sig_structure whose external data is
//! `outhaul/KIND/1`. What was received is kept and verified as it came, never re-encoded. [`Signed`] says nothing is
//! proven yet; only [`Signed::verify`] makes a [`Verified`], with a key the caller got from a chain or a pin.

use crate::cbor::{self, Cbor, DecodeError};
use crate::error::{Code, Failure};
use crate::keys::{Digest, KeyId, PublicKey, SecretKey, sha256};
use crate::scan::{Ceiling, Reader, ScanError, put_bytes};
use std::ops::{Deref, Range};

/// Why an object is not taken for what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not an object of this kind, whatever the signature.
    #[error("{kind} is malformed: {source}")]
    Malformed {
        /// The kind that was expected.
        kind: &'static str,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// CBOR, but not our form of COSE_Sign1.
    #[error("{kind} is malformed: {what}")]
    Envelope {
        /// The kind that was expected.
        kind: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Signed with another key than it must be.
    #[error("{kind} names key {found:?} as its signer, {wanted:?} was wanted")]
    Signer {
        /// The kind.
        kind: &'static str,
        /// The key id in the object.
        found: KeyId,
        /// The key id wanted.
        wanted: KeyId,
    },
    /// The signature does not fit.
    #[error("the signature of {kind} does not verify under key {signer:?}")]
    Signature {
        /// The kind.
        kind: &'static str,
        /// The key it was tried with.
        signer: KeyId,
    },
}

impl VerifyError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            VerifyError::Signer { .. } => Code::BadKey,
            _ => Code::BadSignature,
        }
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        Failure::new(error.code(), error.to_string())
    }
}

/// What can be signed. The kind is part of what is signed, so an object of one kind is never one of another.
#[expect(private_bounds, reason = "only this crate defines objects: the CBOR trait seals the trait")]
pub trait Payload: Cbor + Clone {
    /// The word in the domain `outhaul/KIND/1`.
    const KIND: &'static str;
    /// Size, depth and items allowed, of envelope and payload each.
    const CEILING: Ceiling = Ceiling::SIGNED;

    /// The id of the key that says this; it must be the signer's.
    fn issuer(&self) -> KeyId;

    /// The payload's own bytes, for calls whose evidence is the channel.
    fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads a payload that carries no signature.
    fn from_bytes(bytes: &[u8]) -> Result<Self, VerifyError> {
        cbor::decode(bytes, Self::CEILING).map_err(|source| VerifyError::Malformed { kind: Self::KIND, source })
    }
}

/// `{1: -19, 4: 32 bytes follow}`: the only protected header there is, up to the key id.
const PROTECTED: [u8; 6] = [0xa2, 0x01, 0x32, 0x04, 0x58, 0x20];
const PROTECTED_LEN: usize = PROTECTED.len() + 32;

fn protected(signer: KeyId) -> [u8; PROTECTED_LEN] {
    let mut bytes = [0; PROTECTED_LEN];
    bytes[..PROTECTED.len()].copy_from_slice(&PROTECTED);
    bytes[PROTECTED.len()..].copy_from_slice(&signer.0);
    bytes
}

/// The bytes a signature covers.
fn covered(kind: &str, protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = coset::ProtectedHeader { original_data: Some(protected.to_vec()), header: coset::Header::default() };
    let domain = format!("outhaul/{kind}/1");
    coset::sig_structure_data(coset::SignatureContext::CoseSign1, header, None, domain.as_bytes(), payload)
}

/// Where the parts lie in the bytes of an object.
struct Parts {
    kid: KeyId,
    payload: Range<usize>,
    signature: [u8; 64],
}

/// Takes an envelope apart. The error says which of our rules it breaks.
fn take_apart(bytes: &[u8]) -> Result<Parts, &'static str> {
    let form = |_: ScanError| "not a COSE_Sign1 structure";
    let mut reader = Reader::new(bytes);
    if reader.array().map_err(form)? != 4 {
        return Err("not four parts");
    }
    let header = reader.bytes().map_err(form)?;
    let kid = header.strip_prefix(&PROTECTED).and_then(|kid| kid.try_into().ok().map(KeyId));
    let kid = kid.ok_or("the protected header is not exactly alg -19 and a key id")?;
    if reader.head().map_err(form)? != (5, 0) {
        return Err("the unprotected header is not empty");
    }
    let payload = reader.bytes().map_err(form)?;
    let signature = reader.bytes().map_err(form)?.try_into().map_err(|_| "the signature has not 64 bytes")?;
    reader.end().map_err(|_| "bytes follow the signature")?;
    let start = payload.as_ptr() as usize - bytes.as_ptr() as usize;
    Ok(Parts { kid, payload: start..start + payload.len(), signature })
}

/// An object as received: well formed, nothing proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    bytes: Vec<u8>,
    kid: KeyId,
    payload: Range<usize>,
    content: T,
}

impl<T: Payload> Signed<T> {
    /// Signs. Ceilings are the reader's to enforce: who builds a payload from parts of any size keeps below them.
    ///
    /// # Panics
    /// When the payload names another issuer than the signer: it would verify nowhere.
    pub fn sign(key: &SecretKey, content: &T) -> Verified<T> {
        let signer = key.public();
        let kid = signer.id();
        assert!(kid == content.issuer(), "a {} must name its own signer as issuer", T::KIND);
        let (header, payload) = (protected(kid), content.to_bytes());
        let signature = key.sign(&covered(T::KIND, &header, &payload));
        let mut bytes = Vec::with_capacity(payload.len() + PROTECTED_LEN + 80);
        bytes.push(0x84);
        put_bytes(&mut bytes, &header);
        bytes.push(0xa0);
        put_bytes(&mut bytes, &payload);
        let end = bytes.len();
        put_bytes(&mut bytes, &signature);
        let signed = Signed { bytes, kid, payload: end - payload.len()..end, content: content.clone() };
        Verified { signed, signer }
    }

    /// Reads an object: size, form and contents, not its signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VerifyError> {
        if bytes.len() > T::CEILING.bytes {
            let source = ScanError::TooLong { found: bytes.len(), allowed: T::CEILING.bytes }.into();
            return Err(VerifyError::Malformed { kind: T::KIND, source });
        }
        let parts = take_apart(bytes).map_err(|what| VerifyError::Envelope { kind: T::KIND, what })?;
        let content = T::from_bytes(&bytes[parts.payload.clone()])?;
        if content.issuer() != parts.kid {
            return Err(VerifyError::Signer { kind: T::KIND, found: parts.kid, wanted: content.issuer() });
        }
        Ok(Signed { bytes: bytes.to_vec(), kid: parts.kid, payload: parts.payload, content })
    }

    /// The key id the object names as its signer: a hint which key to try.
    #[must_use]
    pub fn kid(&self) -> KeyId {
        self.kid
    }

    /// What the object says, unproven.
    #[must_use]
    pub fn unverified(&self) -> &T {
        &self.content
    }

    /// The bytes as received.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The digest of the whole object, signature included: how others refer to it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        sha256(&self.bytes)
    }

    /// The digest of the payload alone: how a receipt refers to a call, signed or not.
    #[must_use]
    pub fn payload_digest(&self) -> Digest {
        sha256(&self.bytes[self.payload.clone()])
    }

    /// Checks the signature under a key that the caller has from a chain or a pin, never from the object.
    pub fn verify(self, signer: &PublicKey) -> Result<Verified<T>, VerifyError> {
        let wanted = signer.id();
        if self.kid != wanted {
            return Err(VerifyError::Signer { kind: T::KIND, found: self.kid, wanted });
        }
        let signature = take_apart(&self.bytes).map_err(|what| VerifyError::Envelope { kind: T::KIND, what })?.signature;
        if !signer.verifies(&covered(T::KIND, &protected(self.kid), &self.bytes[self.payload.clone()]), &signature) {
            return Err(VerifyError::Signature { kind: T::KIND, signer: wanted });
        }
        Ok(Verified { signed: self, signer: *signer })
    }
}

/// An object whose signature was checked. Whether its signer may say this is judged by [`crate::chain`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    signed: Signed<T>,
    signer: PublicKey,
}

impl<T: Payload> Verified<T> {
    /// Who signed.
    #[must_use]
    pub fn signer(&self) -> &PublicKey {
        &self.signer
    }

    /// The signer's id.
    #[must_use]
    pub fn signer_id(&self) -> KeyId {
        self.signed.kid
    }

    /// The object's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }

    /// The object's bytes, taken.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.signed.bytes
    }

    /// The object as one would receive it.
    #[must_use]
    pub fn into_signed(self) -> Signed<T> {
        self.signed
    }

    /// What the object says.
    #[must_use]
    pub fn into_content(self) -> T {
        self.signed.content
    }

    /// See [`Signed::digest`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.signed.digest()
    }

    /// See [`Signed::payload_digest`].
    #[must_use]
    pub fn payload_digest(&self) -> Digest {
        self.signed.payload_digest()
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.signed.content
    }
}

#[cfg(test)]
mod tests;
