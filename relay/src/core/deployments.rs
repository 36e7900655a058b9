//! Deployments: the newest document of each name, with its signer's chain. The relay verifies them as it does what else is
//! signed for the fleet, keeps them, hands them to each node that comes and to all that are here, and to operators who ask.
//! Nobody trusts it with them: nodes and operators judge each document themselves.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::{RevokedSet, follows, verify_deployment};
use outhaul_protocol::credential::Chain;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::Frame;
use outhaul_protocol::keys::{Digest, PublicKey};
use outhaul_protocol::limits;
use outhaul_protocol::objects::DeploymentDocument;
use outhaul_protocol::time::Reading;

use super::clock;
use super::store::{Db, KeptNotice};

/// The kind, as frames name it.
pub(crate) const DEPLOYMENT: &str = "deployment";
/// Bytes of the documents in one answer, which is one frame.
const PAGE_BYTES: usize = 700 << 10;

/// One document and its place among those of its name.
#[derive(Debug)]
struct Known {
    document: DeploymentDocument,
    /// the same as nodes get it, ready for all of them
    frame: Bytes,
    serial: u64,
    digest: Digest,
}

impl Known {
    fn bytes(&self) -> usize {
        self.document.document.0.len() + self.document.chain.iter().map(|grant| grant.0.len()).sum::<usize>()
    }
}

/// The newest documents.
#[derive(Debug)]
pub(crate) struct Deployments {
    fleet: PublicKey,
    known: Mutex<BTreeMap<String, Arc<Known>>>,
}

impl Deployments {
    /// What the database kept, verified again as of when it was accepted.
    pub(crate) fn load(fleet: PublicKey, db: &mut Db) -> Result<Self, Failure> {
        let deployments = Deployments { fleet, known: Mutex::default() };
        for (name, kept) in db.deployments()? {
            let chain = Chain::decode(&kept.chain).map(|chain| chain.grants).unwrap_or_default();
            let document = DeploymentDocument { document: Blob(kept.signed), chain };
            match deployments.judge(document, Reading::sure(kept.accepted_at), &RevokedSet::empty()) {
                Ok(Some((_, known))) => drop(deployments.known().insert(name, Arc::new(known))),
                Ok(None) => {}
                // Another fleet's, after the relay was given to another: it counts no more.
                Err(failure) => tracing::warn!(name, reason = %failure.message, "a kept deployment does not verify any more"),
            }
        }
        Ok(deployments)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a document when it is newer, and keeps it; what nodes are to be told of it then.
    pub(crate) fn take(&self, db: &mut Db, signed: &[u8], chain: &[Blob], revoked: &RevokedSet) -> Result<Option<Bytes>, Failure> {
        let document = DeploymentDocument { document: Blob(signed.to_vec()), chain: chain.to_vec() };
        let Some((name, known)) = self.judge(document, clock::reading(), revoked)? else { return Ok(None) };
        self.has_room(&name, &known)?;
        let chain = Chain { grants: chain.to_vec() }.encode();
        db.put_deployment(&name, &KeptNotice { signed: signed.to_vec(), chain, accepted_at: clock::now() })?;
        tracing::info!(name, serial = known.serial, "deployment taken");
        let frame = known.frame.clone();
        self.known().insert(name, Arc::new(known));
        Ok(Some(frame))
    }

    /// What would be known of a name after this document; nothing when it is what is known.
    fn judge(&self, document: DeploymentDocument, clock: Reading, revoked: &RevokedSet) -> Result<Option<(String, Known)>, Failure> {
        let (said, _) = verify_deployment(&self.fleet, &document, clock, revoked)?;
        let before = self.known().get(&said.name).cloned();
        let place = before.as_ref().map(|known| (known.serial, known.digest));
        let newer = follows(place, &said)?;
        // The same document may come with a chain that stands longer.
        let renewed = before.is_some_and(|before| before.document.chain != document.chain);
        let (signed, chain) = (document.document.clone(), document.chain.clone());
        let frame = Frame::Notice { signed, kind: DEPLOYMENT.into(), chain }.encode().into();
        let known = Known { serial: said.serial, digest: said.digest(), frame, document };
        Ok((newer || renewed).then(|| (said.name.clone(), known)))
    }

    /// Bounds what each node is handed on each connect.
    fn has_room(&self, name: &str, new: &Known) -> Result<(), Failure> {
        let known = self.known();
        let others = || known.iter().filter(|(other, _)| *other != name);
        let bytes: usize = others().map(|(_, other)| other.bytes()).sum();
        let text = match (others().count(), bytes + new.bytes()) {
            (names, _) if names >= limits::DEPLOYMENTS => format!("the relay keeps at most {} deployments", limits::DEPLOYMENTS),
            (_, bytes) if bytes > limits::DEPLOYMENTS_BYTES => {
                format!("the relay keeps at most {} bytes of deployments", limits::DEPLOYMENTS_BYTES)
            }
            _ => return Ok(()),
        };
        Err(Failure::new(Code::TooLarge, text).hint("name nodes by a label instead of one by one"))
    }

    /// All, as frames for nodes.
    pub(crate) fn frames(&self) -> Vec<Bytes> {
        self.known().values().map(|known| known.frame.clone()).collect()
    }

    /// The next page, by name.
    pub(crate) fn after(&self, name: &str) -> Vec<DeploymentDocument> {
        let known = self.known();
        let (mut page, mut bytes) = (Vec::new(), 0);
        for (_, next) in known.range::<str, _>((Bound::Excluded(name), Bound::Unbounded)) {
            bytes += next.bytes() + 64;
            if bytes > PAGE_BYTES && !page.is_empty() {
                break;
            }
            page.push(next.document.clone());
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_protocol::keys::{SecretKey, random};
    use outhaul_protocol::objects::{Deployment, Grant, Rights, Target};
    use outhaul_protocol::signed::{Payload, Signed};

    struct Fleet {
        key: SecretKey,
        operator: SecretKey,
    }

    fn signed<T: Payload>(by: &SecretKey, object: &T) -> Blob {
        Blob(Signed::sign(by, object).into_bytes())
    }

    impl Fleet {
        fn chain(&self) -> Vec<Blob> {
            let any = || vec!["*".to_owned()];
            let grant = Grant {
                iss: self.key.id(),
                aud: self.key.id(),
                exp: clock::now().plus(3600),
                iat: clock::now(),
                cti: random(),
                holder: self.operator.public(),
                commands: any(),
                nodes: any(),
                evidence_channel: false,
                rights: Rights::all(),
                delegate: false,
                holder_kind: None,
            };
            vec![signed(&self.key, &grant)]
        }

        fn document(&self, name: &str, serial: u64, nodes: &[String]) -> Vec<u8> {
            let said = Deployment {
                iss: self.operator.id(),
                aud: self.key.id(),
                iat: clock::now(),
                name: name.into(),
                serial,
                previous: None,
                targets: vec![Target { nodes: nodes.to_vec(), release: None, before: None }],
            };
            signed(&self.operator, &said).0
        }
    }

    fn fixture() -> (Fleet, Db, Deployments, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a folder");
        let fleet = Fleet { key: SecretKey::generate(), operator: SecretKey::generate() };
        let mut db = Db::open(&dir.path().join("relay.db")).expect("opens");
        let deployments = Deployments::load(fleet.key.public(), &mut db).expect("empty");
        (fleet, db, deployments, dir)
    }

    fn all() -> Vec<String> {
        vec!["*".to_owned()]
    }

    #[test]
    fn the_newest_of_a_name_stays_and_is_there_after_a_restart() {
        let (fleet, mut db, deployments, _dir) = fixture();
        let nothing = RevokedSet::empty();
        let (chain, one, two) = (fleet.chain(), fleet.document("thermal", 1, &all()), fleet.document("thermal", 2, &all()));
        let mut take = |signed: &[u8], chain: &[Blob]| deployments.take(&mut db, signed, chain, &nothing);
        assert!(take(&one, &chain).expect("new").is_some());
        assert!(take(&one, &chain).expect("the same").is_none());
        assert!(take(&one, &fleet.chain()).expect("a newer chain").is_some());
        assert!(take(&two, &chain).expect("newer").is_some());
        assert_eq!(take(&one, &chain).expect_err("older").code, Code::Replayed);
        let other = fleet.document("thermal", 2, &["bench-1".to_owned()]);
        assert_eq!(take(&other, &chain).expect_err("a second truth").code, Code::BadSignature);
        assert_eq!(take(&fleet.document("thermal", u64::MAX, &all()), &chain).expect_err("too far").code, Code::BadSignature);
        assert_eq!(take(&two[..two.len() - 1], &chain).expect_err("cut").code, Code::BadSignature);
        let stranger = Fleet { key: SecretKey::generate(), operator: SecretKey::generate() };
        assert_eq!(take(&stranger.document("fans", 1, &all()), &stranger.chain()).expect_err("another fleet's").code, Code::BadKey);
        let again = Deployments::load(fleet.key.public(), &mut db).expect("loads");
        assert_eq!((again.frames(), again.frames().len()), (deployments.frames(), 1));
        assert!(Deployments::load(stranger.key.public(), &mut db).expect("loads").frames().is_empty());
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let (fleet, mut db, deployments, _dir) = fixture();
        let (chain, nothing) = (fleet.chain(), RevokedSet::empty());
        let mut take = |name: &str| deployments.take(&mut db, &fleet.document(name, 1, &all()), &chain, &nothing);
        (0..limits::DEPLOYMENTS).for_each(|at| drop(take(&format!("small-{at}")).expect("has room").expect("new")));
        assert_eq!(take("one-more").expect_err("too many").code, Code::TooLarge);
        assert_eq!(deployments.after("small-99").len(), 0, "it is the last by name");

        let (fleet, mut db, deployments, _dir) = fixture();
        let chain = fleet.chain();
        let many: Vec<String> = (0..800u32).map(|n| outhaul_protocol::keys::sha256(&n.to_be_bytes()).to_string()).collect();
        let mut take = |name: &str, nodes: &[String]| deployments.take(&mut db, &fleet.document(name, 1, nodes), &chain, &nothing);
        let large: Vec<String> = (0..30).map(|at| format!("large-{at}")).collect();
        let failure = large.iter().find_map(|name| take(name, &many).err()).expect("an end");
        assert_eq!(failure.code, Code::TooLarge);
        let (mut pages, mut last, mut told) = (0, String::new(), 0);
        loop {
            let page = deployments.after(&last);
            let Some(newest) = page.last() else { break };
            last = Signed::<Deployment>::from_bytes(&newest.document.0).expect("reads").unverified().name.clone();
            (pages, told) = (pages + 1, told + page.len());
        }
        assert!(pages > 1, "{pages}");
        assert_eq!(told, deployments.frames().len());
    }
}
