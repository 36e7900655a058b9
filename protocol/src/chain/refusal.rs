//! Why a chain proves nothing ([`ChainError`]), or proves something else than what was asked ([`Refusal`]). Both name the
//! link, for `why`; a peer whose own chain did not verify gets the bare code.

use crate::error::{Code, Failure};
use crate::keys::KeyId;
use crate::limits;
use crate::signed::VerifyError;
use crate::time::Time;

/// Why a chain proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No grant at all.
    #[error("the chain has no grant")]
    Empty,
    /// More links than allowed.
    #[error("the chain has {0} grants, at most {max} are allowed", max = limits::CHAIN)]
    TooLong(usize),
    /// A grant does not verify; the first one under the pinned fleet key, each other under the holder before it.
    #[error("grant {link} of the chain: {source}")]
    Link {
        /// counted from 1
        link: usize,
        /// why
        source: VerifyError,
    },
    /// The holder before this grant may not grant on.
    #[error("grant {link} of the chain: its signer may not delegate")]
    NotDelegated {
        /// counted from 1
        link: usize,
    },
    /// The grant is one of another fleet.
    #[error("grant {link} of the chain is for fleet {found:?}")]
    Fleet {
        /// counted from 1
        link: usize,
        /// the fleet it names
        found: KeyId,
    },
    /// The grant says what no grant may.
    #[error("grant {link} of the chain {what}")]
    Claim {
        /// counted from 1
        link: usize,
        /// what it says
        what: String,
    },
    /// Something else than a grant does not verify.
    #[error(transparent)]
    Object(#[from] VerifyError),
    /// Something else than a grant says what it may not.
    #[error("{kind} {what}")]
    Content {
        /// the kind of object
        kind: &'static str,
        /// what it says
        what: String,
    },
    /// The chain is genuine, but does not allow this.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl ChainError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            ChainError::Link { source, .. } | ChainError::Object(source) => source.code(),
            ChainError::Refused(refusal) => refusal.code(),
            ChainError::Fleet { .. } => Code::BadKey,
            ChainError::Empty | ChainError::TooLong(_) | ChainError::NotDelegated { .. } => Code::NotGranted,
            ChainError::Claim { .. } | ChainError::Content { .. } => Code::BadSignature,
        }
    }
}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Self {
        Failure::new(error.code(), error.to_string())
    }
}

/// Why a genuine chain does not allow something. Links are counted from 1, the fleet key's own grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Past its time.
    #[error("{what} expired at {at}")]
    Expired {
        /// which object
        what: String,
        /// when
        at: Time,
    },
    /// From the future, says a sure clock.
    #[error("{what} was signed at {at}, more than a day ahead of this clock")]
    NotYet {
        /// which object
        what: String,
        /// when
        at: Time,
    },
    /// Revoked.
    #[error("{what} was revoked")]
    Revoked {
        /// which object or key
        what: String,
    },
    /// The node promised newer revocations by now.
    #[error("the revocations known here were to be renewed by {next}; until then only node.ping and node.status are served")]
    Overdue {
        /// when
        next: Time,
    },
    /// The grant is for other nodes.
    #[error("grant {link} of the chain is not for node `{node}`")]
    Node {
        /// which link
        link: usize,
        /// the node's name
        node: String,
    },
    /// The grant is for other commands.
    #[error("grant {link} of the chain does not allow `{command}`")]
    Command {
        /// which link
        link: usize,
        /// the command
        command: String,
    },
    /// The grant lacks a right.
    #[error("grant {link} of the chain lacks the right `{right}`")]
    Right {
        /// which link
        link: usize,
        /// the right
        right: &'static str,
    },
    /// The grant enrols other nodes.
    #[error("grant {link} of the chain does not enrol {what}")]
    Enrol {
        /// which link
        link: usize,
        /// a name or label
        what: String,
    },
    /// The call must be signed.
    #[error("`{command}` must be signed: {why}")]
    Evidence {
        /// the command
        command: String,
        /// the reason
        why: String,
    },
}

impl Refusal {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Refusal::Expired { .. } | Refusal::NotYet { .. } => Code::Expired,
            Refusal::Revoked { .. } => Code::Revoked,
            _ => Code::NotGranted,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::new(refusal.code(), refusal.to_string())
    }
}
