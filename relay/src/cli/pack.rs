//! `relay pack`: ships components. The relay stores the bytes by their digest; the node fetches them, checks the digest
//! that the operator signed and the signature of the publisher, and activates. Nothing the relay does can change what runs.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outhaul_link::channel::CallSpec;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Answer, Ask};
use outhaul_protocol::keys::{Digest, sha256};
use outhaul_protocol::limits;
use outhaul_protocol::native;
use outhaul_protocol::text::escape_control;
use outhaul_protocol::value::Value;
use serde_json::{Value as Json, json};

use super::Context;
use super::invoke::plain;
use super::output::{failure_text, stderr_is_terminal, table};
use super::rollout;
use super::sign::{Shipping, shipped, shipped_before};
use super::time::ago;
use crate::operator::{Drive, Seen, Session, now, unexpected};

/// How long a node may take to fetch, check and compile; `--timeout` says otherwise.
pub(super) const INSTALL: Duration = Duration::from_secs(300);
/// The same for what it has already.
pub(super) const CHANGE: Duration = Duration::from_secs(60);
/// Every WebAssembly file begins so.
const MAGIC: &[u8] = b"\0asm";

/// `relay pack deploy`.
pub(super) async fn deploy(context: &Context, pack: &str, nodes: &[String], how: Shipping) -> Result<u8, Failure> {
    let known = rollout::named(pack);
    let bytes = if known.is_none() { read(Path::new(pack))? } else { Vec::new() };
    let mut session = context.session().await?;
    let targets = all_known(&mut session, nodes).await?;
    let params = match known {
        Some((name, version)) => shipped_before(&rollout::known_release(context, &session, name, version).await?, how.downgrade),
        None => {
            let params = shipped(context, Path::new(pack), &bytes, how)?;
            store(context, &session, sha256(&bytes), &bytes).await?;
            params
        }
    };
    let mut results = Vec::with_capacity(targets.len());
    for seen in targets {
        let result = change(context, again(&session)?, &seen, native::INSTALL, params.clone(), INSTALL).await;
        if !context.out.json {
            tell_installed(context, &seen, &result);
        }
        results.push((seen, result));
    }
    if context.out.json {
        context.out.json(&results.iter().map(|(seen, result)| result_json(seen, native::INSTALL, result)).collect());
    }
    Ok(results.iter().find_map(|(_, result)| result.as_ref().err()).map_or(0, |failure| failure.code.exit()))
}

/// Each node that is named, once. All are known before anything is sent: a typing mistake changes nothing anywhere.
pub(super) async fn all_known(session: &mut Session, nodes: &[String]) -> Result<Vec<Seen>, Failure> {
    let mut targets: Vec<Seen> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let seen = session.node(node).await?;
        if !targets.iter().any(|known| known.known.id() == seen.known.id()) {
            targets.push(seen);
        }
    }
    Ok(targets)
}

/// A component, as far as its first bytes tell.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let bad = |what: &str| Failure::new(Code::BadUsage, format!("read `{}`: {what}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| bad(&error.to_string()))?.len();
    if size > limits::PACK as u64 {
        return Err(bad(&format!("it has {size} bytes, a pack at most {}", limits::PACK)));
    }
    let bytes = std::fs::read(file).map_err(|error| bad(&error.to_string()))?;
    match bytes.starts_with(MAGIC) {
        true => Ok(bytes),
        false => Err(bad("it is no WebAssembly").hint("build the pack, and name its .wasm")),
    }
}

/// Hands the relay what it lacks of a blob.
pub(super) async fn store(context: &Context, session: &Session, digest: Digest, bytes: &[u8]) -> Result<(), Failure> {
    let (total, mut at, shown) = (bytes.len(), 0, stderr_is_terminal() && bytes.len() > limits::BLOB_CHUNK);
    while at < total {
        let part = &bytes[at..total.min(at + limits::BLOB_CHUNK)];
        let ask = Ask::PutBlob { digest, offset: at as u64, total: total as u64, bytes: Blob(part.to_vec()) };
        let Answer::Stored { bytes: stored } = session.link.ask(ask).await? else { return Err(unexpected("what it stored")) };
        let stored = usize::try_from(stored).unwrap_or(total).min(total);
        if stored <= at {
            return Err(Failure::new(Code::RelayRefused, format!("the relay stored {stored} of {total} bytes and takes no more")));
        }
        at = stored;
        if shown {
            let _ = write!(std::io::stderr().lock(), "\r{} of {total} bytes{}", at, if at == total { "\n" } else { "" });
        }
    }
    tracing::debug!(%digest, total, json = context.out.json, "the relay has the pack");
    Ok(())
}

/// The same link for another call: a handle on it, and a book of its own.
pub(super) fn again(session: &Session) -> Result<Session, Failure> {
    let dialer = Arc::clone(&session.dialer);
    let book = crate::operator::Book::open(&dialer.room, &dialer.fleet)?;
    Ok(Session { dialer, link: session.link.clone(), book })
}

/// One signed call of the agent's own.
pub(super) async fn change(
    context: &Context,
    session: Session,
    seen: &Seen,
    command: &str,
    params: Value,
    deadline: Duration,
) -> Result<Value, Failure> {
    let deadline = context.global.timeout.unwrap_or(deadline);
    let spec = CallSpec { deadline: Some(deadline), ..CallSpec::new(command, params) };
    plain(context, Drive::start(session, seen, &spec), Some(deadline)).await
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    match value.get(name) {
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(|item| if let Value::Text(text) = item { Some(escape_control(text).into_owned()) } else { None })
            .collect(),
        _ => Vec::new(),
    }
}

fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::Text(text)) => escape_control(text).into_owned(),
        _ => "?".to_owned(),
    }
}

fn tell_installed(context: &Context, seen: &Seen, result: &Result<Value, Failure>) {
    let node = &seen.known.node.name;
    match result {
        Err(failure) => context.out.talk(&format!("{node}: {}", failure_text(failure, None))),
        Ok(value) => {
            context.out.data(&installed_text(node, value));
            let (pack, waiting) = (text(value, "name"), texts(value, "waiting_powers"));
            for power in texts(value, "denied_powers") {
                let item = item(&power);
                let why = if waiting.contains(&power) {
                    "which older versions did not, and waits for that machine's owner"
                } else {
                    "which is not granted"
                };
                context.out.talk(&format!(
                    "{node}: {pack} asks for the power `{power}`, {why}; on that machine: agent allow {pack} {power}{item}"
                ));
            }
        }
    }
}

/// What `agent allow` wants behind a power that is granted item by item.
fn item(power: &str) -> &'static str {
    match power {
        "process" => " PROGRAM",
        "http" => " HOST",
        "secrets" => " NAME",
        "files" => " FOLDER",
        "call" => " COMMAND",
        "containers" => " IMAGE",
        _ => "",
    }
}

fn installed_text(node: &str, value: &Value) -> String {
    let digest = short(&text(value, "digest"));
    let instead = match value.get("replaced") {
        Some(Value::Text(old)) if short(&escape_control(old)) != digest => format!(" instead of {}", short(&escape_control(old))),
        _ => String::new(),
    };
    let (name, version, commands) = (text(value, "name"), text(value, "version"), texts(value, "commands").join(", "));
    format!("{node}: {name} {version} ({digest}) is active{instead}: {commands}")
}

pub(super) fn result_json(seen: &Seen, command: &str, result: &Result<Value, Failure>) -> Json {
    let ty = native::command_of(command).and_then(|command| command.result);
    json!({
        "node": seen.known.node.name,
        "id": seen.known.id().to_string(),
        "ok": result.is_ok(),
        "result": result.as_ref().ok().map(|value| value.to_json(ty.as_ref())),
        "error": result.as_ref().err().map(|failure| failure.to_json(None)),
    })
}

/// `relay pack list`.
pub(super) async fn list(context: &Context, node: &str) -> Result<u8, Failure> {
    let (session, seen) = context.with_node(node).await?;
    let value = change(context, session, &seen, native::LIST, Value::Map(Vec::new()), CHANGE).await?;
    let ty = native::command_of(native::LIST).and_then(|command| command.result);
    context.out.either(|| packs_table(&value, now().0), || value.to_json(ty.as_ref()));
    Ok(0)
}

/// A node's packs as people read them; JSON has the whole digests.
fn packs_table(value: &Value, now: u64) -> String {
    let Value::Array(packs) = value else { return String::new() };
    let yes = |pack: &Value, name: &str| pack.get(name) == Some(&Value::Bool(true));
    let came = |pack: &Value| match pack.get("installed_at") {
        Some(Value::Int(at)) => ago(u64::try_from(*at).unwrap_or(0), now),
        _ if yes(pack, "embedded") => "with the agent".to_owned(),
        _ => "-".to_owned(),
    };
    let row = |pack: &Value| {
        let told = |name: &str| matches!(pack.get(name), Some(Value::Text(_)));
        let state = match () {
            () if told("quarantined") => "quarantined",
            () if told("refused") => "refused",
            () if yes(pack, "active") => "active",
            () => "kept",
        };
        vec![text(pack, "name"), text(pack, "version"), short(&text(pack, "digest")), state.to_owned(), came(pack)]
    };
    table(&["NAME", "VERSION", "DIGEST", "STATE", "CAME"], &packs.iter().map(row).collect::<Vec<_>>())
}

pub(super) fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

/// `relay pack rollback` and `remove` on one node, at once. Node and pack may come in either order where that is clear.
pub(super) async fn by_name(context: &Context, first: &str, command: &str, second: &str) -> Result<u8, Failure> {
    let ((session, seen), pack) = match context.with_node(first).await {
        Err(unknown) if unknown.code == Code::UnknownNode => match context.with_node(second).await {
            Ok(found) => (found, first),
            Err(_) => return Err(unknown),
        },
        found => (found?, second),
    };
    let params = Value::Map(vec![("name".into(), pack.into())]);
    let value = change(context, session, &seen, command, params, CHANGE).await?;
    context.out.either(
        || match command {
            native::REMOVE => format!("{}: {} is removed", seen.known.node.name, escape_control(pack)),
            _ => installed_text(&seen.known.node.name, &value),
        },
        || result_json(&seen, command, &Ok(value.clone())),
    );
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_that_is_granted_item_by_item_names_its_item() {
        let items = ["files", "http", "secrets", "call", "containers", "process", "camera"].map(item);
        assert_eq!(items, [" FOLDER", " HOST", " NAME", " COMMAND", " IMAGE", " PROGRAM", ""]);
    }

    #[test]
    fn what_a_deploy_says() {
        let list = |items: &[&str]| Value::Array(items.iter().map(|item| Value::from(*item)).collect());
        let value = Value::Map(vec![
            ("name".into(), "thermal".into()),
            ("version".into(), "0.1.0".into()),
            ("digest".into(), "ab".repeat(32).as_str().into()),
            ("commands".into(), list(&["thermal.read", "thermal.summary\u{1b}"])),
        ]);
        insta::assert_snapshot!(installed_text("bench-1", &value), @r"bench-1: thermal 0.1.0 (abababababab) is active: thermal.read, thermal.summary\u{1b}");
        assert_eq!(installed_text("n", &Value::Null), "n: ? ? (?) is active: ");
        let Value::Map(fields) = value else { panic!("a map") };
        let next = Value::Map(fields.into_iter().chain([("replaced".into(), "cd".repeat(32).as_str().into())]).collect());
        assert!(installed_text("n", &next).contains("(abababababab) is active instead of cdcdcdcdcdcd: "));
    }

    #[test]
    fn the_table_of_packs() {
        let pack = |name: &str, active, embedded, at: Value| {
            let digest = "ab".repeat(32);
            let fields =
                [("name", name.into()), ("version", "0.1.0".into()), ("digest", digest.as_str().into()), ("active", Value::Bool(active))];
            let fields = fields.into_iter().chain([("embedded", Value::Bool(embedded)), ("installed_at", at)]);
            Value::Map(fields.map(|(name, value)| (name.to_owned(), value)).collect())
        };
        let all = Value::Array(vec![pack("gpu", true, true, Value::Null), pack("echo\u{1b}", false, false, Value::Int(100))]);
        insta::assert_snapshot!(packs_table(&all, 400), @r"
        NAME        VERSION  DIGEST        STATE   CAME
        gpu         0.1.0    abababababab  active  with the agent
        echo\u{1b}  0.1.0    abababababab  kept    5 min ago
        ");
    }

    #[test]
    fn only_webassembly_is_shipped() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.wasm");
        assert_eq!(read(&path).expect_err("missing").code, Code::BadUsage);
        std::fs::write(&path, "#!/bin/sh").expect("writes");
        assert!(read(&path).expect_err("a script").message.ends_with("it is no WebAssembly"));
        std::fs::write(&path, b"\0asm\x0d\0\x01\0").expect("writes");
        assert_eq!(read(&path).expect("a component").len(), 8);
    }
}
