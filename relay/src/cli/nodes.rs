//! `relay nodes` and `relay ping`: who is there, and what their certificates call them. Names, labels and facts are
//! signed; status and last-seen are the relay's word.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use outhaul_link::channel::CallSpec;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::describe::fact;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::Ask;
use outhaul_protocol::native;
use outhaul_protocol::objects::{RevocationList, valid_label_value, valid_name};
use outhaul_protocol::value::Value;
use serde_json::{Value as Json, json};

use super::Context;
use super::invoke::plain;
use super::output::{failure_text, table};
use super::time::{ago, span};
use crate::operator::{Drive, Known, Seen, Session, capabilities_of, now, revoke};

/// How long a sign of life may take.
const PING: Duration = Duration::from_secs(10);
/// `relay nodes list`.
pub(super) async fn list(context: &Context) -> Result<u8, Failure> {
    let mut session = context.session().await?;
    let (nodes, mut bad) = session.nodes().await?;
    let mut seen = Vec::with_capacity(nodes.len());
    for node in nodes {
        match capabilities_of(&session, &node.known).await {
            Ok(capabilities) => seen.push((node, capabilities)),
            Err(failure) => bad.push(failure),
        }
    }
    for failure in &bad {
        context.out.talk(&format!("left out: {}", failure_text(failure, None)));
    }
    let at = now().0;
    if seen.is_empty() && !context.out.json {
        context.out.talk("no nodes yet: `relay pair new` makes a code for one");
    }
    context.out.either(
        || if seen.is_empty() { String::new() } else { nodes_table(&seen, at) },
        || seen.iter().map(|(node, can)| node_json(node, can)).collect(),
    );
    // What the relay told and does not verify is no success.
    Ok(bad.first().map_or(0, |failure| failure.code.exit()))
}

fn nodes_table(seen: &[(Seen, Vec<String>)], now: u64) -> String {
    let rows: Vec<Vec<String>> = seen
        .iter()
        .map(|(node, capabilities)| {
            vec![
                node.known.node.name.clone(),
                node.known.id().short(),
                node.status.clone(),
                node.known.fact(fact::PLATFORM).unwrap_or("-").to_owned(),
                or_dash(capabilities.join(",")),
                ago(node.last_seen, now),
            ]
        })
        .collect();
    table(&["NAME", "ID", "STATUS", "PLATFORM", "CAPABILITIES", "LAST SEEN"], &rows)
}

pub(super) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// A time of the relay's, none when it never was.
fn time_json(secs: u64) -> Json {
    if secs == 0 { Json::Null } else { secs.into() }
}

pub(super) fn node_json(node: &Seen, capabilities: &[String]) -> Json {
    json!({
        "id": node.known.id().to_string(),
        "name": node.known.node.name,
        "status": node.status,
        "platform": node.known.fact(fact::PLATFORM),
        "hostname": node.known.fact(fact::HOSTNAME),
        "connected_at": time_json(node.connected_at),
        "last_seen": time_json(node.last_seen),
        "capabilities": capabilities,
    })
}

pub(super) fn labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(label, value)| format!("{label}={value}")).collect::<Vec<_>>().join(", ")
}

/// `relay ping`.
pub(super) async fn ping(context: &Context, text: &str) -> Result<u8, Failure> {
    let (session, seen) = context.with_node(text).await?;
    let started = Instant::now();
    let spec = ping_spec(context);
    let value = plain(context, Drive::start(session, &seen, &spec), spec.deadline).await?;
    let rtt = started.elapsed();
    let number = |name: &str| match value.get(name) {
        Some(Value::Int(number)) => u64::try_from(*number).unwrap_or(0),
        _ => 0,
    };
    let (name, time, uptime) = (&seen.known.node.name, number("time"), number("uptime_ms"));
    context.out.either(
        || format!("{name}: {:.1} ms, agent up {}", rtt.as_secs_f64() * 1000.0, span(uptime / 1000)),
        || json!({"id": seen.known.id().to_string(), "name": name, "rtt_ms": rtt.as_secs_f64() * 1000.0, "time": time, "uptime_ms": uptime}),
    );
    Ok(0)
}

fn ping_spec(context: &Context) -> CallSpec {
    let deadline = context.global.timeout.unwrap_or(PING);
    CallSpec { deadline: Some(deadline), start_within: deadline, ..CallSpec::new(native::PING, Value::Map(Vec::new())) }
}

/// Tells a node its newer certificate, and hears it answer.
async fn tell_node(context: &Context, session: Session, seen: &Seen) -> Result<Value, Failure> {
    plain(context, Drive::start_told(session, seen, &ping_spec(context)), Some(PING)).await
}

/// `relay nodes rename`.
pub(super) async fn rename(context: &Context, text: &str, name: &str) -> Result<u8, Failure> {
    if !valid_name(name) {
        return Err(Failure::new(Code::BadUsage, format!("`{}` is not a node's name", name.escape_debug()))
            .hint("lower-case letters, digits and dashes, at most 63"));
    }
    let (mut session, seen) = context.with_node(text).await?;
    // The relay may know a node of that name that this book does not.
    let taken = match session.node(name).await {
        Ok(other) => Some(other).filter(|other| other.known.node.name == name && other.known.id() != seen.known.id()),
        Err(failure) if failure.code == Code::UnknownNode => None,
        Err(failure) => return Err(failure),
    };
    if let Some(other) = taken {
        return Err(Failure::new(Code::BadUsage, format!("another node is called `{name}`: {}", other.known.id().short()))
            .hint("choose another name, or rename that one first"));
    }
    let renewed = session.dialer.enroller().renew(&seen.known, |node| node.name = name.to_owned())?;
    let said = format!("renamed: {} is {name} ({})", seen.known.node.name, renewed.id().short());
    settle(context, session, seen, renewed, &said).await
}

/// `relay nodes label`.
pub(super) async fn label(context: &Context, text: &str, changes: &[String]) -> Result<u8, Failure> {
    let changes = changes.iter().map(|change| read_label(change)).collect::<Result<Vec<_>, _>>()?;
    let (session, seen) = context.with_node(text).await?;
    let renewed = session.dialer.enroller().renew(&seen.known, |node| {
        for (label, value) in &changes {
            match value {
                Some(value) => node.labels.insert(label.clone(), value.clone()),
                None => node.labels.remove(label),
            };
        }
    })?;
    let said = format!("labels of {}: {}", renewed.node.name, or_dash(labels(&renewed.node.labels)));
    settle(context, session, seen, renewed, &said).await
}

/// `label=value`, or `label=` to take it away.
fn read_label(text: &str) -> Result<(String, Option<String>), Failure> {
    let bad = || {
        Failure::new(Code::BadUsage, format!("`{}` is not label=value", text.escape_debug()))
            .hint("labels are names; values have letters, digits, - _ and .")
    };
    let (label, value) = text
        .split_once('=')
        .filter(|(label, value)| valid_name(label) && (value.is_empty() || valid_label_value(value)))
        .ok_or_else(bad)?;
    Ok((label.to_owned(), Some(value.to_owned()).filter(|value| !value.is_empty())))
}

/// A newer certificate is the relay's, the book's and the node's.
async fn settle(context: &Context, mut session: Session, mut seen: Seen, renewed: Known, said: &str) -> Result<u8, Failure> {
    session.tell(Ask::PutCertificate { certificate: Blob(renewed.certificate.clone()) }).await?;
    session.book.keep(&renewed)?;
    context.out.either(
        || said.to_owned(),
        || json!({"ok": true, "id": renewed.id().to_string(), "name": renewed.node.name, "labels": renewed.node.labels}),
    );
    let connected = seen.prekey.is_some();
    seen.known = renewed;
    // The node hears of it with its next call: here it is.
    if !connected || tell_node(context, session, &seen).await.is_err() {
        context.out.talk("the node is not connected: it learns of it from its next caller");
    }
    Ok(0)
}

/// `relay nodes remove`.
pub(super) async fn remove(context: &Context, text: &str) -> Result<u8, Failure> {
    let (mut session, seen) = context.with_node(text).await?;
    let id = seen.known.id();
    let list = revoke(&session.dialer.room, &session.dialer.fleet, &[id], &[])?;
    publish(&session, list).await?;
    session.remove(id).await?;
    session.book.forget(&id)?;
    let name = &seen.known.node.name;
    context.out.either(
        || format!("removed: {name} ({}); its key is revoked", id.short()),
        || json!({"ok": true, "id": id.to_string(), "name": name}),
    );
    Ok(0)
}

/// Tells the relay, and by it every node that is connected, what is revoked.
pub(super) async fn publish(session: &Session, list: RevocationList) -> Result<(), Failure> {
    session.tell(Ask::PutNotice { kind: "revocations".to_owned(), signed: list.list, chain: list.chain }).await
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::operator::Announced;
    use outhaul_protocol::describe::{AnnounceContent, Heartbeat};
    use outhaul_protocol::keys::{KeyId, SecretKey, X25519Secret};
    use outhaul_protocol::objects::Node;
    use outhaul_protocol::time::Time;

    /// A node as the relay tells of it.
    pub(in crate::cli) fn seen() -> Seen {
        let secret = |byte| SecretKey::from_bytes(&[byte; 32]);
        let facts: BTreeMap<String, String> =
            [("platform", "linux-x86_64"), ("hostname", "bench\u{1b}[2J")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let content = AnnounceContent { boot_count: 1, seq: 1, facts, ..AnnounceContent::default() };
        let node = Node {
            iss: KeyId([1; 32]),
            aud: KeyId([2; 32]),
            exp: Time(9),
            iat: Time(1),
            node: secret(3).public(),
            mailbox: X25519Secret::from_bytes(&[4; 32]).public(),
            name: "bench-1".into(),
            labels: [("site".to_owned(), "west".to_owned())].into(),
            serial: 1,
            replaces: None,
        };
        Seen {
            known: Known {
                node,
                certificate: vec![],
                accepted: Time(1),
                announce: Some(Announced { bytes: vec![], order: (1, 1), content }),
            },
            status: "online".into(),
            connected_at: 1_700_000_000,
            last_seen: 1_700_000_100,
            heartbeat: Some(Heartbeat { cpu_percent: 12.4, memory_percent: 50.0, uptime_secs: 300_000, gpus: None }),
            prekey: None,
        }
    }

    #[test]
    fn the_table_of_nodes() {
        let offline = Seen { status: "offline".into(), last_seen: 0, connected_at: 0, ..seen() };
        let can = ["fans", "thermal"].map(str::to_owned).to_vec();
        let mut bare = offline.clone();
        bare.known.announce = None;
        bare.known.node.name = "a-long-name-for-a-node".into();
        insta::assert_snapshot!(nodes_table(&[(seen(), can), (bare, Vec::new())], 1_700_000_103), @r"
        NAME                    ID            STATUS   PLATFORM      CAPABILITIES  LAST SEEN
        bench-1                 b62e867fa2f3  online   linux-x86_64  fans,thermal  3 s ago
        a-long-name-for-a-node  b62e867fa2f3  offline  -             -             never
        ");
    }

    #[test]
    fn nodes_as_json() {
        let json = node_json(&seen(), &["fans", "thermal"].map(str::to_owned));
        assert_eq!(json["capabilities"], json!(["fans", "thermal"]));
        assert_eq!((&json["connected_at"], &json["last_seen"]), (&json!(1_700_000_000u64), &json!(1_700_000_100u64)));
        let mut keys: Vec<&String> = json.as_object().expect("an object").keys().collect();
        keys.sort();
        assert_eq!(keys, ["capabilities", "connected_at", "hostname", "id", "last_seen", "name", "platform", "status"]);
    }

    #[test]
    fn labels_as_people_type_them() {
        assert_eq!(read_label("site=west").expect("reads"), ("site".into(), Some("west".into())));
        assert_eq!(read_label("site=").expect("reads"), ("site".into(), None));
        for bad in ["site", "=x", "Site=x", "site=a b", "site=*"] {
            assert_eq!(read_label(bad).expect_err(bad).code, Code::BadUsage);
        }
    }
}
