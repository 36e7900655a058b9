//! `relay nodes describe`: all that is known of a node. Packs and facts are what the node signed; their texts are their
//! authors', and are escaped wherever they are shown.

use outhaul_protocol::describe::{AnnouncedPack, PackDescription};
use outhaul_protocol::error::Failure;
use outhaul_protocol::native;
use outhaul_protocol::text::{escape_control, escape_control_lines};
use outhaul_protocol::types::Command;
use serde_json::{Value as Json, json};

use super::Context;
use super::nodes::{labels, node_json, or_dash};
use super::time::{ago, span};
use crate::operator::{Seen, capabilities_of, description_of, now, packs_of};

/// A pack as the node lists it, and as it is described.
type Listed = (AnnouncedPack, PackDescription);

/// `relay nodes describe`.
pub(super) async fn describe(context: &Context, text: &str) -> Result<u8, Failure> {
    let (session, seen) = context.with_node(text).await?;
    let capabilities = capabilities_of(&session, &seen.known).await?;
    let mut packs = Vec::new();
    for listed in packs_of(&session, &seen.known).await? {
        let described = description_of(&session, &listed).await?;
        packs.push((listed, described));
    }
    context.out.either(|| describe_text(&seen, &packs, now().0), || describe_json(&seen, &capabilities, &packs));
    Ok(0)
}

/// How a power of a pack stands, as the node announced it: `waiting` is denied until the machine's owner has seen that
/// this version asks for more than those before.
fn state(listed: &AnnouncedPack, power: &String) -> &'static str {
    if listed.waiting.contains(power) {
        "waiting"
    } else if listed.denied.contains(power) {
        "denied"
    } else {
        "granted"
    }
}

fn describe_json(seen: &Seen, capabilities: &[String], packs: &[Listed]) -> Json {
    let known = &seen.known;
    let pack = |(listed, pack): &Listed| {
        let powers: Json = pack.powers.iter().map(|power| json!({"name": power, "state": state(listed, power)})).collect();
        json!({
            "name": pack.name,
            "version": pack.version,
            "digest": hex::encode(pack.digest),
            "active": true,
            "powers": powers,
            "commands": pack.commands.iter().map(Command::to_json).collect::<Json>(),
        })
    };
    let mut node = node_json(seen, capabilities);
    node["fingerprint"] = known.id().to_string().into();
    node["labels"] = json!(known.node.labels);
    let facts = known.announce.iter().flat_map(|announce| &announce.content.facts);
    node["facts"] = facts.map(|(key, value)| (key.clone(), Json::from(value.as_str()))).collect();
    node["packs"] = packs.iter().map(pack).collect();
    node
}

fn describe_text(seen: &Seen, packs: &[Listed], now: u64) -> String {
    let known = &seen.known;
    let mut head: Vec<(String, String)> = vec![
        ("node".into(), format!("{}, {}, last seen {}", known.node.name, seen.status, ago(seen.last_seen, now))),
        ("fingerprint".into(), known.id().to_string()),
        ("labels".into(), or_dash(labels(&known.node.labels))),
    ];
    if let Some(figures) = seen.heartbeat.as_ref().filter(|_| seen.status != "offline") {
        let load =
            format!("processor {:.0} %, memory {:.0} %, up {}", figures.cpu_percent, figures.memory_percent, span(figures.uptime_secs));
        head.push(("load".into(), load));
    }
    let facts = known.announce.iter().flat_map(|announce| &announce.content.facts);
    head.extend(facts.map(|(key, value)| (escape_control(key).into_owned(), escape_control(value).into_owned())));
    let width = head.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let mut lines: Vec<String> = head.iter().map(|(key, value)| format!("{key:width$}  {value}")).collect();
    for (listed, pack) in packs {
        lines.push(String::new());
        lines.push(format!("pack {} {}  {}", escape_control(&pack.name), escape_control(&pack.version), hex::encode(&pack.digest[..6])));
        let powers: Vec<String> = pack.powers.iter().map(|power| format!("{} {}", escape_control(power), state(listed, power))).collect();
        if !powers.is_empty() {
            lines.push(format!("  powers: {}", powers.join(", ")));
        }
        pack.commands.iter().for_each(|command| command_lines(command, &mut lines));
    }
    lines.push(String::new());
    lines.push("the agent itself".to_owned());
    native::commands().iter().for_each(|command| command_lines(command, &mut lines));
    lines.join("\n")
}

/// Columns a signature may take before it is broken where its result and its error begin.
const WIDE: usize = 100;

/// A command's signature, and its docs below.
pub(super) fn command_lines(command: &Command, lines: &mut Vec<String>) {
    let signature = escape_control(&command.signature()).into_owned();
    if signature.chars().count() <= WIDE {
        lines.push(format!("  {signature}"));
    } else {
        let broken = signature.replacen(") -> ", ")\n    -> ", 1);
        // The last " or error " is the signature's own: types have none.
        let broken = broken.rsplit_once(" or error ").map_or(broken.clone(), |(before, error)| format!("{before}\n    or error {error}"));
        lines.extend(broken.lines().map(|line| format!("  {line}")));
    }
    if let Some(doc) = &command.doc {
        lines.extend(escape_control_lines(doc).lines().map(|line| format!("      {line}")));
    }
    for param in &command.params {
        if let Some(doc) = &param.doc {
            lines.push(format!("      - {}: {}", escape_control(&param.name), escape_control(doc)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::nodes::tests::seen;
    use outhaul_protocol::describe::Interface;
    use outhaul_protocol::types::{Field, IntType, Type};

    fn thermal() -> Listed {
        let read = Command {
            name: "thermal.read".into(),
            doc: Some("One sensor.\nIn degrees Celsius.".into()),
            params: vec![Field { name: "zone".into(), ty: Type::String, doc: Some("a name from `summary`".into()) }],
            result: Some(Type::Record(vec![Field { name: "millidegrees".into(), ty: Type::Int(IntType::S32), doc: None }])),
            error: Some(Some(Type::Enum(vec!["no_sensor".into()]))),
        };
        let described = PackDescription {
            name: "thermal".into(),
            version: "0.1.0".into(),
            digest: [7; 32],
            powers: vec!["system".into(), "files".into()],
            interfaces: vec![Interface { name: "thermal".into(), doc: None }],
            commands: vec![read],
        };
        let listed = AnnouncedPack {
            name: "thermal".into(),
            version: "0.1.0".into(),
            digest: [7; 32],
            description: described.digest(),
            interfaces: vec!["thermal".into()],
            denied: vec!["files".into()],
            waiting: Vec::new(),
        };
        (listed, described)
    }

    #[test]
    fn a_description_shows_all_and_escapes_what_is_not_ours() {
        let text = describe_text(&seen(), &[thermal()], 1_700_000_103);
        let (pack, agent) = text.split_once("\nthe agent itself\n").expect("both");
        insta::assert_snapshot!(pack, @r"
        node         bench-1, online, last seen 3 s ago
        fingerprint  b62e867fa2f33afe62d5d6b1642e1621d543307846b2a57b897e710919b76709
        labels       site=west
        load         processor 12 %, memory 50 %, up 3 d
        hostname     bench\u{1b}[2J
        platform     linux-x86_64

        pack thermal 0.1.0  070707070707
          powers: system granted, files denied
          thermal.read(zone: string) -> {millidegrees: s32} or error no_sensor
              One sensor.
              In degrees Celsius.
              - zone: a name from `summary`
        ");
        assert!(agent.contains("  node.ping() -> "));
    }

    #[test]
    fn a_power_that_waits_for_the_owner_is_told_from_one_that_is_denied() {
        let mut listed = thermal().0;
        listed.denied = vec!["files".into(), "camera".into()];
        listed.waiting = vec!["files".into()];
        assert_eq!(["files", "camera", "system"].map(|power| state(&listed, &power.to_owned())), ["waiting", "denied", "granted"]);
    }

    #[test]
    fn a_description_as_json() {
        let json = describe_json(&seen(), &["thermal".to_owned()], &[thermal()]);
        assert_eq!(json["packs"][0]["powers"], json!([{"name": "system", "state": "granted"}, {"name": "files", "state": "denied"}]));
        assert_eq!(
            (&json["packs"][0]["active"], &json["labels"], &json["fingerprint"]),
            (&json!(true), &json!({"site": "west"}), &json["id"])
        );
        let command = &json["packs"][0]["commands"][0];
        assert_eq!(command["params"]["properties"]["zone"]["type"], "string");
        assert!(command["result"].is_object() && command["error"].is_object() && command["signature"].is_string());
    }
}
