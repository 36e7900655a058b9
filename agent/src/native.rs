//! The commands the agent answers itself: presence, and the shipping of packs. They are described in
//! [`outhaul_protocol::native`], and judged like every other call before they come here.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use outhaul_host::power;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::inner::{EventMessage, Lane};
use outhaul_protocol::keys::Digest;
use outhaul_protocol::native::{ACTIVATE, DEPLOYED, DISTRUST, INSTALL, LIST, PING, PUBLISHERS, REMOVE, ROLLBACK, STATUS, TRUST, commands};
use outhaul_protocol::objects::Rotation;
use outhaul_protocol::publisher::Trust;
use outhaul_protocol::time::Reading;
use outhaul_protocol::types::Command;
use outhaul_protocol::value::Value;

use crate::calls::Running;
use crate::deployments;
use crate::link::Link;
use crate::packs::{Installed, Listed, PackSet, Shipment};
use crate::policy::{PolicyFile, is_granted};
use crate::trust;

/// What these commands look at, as it is at one call.
#[derive(Debug)]
pub struct View<'a> {
    /// What can be run.
    pub packs: &'a PackSet,
    /// What it may do.
    pub policy: &'a PolicyFile,
    /// Whose packs are taken.
    pub trust: Trust,
    /// The clock.
    pub clock: Reading,
    /// When the agent began.
    pub started: Instant,
    /// How often it has.
    pub boot_count: u64,
    /// Calls under way.
    pub calls: usize,
}

/// The description of an agent's own command.
#[must_use]
pub fn find(name: &str) -> Option<&'static Command> {
    static COMMANDS: LazyLock<Vec<Command>> = LazyLock::new(commands);
    COMMANDS.iter().find(|command| command.name == name)
}

/// What they look at on this link, now.
fn view(link: &Link) -> View<'_> {
    let node = &link.node;
    View {
        packs: &node.packs,
        policy: &node.policy,
        trust: node.trust(),
        clock: node.reading(),
        started: node.started,
        boot_count: node.boot_count,
        calls: node.calls.count(),
    }
}

/// Answers a call; its parameters have been checked against the description.
pub async fn call(link: &Arc<Link>, running: &Running, command: &str, params: &Value) -> Result<Value, Failure> {
    match command {
        INSTALL => install(link, running, &Wanted::of(params)?).await,
        TRUST | DISTRUST | PUBLISHERS => trust::answer(&link.node, command, params),
        DEPLOYED => deployments::answer(&link.node, params).await,
        _ => answer(&view(link), command, params).await,
    }
}

async fn install(link: &Arc<Link>, running: &Running, wanted: &Wanted) -> Result<Value, Failure> {
    if wanted.size > outhaul_protocol::limits::PACK as u64 {
        let most = outhaul_protocol::limits::PACK;
        return Err(Failure::new(Code::TooLarge, format!("the pack is {} bytes, at most {most} are taken", wanted.size)));
    }
    let progress = Progress(Some(running));
    progress.tell("fetching", wanted.size).await;
    let done = ship(link, wanted.digest, &wanted.shipment, &wanted.rotations, progress).await?;
    Ok(installed(&view(link), &done))
}

/// Components from here on take a while, so that whoever waits is told what for: an interpreter compiles for many seconds.
const TAKES_A_WHILE: u64 = 1 << 20;

/// Tells a caller, as events, what an installation is at; nobody where there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress<'a>(pub(crate) Option<&'a Running>);

impl Progress<'_> {
    async fn tell(self, step: &str, bytes: u64) {
        if let Some(running) = self.0.filter(|_| bytes >= TAKES_A_WHILE) {
            let event = EventMessage { name: step.to_owned(), json: format!("{{\"bytes\":{bytes}}}") };
            running.outlet.put(Lane::Event, event.encode().into()).await;
        }
    }
}

/// Fetches and installs a component. It is judged by signature and version before a byte is fetched, and by all of it
/// again when the bytes are here.
pub(crate) async fn ship(
    link: &Arc<Link>,
    digest: Digest,
    shipment: &Shipment,
    rotations: &[Rotation],
    progress: Progress<'_>,
) -> Result<Installed, Failure> {
    link.node.follow_rotations(rotations)?;
    let before = view(link);
    before.packs.check(digest, shipment, &before.trust, before.clock).await?;
    let bytes = link.fetch(digest).await?;
    progress.tell("compiling", bytes.len() as u64).await;
    let done = place(&view(link), bytes.into(), digest, shipment).await;
    // What was revoked while it was compiled must not have slipped in.
    link.node.review_trust();
    done
}

/// All commands but those that need the link or change whom this machine trusts.
pub async fn answer(view: &View<'_>, command: &str, params: &Value) -> Result<Value, Failure> {
    match command {
        PING => Ok(ping(view)),
        STATUS => status(view).await,
        LIST => Ok(Value::Array(view.packs.list().await.into_iter().map(listed).collect())),
        ACTIVATE => {
            let (name, digest) = (text(params, "name")?, digest(params)?);
            view.packs.activate(name, digest, &view.trust).await.map(|done| installed(view, &done))
        }
        ROLLBACK => view.packs.rollback(text(params, "name")?, &view.trust).await.map(|done| installed(view, &done)),
        REMOVE => {
            let name = text(params, "name")?;
            let removed = view.packs.remove(name).await?;
            let removed = removed.iter().map(|digest| digest.to_string().into()).collect();
            Ok(map([("name", name.into()), ("removed", Value::Array(removed))]))
        }
        _ => Err(Failure::new(Code::UnknownCommand, format!("this node has no command `{}`", command.escape_debug()))),
    }
}

/// What `pack.install` asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// of the component
    pub digest: Digest,
    /// its length in bytes
    pub size: u64,
    /// what comes with it
    pub shipment: Shipment,
    /// how its publisher's key followed older ones
    pub rotations: Vec<Rotation>,
}

impl Wanted {
    /// Reads parameters.
    pub fn of(params: &Value) -> Result<Self, Failure> {
        let size = match params.get("size") {
            Some(Value::Int(size)) => u64::try_from(*size).map_err(|_| bad("size", "is not a length"))?,
            _ => return Err(bad("size", "is missing")),
        };
        let signature = match params.get("signature") {
            Some(Value::Bytes(bytes)) => Some(bytes.clone()),
            _ => None,
        };
        let downgrade = params.get("downgrade") == Some(&Value::Bool(true));
        Ok(Wanted { digest: digest(params)?, size, shipment: Shipment { signature, downgrade }, rotations: rotations(params)? })
    }
}

/// The parameter `rotations`.
pub(crate) fn rotations(params: &Value) -> Result<Vec<Rotation>, Failure> {
    let Some(Value::Array(items)) = params.get("rotations") else { return Ok(Vec::new()) };
    let rotation = |item: &Value| match item {
        Value::Bytes(bytes) => Rotation::decode(bytes).map_err(|error| bad("rotations", &error.to_string())),
        _ => Err(bad("rotations", "is not a list of bytes")),
    };
    items.iter().map(rotation).collect()
}

/// Installs fetched bytes, whose digest is what is believed.
pub async fn finish_install(view: &View<'_>, bytes: impl Into<bytes::Bytes>, wanted: &Wanted) -> Result<Value, Failure> {
    let done = place(view, bytes.into(), wanted.digest, &wanted.shipment).await?;
    Ok(installed(view, &done))
}

async fn place(view: &View<'_>, bytes: bytes::Bytes, digest: Digest, shipment: &Shipment) -> Result<Installed, Failure> {
    if outhaul_protocol::keys::sha256(&bytes) != digest {
        return Err(Failure::new(Code::DigestMismatch, "the fetched pack is not the one that was named"));
    }
    let done = view.packs.install(bytes, shipment, &view.trust, view.clock).await?;
    let publisher = done.active.vouched().map(|vouched| vouched.key().id().short()).unwrap_or_default();
    tracing::info!(pack = done.active.name(), version = done.active.pack().version(), digest = %digest.short(), publisher, "pack activated");
    Ok(done)
}

fn ping(view: &View<'_>) -> Value {
    let uptime = i128::try_from(view.started.elapsed().as_millis()).unwrap_or(i128::MAX);
    map([("time", number(view.clock.now.0)), ("uptime_ms", Value::Int(uptime))])
}

async fn status(view: &View<'_>) -> Result<Value, Failure> {
    let figures = tokio::task::spawn_blocking(power::system::heartbeat).await;
    let figures = figures.map_err(|error| Failure::new(Code::Internal, format!("the machine's figures: {error}")))?;
    Ok(map([
        ("cpu_percent", Value::Float(figures.cpu_percent.into())),
        ("memory_percent", Value::Float(figures.memory_percent.into())),
        ("uptime_secs", number(figures.uptime_secs)),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("boot_count", number(view.boot_count)),
        ("calls", number(view.calls as u64)),
        ("packs", number(view.packs.count() as u64)),
    ]))
}

fn installed(view: &View<'_>, done: &Installed) -> Value {
    let active = &done.active;
    let grants = view.policy.grants_for(active.name(), &active.digest().0, active.origin());
    let denied = active.powers().iter().filter(|power| !is_granted(&grants, **power));
    let waiting = view.policy.waiting_for(active.name(), &active.digest().0, active.origin(), active.powers());
    let publisher = active.vouched().map(|vouched| vouched.key().to_string());
    map([
        ("name", active.name().into()),
        ("version", active.pack().version().into()),
        ("digest", active.digest().to_string().into()),
        ("commands", Value::Array(active.pack().commands().iter().map(|command| command.name.as_str().into()).collect())),
        ("replaced", done.replaced.map_or(Value::Null, |digest| digest.to_string().into())),
        ("denied_powers", Value::Array(denied.map(|power| power.name().into()).collect())),
        ("waiting_powers", Value::Array(waiting.into_iter().map(|power| power.name().into()).collect())),
        ("publisher", publisher.map_or(Value::Null, Value::from)),
    ])
}

fn listed(listed: Listed) -> Value {
    map([
        ("name", listed.name.into()),
        ("version", listed.version.into()),
        ("digest", listed.digest.to_string().into()),
        ("active", Value::Bool(listed.active)),
        ("embedded", Value::Bool(listed.embedded)),
        ("quarantined", listed.quarantined.map_or(Value::Null, Value::from)),
        ("installed_at", listed.installed_at.map_or(Value::Null, number)),
        ("publisher", listed.publisher.map_or(Value::Null, Value::from)),
        ("refused", listed.refused.map_or(Value::Null, Value::from)),
    ])
}

pub(crate) fn map<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

pub(crate) fn number(number: u64) -> Value {
    Value::Int(number.into())
}

pub(crate) fn text<'a>(params: &'a Value, name: &str) -> Result<&'a str, Failure> {
    match params.get(name) {
        Some(Value::Text(text)) => Ok(text),
        _ => Err(bad(name, "is missing")),
    }
}

fn digest(params: &Value) -> Result<Digest, Failure> {
    text(params, "digest")?.parse().map_err(|_| bad("digest", "is not 64 hexadecimal digits"))
}

pub(crate) fn bad(name: &str, what: &str) -> Failure {
    Failure::new(Code::BadParams, format!("`params.{name}`: {what}"))
}
