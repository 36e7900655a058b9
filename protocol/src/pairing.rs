//! Pairing: how a machine that knows nothing and an operator come to trust each other through a relay neither trusts.
//!
//! ```text
//! agent (guest)                              relay                          operator (maker)
//!   ── join: SPAKE2 B ───────────────────────────────────────────────────────►
//!   ◄─────────────────────────────────────────────────────── answer: SPAKE2 A ──
//!   ── confirm: Noise NNpsk0 message 1, {node key, mailbox, name}, signed ──────►   wrong code shows here
//!   ◄── welcome: message 2, {fleet key, certificate, relays, …}, signed ─────────   and here, to the agent
//!   ── stored: sealed, after the agent's fsync ────────────────────────────────►   only now "paired"
//! ```
//!
//! The code is the password of a SPAKE2 exchange: a relay in between gets one guess per run and nothing to work on
//! afterwards. The exchanged key is Noise's psk; the prologue is `[domain, slot, join, answer]` in CBOR. Both sides sign
//! a `pair` object over the prologue's hash, so the keys they bring are theirs and were brought to this run.
//! Who counts runs, and why, is said at [`Attempts`]. Instead of a code each side may be told the other's key ahead
//! ([`Proof::Pin`]): then the password is empty and the signatures alone decide.
//!
//! States are types and messages are bytes; a state that failed is gone.

mod code;
mod exchange;
mod guest;
mod maker;

pub use code::{Attempts, Code, CodeError};
pub use guest::{Guest, GuestConfirming, Welcomed};
pub use maker::{Awaiting, Confirmed, Maker};

use crate::cbor::{Blob, DecodeError, cbor_map};
use crate::chain::{ChainError, RevocationError};
use crate::error::{self, Failure};
use crate::keys::{Digest, KeyId, PublicKey, X25519Public};
use crate::objects::{Certificate, RevocationList};
use crate::signed::VerifyError;
use crate::time::FromTheFuture;

/// What a side goes by to know the other.
#[derive(Debug, Clone, Copy)]
pub enum Proof<'a> {
    /// The code one side shows and a person types at the other.
    Code(&'a Code),
    /// The other's key id, told ahead: the fleet's to the agent, the node's to the operator. Both sides must use it.
    Pin(KeyId),
    /// Both at once.
    Both(&'a Code, KeyId),
}

impl Proof<'_> {
    fn code(&self) -> Option<&Code> {
        match self {
            Proof::Code(code) | Proof::Both(code, _) => Some(code),
            Proof::Pin(_) => None,
        }
    }

    fn pin(&self) -> Option<KeyId> {
        match self {
            Proof::Pin(id) | Proof::Both(_, id) => Some(*id),
            Proof::Code(_) => None,
        }
    }
}

/// Role numbers in `pair`.
pub(crate) const OPERATOR: u64 = 1;
/// See [`OPERATOR`].
pub(crate) const AGENT: u64 = 2;

cbor_map! {
    /// What the agent brings.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Offer {
        /// its key, which signs this
        1 => node: PublicKey,
        /// where offline calls are sealed to
        2 => mailbox: X25519Public,
        /// the name it would like
        3 => name: Option<String>,
    }

    /// What the operator brings: all an agent needs to know its fleet.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Welcome {
        /// the key to pin
        1 => fleet: PublicKey,
        /// SHA-256 of the fleet key that would follow it
        2 => successor: Option<Digest>,
        /// the node's certificate, and the chain of who signs it and this
        3 => certificate: Certificate,
        /// signed `relays`
        4 => relays: Blob,
        /// what is revoked, if anything is
        5 => revocations: Option<RevocationList>,
        /// keys that sign packs
        6 => publishers: Vec<PublicKey>,
    }
}

/// Why a pairing came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairingError {
    /// The other side does not know the code, or somebody in between altered the exchange; the two cannot be told apart.
    #[error("wrong code, or somebody in between altered the exchange")]
    WrongCode,
    /// No run is left for this code.
    #[error("the code is used up")]
    UsedUp,
    /// A message that makes no sense, from somebody who may not even know the code.
    #[error("{message} of the pairing is malformed: {what}")]
    Malformed {
        /// which message
        message: &'static str,
        /// what is wrong
        what: String,
    },
    /// More to say than one message holds.
    #[error("the welcome has {0} bytes, more than a pairing can carry")]
    TooLarge(usize),
    /// The other side's key is not the one told ahead.
    #[error("the other side shows key {found:?}, {wanted:?} was told")]
    Pin {
        /// its key
        found: KeyId,
        /// the key told
        wanted: KeyId,
    },
    /// The signature of what a side brings is wrong.
    #[error(transparent)]
    Object(#[from] VerifyError),
    /// The chain or certificate proves nothing.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The revocations cannot be used.
    #[error(transparent)]
    Revocations(#[from] RevocationError),
    /// The fleet's objects are from the future.
    #[error(transparent)]
    Time(#[from] FromTheFuture),
    /// `pair` signs another run, or comes from the wrong side.
    #[error("the other side's signature is for another pairing")]
    Transcript,
    /// The certificate is somebody else's.
    #[error("the certificate is for key {found:?}, not for this machine's")]
    NotMine {
        /// the key in it
        found: KeyId,
    },
    /// The relay that carried this is none of the fleet's.
    #[error("the relay's key {0:?} is not among the fleet's relays")]
    Relay(KeyId),
}

impl PairingError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> error::Code {
        match self {
            PairingError::WrongCode | PairingError::UsedUp => error::Code::NotPaired,
            PairingError::Malformed { .. } | PairingError::Transcript => error::Code::BadSignature,
            PairingError::TooLarge(_) => error::Code::TooLarge,
            PairingError::Pin { .. } | PairingError::NotMine { .. } | PairingError::Relay(_) => error::Code::BadKey,
            PairingError::Object(source) => source.code(),
            PairingError::Chain(source) => source.code(),
            PairingError::Revocations(_) => error::Code::BadSignature,
            PairingError::Time(_) => error::Code::Expired,
        }
    }

    fn malformed(message: &'static str, what: impl ToString) -> Self {
        PairingError::Malformed { message, what: what.to_string() }
    }
}

impl From<PairingError> for Failure {
    fn from(error: PairingError) -> Self {
        let failure = Failure::new(error.code(), error.to_string());
        match error {
            PairingError::WrongCode | PairingError::UsedUp => {
                failure.hint("check the digits and the machine they came from; `relay pair new` makes a new code")
            }
            PairingError::Chain(_) | PairingError::Time(_) if failure.code == error::Code::Expired => {
                failure.hint("check this machine's clock")
            }
            _ => failure,
        }
    }
}

impl From<DecodeError> for PairingError {
    fn from(error: DecodeError) -> Self {
        PairingError::malformed("the content", error)
    }
}

#[cfg(test)]
mod tests;
