//! What every pack owes whoever runs it, whatever it does. That it loads at all was shown before: a manifest, known
//! imports, types that cross, a description that fits.

use std::sync::Arc;

use outhaul_host::{Grants, Power};
use outhaul_protocol::describe::PackDescription;
use outhaul_protocol::error::Code;
use outhaul_protocol::limits;
use outhaul_protocol::types::{Command, Field};
use outhaul_protocol::value::{Value, params_from_json};
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use super::report::Report;
use super::run::{Call, make, nothing, told};
use super::sample::{self, Amount};
use super::{Trial, test::PATIENCE};

const GROUP: &str = "conformance";

/// Checks a pack that was loaded.
pub(super) async fn check(trial: &Trial, report: &mut Report) {
    report.add(GROUP, "it loads, as it would when it is deployed", Ok(None));
    report.add(GROUP, format!("its size is at most {} MiB", limits::PACK >> 20), Ok(Some(format!("{} bytes", trial.size))));
    report.add(GROUP, "it is for this platform", platform(&trial.pack().manifest().platforms));
    report.add(GROUP, "every command and parameter has a doc", all(undocumented(trial.pack().commands())));
    report.add(GROUP, "every power it imports is asked for with a reason", all(silent(trial)));
    report.add(GROUP, "it asks for no power that it does not import", all(idle(trial)));
    report.add(GROUP, "its types and docs read back as they are", round_trip(trial));
    for command in trial.pack().commands() {
        report.add(GROUP, format!("without any grant `{}` ends properly", command.name), bare(trial, command).await);
    }
}

/// Nothing wrong, or all that is.
fn all(wrong: Vec<String>) -> Result<Option<String>, String> {
    if wrong.is_empty() { Ok(None) } else { Err(wrong.join("\n")) }
}

fn platform(wanted: &[String]) -> Result<Option<String>, String> {
    let here = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    match wanted.is_empty() || wanted.contains(&here) {
        true => Ok(None),
        false => Err(format!("this is {here}, it is for {}", wanted.join(", "))),
    }
}

fn undocumented(commands: &[Command]) -> Vec<String> {
    let mut wrong = Vec::new();
    for command in commands {
        if command.doc.is_none() {
            wrong.push(format!("`{}` has no doc comment", command.name));
        }
        let silent = command.params.iter().filter(|param| param.doc.is_none());
        wrong.extend(silent.map(|param| format!("`{}` has no line `- {}: …` in its doc", command.name, param.name)));
    }
    wrong
}

fn silent(trial: &Trial) -> Vec<String> {
    let manifest = trial.pack().manifest();
    // Languages bring WASI's folders along whether the pack uses them or not.
    let silent = trial.active.powers().iter().filter(|power| !matches!(power, Power::Output | Power::Log | Power::Files));
    let silent = silent.filter(|power| manifest.reason(power.name()).is_none());
    silent.map(|power| format!("`{power}` has none: [powers] in outhaul.toml is the place")).collect()
}

fn idle(trial: &Trial) -> Vec<String> {
    let asked = trial.pack().manifest().powers.iter();
    let idle = asked.filter(|asked| !trial.active.powers().iter().any(|power| power.name() == asked.name));
    idle.map(|asked| format!("`{}` is not imported: take it out of [powers]", asked.name)).collect()
}

/// The description as a relay and an operator read it, and values of its types on every way they go.
fn round_trip(trial: &Trial) -> Result<Option<String>, String> {
    let read = PackDescription::from_bytes(trial.active.description()).map_err(|error| format!("its description: {error}"))?;
    if read.commands != trial.pack().commands() {
        return Err("its description reads back otherwise".into());
    }
    for command in &read.commands {
        for amount in [Amount::Least, Amount::Full] {
            let sample = sample::params(command, amount);
            let json = as_json(&sample, command);
            let back = params_from_json(&json, command).map_err(|failure| format!("`{}`: {}", command.name, failure.message))?;
            if back != sample {
                return Err(format!("`{}`: parameters read back otherwise from JSON: {json}", command.name));
            }
            if Value::from_cbor(&sample.to_cbor()).as_ref() != Ok(&sample) {
                return Err(format!("`{}`: parameters read back otherwise from CBOR: {json}", command.name));
            }
        }
    }
    Ok(Some(format!("{} bytes of description", trial.active.description().len())))
}

/// Parameters as a caller would write them.
fn as_json(params: &Value, command: &Command) -> Json {
    let field = |field: &Field| Some((field.name.clone(), params.get(&field.name)?.to_json(Some(&field.ty))));
    Json::Object(command.params.iter().filter_map(field).collect())
}

/// A call with the least parameters and no grant at all: an answer, an error of its own or a refusal, and nothing worse.
async fn bare(trial: &Trial, command: &Command) -> Result<Option<String>, String> {
    let mut lanes = outhaul_console::lanes::Lanes::new(false, None).map_err(|failure| failure.message)?;
    let call = Call {
        command: command.name.clone(),
        params: sample::params(command, Amount::Least),
        grants: Arc::new(Grants::default()),
        input: nothing(),
        deadline: PATIENCE,
    };
    match make(trial, call, &mut lanes, &CancellationToken::new()).await {
        Ok(_) => Ok(None),
        Err(failure) => match failure.code {
            Code::CommandFailed => Ok(Some("with an error of its own".into())),
            Code::Denied => Ok(Some("refused".into())),
            // What watches or waits is as it should be, as long as it can be stopped.
            Code::Deadline => Ok(Some(format!("stopped after {} s", PATIENCE.as_secs()))),
            _ => Err(told(&failure, command)),
        },
    }
}
