//! Fleet-signed objects that everybody should have: the list of relays, the revocations. The relay verifies them, keeps
//! the newest, hands them to each node that comes and to all that are here. It judges credentials by them too.

use std::sync::{Arc, Mutex, PoisonError};

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::{RevokedSet, verify_relays, verify_revocations};
use outhaul_protocol::credential::Chain;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::Frame;
use outhaul_protocol::keys::PublicKey;
use outhaul_protocol::objects::RevocationList;
use outhaul_protocol::time::Reading;

use super::clock;
use super::store::{Db, KeptNotice};

/// The kinds, as frames name them.
pub(crate) const RELAYS: &str = "relays";
/// See [`RELAYS`].
pub(crate) const REVOCATIONS: &str = "revocations";

/// What is known now; cheap to take.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) relays: Option<Arc<[u8]>>,
    relays_serial: u64,
    pub(crate) revoked: Arc<RevokedSet>,
    pub(crate) revocations: Option<Arc<RevocationList>>,
}

/// The newest notices.
#[derive(Debug)]
pub(crate) struct Notices {
    fleet: PublicKey,
    known: Mutex<Known>,
}

impl Notices {
    /// What the database kept, verified again as of when it was accepted.
    pub(crate) fn load(fleet: PublicKey, db: &mut Db) -> Result<Self, Failure> {
        let notices = Notices { fleet, known: Mutex::default() };
        for kind in [RELAYS, REVOCATIONS] {
            let Some(kept) = db.notice(kind)? else { continue };
            let chain = Chain::decode(&kept.chain).map(|chain| chain.grants).unwrap_or_default();
            // Another fleet's, after the relay was given to another: it counts no more.
            match notices.judge(kind, &kept.signed, &chain, Reading::sure(kept.accepted_at)) {
                Ok(Some(known)) => notices.set(known),
                Ok(None) => {}
                Err(failure) => tracing::warn!(kind, reason = %failure.message, "a kept notice does not verify any more"),
            }
        }
        Ok(notices)
    }

    /// What is known now.
    pub(crate) fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Takes a notice when it is newer, and keeps it; whether it was.
    pub(crate) fn take(&self, db: &mut Db, kind: &str, signed: &[u8], chain: &[Blob]) -> Result<bool, Failure> {
        let Some(known) = self.judge(kind, signed, chain, clock::reading())? else { return Ok(false) };
        let chain = Chain { grants: chain.to_vec() }.encode();
        db.put_notice(kind, &KeptNotice { signed: signed.to_vec(), chain, accepted_at: clock::now() })?;
        self.set(known);
        Ok(true)
    }

    /// What would be known after this notice; nothing when it is the one known.
    fn judge(&self, kind: &str, signed: &[u8], chain: &[Blob], clock: Reading) -> Result<Option<Known>, Failure> {
        let known = self.known();
        match kind {
            RELAYS => {
                let list = verify_relays(&self.fleet, signed, clock)?;
                match &known.relays {
                    Some(same) if **same == *signed => Ok(None),
                    Some(_) if list.serial <= known.relays_serial => Err(Failure::new(
                        Code::Replayed,
                        format!("relays {} are not newer than {}, which are known", list.serial, known.relays_serial),
                    )),
                    _ => Ok(Some(Known { relays: Some(signed.into()), relays_serial: list.serial, ..known })),
                }
            }
            REVOCATIONS => {
                let list = RevocationList { list: Blob(signed.to_vec()), chain: chain.to_vec() };
                let verified = verify_revocations(&self.fleet, &list, clock, &known.revoked)?;
                let revoked = known.revoked.follow(&verified, &self.fleet)?;
                let newer = revoked.serial() > known.revoked.serial();
                Ok(newer.then(|| Known { revoked: Arc::new(revoked), revocations: Some(Arc::new(list)), ..known }))
            }
            _ => Err(Failure::new(Code::BadParams, "only relays, revocations and deployments are notices")),
        }
    }
}

impl Known {
    /// As frames for nodes.
    pub(crate) fn frames(&self) -> Vec<Frame> {
        let relays =
            self.relays.iter().map(|signed| Frame::Notice { signed: Blob(signed.to_vec()), kind: RELAYS.into(), chain: Vec::new() });
        let revocations = self.revocations.iter().map(|list| Frame::Notice {
            signed: list.list.clone(),
            kind: REVOCATIONS.into(),
            chain: list.chain.clone(),
        });
        relays.chain(revocations).collect()
    }
}
