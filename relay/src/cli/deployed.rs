//! `relay pack status`: what was asked, by whose signature, and what came of it on each node. What was asked is a signed
//! document, what came of it the nodes' own signed word; of nodes that are off, what they announced last.

use std::collections::BTreeMap;

use outhaul_protocol::error::Failure;
use outhaul_protocol::keys::KeyId;
use outhaul_protocol::objects::{Deployment, Release, Target};
use outhaul_protocol::text::escape_control;
use serde_json::{Value as Json, json};

use super::Context;
use super::many::{State, states};
use super::output::{failure_text, table};
use super::pack::short;
use super::time::ago;
use crate::operator::deployments::{Newest, documents, newest};
use crate::operator::{Seen, Session, now, packs_of};

/// A node with what is known of one pack there.
#[derive(Debug)]
struct Found {
    seen: Seen,
    /// none of a node that is off
    state: Option<State>,
    /// what it announced to run
    announced: Option<(String, String)>,
}

/// `relay pack status`.
pub(super) async fn status(context: &Context, pack: Option<&str>) -> Result<u8, Failure> {
    let mut session = context.session().await?;
    let (nodes, bad) = session.nodes().await?;
    for failure in &bad {
        context.out.talk(&format!("left out: {}", failure_text(failure, None)));
    }
    let mut known: BTreeMap<String, Newest> = BTreeMap::new();
    let told = documents(&session).await?;
    let wanted = |name: &str| pack.is_none_or(|pack| pack == name);
    for (name, document) in told.iter().filter(|(name, _)| wanted(name)) {
        known.insert(name.clone(), newest(&session.dialer.room, &session.dialer.fleet, name, Some(document))?);
    }
    // What the relay does not tell of, it may have lost.
    let lost = |name: &String| wanted(name) && told.iter().all(|(found, _)| found != name);
    for name in context.room.deployed_names().into_iter().filter(lost) {
        context.out.talk(&format!("the relay has no deployment of {name}; what is shown is from this home's book"));
        known.insert(name.clone(), newest(&session.dialer.room, &session.dialer.fleet, &name, None)?);
    }
    if known.is_empty() {
        context.out.talk("nothing is deployed by a document: relay pack deploy FILE --to all|LABEL=VALUE|NODE");
    }
    let mut all = Vec::new();
    for (name, newest) in known {
        let found = look(&session, &nodes, &name, &newest).await?;
        if !context.out.json {
            context.out.data(&told_text(context, &name, &newest, &found));
        }
        all.push((name, newest, found));
    }
    if context.out.json {
        context.out.json(&all.iter().map(|(name, newest, found)| told_json(name, newest, found)).collect());
    }
    Ok(bad.first().map_or(0, |failure| failure.code.exit()))
}

/// Who is meant now, and whoever follows the pack's deployments though it is not.
async fn look(session: &Session, nodes: &[Seen], name: &str, newest: &Newest) -> Result<Vec<Found>, Failure> {
    let here: Vec<Seen> = nodes.iter().filter(|seen| seen.prekey.is_some()).cloned().collect();
    let mut stated: BTreeMap<KeyId, State> = BTreeMap::new();
    for (seen, state) in here.iter().zip(states(session, &here, name).await) {
        match state {
            Ok(state) => drop(stated.insert(seen.known.id(), state)),
            // Its grant is for other nodes, or it went away: it is shown like one that is off.
            Err(failure) => tracing::debug!(node = seen.known.node.name, %failure, "does not tell"),
        }
    }
    let mut found = Vec::new();
    for seen in nodes {
        let state = stated.remove(&seen.known.id());
        let meant = newest.order.as_ref().is_some_and(|order| order.said.target_of(&seen.known.node.labels()).is_some());
        if !meant && !state.as_ref().is_some_and(|state| ["pending", "failed", "applied"].contains(&state.word.as_str())) {
            continue;
        }
        let packs = packs_of(session, &seen.known).await.unwrap_or_default();
        let announced = packs.into_iter().find(|pack| pack.name == name);
        let announced = announced.map(|pack| (pack.version, outhaul_protocol::keys::Digest(pack.digest).to_string()));
        found.push(Found { seen: seen.clone(), state, announced });
    }
    Ok(found)
}

fn told_text(context: &Context, name: &str, newest: &Newest, found: &[Found]) -> String {
    let at = now().0;
    let mut lines = vec![match &newest.order {
        Some(order) => head(&order.said, &signer(context, &order.said.iss), at),
        None => format!("{name}: no deployment is known that can be verified"),
    }];
    if let Some(failure) = &newest.passed_over {
        lines.push(format!("  the relay's newest does not stand: {}", escape_control(&failure.message)));
    }
    lines.extend(newest.order.iter().flat_map(|order| &order.said.targets).map(|target| format!("  {}", asked(target))));
    let rows: Vec<Vec<String>> = found.iter().map(|found| row(found, newest, at)).collect();
    if !rows.is_empty() {
        lines.push(table(&["NODE", "STATE", "ASKED", "RUNS", "SERIAL", "SINCE"], &rows));
    }
    lines.extend(found.iter().flat_map(remarks));
    lines.join("\n")
}

fn head(said: &Deployment, signer: &str, at: u64) -> String {
    format!("{}: deployment {}, signed {} by {signer}", said.name, said.serial, ago(said.iat.0, at))
}

/// What a target asks, as people read it.
fn asked(target: &Target) -> String {
    let nodes: Vec<String> = target.nodes.iter().map(|term| if term.len() == 64 { short(term) } else { term.clone() }).collect();
    let whom = if target.nodes == ["*"] { "all".to_owned() } else { nodes.join(" or ") };
    match &target.release {
        Some(release) => {
            let back = if release.downgrade { ", also where a newer one was" } else { "" };
            format!("{} ({}) on {whom}{back}", escape_control(&release.version), release.component.short())
        }
        None => format!("taken out of {whom}"),
    }
}

fn signer(context: &Context, id: &KeyId) -> String {
    match (context.room.key(), context.room.operator_name(id)) {
        (Ok(key), _) if key.id() == *id => "you".to_owned(),
        (_, Ok(Some(name))) => name,
        _ => format!("operator {}", id.short()),
    }
}

fn row(found: &Found, newest: &Newest, at: u64) -> Vec<String> {
    let node = found.seen.known.node.name.clone();
    let dash = || "-".to_owned();
    let release = newest.order.as_ref().and_then(|order| order.said.target_of(&found.seen.known.node.labels()));
    let asked = match release.map(|target| &target.release) {
        Some(Some(release)) => release.version.clone(),
        Some(None) => "none".to_owned(),
        None => dash(),
    };
    let announced = found.announced.as_ref().map_or_else(|| "none".to_owned(), |(version, _)| version.clone());
    let Some(state) = &found.state else {
        return vec![node, found.seen.status.clone(), asked, announced, dash(), ago(found.seen.last_seen, at)];
    };
    let serial = newest.order.as_ref().map_or(0, |order| order.said.serial);
    let word = if state.serial < serial { "pending" } else { &state.word };
    let runs = state.running.as_ref().map_or_else(|| "none".to_owned(), |running| running.version.clone());
    vec![node, word.to_owned(), asked, runs, state.serial.to_string(), state.since.map_or_else(dash, |since| ago(since, at))]
}

/// What a person has to know beyond the table.
fn remarks(found: &Found) -> Vec<String> {
    let (name, Some(state)) = (&found.seen.known.node.name, &found.state) else { return Vec::new() };
    let mut said = Vec::new();
    let sentence = |why: &Failure| {
        let hint = why.hint.as_ref().map_or_else(String::new, |hint| format!("\n  hint: {}", escape_control(hint)));
        format!("{} ({}){hint}", escape_control(&why.message), why.code)
    };
    if let Some(why) = &state.failure {
        said.push(format!("{name}: {}", sentence(why)));
    }
    if let Some(why) = state.running.as_ref().and_then(|running| running.quarantined.as_ref()) {
        said.push(format!("{name}: out of service: {}", escape_control(why)));
    }
    if let Some((serial, why)) = &state.refused {
        said.push(format!("{name}: refused deployment {serial}: {}", sentence(why)));
    }
    if let Some(other) = &state.conflict {
        said.push(format!(
            "{name}: another document of serial {} was shown there, {}: somebody signs two truths",
            state.serial,
            short(&escape_control(other))
        ));
    }
    said
}

fn told_json(name: &str, newest: &Newest, found: &[Found]) -> Json {
    let release =
        |release: &Release| json!({"version": release.version, "digest": release.component.to_string(), "downgrade": release.downgrade});
    let target = |target: &Target| json!({"nodes": target.nodes, "release": target.release.as_ref().map(release), "before": target.before.as_ref().map(release)});
    let order = newest.order.as_ref();
    json!({
        "name": name,
        "serial": order.map_or(newest.serial, |order| order.said.serial),
        "digest": order.map(|order| order.digest.to_string()),
        "signer": order.map(|order| order.said.iss.to_string()),
        "signed_at": order.map(|order| order.said.iat.0),
        "targets": order.map(|order| order.said.targets.iter().map(target).collect::<Vec<_>>()),
        "nodes": found.iter().map(node_json).collect::<Vec<_>>(),
    })
}

fn node_json(found: &Found) -> Json {
    let (node, state) = (&found.seen.known.node, found.state.as_ref());
    let running = match state {
        Some(state) => state.running.as_ref().map(|running| (running.version.clone(), running.digest.clone())),
        None => found.announced.clone(),
    };
    let refused = state.and_then(|state| state.refused.as_ref());
    json!({
        "node": node.name,
        "id": found.seen.known.id().to_string(),
        "status": found.seen.status,
        "state": state.map(|state| &state.word),
        "serial": state.map(|state| state.serial),
        "since": state.and_then(|state| state.since),
        "asked": state.and_then(|state| state.version.as_ref()),
        "running": running.map(|(version, digest)| json!({"version": version, "digest": digest})),
        "error": state.and_then(|state| state.failure.as_ref()).map(|why| why.to_json(None)),
        "refused": refused.map(|(serial, why)| json!({"serial": serial, "error": why.to_json(None)})),
        "conflict": state.and_then(|state| state.conflict.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::deployments::Order;
    use outhaul_protocol::cbor::Blob;
    use outhaul_protocol::error::Code;
    use outhaul_protocol::keys::{Digest, sha256};
    use outhaul_protocol::objects::DeploymentDocument;
    use outhaul_protocol::time::Time;

    fn newest() -> Newest {
        let release = |version: &str, downgrade| Release {
            version: version.into(),
            component: sha256(version.as_bytes()),
            signature: Blob(vec![]),
            rotations: vec![],
            downgrade,
        };
        let target =
            |nodes: &[&str], release| Target { nodes: nodes.iter().map(|term| (*term).to_owned()).collect(), release, before: None };
        let said = Deployment {
            iss: KeyId([1; 32]),
            aud: KeyId([2; 32]),
            iat: Time(1_000),
            name: "thermal".into(),
            serial: 7,
            previous: None,
            targets: vec![
                target(&[&KeyId([0xab; 32]).to_string()], Some(release("1.1.0", true))),
                target(&["site=west", "lab"], Some(release("1.2.0", false))),
                target(&["*"], None),
            ],
        };
        let document = DeploymentDocument { document: Blob(vec![]), chain: vec![] };
        Newest { serial: 7, order: Some(Order { said, digest: Digest([3; 32]), document }), passed_over: None }
    }

    fn found(state: Option<State>) -> Found {
        Found { seen: super::super::nodes::tests::seen(), state, announced: Some(("1.1.0".into(), "cd".repeat(32))) }
    }

    #[test]
    fn what_was_asked_and_by_whom() {
        let newest = newest();
        let said = &newest.order.as_ref().expect("there").said;
        let lines: Vec<String> = said.targets.iter().map(asked).collect();
        insta::assert_snapshot!(format!("{}\n{}", head(said, "you", 1_300), lines.join("\n")), @r"
        thermal: deployment 7, signed 5 min ago by you
        1.1.0 (7fbd210ebec1) on abababababab, also where a newer one was
        1.2.0 (9f77034b1eb5) on site=west or lab
        taken out of all
        ");
    }

    #[test]
    fn each_node_with_what_it_states() {
        let running = super::super::many::Running { version: "1.2.0".into(), digest: "ab".repeat(32), signature: None, quarantined: None };
        let applied = State {
            serial: 7,
            word: "applied".into(),
            since: Some(1_100),
            version: Some("1.2.0".into()),
            running: Some(running),
            ..State::default()
        };
        let failed = State {
            word: "failed".into(),
            failure: Some(Failure::new(Code::BadKey, "a stranger's\u{1b}").hint("trust them")),
            refused: Some((6, Failure::new(Code::Replayed, "older"))),
            conflict: Some("ef".repeat(32)),
            running: None,
            ..applied.clone()
        };
        let behind = State { serial: 6, ..applied.clone() };
        let all = [found(Some(applied)), found(Some(failed)), found(Some(behind)), found(None)];
        let rows: Vec<Vec<String>> = all.iter().map(|found| row(found, &newest(), 1_400)).collect();
        let remarks: Vec<String> = all.iter().flat_map(remarks).collect();
        insta::assert_snapshot!(format!("{}\n{}", table(&["NODE", "STATE", "ASKED", "RUNS", "SERIAL", "SINCE"], &rows), remarks.join("\n")), @r"
        NODE     STATE    ASKED  RUNS   SERIAL  SINCE
        bench-1  applied  1.2.0  1.2.0  7       5 min ago
        bench-1  failed   1.2.0  none   7       5 min ago
        bench-1  pending  1.2.0  1.2.0  6       5 min ago
        bench-1  online   1.2.0  1.1.0  -       0 s ago
        bench-1: a stranger's\u{1b} (bad_key)
          hint: trust them
        bench-1: refused deployment 6: older (replayed)
        bench-1: another document of serial 7 was shown there, efefefefefef: somebody signs two truths
        ");
    }
}
