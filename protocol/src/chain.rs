//! Chains of grants: from the pinned fleet key over at most four grants to whoever acts. What a chain allows is what
//! every one of its links allows, so no link can widen the one before it.
//!
//! [`verify_chain`] proves signatures once and gives an [`Authority`], which may be cached under [`chain_digest`];
//! expiry and revocation are judged again on every use. The fleet key itself signs grants and lists, never calls.

mod certificate;
mod deployment;
mod refusal;
mod revoked;

pub use certificate::{check_node, verify_certificate, verify_kept_certificate, verify_relays, verify_successor};
pub use deployment::{Outdated, check_deployment, follows, verify_deployment};
pub use refusal::{ChainError, Refusal};
pub use revoked::{RevocationError, RevokedSet, SERIAL_STEP, verify_revocations};

use crate::cbor::Blob;
use crate::keys::{Digest, Hasher, PublicKey};
use crate::limits;
use crate::objects::{
    ClaimsError, Enrol, Evidence, Grant, HolderKind, NodeLabels, Rights, check_command_pattern, check_label_pattern, check_name_pattern,
    check_selector, command_matches, label_matches, name_matches,
};
use crate::signed::{Signed, Verified};
use crate::time::{Reading, Time};
use std::collections::BTreeMap;

/// Seconds a grant to a relay-held key may last: a relay is the likeliest machine to be taken.
pub const RELAY_HELD_SECS: u64 = 30 * 24 * 3600;

/// What a command asks of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    /// `node.ping`, `node.status`: any chain that names the node.
    Probe,
    /// A command of a pack: a pattern.
    Pack,
    /// A right, and a signature: it changes something.
    Right(Right),
}

/// A right that commands of the agent itself ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    Packs,
    Policy,
}

impl Right {
    fn word(self) -> &'static str {
        match self {
            Right::Packs => "packs",
            Right::Policy => "policy",
        }
    }

    fn given_by(self, rights: &Rights) -> bool {
        match self {
            Right::Packs => rights.packs,
            Right::Policy => rights.policy,
        }
    }
}

/// Commands of the agent itself are never a matter of patterns: `*` on a grant from before they existed must not mean them.
fn demand(command: &str) -> Demand {
    match command.split_once('.') {
        _ if command == "node.ping" || command == "node.status" => Demand::Probe,
        Some(("node", _)) => Demand::Right(Right::Policy),
        Some(("pack", _)) => Demand::Right(Right::Packs),
        _ => Demand::Pack,
    }
}

/// What a proven chain allows its last holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    links: Vec<Verified<Grant>>,
    digest: Digest,
}

/// The digest under which a verified chain is cached.
#[must_use]
pub fn chain_digest(chain: &[Blob]) -> Digest {
    let mut hasher = Hasher::new();
    for grant in chain {
        hasher.update(&(grant.0.len() as u64).to_be_bytes());
        hasher.update(&grant.0);
    }
    hasher.finish()
}

/// Proves a chain under the pinned fleet key, fleet's own grant first, and that it stands now.
pub fn verify_chain(fleet: &PublicKey, chain: &[Blob], clock: Reading, revoked: &RevokedSet) -> Result<Authority, ChainError> {
    match chain.len() {
        0 => return Err(ChainError::Empty),
        links if links > limits::CHAIN => return Err(ChainError::TooLong(links)),
        _ => {}
    }
    let mut links: Vec<Verified<Grant>> = Vec::with_capacity(chain.len());
    for (at, bytes) in chain.iter().enumerate() {
        let link = at + 1;
        let signer = match links.last() {
            None => fleet,
            Some(before) if before.delegate => &before.holder,
            Some(_) => return Err(ChainError::NotDelegated { link }),
        };
        let grant = Signed::<Grant>::from_bytes(&bytes.0)
            .and_then(|grant| grant.verify(signer))
            .map_err(|source| ChainError::Link { link, source })?;
        if grant.aud != fleet.id() {
            return Err(ChainError::Fleet { link, found: grant.aud });
        }
        check_grant(&grant, fleet).map_err(|what| ChainError::Claim { link, what })?;
        links.push(grant);
    }
    let authority = Authority { links, digest: chain_digest(chain) };
    authority.stands(clock, revoked)?;
    Ok(authority)
}

/// What no grant may say. Its maker calls this too, before signing.
pub fn check_grant(grant: &Grant, fleet: &PublicKey) -> Result<(), String> {
    if grant.holder == *fleet {
        return Err("is held by the fleet key, which signs no calls".to_owned());
    }
    if grant.exp <= grant.iat {
        return Err("ends before it begins".to_owned());
    }
    if grant.holder_kind == Some(HolderKind::Relay) && grant.exp.since(grant.iat) > RELAY_HELD_SECS {
        return Err("is held by a relay and lasts longer than 30 days".to_owned());
    }
    let mut checks: Vec<Result<(), ClaimsError>> = grant.commands.iter().map(|pattern| check_command_pattern(pattern)).collect();
    checks.extend(grant.nodes.iter().map(|term| check_selector(term)));
    if let Some(enrol) = &grant.rights.enrol {
        checks.extend(enrol.names.iter().map(|pattern| check_name_pattern(pattern)));
        checks.extend(enrol.labels.iter().map(|pattern| check_label_pattern(pattern)));
    }
    checks.into_iter().collect::<Result<(), _>>().map_err(|error| format!("is malformed: {error}"))
}

impl Authority {
    /// Who may act.
    #[must_use]
    pub fn holder(&self) -> &PublicKey {
        &self.last().holder
    }

    /// What kind of holder.
    #[must_use]
    pub fn holder_kind(&self) -> Option<HolderKind> {
        self.last().holder_kind
    }

    /// The grants, fleet key's own first.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.links.iter().map(|link| &**link)
    }

    /// The grants' ids, to revoke them by.
    pub fn ctis(&self) -> impl Iterator<Item = [u8; 16]> {
        self.grants().map(|grant| grant.cti)
    }

    /// The digest of the chain it comes from.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// When the first of its grants ends.
    #[must_use]
    pub fn expires(&self) -> Time {
        self.grants().map(|grant| grant.exp).min().unwrap_or(Time(0))
    }

    /// When the fleet key last spoke in it: a time to raise a [`crate::time::Clock`]'s floor to.
    #[must_use]
    pub fn fleet_signed_at(&self) -> Time {
        self.grants().next().map_or(Time(0), |grant| grant.iat)
    }

    /// The rights all links give; patterns of enrolment are the last link's, see [`Authority::may_enrol`] for the truth.
    #[must_use]
    pub fn rights(&self) -> Rights {
        let all = |right: fn(&Rights) -> bool| self.grants().all(|grant| right(&grant.rights));
        Rights {
            enrol: if all(|rights| rights.enrol.is_some()) { self.last().rights.enrol.clone() } else { None },
            packs: all(|rights| rights.packs),
            policy: all(|rights| rights.policy),
            revoke: all(|rights| rights.revoke),
        }
    }

    /// Whether the chain still stands: in time and unrevoked, link by link.
    pub fn stands(&self, clock: Reading, revoked: &RevokedSet) -> Result<(), Refusal> {
        for (link, grant) in self.numbered() {
            let what = || refusal::grant(link);
            if revoked.has_grant(&grant.cti) {
                return Err(Refusal::Revoked { what: what() });
            }
            let holder = grant.holder.id();
            if revoked.has_key(&holder) {
                return Err(Refusal::Revoked { what: format!("key {}", holder.short()) });
            }
            in_time(what, grant.iat, grant.exp, clock)?;
        }
        Ok(())
    }

    /// Whether the holder may call this on this node now, shown this way. The last word before policy.
    pub fn allows_call(
        &self,
        command: &str,
        evidence: Evidence,
        node: &NodeLabels,
        clock: Reading,
        revoked: &RevokedSet,
    ) -> Result<(), Refusal> {
        self.stands(clock, revoked)?;
        let demand = demand(command);
        match revoked.next() {
            Some(next) if next < clock.now && demand != Demand::Probe => return Err(Refusal::Overdue { next }),
            _ => {}
        }
        for (link, grant) in self.numbered() {
            if !node.selected_by(&grant.nodes) {
                return Err(Refusal::Node { link, node: node.name.clone() });
            }
            match demand {
                Demand::Probe => {}
                Demand::Pack if grant.commands.iter().any(|pattern| command_matches(pattern, command)) => {}
                Demand::Pack => return Err(Refusal::Command { link, command: command.to_owned() }),
                Demand::Right(right) if right.given_by(&grant.rights) => {}
                Demand::Right(right) => return Err(Refusal::Right { link, right: right.word() }),
            }
            if evidence == Evidence::Channel && !grant.evidence_channel {
                return Err(Refusal::Evidence { command: command.to_owned(), why: format!("{} asks for it", refusal::grant(link)) });
            }
        }
        match demand {
            Demand::Right(_) if evidence == Evidence::Channel => {
                Err(Refusal::Evidence { command: command.to_owned(), why: "it changes something".to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Whether the holder may certify a node of this name with these labels.
    pub fn may_enrol(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
        for (link, grant) in self.numbered() {
            let Enrol { names, labels: patterns } = grant.rights.enrol.as_ref().ok_or(Refusal::Right { link, right: "enrol" })?;
            if !names.iter().any(|pattern| name_matches(pattern, name)) {
                return Err(Refusal::Enrol { link, what: format!("a node named `{name}`") });
            }
            let covered = |label: &str, value: &str| patterns.iter().any(|pattern| label_matches(pattern, label, value));
            if let Some((label, value)) = labels.iter().find(|(label, value)| !covered(label, value)) {
                return Err(Refusal::Enrol { link, what: format!("a node labelled `{label}={value}`") });
            }
        }
        Ok(())
    }

    /// Whether the holder may revoke.
    pub fn may_revoke(&self) -> Result<(), Refusal> {
        match self.numbered().find(|(_, grant)| !grant.rights.revoke) {
            Some((link, _)) => Err(Refusal::Right { link, right: "revoke" }),
            None => Ok(()),
        }
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &Grant)> {
        self.grants().enumerate().map(|(at, grant)| (at + 1, grant))
    }

    fn last(&self) -> &Grant {
        self.links.last().expect("verify_chain refuses an empty chain")
    }
}

fn in_time(what: impl Fn() -> String, iat: Time, exp: Time, clock: Reading) -> Result<(), Refusal> {
    if clock.now >= exp {
        return Err(Refusal::Expired { what: what(), at: exp });
    }
    if !clock.allows(iat) {
        return Err(Refusal::NotYet { what: what(), at: iat });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
