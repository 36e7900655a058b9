//! `agent pack run`: one command, its output as it comes, its ending as any caller would see it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outhaul_console::ending::{Ending, failed_json, whole};
use outhaul_console::how::DEADLINE;
use outhaul_console::input;
use outhaul_console::interrupts::Interrupts;
use outhaul_console::lanes::Lanes;
use outhaul_console::output::{Output, failure_text};
use outhaul_host::{CallIo, CallRequest, Grants, Output as Piece, Power};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::inner::{EventMessage, Lane};
use outhaul_protocol::text::escape_control;
use outhaul_protocol::types::Command;
use outhaul_protocol::value::Value;
use serde_json::Value as Json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Run, Trial, read};
use crate::call::lane_of;
use crate::config::Limits;
use crate::policy::is_granted;

/// Pieces of output or input that may wait: enough to overlap.
const WAITING: usize = 4;

/// The whole of it; gives the exit status.
pub(super) async fn run(what: &Run, home: Option<PathBuf>, output: Output) -> u8 {
    match try_it(what, home, output).await {
        Ok(status) => status,
        // A call that never was has the shape of one all the same.
        Err(failure) if output.json => {
            output.json(&failed_json(&failure));
            failure.code.exit()
        }
        Err(failure) => output.fail(&failure),
    }
}

async fn try_it(what: &Run, home: Option<PathBuf>, output: Output) -> Result<u8, Failure> {
    let said = what.how.said()?;
    let trial = Trial::load(read(&what.file)?, home).await?;
    let (grants, notes) = trial.policy(&what.grant, &what.deny)?;
    notes.iter().for_each(|note| output.talk(&format!("note: {note}")));
    let command = find(&trial, &what.command)?;
    let params = what.how.typed(said.as_ref(), &what.args, command, output.json)?;
    output.talk(&imports(&trial, &grants));
    let mut lanes = Lanes::new(!output.json, what.how.out.as_deref())?;
    let call = Call {
        command: command.name.clone(),
        params,
        grants: Arc::new(grants),
        input: if what.how.stdin { input::stdin() } else { nothing() },
        deadline: what.timeout.unwrap_or(DEADLINE),
    };
    let mut interrupts = Interrupts::new()?;
    let mut result = finish(&trial, call, &mut lanes, &mut interrupts).await.map_err(|failure| remedied(failure, trial.active.name()));
    if let Ok(value) = &result
        && let Err(failure) = whole(value, command, &mut lanes).await
    {
        result = Err(failure);
    }
    Ok(Ending { command, result: &result, lanes: &lanes, out: what.how.out.as_deref(), receipt: Json::Null }.show(output))
}

/// The command of a name; `-` may stand for `_`.
pub(super) fn find<'t>(trial: &'t Trial, name: &str) -> Result<&'t Command, Failure> {
    trial.pack().command(&name.replace('-', "_")).ok_or_else(|| {
        let all: Vec<&str> = trial.pack().commands().iter().map(|command| command.name.as_str()).collect();
        Failure::new(Code::UnknownCommand, format!("pack `{}` has no command `{}`", trial.active.name(), escape_control(name)))
            .hint(format!("it has {}", all.join(", ")))
    })
}

/// What it imports and whether it may.
fn imports(trial: &Trial, grants: &Grants) -> String {
    let state = |power: Power| match power {
        Power::Output | Power::Log => format!("{power} (every pack has it)"),
        power if is_granted(grants, power) => format!("{power} (granted)"),
        power => match power.item() {
            Some(item) => format!("{power} (refused; --grant {power}={item},…)"),
            None => format!("{power} (refused; --grant {power})"),
        },
    };
    let powers: Vec<String> = trial.active.powers().iter().map(|power| state(*power)).collect();
    let powers = if powers.is_empty() { "no power".to_owned() } else { powers.join(", ") };
    let mut text = format!("{} {} imports {powers}", trial.active.name(), escape_control(trial.pack().version()));
    let given = Limits::default().memory_mib;
    if let Some(wanted) = trial.pack().manifest().limits.memory_mib.filter(|wanted| *wanted > given) {
        text.push_str(&format!(
            "\nit has the {wanted} MiB of memory it wants; an agent gives {given} unless its owner raises `memory_mib`"
        ));
    }
    text
}

/// A call to be made.
pub(super) struct Call {
    pub(super) command: String,
    pub(super) params: Value,
    pub(super) grants: Arc<Grants>,
    pub(super) input: mpsc::Receiver<Bytes>,
    pub(super) deadline: Duration,
}

/// Input that has ended already.
pub(super) fn nothing() -> mpsc::Receiver<Bytes> {
    mpsc::channel(1).1
}

/// Calls until the call's one ending. The first interrupt cancels it, the second does not wait.
async fn finish(trial: &Trial, call: Call, lanes: &mut Lanes, interrupts: &mut Interrupts) -> Result<Value, Failure> {
    let cancel = CancellationToken::new();
    let work = make(trial, call, lanes, &cancel);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            () = interrupts.next() => {
                if cancel.is_cancelled() {
                    return Err(Failure::new(Code::Cancelled, "cancelled"));
                }
                cancel.cancel();
            }
            result = &mut work => return result,
        }
    }
}

/// Makes a call and moves its output.
pub(super) async fn make(trial: &Trial, call: Call, lanes: &mut Lanes, cancel: &CancellationToken) -> Result<Value, Failure> {
    let limits = Limits::default();
    let (output, pieces) = mpsc::channel(WAITING);
    let request = CallRequest {
        command: call.command,
        params: call.params,
        grants: call.grants,
        io: CallIo { output, input: call.input },
        deadline: Some(call.deadline),
        cancel: cancel.clone(),
        label: "trial".into(),
        output_limit: limits.output_mib << 20,
        shared_only: false,
        others: None,
    };
    let (result, moved) = tokio::join!(trial.pack().call(request), pump(pieces, lanes, cancel));
    match (result, moved) {
        // What we stopped the call for is the reason.
        (Ok(_), Err(why)) => Err(why),
        (Err(failure), Err(why)) if failure.code == Code::Cancelled => Err(why),
        (result, _) => result,
    }
}

/// Output to its lanes, until the call has ended. A lane that takes nothing more cancels the call.
async fn pump(mut pieces: mpsc::Receiver<Piece>, lanes: &mut Lanes, cancel: &CancellationToken) -> Result<(), Failure> {
    let mut broken = None;
    while let Some(piece) = pieces.recv().await {
        if broken.is_some() {
            continue;
        }
        let (lane, bytes) = match piece {
            Piece::Data { lane, bytes } => (lane_of(lane), bytes),
            Piece::Event { name, json } => (Lane::Event, EventMessage { name, json }.encode().into()),
        };
        if let Err(failure) = lanes.take(lane, bytes).await {
            broken = Some(failure);
            cancel.cancel();
        }
    }
    match broken {
        Some(failure) => Err(failure),
        None => lanes.drain().await,
    }
}

/// A refusal with the flag that would lift it. The sentence ends, as every refusal of a power, with what the owner of a
/// machine would type there.
pub(super) fn remedied(failure: Failure, pack: &str) -> Failure {
    let owner = format!("; on that machine: agent allow {pack} ");
    match failure.message.split_once(&owner) {
        Some((what, words)) if failure.code == Code::Denied => {
            let flag = words.replacen(' ', "=", 1);
            Failure::new(Code::Denied, what).hint(format!("try it with: --grant {flag}"))
        }
        _ => failure,
    }
}

/// A failure as it is told in a report.
pub(super) fn told(failure: &Failure, command: &Command) -> String {
    failure_text(failure, command.error.as_ref().and_then(Option::as_ref)).trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::explain;

    #[test]
    fn a_refusal_says_which_flag_lifts_it() {
        let denied = Failure::new(Code::Denied, explain("camera-2", Power::Camera));
        let failure = remedied(denied, "camera-2");
        assert_eq!(failure.message, "this machine's policy does not let pack `camera-2` use `camera`");
        assert_eq!(failure.hint.as_deref(), Some("try it with: --grant camera"));
        let process = Failure::new(Code::Denied, explain("p", Power::Process));
        assert_eq!(remedied(process, "p").hint.as_deref(), Some("try it with: --grant process=PROGRAM"));
        let own = Failure::new(Code::CommandFailed, explain("p", Power::Gpu));
        assert_eq!(remedied(own.clone(), "p"), own);
    }
}
