//! `relay invoke`: types the parameters against the node's own description, calls, and shows what came of it.

use std::time::Duration;

use outhaul_console::ending::{Ending, whole};
use outhaul_console::how::{DEADLINE, How};
use outhaul_console::lanes::Lanes;
use outhaul_link::channel::CallSpec;
use outhaul_protocol::error::Failure;
use outhaul_protocol::inner::EventMessage;
use outhaul_protocol::limits;
use outhaul_protocol::text::escape_control;
use outhaul_protocol::value::Value;

use super::Context;
use super::call::{finish, receipt_json};
use crate::operator::{Drive, find_command};

/// The whole of `relay invoke`; gives the exit status.
pub(super) async fn invoke(context: &Context, node: &str, command: &str, how: &How, args: &[String]) -> Result<u8, Failure> {
    let json = how.said()?;
    let (session, seen) = context.with_node(node).await?;
    // Whether it can be reached comes first: an offline node's commands may not even be known here.
    session.target(&seen)?;
    let meant = find_command(&session, &seen.known, command).await?;
    let value = how.typed(json.as_ref(), args, &meant.command, context.out.json)?;
    let deadline = context.global.timeout.unwrap_or(DEADLINE);
    let start_within = deadline.min(Duration::from_secs(limits::START_WITHIN_SECS));
    let spec = CallSpec {
        deadline: Some(deadline),
        pack: meant.pack,
        start_within,
        input: how.stdin,
        ..CallSpec::new(meant.command.name.clone(), value)
    };
    let mut lanes = Lanes::new(!context.out.json, how.out.as_deref())?;
    let opening = Drive::start(session, &seen, &spec);
    let mut finished = finish(context.out, opening, &mut lanes, how.stdin, Some(deadline)).await?;
    if let Ok(value) = &finished.result
        && let Err(failure) = whole(value, &meant.command, &mut lanes).await
    {
        finished.result = Err(failure);
    }
    let receipt = receipt_json(finished.receipt.as_ref());
    let ending = Ending { command: &meant.command, result: &finished.result, lanes: &lanes, out: how.out.as_deref(), receipt };
    Ok(ending.show(context.out))
}

/// What a node is at, in the words of a person who waits for it.
fn step(event: &EventMessage) -> String {
    let bytes = serde_json::from_str::<serde_json::Value>(&event.json).ok().and_then(|json| json["bytes"].as_u64());
    match (event.name.as_str(), bytes) {
        ("fetching", Some(bytes)) => format!("the node fetches {:.1} MB\n", bytes as f64 / 1e6),
        ("compiling", Some(bytes)) => format!("the node compiles {:.1} MB, once\n", bytes as f64 / 1e6),
        (name, _) => format!("{}\n", escape_control(name)),
    }
}

/// A call of the agent's own commands or of one pack's, without lanes of interest: its typed result.
pub(super) async fn plain(
    context: &Context,
    opening: impl Future<Output = Result<Drive, Failure>>,
    deadline: Option<Duration>,
) -> Result<Value, Failure> {
    let mut lanes = Lanes::new(false, None)?.telling(step);
    finish(context.out, opening, &mut lanes, false, deadline).await?.result
}
