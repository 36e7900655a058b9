//! Deployments: who may sign one, what none may say, and how a newer one takes the place of an older.

use super::{Authority, ChainError, Refusal, RevokedSet, Right, SERIAL_STEP, verify_chain};
use crate::cbor::Blob;
use crate::error::{Code, Failure};
use crate::keys::{Digest, PublicKey};
use crate::limits;
use crate::objects::{Deployment, DeploymentDocument, Publication, Release, Rotation, check_selector, valid_name};
use crate::signed::{Signed, Verified};
use crate::text::escape_control;
use crate::time::Reading;

/// Why a deployment does not take the place of the one known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Outdated {
    /// Older than what is known.
    #[error("deployment {found} of `{name}` is older than {known}, which is known")]
    Older {
        /// the pack
        name: String,
        /// its serial
        found: u64,
        /// the known one
        known: u64,
    },
    /// Two documents of one serial: two operators wrote at once, or somebody signs two truths.
    #[error("two different deployments of `{name}` have serial {serial}")]
    Conflict {
        /// the pack
        name: String,
        /// of both
        serial: u64,
    },
    /// Rises too far. Without this one stolen key could use the last serial there is up, and none would ever follow.
    #[error("deployment {found} of `{name}` skips too many serials after {known}")]
    Skips {
        /// the pack
        name: String,
        /// its serial
        found: u64,
        /// the known one
        known: u64,
    },
}

impl From<Outdated> for Failure {
    fn from(error: Outdated) -> Self {
        let code = if matches!(error, Outdated::Older { .. }) { Code::Replayed } else { Code::BadSignature };
        Failure::new(code, error.to_string())
    }
}

/// Proves a document: a chain that stands now, whose holder may ship packs and signed it. Whether each node takes it from
/// this holder is judged there, by [`Authority::allows_call`] of `pack.install`.
pub fn verify_deployment(
    fleet: &PublicKey,
    document: &DeploymentDocument,
    clock: Reading,
    revoked: &RevokedSet,
) -> Result<(Verified<Deployment>, Authority), ChainError> {
    let authority = verify_chain(fleet, &document.chain, clock, revoked)?;
    authority.may_deploy()?;
    let said = Signed::<Deployment>::from_bytes(&document.document.0)?.verify(authority.holder())?;
    check_deployment(&said, fleet).map_err(|what| ChainError::Content { kind: "deployment", what })?;
    if !clock.allows(said.iat) {
        return Err(Refusal::NotYet { what: format!("the deployment of `{}`", said.name), at: said.iat }.into());
    }
    Ok((said, authority))
}

/// What no deployment may say. Its maker calls this too, before signing.
pub fn check_deployment(said: &Deployment, fleet: &PublicKey) -> Result<(), String> {
    if said.aud != fleet.id() {
        return Err(format!("is for fleet {:?}", said.aud));
    }
    if !valid_name(&said.name) {
        return Err(format!("names the pack {:?}", said.name));
    }
    if said.serial == 0 {
        return Err("has serial 0; the first is 1".to_owned());
    }
    if said.targets.is_empty() || said.targets.len() > limits::TARGETS {
        return Err(format!("has {} targets, 1 to {} are allowed", said.targets.len(), limits::TARGETS));
    }
    for target in &said.targets {
        if target.nodes.is_empty() {
            return Err("has a target that selects no nodes".to_owned());
        }
        target.nodes.iter().try_for_each(|term| check_selector(term)).map_err(|error| format!("is malformed: {error}"))?;
        [&target.release, &target.before].into_iter().flatten().try_for_each(|release| check_release(&said.name, release))?;
    }
    Ok(())
}

/// The publisher's word is in there as it came; here only whether it is about what stands beside it. Whether it holds
/// is each node's to say, by its own trust.
fn check_release(name: &str, release: &Release) -> Result<(), String> {
    let version = escape_control(&release.version);
    let publication = Signed::<Publication>::from_bytes(&release.signature.0)
        .map_err(|error| format!("has no signature for version {version}: {error}"))?;
    let signed = publication.unverified();
    if (signed.name.as_str(), &signed.version, signed.component) != (name, &release.version, release.component) {
        return Err(format!("names {name} {version}, its publisher signed another pack or version"));
    }
    if release.rotations.len() > limits::PUBLISHERS {
        return Err(format!("has more than {} rotations", limits::PUBLISHERS));
    }
    let rotation = |bytes: &Blob| Rotation::decode(&bytes.0).map(drop).map_err(|error| format!("has a malformed rotation: {error}"));
    release.rotations.iter().try_for_each(rotation)
}

/// Whether a proven document takes the place of the one known, by serial and digest. False when it is the same one.
pub fn follows(known: Option<(u64, Digest)>, next: &Verified<Deployment>) -> Result<bool, Outdated> {
    let (name, found, digest) = (next.name.clone(), next.serial, next.digest());
    let (serial, same) = known.map_or((0, false), |(serial, known)| (serial, known == digest));
    match found {
        _ if found == serial && same => Ok(false),
        _ if found == serial => Err(Outdated::Conflict { name, serial }),
        _ if found < serial => Err(Outdated::Older { name, found, known: serial }),
        _ if found - serial > SERIAL_STEP => Err(Outdated::Skips { name, found, known: serial }),
        _ => Ok(true),
    }
}

impl Authority {
    /// Whether the holder may ship packs at all; to which nodes, [`Authority::allows_call`] says.
    pub fn may_deploy(&self) -> Result<(), Refusal> {
        match self.numbered().find(|(_, grant)| !grant.rights.packs) {
            Some((link, _)) => Err(Refusal::Right { link, right: Right::Packs.word() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
