//! Operators' requests. What only looks is answered to anybody whose grants stand; what changes something needs the
//! right for it, and a `control` object signed over this very link with a counter that rises: a proxy that took over a
//! link after its handshake can repeat or invent nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outhaul_protocol::cbor::{Blob, Maybe};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Answer, Ask, Frame, Trouble};
use outhaul_protocol::keys::{Digest, KeyId, sha256};
use outhaul_protocol::objects::Control;
use outhaul_protocol::signed::Signed;

use super::blobs::Part;
use super::hub::Hub;
use super::pairings::Maker;
use super::registry;
use super::sessions::OperatorSession;
use super::store::Db;
use super::worker::Full;
use crate::config::CODE_TTL_MAX_SECS;

/// Requests of one session whose answers are not yet written: more than any client pipelines.
const ASKING: usize = 64;

type Answered = Result<Answer, Failure>;

/// Takes a request; its answer is queued now or when the store has it.
pub(crate) fn request(hub: &Arc<Hub>, operator: &Arc<OperatorSession>, id: u64, body: &[u8], control: Option<Blob>) {
    let pending = Pending { operator: operator.clone(), id };
    if operator.asking.fetch_add(1, Ordering::Relaxed) >= ASKING {
        return pending.answer(Err(Failure::new(Code::Busy, "too many requests at once")));
    }
    match admit(operator, body, control) {
        Ok(ask) => dispatch(hub, pending, ask),
        Err(failure) => {
            tracing::info!(operator = %operator.id.short(), code = %failure.code, reason = %failure.message, "refused a request");
            pending.answer(Err(failure));
        }
    }
}

/// A request that is owed an answer.
struct Pending {
    operator: Arc<OperatorSession>,
    id: u64,
}

impl Pending {
    fn answer(self, answered: Answered) {
        self.operator.asking.fetch_sub(1, Ordering::Relaxed);
        let (body, error) = match answered {
            Ok(answer) => (Some(Blob(answer.encode())), None),
            Err(failure) => (None, Some(Trouble::from(&failure))),
        };
        self.operator.session.send(&Frame::Reply { id: self.id, body: Maybe(body), error: Maybe(error) });
    }
}

/// Reads a request and checks that it may be meant.
fn admit(operator: &OperatorSession, body: &[u8], control: Option<Blob>) -> Result<Ask, Failure> {
    let ask = Ask::decode(body).map_err(|error| Failure::new(Code::BadParams, format!("the request is malformed: {error}")))?;
    if !ask.changes() {
        return Ok(ask);
    }
    let control =
        control.ok_or_else(|| Failure::new(Code::BadSignature, "a request that changes something must be signed over this link"))?;
    let control = Signed::<Control>::from_bytes(&control.0)?.verify(&operator.key)?;
    if control.transcript != operator.transcript || control.body != sha256(body) {
        return Err(Failure::new(Code::BadSignature, "the request was signed for another link, or is another one"));
    }
    if control.counter <= operator.counter.load(Ordering::Relaxed) {
        return Err(Failure::new(Code::Replayed, "the request's counter does not rise"));
    }
    operator.counter.store(control.counter, Ordering::Relaxed);
    Ok(ask)
}

fn dispatch(hub: &Arc<Hub>, pending: Pending, ask: Ask) {
    match ask {
        Ask::Nodes { lookup } => {
            store(hub, pending, move |hub, _, db| Ok(Answer::Nodes { nodes: registry::look_up(db, hub, &lookup, None)? }))
        }
        Ask::NodesAfter { lookup, after } => {
            store(hub, pending, move |hub, _, db| Ok(Answer::Nodes { nodes: registry::look_up(db, hub, &lookup, Some(&after))? }));
        }
        Ask::Description { digest } => store(hub, pending, move |_, _, db| description(db, &digest)),
        Ask::PutCertificate { certificate } => store(hub, pending, move |hub, _, db| put_certificate(hub, db, &certificate.0)),
        Ask::RemoveNode { node } => store(hub, pending, move |hub, operator, db| remove_node(hub, operator, db, &node)),
        Ask::PutNotice { kind, signed, chain } => store(hub, pending, move |hub, operator, db| {
            if hub.notice(db, &kind, &signed.0, &chain)? {
                tracing::info!(kind, operator = %operator.key.id().short(), "took a newer signed notice");
            }
            Ok(Answer::Done {})
        }),
        Ask::PutBlob { digest, offset, total, bytes } => put_blob(hub, pending, Part { digest, offset, total, bytes: bytes.0 }),
        quick => {
            let answered = answer_now(hub, &pending.operator, quick);
            pending.answer(answered);
        }
    }
}

/// Has a request answered on the store's thread.
fn store(hub: &Arc<Hub>, pending: Pending, job: impl FnOnce(&Hub, &OperatorSession, &mut Db) -> Answered + Send + 'static) {
    let (here, operator, id) = (hub.clone(), pending.operator.clone(), pending.id);
    let queued = hub.store.submit(move |db| {
        let answered = job(&here, &pending.operator, db);
        pending.answer(answered);
    });
    refuse_when_full(queued, operator, id);
}

fn refuse_when_full(queued: Result<(), Full>, operator: Arc<OperatorSession>, id: u64) {
    if let Err(full) = queued {
        Pending { operator, id }.answer(Err(Failure::new(Code::Busy, full.to_string())));
    }
}

fn description(db: &mut Db, digest: &Digest) -> Answered {
    match db.description(digest)? {
        Some(bytes) => Ok(Answer::Bytes { bytes: Blob(bytes) }),
        None => Err(Failure::new(Code::UnknownCommand, "the relay has no such description")
            .hint("the node sends it when it is connected; try again")),
    }
}

fn put_certificate(hub: &Hub, db: &mut Db, certificate: &[u8]) -> Answered {
    let (node, replaced) = registry::put(db, &hub.fleet, &hub.notices.known().revoked, certificate)?;
    tracing::info!(node = %node.node.id().short(), name = %node.name, serial = node.serial, "certificate taken");
    if let Some(replaced) = replaced {
        end_removed(hub, &replaced);
    }
    Ok(Answer::Done {})
}

fn remove_node(hub: &Hub, operator: &OperatorSession, db: &mut Db, node: &KeyId) -> Answered {
    registry::remove(db, &operator.authority, node)?;
    tracing::info!(node = %node.short(), operator = %operator.id.short(), "node removed");
    end_removed(hub, node);
    Ok(Answer::Done {})
}

fn end_removed(hub: &Hub, node: &KeyId) {
    if let Some(live) = hub.sessions.node(node) {
        live.session.end(Code::Revoked.as_str(), "this node was removed");
    }
}

fn put_blob(hub: &Arc<Hub>, pending: Pending, part: Part) {
    if !pending.operator.authority.rights().packs {
        return pending.answer(Err(lacks("packs")));
    }
    let (operator, id) = (pending.operator.clone(), pending.id);
    let queued = hub.blobs.submit(move |blobs| {
        let answered = blobs.put(&pending.operator.id, &part).map(|bytes| Answer::Stored { bytes });
        pending.answer(answered);
    });
    refuse_when_full(queued, operator, id);
}

fn lacks(right: &'static str) -> Failure {
    let value = if right == "enrol" { " '*'" } else { "" };
    Failure::new(Code::NotGranted, format!("this operator's grant lacks the right `{right}`"))
        .hint(format!("the owner gives the right with `relay operator grant KEY … --{right}{value}`"))
}

/// What needs no disk.
fn answer_now(hub: &Arc<Hub>, operator: &Arc<OperatorSession>, ask: Ask) -> Answered {
    if let Ask::Status {} = ask {
        let (nodes, operators) = hub.sessions.count();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        return Ok(Answer::Status {
            version,
            uptime_secs: hub.started.elapsed().as_secs(),
            nodes: nodes as u64,
            operators: operators as u64,
        });
    }
    if let Ask::DeploymentsAfter { after } = &ask {
        return Ok(Answer::Deployments { documents: hub.deployments.after(after) });
    }
    if operator.authority.rights().enrol.is_none() {
        return Err(lacks("enrol"));
    }
    match ask {
        Ask::PairNew { ttl_secs } => {
            let ttl = ttl(hub, ttl_secs)?;
            let (slot, expires_at) = hub.pairings.open(Maker::Operator(operator.clone()), ttl)?;
            Ok(Answer::Slot { slot, expires_at })
        }
        Ask::PairDetached { ttl_secs, name } => {
            let (code, expires_at) = super::pairings::open_detached(hub, ttl(hub, ttl_secs)?, name.0)?;
            Ok(Answer::Code { code, expires_at })
        }
        Ask::PairList {} => Ok(Answer::Pendings { pendings: hub.pairings.waiting() }),
        Ask::PairTake { request } => hub.pairings.take(operator, &request).map(|()| Answer::Done {}),
        Ask::PairReject { request } => hub.pairings.reject(&request).map(|()| Answer::Done {}),
        Ask::PairClose { slot } => hub.pairings.close(operator.session.number, slot).map(|()| Answer::Done {}),
        _ => Err(Failure::new(Code::Internal, "a request nobody answers")),
    }
}

fn ttl(hub: &Hub, secs: u64) -> Result<Duration, Failure> {
    match secs {
        0 => Ok(Duration::from_secs(hub.settings.code_ttl_secs)),
        secs if secs <= CODE_TTL_MAX_SECS => Ok(Duration::from_secs(secs)),
        secs => Err(Failure::new(Code::BadParams, format!("a code lives at most {CODE_TTL_MAX_SECS} s, not {secs}"))),
    }
}
