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
    #[error("{} may not be granted on", grant(link - 1))]
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
        let failure = Failure::new(error.code(), error.to_string());
        match error {
            ChainError::Refused(refusal) => refusal.into(),
            ChainError::NotDelegated { .. } => failure.hint("the owner gives the right with `relay operator grant KEY … --delegate`"),
            _ => failure,
        }
    }
}

/// How people know a link of a chain. Most operators have one grant, the fleet key's own.
pub(super) fn grant(link: usize) -> String {
    match link {
        0 | 1 => "this operator's grant".to_owned(),
        link => format!("grant {link} of this operator's chain"),
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
    #[error("{} is not for node `{node}`", grant(*link))]
    Node {
        /// which link
        link: usize,
        /// the node's name
        node: String,
    },
    /// The grant is for other commands.
    #[error("{} does not allow `{command}`", grant(*link))]
    Command {
        /// which link
        link: usize,
        /// the command
        command: String,
    },
    /// The grant lacks a right.
    #[error("{} lacks the right `{right}`", grant(*link))]
    Right {
        /// which link
        link: usize,
        /// the right
        right: &'static str,
    },
    /// The grant enrols other nodes.
    #[error("{} does not enrol {what}", grant(*link))]
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
    /// What the operator can do about it, if anything.
    fn way_out(&self) -> Option<String> {
        let more = "`relay operator show` tells what it allows; the owner gives more with `relay operator grant`";
        match self {
            Refusal::Node { .. } | Refusal::Command { .. } => Some(more.to_owned()),
            Refusal::Right { right: "enrol", .. } => {
                Some("the owner gives the right with `relay operator grant KEY … --enrol '*'`".to_owned())
            }
            Refusal::Right { right, .. } => Some(format!("the owner gives the right with `relay operator grant KEY … --{right}`")),
            Refusal::Enrol { .. } => {
                Some("the owner gives more with `relay operator grant KEY … --enrol NAMES --enrol-labels LABELS`".to_owned())
            }
            Refusal::Expired { .. } => {
                Some("the owner renews it with `relay operator grant`; `relay operator accept` takes the new one".to_owned())
            }
            Refusal::NotYet { .. } => Some("is this machine's clock right?".to_owned()),
            Refusal::Revoked { .. } | Refusal::Overdue { .. } | Refusal::Evidence { .. } => None,
        }
    }

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
        let failure = Failure::new(refusal.code(), refusal.to_string());
        match refusal.way_out() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
