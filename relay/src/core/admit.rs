//! Who may come in. A peer has proven its key already; here its credential is judged under the fleet key. Peers that are
//! refused hear a code and one fixed sentence for it, whatever exactly was wrong; the log has the rest.

use outhaul_protocol::chain::{Authority, verify_chain};
use outhaul_protocol::credential::Chain;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::handshake::Proven;
use outhaul_protocol::keys::KeyId;

use super::clock;
use super::hub::Hub;
use super::registry::{self, Judged};

/// Lets a node in whose certificate stands, and notes that it is here.
pub(crate) async fn node(hub: &std::sync::Arc<Hub>, proven: &Proven) -> Result<KeyId, Failure> {
    let id = proven.key.id();
    let revoked = hub.notices.known().revoked;
    if revoked.has_key(&id) {
        return Err(Failure::new(Code::Revoked, "the key is revoked"));
    }
    let (fleet, key, shown) = (hub.fleet, proven.key, proven.credential.0.clone());
    hub.store
        .ask(move |db| -> Result<(), Failure> {
            let (kept, removed, clock) = (db.node(&id)?, db.removed(&id)?, clock::reading());
            if let Judged::New(node) = registry::judge(&fleet, &revoked, &key, &shown, kept.as_ref(), removed, clock)? {
                db.put_node(&id, &node.name, &shown, clock.now)?;
                tracing::info!(node = %id.short(), name = %node.name, serial = node.serial, "certificate taken");
            }
            Ok(db.connected(&id, clock.now)?)
        })
        .await??;
    Ok(id)
}

/// Lets an operator in whose grants stand and end at its own key.
pub(crate) fn operator(hub: &Hub, proven: &Proven) -> Result<Authority, Failure> {
    let malformed = |error| Failure::new(Code::NotGranted, format!("the chain is malformed: {error}"));
    let chain = Chain::decode(&proven.credential.0).map_err(malformed)?;
    let authority = verify_chain(&hub.fleet, &chain.grants, clock::reading(), &hub.notices.known().revoked)?;
    match *authority.holder() == proven.key {
        true => Ok(authority),
        false => Err(Failure::new(Code::NotGranted, format!("the chain ends at key {:?}", authority.holder().id()))),
    }
}

/// What a refused peer is told.
pub(crate) fn public(failure: &Failure, node: bool) -> Failure {
    let (code, sentence) = match failure.code {
        Code::Revoked => (Code::Revoked, if node { "this machine's key is revoked" } else { "this operator's key or grant is revoked" }),
        Code::Expired => (Code::Expired, "a certificate or grant is past its time, or a clock is wrong"),
        Code::Busy => (Code::Busy, "the relay is busy; try again later"),
        Code::Internal => (Code::Internal, "the relay has a problem; its log says which"),
        _ if node => (Code::NotPaired, "this machine is not paired with the fleet of this relay"),
        _ => (Code::NotGranted, "this operator has no grant that this relay accepts"),
    };
    Failure::new(code, sentence)
}
