//! Deployments from the operator's side: the newest document of each pack that is known here, the next one's serial and
//! targets, and its signature. A serial comes from this home's book and from what nodes state; the relay's word alone,
//! which may be a restored backup's, never lowers it.
//!
//! ```text
//! deployments/NAME     highest serial that was used or seen, and the newest document that was published or taken
//! pushed/DIGEST.cose   signatures of components that were pushed from here: what NAME@VERSION stands for
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outhaul_home::{PRIVATE, read_optional, write_atomic};
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::{SERIAL_STEP, check_deployment, verify_deployment};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Answer, Ask};
use outhaul_protocol::keys::Digest;
use outhaul_protocol::limits;
use outhaul_protocol::objects::{Deployment, DeploymentDocument, Publication, Release, Target, valid_name};
use outhaul_protocol::pack::compare_versions;
use outhaul_protocol::signed::Signed;
use outhaul_protocol::time::{Reading, Time};
use serde::{Deserialize, Serialize};

use super::enrol::Enroller;
use super::room::{Fleet, Room, now};
use super::session::{Session, unexpected};

/// The kind, as notices name it.
const DEPLOYMENT: &str = "deployment";

/// A document that was verified.
#[derive(Debug, Clone)]
pub struct Order {
    /// what it says
    pub said: Deployment,
    /// of the signed document
    pub digest: Digest,
    /// as it is handed on
    pub document: DeploymentDocument,
}

/// What is known of one pack's deployments.
#[derive(Debug, Clone, Default)]
pub struct Newest {
    /// the newest document, if there is one to build on
    pub order: Option<Order>,
    /// the highest serial that is known
    pub serial: u64,
    /// why a newer document of the relay's is not built on
    pub passed_over: Option<Failure>,
}

/// A file of the book.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    serial: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document: Option<String>,
}

impl Order {
    /// Verifies a document as of a time.
    pub fn read(fleet: &Fleet, document: DeploymentDocument, at: Time) -> Result<Order, Failure> {
        let (said, _) = verify_deployment(&fleet.key, &document, Reading::sure(at), &fleet.revoked)?;
        Ok(Order { digest: said.digest(), said: said.into_content(), document })
    }
}

impl Room {
    fn kept_deployment(&self, name: &str) -> Result<Kept, Failure> {
        let path = self.path(format!("deployments/{name}"));
        let Some(bytes) = read_optional(&path)? else { return Ok(Kept::default()) };
        serde_json::from_slice(&bytes).map_err(|error| Failure::new(Code::BadConfig, format!("read `{}`: {error}", path.display())))
    }

    fn keep_deployment(&self, name: &str, kept: &Kept) -> Result<(), Failure> {
        self.create("deployments")?;
        let text = serde_json::to_vec(kept).map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        write_atomic(&self.path(format!("deployments/{name}")), &text, PRIVATE)
    }

    /// What this home's book knows of a pack's deployments. A document whose signer was revoked since is left out.
    pub fn known_deployment(&self, fleet: &Fleet, name: &str) -> Result<Newest, Failure> {
        let kept = self.kept_deployment(name)?;
        let mut newest = Newest { serial: kept.serial, ..Newest::default() };
        let Some(text) = kept.document else { return Ok(newest) };
        let bad = |what: &dyn std::fmt::Display| {
            let path = self.path(format!("deployments/{name}"));
            Failure::new(Code::BadConfig, format!("read `{}`: {what}", path.display()))
        };
        let bytes = STANDARD.decode(text).map_err(|error| bad(&error))?;
        let document = DeploymentDocument::decode(&bytes).map_err(|error| bad(&error))?;
        match Order::read(fleet, document, Time(kept.accepted.unwrap_or(0))) {
            Ok(order) => newest.order = Some(order),
            Err(failure) => newest.passed_over = Some(failure),
        }
        Ok(newest)
    }

    /// The packs whose deployments the book knows.
    pub fn deployed_names(&self) -> Vec<String> {
        let listed = std::fs::read_dir(self.path("deployments")).into_iter().flatten().flatten();
        listed.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| valid_name(name)).collect()
    }

    /// A serial is used up, before anybody sees what it is used for.
    fn use_serial(&self, name: &str, serial: u64) -> Result<(), Failure> {
        let kept = self.kept_deployment(name)?;
        self.keep_deployment(name, &Kept { serial: serial.max(kept.serial), ..kept })
    }

    /// Keeps a document that was published or taken from the relay.
    pub fn note_deployment(&self, order: &Order) -> Result<(), Failure> {
        let name = &order.said.name;
        let serial = self.kept_deployment(name)?.serial.max(order.said.serial);
        let (accepted, document) = (Some(now().0), Some(STANDARD.encode(order.document.encode())));
        self.keep_deployment(name, &Kept { serial, accepted, document })
    }

    /// Remembers a component that the relay was given, by its publisher's signature.
    pub fn note_pushed(&self, component: Digest, signature: &[u8]) -> Result<(), Failure> {
        self.create("pushed")?;
        write_atomic(&self.path(format!("pushed/{component}.cose")), signature, PRIVATE)
    }

    /// What was pushed from here. A file that is damaged is left out: pushing again mends it.
    pub fn pushed(&self) -> Vec<(Publication, Vec<u8>)> {
        let listed = std::fs::read_dir(self.path("pushed")).into_iter().flatten().flatten();
        let read = |path: std::path::PathBuf| {
            let bytes = std::fs::read(path).ok()?;
            let signed = Signed::<Publication>::from_bytes(&bytes).ok()?;
            Some((signed.unverified().clone(), bytes))
        };
        listed.filter_map(|entry| read(entry.path())).collect()
    }
}

/// All documents the relay has, unverified.
pub async fn documents(session: &Session) -> Result<Vec<(String, DeploymentDocument)>, Failure> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let Answer::Deployments { documents } = session.link.ask(Ask::DeploymentsAfter { after: after.clone() }).await? else {
            return Err(unexpected("deployments"));
        };
        let named = documents.into_iter().filter_map(|document| {
            let said = Signed::<Deployment>::from_bytes(&document.document.0).ok()?;
            Some((said.unverified().name.clone(), document)).filter(|(name, _)| valid_name(name))
        });
        let page: Vec<_> = named.collect();
        // Names that do not rise would be a relay that leads in circles.
        match page.last().filter(|(name, _)| *name > after && all.len() < limits::DEPLOYMENTS) {
            Some((name, _)) => after.clone_from(name),
            None => return Ok(all),
        }
        all.extend(page);
    }
}

/// The newest of what the book and the relay know of a pack. Only what stands now is built on, or the book's own: a
/// document that an operator signs anew must not carry on what somebody wrote who no longer may.
pub fn newest(room: &Room, fleet: &Fleet, name: &str, from_relay: Option<&DeploymentDocument>) -> Result<Newest, Failure> {
    let mut newest = room.known_deployment(fleet, name)?;
    let Some(document) = from_relay else { return Ok(newest) };
    let claimed = Signed::<Deployment>::from_bytes(&document.document.0)?.unverified().serial;
    if claimed <= newest.serial && newest.order.as_ref().is_some_and(|order| order.said.serial >= claimed) {
        return Ok(newest);
    }
    match Order::read(fleet, document.clone(), now()) {
        Ok(order) => {
            room.note_deployment(&order)?;
            newest.serial = newest.serial.max(order.said.serial);
            (newest.order, newest.passed_over) = (Some(order), None);
        }
        Err(failure) => {
            // It is no more than a claim; nodes may know it from when it stood.
            newest.serial = newest.serial.max(claimed.min(newest.serial.saturating_add(SERIAL_STEP - 1)));
            newest.passed_over = Some(failure);
        }
    }
    Ok(newest)
}

/// Signs the next document of a pack.
pub fn sign(by: &Enroller, name: &str, known: &Newest, targets: Vec<Target>) -> Result<Order, Failure> {
    let said = Deployment {
        iss: by.key.id(),
        aud: by.fleet.key.id(),
        iat: now(),
        name: name.to_owned(),
        serial: known.serial + 1,
        previous: known.order.as_ref().map(|order| order.digest),
        targets,
    };
    check_deployment(&said, &by.fleet.key).map_err(|what| {
        Failure::new(Code::BadUsage, format!("the deployment of `{name}` {what}")).hint("fewer targets: --to all replaces all others")
    })?;
    by.fleet.authority(&by.chain)?.may_deploy()?;
    let signed = Signed::sign(&by.key, &said);
    if signed.bytes().len() > limits::SIGNED {
        let text = format!("the deployment of `{name}` has {} bytes, at most {} are taken", signed.bytes().len(), limits::SIGNED);
        return Err(Failure::new(Code::TooLarge, text).hint("name nodes by a label instead of one by one"));
    }
    let digest = signed.digest();
    let document = DeploymentDocument { document: Blob(signed.into_bytes()), chain: by.chain.clone() };
    Ok(Order { said, digest, document })
}

/// Hands a document to the relay, which hands it to the nodes.
pub async fn publish(session: &Session, order: &Order) -> Result<(), Failure> {
    let (room, document) = (&session.dialer.room, &order.document);
    room.use_serial(&order.said.name, order.said.serial)?;
    let (signed, chain) = (document.document.clone(), document.chain.clone());
    session.tell(Ask::PutNotice { kind: DEPLOYMENT.to_owned(), signed, chain }).await.map_err(|failure| match failure.code {
        Code::Replayed | Code::BadSignature => {
            failure.hint("another operator deployed meanwhile: look at `relay pack status`, and run it again")
        }
        _ => failure,
    })?;
    room.note_deployment(order)
}

/// Whether two selectors are the same, in whatever order.
fn same(one: &[String], other: &[String]) -> bool {
    one.iter().all(|term| other.contains(term)) && other.iter().all(|term| one.contains(term))
}

/// The targets after some nodes are to have something else. It comes first; what it leaves nobody for goes: targets of the
/// same nodes, of nodes that `covered` says are all among them, all others where everybody is meant.
#[must_use]
pub fn placed(before: &[Target], nodes: &[String], release: Option<Release>, covered: impl Fn(&str) -> bool) -> Vec<Target> {
    let old = before.iter().find(|target| same(&target.nodes, nodes));
    let was = match old {
        Some(old) if old.release == release => old.before.clone(),
        Some(old) => old.release.clone(),
        None => None,
    };
    let everybody = nodes.iter().any(|term| term == "*");
    let gone = |target: &Target| everybody || same(&target.nodes, nodes) || target.nodes.iter().all(|term| covered(term));
    let first = Target { nodes: nodes.to_vec(), release, before: was };
    std::iter::once(first).chain(before.iter().filter(|target| !gone(target)).cloned()).collect()
}

/// A version by its name among all that is known: pushed from here, or in a document. Signatures are the nodes' to judge.
#[must_use]
pub fn find_release(pushed: &[(Publication, Vec<u8>)], orders: &[Order], name: &str, version: &str) -> Vec<Release> {
    let fits = |found: &str| compare_versions(found, version).is_eq();
    let mut found: Vec<Release> = Vec::new();
    let mut put = |release: Release| {
        if !found.iter().any(|known| known.component == release.component) {
            found.push(release);
        }
    };
    for (said, bytes) in pushed.iter().filter(|(said, _)| said.name == name && fits(&said.version)) {
        let (version, component, signature) = (said.version.clone(), said.component, Blob(bytes.clone()));
        put(Release { version, component, signature, rotations: Vec::new(), downgrade: false });
    }
    let targets = orders.iter().filter(|order| order.said.name == name).flat_map(|order| &order.said.targets);
    for release in targets.flat_map(|target| [&target.release, &target.before]).flatten().filter(|release| fits(&release.version)) {
        put(release.clone());
    }
    found
}

#[cfg(test)]
mod tests;
