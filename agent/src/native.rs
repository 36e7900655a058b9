//! The commands the agent answers itself: presence, and the shipping of packs. They are described in
//! [`outhaul_protocol::native`], and judged like every other call before they come here.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use outhaul_host::power;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::Digest;
use outhaul_protocol::native::{ACTIVATE, INSTALL, LIST, PING, REMOVE, ROLLBACK, STATUS, commands};
use outhaul_protocol::time::Time;
use outhaul_protocol::types::Command;
use outhaul_protocol::value::Value;

use crate::link::Link;
use crate::packs::{Installed, Listed, PackSet};
use crate::policy::{PolicyFile, is_granted};

/// What these commands look at, as it is at one call.
#[derive(Debug)]
pub struct View<'a> {
    /// What can be run.
    pub packs: &'a PackSet,
    /// What it may do.
    pub policy: &'a PolicyFile,
    /// The clock.
    pub now: Time,
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

/// Answers a call; its parameters have been checked against the description.
pub async fn call(link: &Arc<Link>, command: &str, params: &Value) -> Result<Value, Failure> {
    let node = &link.node;
    let view = View {
        packs: &node.packs,
        policy: &node.policy,
        now: node.reading().now,
        started: node.started,
        boot_count: node.boot_count,
        calls: node.calls.count(),
    };
    if command != INSTALL {
        return answer(&view, command, params).await;
    }
    let (digest, size) = wanted(params)?;
    if size > outhaul_protocol::limits::PACK as u64 {
        let most = outhaul_protocol::limits::PACK;
        return Err(Failure::new(Code::TooLarge, format!("the pack is {size} bytes, at most {most} are taken")));
    }
    let bytes = link.fetch(digest).await?;
    finish_install(&view, bytes, digest).await
}

/// All commands but `pack.install`, which needs the link.
pub async fn answer(view: &View<'_>, command: &str, params: &Value) -> Result<Value, Failure> {
    match command {
        PING => Ok(ping(view)),
        STATUS => status(view).await,
        LIST => Ok(Value::Array(view.packs.list().await.into_iter().map(listed).collect())),
        ACTIVATE => {
            let (name, digest) = (text(params, "name")?, digest(params)?);
            view.packs.activate(name, digest).await.map(|done| installed(view, &done))
        }
        ROLLBACK => view.packs.rollback(text(params, "name")?).await.map(|done| installed(view, &done)),
        REMOVE => {
            let name = text(params, "name")?;
            let removed = view.packs.remove(name).await?;
            let removed = removed.iter().map(|digest| digest.to_string().into()).collect();
            Ok(map([("name", name.into()), ("removed", Value::Array(removed))]))
        }
        _ => Err(Failure::new(Code::UnknownCommand, format!("this node has no command `{}`", command.escape_debug()))),
    }
}

/// What `pack.install` asks for: digest and length.
pub fn wanted(params: &Value) -> Result<(Digest, u64), Failure> {
    let size = match params.get("size") {
        Some(Value::Int(size)) => u64::try_from(*size).map_err(|_| bad("size", "is not a length"))?,
        _ => return Err(bad("size", "is missing")),
    };
    Ok((digest(params)?, size))
}

/// Installs fetched bytes, whose digest is what is believed.
pub async fn finish_install(view: &View<'_>, bytes: impl Into<bytes::Bytes>, digest: Digest) -> Result<Value, Failure> {
    let bytes = bytes.into();
    if outhaul_protocol::keys::sha256(&bytes) != digest {
        return Err(Failure::new(Code::DigestMismatch, "the fetched pack is not the one that was named"));
    }
    let done = view.packs.install(bytes, view.now).await?;
    tracing::info!(pack = done.active.name(), version = done.active.pack().version(), digest = %digest.short(), "pack activated");
    Ok(installed(view, &done))
}

fn ping(view: &View<'_>) -> Value {
    let uptime = i128::try_from(view.started.elapsed().as_millis()).unwrap_or(i128::MAX);
    map([("time", number(view.now.0)), ("uptime_ms", Value::Int(uptime))])
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
    let grants = view.policy.grants_for(active.name(), &active.digest().0, active.embedded());
    let denied = active.powers().iter().filter(|power| !is_granted(&grants, **power));
    map([
        ("name", active.name().into()),
        ("version", active.pack().version().into()),
        ("digest", active.digest().to_string().into()),
        ("commands", Value::Array(active.pack().commands().iter().map(|command| command.name.as_str().into()).collect())),
        ("replaced", done.replaced.map_or(Value::Null, |digest| digest.to_string().into())),
        ("denied_powers", Value::Array(denied.map(|power| power.name().into()).collect())),
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
    ])
}

fn map<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn number(number: u64) -> Value {
    Value::Int(number.into())
}

fn text<'a>(params: &'a Value, name: &str) -> Result<&'a str, Failure> {
    match params.get(name) {
        Some(Value::Text(text)) => Ok(text),
        _ => Err(bad(name, "is missing")),
    }
}

fn digest(params: &Value) -> Result<Digest, Failure> {
    text(params, "digest")?.parse().map_err(|_| bad("digest", "is not 64 hexadecimal digits"))
}

fn bad(name: &str, what: &str) -> Failure {
    Failure::new(Code::BadParams, format!("`params.{name}`: {what}"))
}
