//! The nodes of the fleet as the relay knows them: which certificate stands for a key, who may put a newer one, and what
//! an operator is told about them. Certificates are verified under the fleet key each time they count for something.

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::{Authority, RevokedSet, verify_certificate, verify_kept_certificate, verify_successor};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Lookup, NodeRecord};
use outhaul_protocol::keys::{KeyId, PublicKey};
use outhaul_protocol::objects::{Certificate, Node};
use outhaul_protocol::signed::{Signed, Verified};
use outhaul_protocol::time::{Reading, Time};

use super::clock;
use super::hub::Hub;
use super::sessions::blob;
use super::store::{Db, Kept};

/// Records in one answer; with [`PAGE_BYTES`] it keeps an answer inside one frame, by items and by bytes.
const PAGE: u32 = 200;
/// Bytes of the records in one answer.
const PAGE_BYTES: usize = 700 << 10;

/// What a certificate that somebody shows comes to.
#[derive(Debug)]
pub(crate) enum Judged {
    /// The one that is kept stands, perhaps newer than what was shown.
    Known,
    /// It is new here, or newer, and stands.
    New(Box<Verified<Node>>),
}

/// Judges the certificate that a connecting node shows for its proven key.
pub(crate) fn judge(
    fleet: &PublicKey,
    revoked: &RevokedSet,
    key: &PublicKey,
    shown: &[u8],
    kept: Option<&Kept>,
    removed: Option<u64>,
    clock: Reading,
) -> Result<Judged, Failure> {
    let certificate = decode(shown)?;
    let Some(kept) = kept else {
        let node = verify_certificate(fleet, &certificate, clock, revoked)?;
        return match removed {
            Some(serial) if node.serial <= serial => Err(Failure::new(Code::Revoked, format!("node `{}` was removed", node.name))),
            _ => mine(node, key),
        };
    };
    let known = decode(&kept.certificate)
        .and_then(|known| Ok(verify_kept_certificate(fleet, &known, Reading::sure(kept.accepted_at), clock, revoked)?));
    match known {
        Ok(known) => match Signed::<Node>::from_bytes(&certificate.node.0)?.unverified().serial {
            serial if serial <= known.serial => Ok(Judged::Known),
            _ => mine(verify_successor(fleet, &known, &certificate, clock, revoked)?, key),
        },
        // What is kept has expired or its signer was revoked: the node may have been given another.
        Err(_) if kept.certificate != shown => mine(verify_certificate(fleet, &certificate, clock, revoked)?, key),
        Err(failure) => Err(failure),
    }
}

fn decode(bytes: &[u8]) -> Result<Certificate, Failure> {
    Certificate::decode(bytes).map_err(|error| Failure::new(Code::NotPaired, format!("the certificate is malformed: {error}")))
}

fn mine(node: Verified<Node>, key: &PublicKey) -> Result<Judged, Failure> {
    match node.node == *key {
        true => Ok(Judged::New(Box::new(node))),
        false => Err(Failure::new(Code::BadKey, format!("the certificate is for key {:?}", node.node.id()))),
    }
}

/// Takes a new or newer certificate into the registry, for an operator or for a code that the relay keeps. Gives the id
/// of a node whose place it took.
pub(crate) fn put(db: &mut Db, fleet: &PublicKey, revoked: &RevokedSet, bytes: &[u8]) -> Result<(Verified<Node>, Option<KeyId>), Failure> {
    let (certificate, clock) = (decode(bytes)?, clock::reading());
    let claimed = Signed::<Node>::from_bytes(&certificate.node.0)?.unverified().node.id();
    let node = match db.node(&claimed)? {
        Some(kept) if kept.certificate == bytes => return Ok((verify_certificate(fleet, &certificate, clock, revoked)?, None)),
        Some(kept) => verify_successor(fleet, &known_node(&kept)?, &certificate, clock, revoked)?,
        None => verify_certificate(fleet, &certificate, clock, revoked)?,
    };
    let replaced = match node.replaces.filter(|old| *old != claimed) {
        Some(old) => db.node(&old)?,
        None => None,
    };
    if let Some(old) = &replaced {
        verify_successor(fleet, &known_node(old)?, &certificate, clock, revoked)?;
    }
    let old = replaced.as_ref().map_or(claimed, |old| old.id);
    if db.holds_name(&node.name, [&claimed, &old])? {
        return Err(Failure::new(Code::BadUsage, format!("another node is called `{}`", node.name))
            .hint(format!("choose another name, or move this one with `--replace {}`", node.name)));
    }
    db.put_node(&claimed, &node.name, bytes, clock.now)?;
    if let Some(old) = &replaced {
        db.remove_node(&old.id, known_node(old)?.serial, clock.now)?;
    }
    Ok((node, replaced.map(|old| old.id)))
}

/// What a kept certificate says. It was verified when it was taken.
pub(crate) fn known_node(kept: &Kept) -> Result<Node, Failure> {
    let certificate = decode(&kept.certificate)?;
    Ok(Signed::<Node>::from_bytes(&certificate.node.0)?.unverified().clone())
}

/// Forgets a node for an operator who may enrol or revoke it. One that was removed already is removed.
pub(crate) fn remove(db: &mut Db, authority: &Authority, id: &KeyId) -> Result<(), Failure> {
    let Some(kept) = db.node(id)? else {
        return match db.removed(id)? {
            Some(_) => Ok(()),
            None => Err(Failure::new(Code::UnknownNode, format!("no node {} is known here", id.short()))),
        };
    };
    let node = known_node(&kept)?;
    if authority.may_revoke().is_err() {
        authority.may_enrol(&node.name, &node.labels)?;
    }
    Ok(db.remove_node(id, node.serial, clock::now())?)
}

/// A page of nodes: those looked up, or all, from one id on.
pub(crate) fn look_up(db: &mut Db, hub: &Hub, lookup: &Lookup, after: Option<&KeyId>) -> Result<Vec<NodeRecord>, Failure> {
    let mut kept = match (&lookup.id, &lookup.name) {
        (Some(id), _) => db.node(id)?.into_iter().collect(),
        (None, Some(name)) => db.nodes_named(name, PAGE)?,
        (None, None) => db.nodes_after(after, PAGE)?,
    };
    if let Some(after) = after {
        kept.retain(|node| node.id > *after);
    }
    let mut bytes = 0;
    let fits = |node: &Kept| {
        bytes += node.certificate.len() + node.announce.as_ref().map_or(0, Vec::len) + 1024;
        bytes <= PAGE_BYTES
    };
    let page = kept.into_iter().take_while(fits);
    Ok(page.map(|node| record(hub, node)).collect())
}

fn record(hub: &Hub, kept: Kept) -> NodeRecord {
    let live = hub.sessions.node(&kept.id);
    let (status, last_seen) = match &live {
        Some(live) => {
            let silence = live.session.silence().as_secs();
            (hub.settings.status.word(silence), Time(clock::now().0.saturating_sub(silence)).max(kept.last_seen))
        }
        None => ("offline", kept.last_seen),
    };
    let (heartbeat, prekey) = match &live {
        Some(live) => {
            let state = live.state();
            (state.heartbeat.as_deref().map(blob), state.prekey.as_deref().map(blob))
        }
        None => (None, None),
    };
    NodeRecord {
        certificate: Blob(kept.certificate),
        status: status.into(),
        connected_at: kept.connected_at.0,
        last_seen: last_seen.0,
        heartbeat,
        announce: kept.announce.map(Blob),
        prekey,
    }
}
