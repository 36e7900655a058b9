//! Why a pack is not taken for what it says ([`Unproven`]), or a key not for another's heir ([`RotationError`]).

use crate::error::{Code, Failure};
use crate::keys::{Digest, KeyId};
use crate::signed::VerifyError;
use crate::time::Time;

/// Why no publisher vouches for a pack here. Each has its own sentence and way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// It came bare: nobody signed it, or somebody in between took the signature off.
    #[error("the pack comes without a publisher's signature, and unsigned packs are refused")]
    Unsigned,
    /// The signature does not hold.
    #[error("the pack's signature does not hold: {0}")]
    Object(#[from] VerifyError),
    /// A publisher nobody here trusts.
    #[error("the pack is signed by publisher {0}, whom this machine does not trust")]
    Stranger(KeyId),
    /// A publisher this machine's owner refuses.
    #[error("the pack is signed by publisher {}, whose packs this machine's owner refuses", .0.short())]
    Refused(KeyId),
    /// A publisher's key that counts no more.
    #[error("the pack is signed with key {}, which was revoked", .0.short())]
    Revoked(KeyId),
    /// A key that its publisher replaced.
    #[error("the pack is signed with key {}, which its publisher replaced by {}", .key.short(), .by.short())]
    Replaced {
        /// the key
        key: KeyId,
        /// the publisher's key of now
        by: KeyId,
    },
    /// Past its time.
    #[error("the pack's signature ended at {0}")]
    Expired(Time),
    /// From the future, says a sure clock.
    #[error("the pack's signature is of {0}, more than a day ahead of this clock")]
    NotYet(Time),
    /// A genuine signature, of another component.
    #[error("the signature is for component {}, this one is {}", .signed.short(), .found.short())]
    Component {
        /// what is signed
        signed: Digest,
        /// what is here
        found: Digest,
    },
    /// A genuine signature of this component under another name or version than it says itself.
    #[error("the signature is for `{}`, the component says that it is `{found}`", crate::text::escape_control(.signed))]
    Identity {
        /// name and version in the signature
        signed: String,
        /// in the manifest
        found: String,
    },
    /// A genuine signature over another manifest than the component's.
    #[error("the signature is for manifest {}, the component's is {}", .signed.short(), .found.short())]
    Manifest {
        /// what is signed
        signed: Digest,
        /// what is here
        found: Digest,
    },
    /// An old version, genuine as it is.
    #[error("version {found} of pack `{name}` is older than {highest}, which this machine has had from the same publisher")]
    Older {
        /// the pack
        name: String,
        /// its version
        found: String,
        /// the highest there was
        highest: String,
    },
}

impl Unproven {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Unproven::Object(source) => source.code(),
            Unproven::Unsigned | Unproven::Component { .. } | Unproven::Identity { .. } | Unproven::Manifest { .. } => Code::BadSignature,
            Unproven::Stranger(_) | Unproven::Replaced { .. } => Code::BadKey,
            Unproven::Refused(_) => Code::Denied,
            Unproven::Revoked(_) => Code::Revoked,
            Unproven::Expired(_) | Unproven::NotYet(_) => Code::Expired,
            Unproven::Older { .. } => Code::Replayed,
        }
    }

    /// What whoever ships the pack, or owns the machine, can do.
    #[must_use]
    pub fn way_out(&self) -> &'static str {
        match self {
            Unproven::Unsigned => "sign it with `relay pack sign FILE` and deploy it again",
            Unproven::Stranger(_) => {
                "if you trust them, with the key they show: relay publisher trust KEY NODE, or on that machine: agent trust publisher KEY"
            }
            Unproven::Refused(_) => "on that machine: agent trust publisher KEY",
            Unproven::Revoked(_) => "have it signed by a publisher who stands, `relay pack sign FILE`, and deploy it again",
            Unproven::NotYet(_) => "set the clocks of both machines",
            Unproven::Older { .. } => {
                "to go back on purpose: relay pack deploy FILE NODE --downgrade, or to what was active before: relay pack rollback NODE PACK"
            }
            Unproven::Object(_)
            | Unproven::Replaced { .. }
            | Unproven::Expired(_)
            | Unproven::Component { .. }
            | Unproven::Identity { .. }
            | Unproven::Manifest { .. } => "sign this component anew: relay pack sign FILE",
        }
    }
}

impl From<Unproven> for Failure {
    fn from(why: Unproven) -> Self {
        Failure::new(why.code(), why.to_string()).hint(why.way_out())
    }
}

/// Why one key does not follow another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// One of the two signatures does not hold.
    #[error("the rotation of a publisher's key does not hold: {0}")]
    Object(#[from] VerifyError),
    /// The two signatures are about other keys, or a key is to follow itself.
    #[error("the two halves of a rotation are not about the same two keys")]
    Keys,
    /// The old key counts no more, so it has no heir: a thief could be the one who names it.
    #[error("key {} was revoked, so it cannot hand on to another", .0.short())]
    Revoked(KeyId),
    /// The old key handed on to another before: whoever holds it says two things.
    #[error("key {} handed on to {} before, now it names {}", .old.short(), .known.short(), .found.short())]
    Conflict {
        /// the key
        old: KeyId,
        /// its heir
        known: KeyId,
        /// the one it names now
        found: KeyId,
    },
    /// More of them than a machine keeps.
    #[error("at most {max} publishers and as many replaced keys are kept", max = crate::limits::PUBLISHERS)]
    TooMany,
}

impl RotationError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            RotationError::Object(source) => source.code(),
            RotationError::Keys | RotationError::Conflict { .. } => Code::BadSignature,
            RotationError::Revoked(_) => Code::Revoked,
            RotationError::TooMany => Code::TooLarge,
        }
    }
}

impl From<RotationError> for Failure {
    fn from(error: RotationError) -> Self {
        let failure = Failure::new(error.code(), error.to_string());
        match error {
            RotationError::Conflict { .. } => {
                failure.hint("the old key may be stolen: revoke it, relay publisher revoke KEY, and have the publisher's true key trusted")
            }
            RotationError::Revoked(_) => failure.hint("have the new key trusted by itself: relay publisher trust KEY NODE"),
            _ => failure,
        }
    }
}
