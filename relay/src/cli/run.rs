//! `relay run`: `system.run` as people know `ssh HOST COMMAND`. Output as it comes, the program's own exit status; 255
//! for every failure that is ours or the node's.

use std::io::IsTerminal as _;
use std::time::Duration;

use outhaul_console::ending::Ending;
use outhaul_link::channel::CallSpec;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::Digest;
use outhaul_protocol::limits;
use outhaul_protocol::value::Value;

use super::Context;
use super::args::Run;
use super::call::{Finished, finish, receipt_json};
use super::lanes::Lanes;
use super::output::failure_text;
use crate::operator::{Drive, Known, Session, answering, find_command};

/// Every failure that is not the program's own.
pub(super) const OURS: u8 = 255;
const COMMAND: &str = "system.run";

/// The whole of `relay run`; gives the exit status.
pub(super) async fn run(context: &Context, run: &Run) -> Result<u8, Failure> {
    let params = params(run)?;
    let (session, seen) = context.with_node(&run.node).await?;
    // Whether it can be reached comes first: of a node that never was nothing else is known.
    session.target(&seen)?;
    let pack = system(&session, &seen.known).await?;
    let stdin = run.stdin || !std::io::stdin().is_terminal();
    let deadline = context.global.timeout;
    let start_within = deadline.unwrap_or(Duration::MAX).min(Duration::from_secs(limits::START_WITHIN_SECS));
    let spec = CallSpec { deadline, pack: Some(pack), start_within, input: stdin, ..CallSpec::new(COMMAND, params) };
    let command = match context.out.json {
        true => Some(find_command(&session, &seen.known, COMMAND).await?.command),
        false => None,
    };
    let mut lanes = Lanes::new(!context.out.json, None)?;
    let finished = finish(context.out, Drive::start(session, &seen, &spec), &mut lanes, stdin, deadline).await?;
    let (status, why) = status(&finished);
    let result = why.map_or(finished.result, Err);
    if let Some(command) = command {
        let receipt = receipt_json(finished.receipt.as_ref());
        context.out.json(&Ending { command: &command, result: &result, lanes: &lanes, out: None, receipt }.json());
    } else if let Err(failure) = &result {
        context.out.talk(&failure_text(failure, None));
    }
    Ok(status)
}

/// The pack that answers `system.run`.
async fn system(session: &Session, node: &Known) -> Result<Digest, Failure> {
    let packs = answering(session, node).await?;
    let pack = packs.iter().find(|pack| pack.interfaces.iter().any(|interface| interface == "system"));
    pack.map(|pack| Digest(pack.digest)).ok_or_else(|| {
        Failure::new(Code::UnknownCommand, format!("`{}` has no command `{COMMAND}`", node.node.name))
            .hint(format!("`relay nodes describe {}` lists its commands", node.node.name))
    })
}

fn params(run: &Run) -> Result<Value, Failure> {
    let text = |text: &String| Value::Text(text.clone());
    let mut params = vec![("argv".to_owned(), Value::Array(run.argv.iter().map(text).collect()))];
    if let Some(cwd) = &run.cwd {
        params.push(("cwd".into(), text(cwd)));
    }
    if !run.env.is_empty() {
        let pair = |pair: &String| {
            let (name, value) = pair
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| Failure::new(Code::BadUsage, format!("`--env {}` is not NAME=VALUE", pair.escape_debug())))?;
            Ok(Value::Array(vec![name.into(), value.into()]))
        };
        params.push(("env".into(), Value::Array(run.env.iter().map(pair).collect::<Result<_, Failure>>()?)));
    }
    Ok(Value::Map(params))
}

/// The exit status of how it went, and why it is no success although the call came to its end.
fn status(finished: &Finished) -> (u8, Option<Failure>) {
    let value = match &finished.result {
        Ok(value) => value,
        // The person's own doing, which a shell knows as 128 + SIGINT.
        Err(failure) if failure.code == Code::Cancelled => return (Code::Cancelled.exit(), None),
        Err(_) => return (OURS, None),
    };
    let number = |name: &str| match value.get(name) {
        Some(Value::Int(number)) => u8::try_from(number & 0xff).ok(),
        _ => None,
    };
    if value.get("truncated") == Some(&Value::Bool(true)) {
        let failure = Failure::new(Code::LimitOutput, "the program wrote more than the node passes on, and was ended");
        return (OURS, Some(failure.hint("output_mib in that machine's agent.toml is the ceiling")));
    }
    match (number("exit_code"), number("signal")) {
        (Some(code), _) => (code, None),
        (None, Some(signal)) => (signal.saturating_add(128), None),
        (None, None) => (OURS, Some(Failure::new(Code::Truncated, "the node did not say how the program ended"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(entries: &[(&str, Value)]) -> u8 {
        let map = entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        status(&Finished { result: Ok(Value::Map(map)), receipt: None }).0
    }

    #[test]
    fn the_status_is_the_program_s_or_255() {
        assert_eq!(ending(&[("exit_code", Value::Int(0)), ("signal", Value::Null)]), 0);
        assert_eq!(ending(&[("exit_code", Value::Int(3))]), 3);
        assert_eq!(ending(&[("exit_code", Value::Null), ("signal", Value::Int(9))]), 137);
        assert_eq!(ending(&[("exit_code", Value::Int(0)), ("truncated", Value::Bool(true))]), OURS);
        assert_eq!(ending(&[]), OURS);
        let failed = |code| status(&Finished { result: Err(Failure::new(code, "x")), receipt: None }).0;
        assert_eq!((failed(Code::Denied), failed(Code::LinkLost), failed(Code::Cancelled)), (255, 255, 130));
    }

    #[test]
    fn arguments_are_passed_as_they_are() {
        let run = Run {
            node: "n".into(),
            cwd: Some("/srv".into()),
            env: vec!["A=b=c".into()],
            stdin: false,
            argv: vec!["sh".into(), "-c".into(), "a b".into()],
        };
        assert_eq!(
            params(&run).expect("reads").to_json(None).to_string(),
            r#"{"argv":["sh","-c","a b"],"cwd":"/srv","env":[["A","b=c"]]}"#
        );
        let run = Run { env: vec!["A".into()], ..run };
        assert_eq!(params(&run).expect_err("no value").code, Code::BadUsage);
    }
}
