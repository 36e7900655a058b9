//! What counts no more, and how a newer document takes the place of an older one.

use super::{ChainError, Refusal, verify_chain};
use crate::error::{Code, Failure};
use crate::keys::{Digest, KeyId, PublicKey};
use crate::objects::{RevocationList, Revocations};
use crate::signed::{Signed, Verified};
use crate::time::{Reading, Time};
use std::collections::HashSet;

/// How far a serial may rise when a holder of `revoke` signs. Without it a stolen key could use the last serial there
/// is up and no list would ever follow; the fleet key may go any distance.
pub const SERIAL_STEP: u64 = 1 << 20;

/// Why a document of revocations does not take the place of the one known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// Older than what is known.
    #[error("revocations {found} are older than {known}, which are known")]
    Older {
        /// its serial
        found: u64,
        /// the known one
        known: u64,
    },
    /// Two documents of one serial: somebody with the right signs two truths, which is to be reported.
    #[error("two different revocations have serial {0}")]
    Conflict(u64),
    /// Leaves out what only the fleet key may.
    #[error("revocations {0} leave out entries of the known ones; only the fleet key may do that")]
    Forgets(u64),
    /// Rises too far.
    #[error("revocations {0} skip too many serials; only the fleet key may do that")]
    Skips(u64),
}

impl From<RevocationError> for Failure {
    fn from(error: RevocationError) -> Self {
        let code = if matches!(error, RevocationError::Older { .. }) { Code::Replayed } else { Code::BadSignature };
        Failure::new(code, error.to_string())
    }
}

/// Keys and grants that count no more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevokedSet {
    serial: u64,
    digest: Option<Digest>,
    keys: HashSet<KeyId>,
    ctis: HashSet<[u8; 16]>,
    next: Option<Time>,
}

impl RevokedSet {
    /// Nothing is known to be revoked.
    #[must_use]
    pub fn empty() -> Self {
        RevokedSet::default()
    }

    /// The serial of the document it comes from, 0 without one.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// By when a newer document is promised.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        self.next
    }

    /// Whether a key is revoked.
    #[must_use]
    pub fn has_key(&self, key: &KeyId) -> bool {
        self.keys.contains(key)
    }

    /// Whether a grant is revoked.
    #[must_use]
    pub fn has_grant(&self, cti: &[u8; 16]) -> bool {
        self.ctis.contains(cti)
    }

    /// What is known after this document: it, when its serial is higher; what was known, when it is the same document.
    /// Only the fleet key may leave entries out (those whose objects have expired anyway): otherwise whoever may
    /// revoke could take back what others revoked.
    pub fn follow(&self, list: &Verified<Revocations>, fleet: &PublicKey) -> Result<RevokedSet, RevocationError> {
        let serial = list.serial;
        let digest = Some(list.digest());
        if serial == self.serial && digest == self.digest {
            return Ok(self.clone());
        }
        if serial == self.serial && self.digest.is_some() {
            return Err(RevocationError::Conflict(serial));
        }
        if serial <= self.serial {
            return Err(RevocationError::Older { found: serial, known: self.serial });
        }
        let next = RevokedSet {
            serial,
            digest,
            keys: list.keys.iter().copied().collect(),
            ctis: list.ctis.iter().copied().collect(),
            next: list.next,
        };
        if list.signer() != fleet {
            if !(self.keys.is_subset(&next.keys) && self.ctis.is_subset(&next.ctis)) {
                return Err(RevocationError::Forgets(serial));
            }
            if serial - self.serial > SERIAL_STEP {
                return Err(RevocationError::Skips(serial));
            }
        }
        Ok(next)
    }
}

/// Proves a document of revocations: signed by the fleet key with no chain beside it, or by a holder of `revoke`.
/// The chain is judged by what is known to be revoked so far.
pub fn verify_revocations(
    fleet: &PublicKey,
    list: &RevocationList,
    clock: Reading,
    known: &RevokedSet,
) -> Result<Verified<Revocations>, ChainError> {
    let signed = Signed::<Revocations>::from_bytes(&list.list.0)?;
    let verified = if list.chain.is_empty() {
        signed.verify(fleet)?
    } else {
        let authority = verify_chain(fleet, &list.chain, clock, known)?;
        authority.may_revoke()?;
        signed.verify(authority.holder())?
    };
    if verified.aud != fleet.id() {
        return Err(ChainError::Content { kind: "revocations", what: format!("is for fleet {:?}", verified.aud) });
    }
    if !clock.allows(verified.iat) {
        return Err(Refusal::NotYet { what: "the revocations".to_owned(), at: verified.iat }.into());
    }
    Ok(verified)
}
