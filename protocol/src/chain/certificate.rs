//! What chains are for besides calls: node certificates, and the list of relays that only the fleet key signs.

use super::{Authority, ChainError, Refusal, RevokedSet, in_time, verify_chain};
use crate::keys::PublicKey;
use crate::objects::{Certificate, Node, Relays, valid_label_value, valid_name};
use crate::signed::{Signed, Verified};
use crate::time::Reading;

/// Proves a certificate that is new here: a chain that stands now, whose holder may enrol this name and these labels.
pub fn verify_certificate(
    fleet: &PublicKey,
    certificate: &Certificate,
    clock: Reading,
    revoked: &RevokedSet,
) -> Result<Verified<Node>, ChainError> {
    prove(fleet, certificate, clock, clock, revoked).map(|(node, _)| node)
}

/// Proves a certificate again that was accepted here at a time noted then. Its chain had to stand at that time, itself
/// and its key now: a node outlives the grant of who enrolled it (30 days where a relay did), and a signer whose grant
/// ended cannot pass for one of then, because the time is the keeper's note, not the object's word.
pub fn verify_kept_certificate(
    fleet: &PublicKey,
    certificate: &Certificate,
    accepted: Reading,
    clock: Reading,
    revoked: &RevokedSet,
) -> Result<Verified<Node>, ChainError> {
    prove(fleet, certificate, accepted, clock, revoked).map(|(node, _)| node)
}

/// Proves a certificate that follows a known one: another of the same key, or one that takes its name over.
/// The signer must be allowed to enrol the old name and labels too, or an enroller of kiosks could relabel a server.
pub fn verify_successor(
    fleet: &PublicKey,
    known: &Node,
    certificate: &Certificate,
    clock: Reading,
    revoked: &RevokedSet,
) -> Result<Verified<Node>, ChainError> {
    let (node, authority) = prove(fleet, certificate, clock, clock, revoked)?;
    let refused = |what: String| Err(ChainError::Content { kind: "node", what });
    if node.node == known.node {
        if node.serial <= known.serial {
            return refused(format!("has serial {}, {} is known", node.serial, known.serial));
        }
    } else if node.replaces != Some(known.node.id()) || node.name != known.name {
        return refused(format!("is for another key than `{}` and does not replace it", known.name));
    }
    authority.may_enrol(&known.name, &known.labels)?;
    Ok(node)
}

fn prove(
    fleet: &PublicKey,
    certificate: &Certificate,
    accepted: Reading,
    clock: Reading,
    revoked: &RevokedSet,
) -> Result<(Verified<Node>, Authority), ChainError> {
    let authority = verify_chain(fleet, &certificate.chain, accepted, revoked)?;
    let node = Signed::<Node>::from_bytes(&certificate.node.0)?.verify(authority.holder())?;
    check_node(&node, fleet).map_err(|what| ChainError::Content { kind: "node", what })?;
    authority.may_enrol(&node.name, &node.labels)?;
    let id = node.node.id();
    if revoked.has_key(&id) {
        return Err(Refusal::Revoked { what: format!("node {}", id.short()) }.into());
    }
    in_time(|| format!("the certificate of `{}`", node.name), node.iat, node.exp, clock)?;
    Ok((node, authority))
}

/// What no certificate may say. Its maker calls this too, before signing.
pub fn check_node(node: &Node, fleet: &PublicKey) -> Result<(), String> {
    if node.aud != fleet.id() {
        return Err(format!("is for fleet {:?}", node.aud));
    }
    if node.node == *fleet || node.node.id() == node.iss {
        return Err("certifies a key that has another role".to_owned());
    }
    if node.exp <= node.iat {
        return Err("ends before it begins".to_owned());
    }
    if !valid_name(&node.name) {
        return Err(format!("gives the name {:?}", node.name));
    }
    match node.labels.iter().find(|(label, value)| !valid_name(label) || !valid_label_value(value)) {
        Some((label, value)) => Err(format!("gives the label {label:?} = {value:?}")),
        None => Ok(()),
    }
}

/// Proves the list of relays.
pub fn verify_relays(fleet: &PublicKey, list: &[u8], clock: Reading) -> Result<Verified<Relays>, ChainError> {
    let relays = Signed::<Relays>::from_bytes(list)?.verify(fleet)?;
    if relays.aud != fleet.id() {
        return Err(ChainError::Content { kind: "relays", what: format!("is for fleet {:?}", relays.aud) });
    }
    if !clock.allows(relays.iat) {
        return Err(Refusal::NotYet { what: "the list of relays".to_owned(), at: relays.iat }.into());
    }
    Ok(relays)
}
