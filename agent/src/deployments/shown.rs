//! `pack.status`: what deployments ask of this node, what came of each, and what runs. The call's receipt is this node's
//! signature on it, so that no relay can tell it otherwise.

use std::collections::BTreeSet;
use std::time::Duration;

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::objects::valid_name;
use outhaul_protocol::value::Value;
use tokio::time::Instant;

use super::record::Record;
use super::{Aim, Deployments, Refused, Standing};
use crate::native::{bad, map, number, text};
use crate::packs::{Active, PackSet};
use crate::run::Node;

/// The longest a caller may have this wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Answers the call, after a wait where one is asked for.
pub(crate) async fn answer(node: &Node, params: &Value) -> Result<Value, Failure> {
    let given = |name: &str| params.get(name).is_some_and(|value| *value != Value::Null);
    let name = if given("name") { Some(text(params, "name")?) } else { None };
    if name.is_some_and(|name| !valid_name(name)) {
        return Err(bad("name", "is not a pack's name"));
    }
    let figure = |name: &str| match params.get(name) {
        Some(Value::Int(figure)) => u64::try_from(*figure).map_err(|_| bad(name, "is negative")),
        _ => Ok(0),
    };
    let wait = Duration::from_millis(figure("wait_ms")?).min(LONGEST_WAIT);
    match (name, given("serial")) {
        (Some(name), true) => until_decided(&node.deployments, name, figure("serial")?, wait).await,
        (None, true) => return Err(Failure::new(Code::BadParams, "`params.serial` is of one pack: give its `name` too")),
        _ => {}
    }
    Ok(told(&node.deployments, &node.packs, name))
}

async fn until_decided(deployments: &Deployments, name: &str, serial: u64, wait: Duration) {
    let mut decisions = deployments.decisions();
    let deadline = Instant::now() + wait;
    while !deployments.dealt_with(name, serial) {
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => return,
            changed = decisions.changed() => if changed.is_err() { return },
        }
    }
}

/// One pack's state, or those of all that a deployment was heard of.
pub(crate) fn told(deployments: &Deployments, packs: &PackSet, name: Option<&str>) -> Value {
    let state = deployments.state();
    let names: BTreeSet<&str> = match name {
        Some(name) => [name].into(),
        None => state.records.keys().chain(state.refused.keys()).map(String::as_str).collect(),
    };
    let one = |name: &str| {
        let running = packs.named(name).map_or(Value::Null, |active| running(&active));
        shown(name, state.records.get(name), state.refused.get(name), running)
    };
    Value::Array(names.into_iter().map(one).collect())
}

pub(super) fn shown(name: &str, record: Option<&Record>, refused: Option<&Refused>, running: Value) -> Value {
    let text = |text: Option<String>| text.map_or(Value::Null, Value::from);
    let when = |at: Option<u64>| at.map_or(Value::Null, number);
    let said = record.map(Record::said);
    let why = match record.map(Record::standing) {
        Some(Standing::Failed(why) | Standing::Pending(Some(why))) => Some(why),
        _ => None,
    };
    let component = record.and_then(|record| match record.aim() {
        Aim::Version(digest) => Some(digest),
        _ => None,
    });
    let mut releases = said.into_iter().flat_map(|said| &said.targets).filter_map(|target| target.release.as_ref());
    let version = component.and_then(|component| releases.find(|release| release.component == component));
    map([
        ("name", name.into()),
        ("serial", number(said.map_or(0, |said| said.serial))),
        ("digest", text(record.map(|record| record.digest().to_string()))),
        ("signer", text(said.map(|said| said.iss.to_string()))),
        ("signed_at", when(said.map(|said| said.iat.0))),
        ("state", record.map_or("none", word).into()),
        ("since", when(record.map(|record| record.since().0))),
        ("version", text(version.map(|release| release.version.clone()))),
        ("component", text(component.map(|digest| digest.to_string()))),
        ("code", text(why.map(|why| why.code.as_str().to_owned()))),
        ("message", text(why.map(|why| why.message.clone()))),
        ("hint", text(why.and_then(|why| why.hint.clone()))),
        ("conflict", text(record.and_then(Record::conflict).map(|digest| digest.to_string()))),
        ("refused", refused.map_or(Value::Null, refusal)),
        ("running", running),
    ])
}

fn word(record: &Record) -> &'static str {
    match (record.standing(), record.aim()) {
        (Standing::Pending(_), _) => "pending",
        (Standing::Failed(_), _) => "failed",
        (Standing::Done, Aim::Keep) => "not_meant",
        (Standing::Done, _) => "applied",
    }
}

fn refusal(refused: &Refused) -> Value {
    map([
        ("serial", number(refused.serial)),
        ("code", refused.why.code.as_str().into()),
        ("message", refused.why.message.as_str().into()),
        ("hint", refused.why.hint.clone().map_or(Value::Null, Value::from)),
        ("at", number(refused.at.0)),
    ])
}

fn running(active: &Active) -> Value {
    let vouched = active.vouched();
    map([
        ("version", active.pack().version().into()),
        ("digest", active.digest().to_string().into()),
        ("publisher", vouched.map_or(Value::Null, |vouched| vouched.key().to_string().into())),
        ("signature", vouched.map_or(Value::Null, |vouched| Value::Bytes(vouched.signature().to_vec()))),
        ("quarantined", active.conduct().reason().map_or(Value::Null, Value::from)),
    ])
}
