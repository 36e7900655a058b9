//! Whose packs this machine takes: the publishers that its fleet's operators gave it (at pairing, or by a signed call
//! later; [`crate::pins`] keeps them) and those its owner wrote into `agent.toml`, less whom the owner refuses there.
//! The owner has the last word; a revocation by the fleet stands above both.

mod remote;
mod shown;

use std::sync::Arc;

use outhaul_home::Home;
use outhaul_protocol::error::Failure;
use outhaul_protocol::keys::KeyId;
use outhaul_protocol::publisher::{Publisher, Publishers, Trust, Vouched};

pub(crate) use remote::answer;
pub use shown::{Trusted, remove, trust};

use crate::config::AgentConfig;
use crate::pins::{self, Membership};

/// Whose a version is: what its grants may belong to, beside its digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It came with this agent: its name is its own.
    Embedded,
    /// A publisher's, known by any of its keys.
    Publisher(Arc<[KeyId]>),
    /// Nobody's: only its digest tells it from others.
    Nobody,
}

impl Origin {
    /// A publisher's.
    #[must_use]
    pub fn of(publisher: &Publisher) -> Self {
        Origin::Publisher(publisher.ids().collect())
    }

    /// What a signature that stands says of it.
    #[must_use]
    pub fn vouched(vouched: &Vouched) -> Self {
        Origin::of(vouched.publisher())
    }

    /// Whether one of its publisher's keys is this one.
    #[must_use]
    pub fn is_by(&self, key: &KeyId) -> bool {
        matches!(self, Origin::Publisher(keys) if keys.contains(key))
    }
}

/// Whom this machine trusts, by what it knows of its fleet and by its owner's word.
#[must_use]
pub fn trust_of(membership: Option<&Membership>, config: &AgentConfig) -> Trust {
    let mut publishers = membership.map(Membership::publishers).unwrap_or_default();
    for (name, key) in &config.publishers.trust {
        publishers.trust(key.0, Some(name.clone()));
    }
    if let Some(membership) = membership {
        follow(&mut publishers, membership);
    }
    let refused = config.publishers.refuse.values().map(|key| key.0.id()).collect();
    Trust { publishers, refused, revoked: membership.map(|membership| membership.revoked().clone()).unwrap_or_default() }
}

/// Rotations that were accepted once also lead on from keys that the owner trusts.
fn follow(publishers: &mut Publishers, membership: &Membership) {
    for rotation in membership.rotations() {
        // What leads on from nobody here, or anew from somebody trusted since, is let be: it widens nothing.
        let _ = publishers.follow(rotation);
    }
}

/// The same for commands that run beside the agent.
pub fn read(home: &Home) -> Result<Trust, Failure> {
    let config = AgentConfig::load(home)?;
    let membership = pins::current_fleet(home)?.map(|_| Membership::load(home)).transpose()?;
    Ok(trust_of(membership.as_ref(), &config))
}

#[cfg(test)]
mod tests;
