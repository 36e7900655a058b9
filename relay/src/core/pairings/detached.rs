//! Codes that the relay keeps itself: `relay pair new --detach`. Here the relay is the code's maker, with the enrolling
//! key and grant of a one-machine set-up. It certifies a node before the welcome leaves, so that the registry never
//! lacks one that believes to be paired. Codes are in memory only; a restart ends them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::check_node;
use outhaul_protocol::describe::fact;
use outhaul_protocol::error::{self, Failure};
use outhaul_protocol::frame::{Facts, Frame};
use outhaul_protocol::limits;
use outhaul_protocol::objects::{Certificate, Node, valid_name};
use outhaul_protocol::pairing::{Attempts, Awaiting, Code, Maker as Noise, Offer, PairingError, Proof, Welcome};
use outhaul_protocol::signed::Signed;

use super::{End, Maker};
use crate::core::hub::Hub;
use crate::core::sessions::GuestSession;
use crate::core::store::Db;
use crate::core::{clock, registry};

/// How long a certificate lasts. It outlives the relay's grant on purpose: a node leaves by being revoked.
const CERTIFICATE_SECS: u64 = 10 * 365 * 24 * 3600;
/// Numbers tried behind a name that is taken.
const SUFFIXES: u32 = 10_000;

/// A code that the relay keeps.
#[derive(Debug)]
pub(crate) struct Detached {
    code: Code,
    name: Option<String>,
    attempts: Mutex<Attempts>,
}

/// Where a run of such a code stands.
#[derive(Debug)]
pub(crate) enum Step {
    /// The join was answered; what the machine calls itself.
    Answered(Box<Noise>, Option<String>),
    /// The welcome is sent.
    Welcomed(Box<Awaiting>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a code; what to show, and when it runs out.
pub(crate) fn open(hub: &Hub, ttl: Duration, name: Option<String>) -> Result<(String, u64), Failure> {
    if hub.enrol().is_none() {
        return Err(Failure::new(error::Code::NotGranted, "this relay holds no grant to enrol nodes, so it can keep no code")
            .hint("run `relay pair new` without --detach"));
    }
    if let Some(name) = name.as_deref().filter(|name| !valid_name(name)) {
        return Err(Failure::new(error::Code::BadParams, format!("`{}` is not a node's name", name.escape_debug())));
    }
    let mut shown = String::new();
    let (_, expires_at) = hub.pairings.open_with(ttl, |slot| {
        // Slot 1 is shown without prefix, which the code calls 0.
        let code = Code::generate(if slot == 1 { 0 } else { u16::try_from(slot).unwrap_or(999).min(999) });
        shown = code.reveal().to_string();
        Maker::Relay(Arc::new(Detached { code, name, attempts: Mutex::new(Attempts::shown()) }))
    })?;
    Ok((shown, expires_at))
}

impl Detached {
    /// Answers a join.
    pub(super) fn answer(&self, join: &[u8], mut facts: Facts) -> Result<(Step, Vec<u8>), Failure> {
        let (noise, answer) = Noise::answer(Proof::Code(&self.code), join)?;
        Ok((Step::Answered(Box::new(noise), facts.remove(fact::HOSTNAME)), answer))
    }
}

/// The guest's next message in a run.
pub(super) fn message(
    hub: &Arc<Hub>,
    detached: &Arc<Detached>,
    step: &Arc<Mutex<Option<Step>>>,
    guest: &Arc<GuestSession>,
    pairing: u64,
    slot: u64,
    message: Vec<u8>,
) {
    let end = |hub: &Hub, failure: &Failure| {
        tracing::info!(guest = %guest.id.short(), code = %failure.code, reason = %failure.message, "a pairing failed");
        hub.pairings.end(End::Relay, pairing, failure.code.as_str(), &failure.message);
    };
    match lock(step).take() {
        Some(Step::Answered(noise, host)) => {
            let (here, detached, step, guest) = (hub.clone(), detached.clone(), step.clone(), guest.clone());
            let queued = hub.store.submit(move |db| {
                let outcome = welcome(&here, db, &detached, *noise, &message, host.as_deref());
                if lock(&detached.attempts).used_up() {
                    here.pairings.used(slot, &detached);
                }
                match outcome {
                    Ok((awaiting, message)) => {
                        *lock(&step) = Some(Step::Welcomed(Box::new(awaiting)));
                        here.pairings.knew_the_code(&guest);
                        guest.session.say(&Frame::PairMessage { pairing, message: Blob(message) });
                    }
                    Err(failure) => {
                        tracing::info!(guest = %guest.id.short(), code = %failure.code, reason = %failure.message, "a pairing failed");
                        here.pairings.end(End::Relay, pairing, failure.code.as_str(), &failure.message);
                    }
                }
            });
            if let Err(full) = queued {
                end(hub, &Failure::new(error::Code::Busy, full.to_string()));
            }
        }
        Some(Step::Welcomed(awaiting)) => match awaiting.stored(&message) {
            Ok(node) => {
                tracing::info!(node = %node.id().short(), "paired by a code the relay kept");
                hub.pairings.done(pairing);
            }
            Err(error) => end(hub, &error.into()),
        },
        None => end(hub, &Failure::new(error::Code::BadParams, "a message out of turn")),
    }
}

/// Checks the guest's confirmation, certifies it and makes its welcome.
fn welcome(
    hub: &Hub,
    db: &mut Db,
    detached: &Detached,
    noise: Noise,
    message: &[u8],
    host: Option<&str>,
) -> Result<(Awaiting, Vec<u8>), Failure> {
    let confirmed = noise.confirm(message, &mut lock(&detached.attempts))?;
    let enrol = hub.enrol().ok_or_else(|| Failure::new(error::Code::NotGranted, "this relay may enrol no nodes"))?;
    let known = hub.notices.known();
    let relays = known.relays.as_ref().ok_or_else(|| Failure::new(error::Code::BadConfig, "this fleet names no relay yet"))?;
    let node = describe(hub, db, confirmed.offer(), detached.name.as_deref(), host, enrol.key.id())?;
    check_node(&node, &hub.fleet).map_err(|what| Failure::new(error::Code::BadParams, format!("the certificate {what}")))?;
    let certificate = Certificate { node: Blob(Signed::sign(&enrol.key, &node).into_bytes()), chain: enrol.chain.clone() };
    registry::put(db, &hub.fleet, &known.revoked, &certificate.encode())?;
    let welcome = Welcome {
        fleet: hub.fleet,
        successor: None,
        certificate,
        relays: Blob(relays.to_vec()),
        revocations: known.revocations.as_deref().cloned(),
        publishers: enrol.room.pinned_publishers()?,
    };
    confirmed.welcome(&enrol.key, &welcome).map_err(|error: PairingError| error.into())
}

fn describe(
    hub: &Hub,
    db: &mut Db,
    offer: &Offer,
    wish: Option<&str>,
    host: Option<&str>,
    signer: outhaul_protocol::keys::KeyId,
) -> Result<Node, Failure> {
    let id = offer.node.id();
    let before = db.node(&id)?.map(|kept| registry::known_node(&kept)).transpose()?;
    let serial = before.as_ref().map_or(0, |node| node.serial).max(db.removed(&id)?.unwrap_or(0));
    let name = match (wish, &before) {
        (Some(name), _) => name.to_owned(),
        (None, Some(before)) => before.name.clone(),
        (None, None) => free_name(db, &id, offer.name.clone().or_else(|| host.and_then(host_name)))?,
    };
    Ok(Node {
        iss: signer,
        aud: hub.fleet.id(),
        exp: clock::now().plus(CERTIFICATE_SECS),
        iat: clock::now(),
        node: offer.node,
        mailbox: offer.mailbox,
        name,
        labels: before.map(|node| node.labels).unwrap_or_default(),
        serial: serial + 1,
        replaces: None,
    })
}

/// A host name as a node's name: what does not fit becomes a dash, the domain is left out.
fn host_name(host: &str) -> Option<String> {
    let label = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let mut name: String = label.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    name.truncate(limits::NAME);
    let name = name.trim_matches('-').to_owned();
    valid_name(&name).then_some(name)
}

/// What machines offer gets a number when it is taken.
fn free_name(db: &mut Db, id: &outhaul_protocol::keys::KeyId, wish: Option<String>) -> Result<String, Failure> {
    let base = wish.unwrap_or_else(|| "node".to_owned());
    for number in 1..SUFFIXES {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let name = format!("{}{suffix}", &base[..base.len().min(limits::NAME - suffix.len())]);
        if !db.holds_name(&name, [id, id])? {
            return Ok(name);
        }
    }
    Err(Failure::new(error::Code::BadParams, format!("every name like `{base}` is taken")))
}
