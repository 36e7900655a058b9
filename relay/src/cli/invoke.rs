//! `relay invoke`: types the parameters against the node's own description, calls, and shows what came of it.

use std::path::Path;
use std::time::Duration;

use outhaul_link::channel::CallSpec;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::limits;
use outhaul_protocol::types::{Command, Type};
use outhaul_protocol::value::{Value, params, parse_json};
use serde_json::{Value as Json, json};

use super::Context;
use super::args::How;
use super::call::{Finished, finish, receipt_json};
use super::lanes::Lanes;
use super::output::{failure_text, lane_json, result_text};
use crate::operator::{Drive, find_command};

/// How long a command may take unless `--timeout` says otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

/// The whole of `relay invoke`; gives the exit status.
pub(super) async fn invoke(context: &Context, node: &str, command: &str, how: &How, args: &[String]) -> Result<u8, Failure> {
    let args: Vec<String> = how.params_named.iter().chain(args).cloned().collect();
    let json = said_json(how)?;
    let (session, seen) = context.with_node(node).await?;
    // Whether it can be reached comes first: an offline node's commands may not even be known here.
    session.target(&seen)?;
    let meant = find_command(&session, &seen.known, command).await?;
    let value = params(json.as_ref(), &args, &meant.command, &mut |path| std::fs::read(path))?;
    if meant.command.has_stream() && how.out.is_none() && !context.out.json {
        return Err(Failure::new(Code::BadUsage, format!("`{}` gives bytes", meant.command.name))
            .hint("say where they go: `--out FILE`, or `--out -` for stdout"));
    }
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
    let drive = Drive::start(session, &seen, &spec).await?;
    let mut finished = finish(context.out, drive, &mut lanes, how.stdin, Some(deadline)).await;
    if let Ok(value) = &finished.result
        && let Err(failure) = whole(value, &meant.command, &lanes)
    {
        finished.result = Err(failure);
    }
    Ok(show(context, &meant.command, &finished, &lanes, how.out.as_deref()))
}

/// What `--params` or `--params-file` say.
fn said_json(how: &How) -> Result<Option<Json>, Failure> {
    if let Some(text) = &how.params {
        return parse_json(text).map(Some);
    }
    let Some(path) = &how.params_file else { return Ok(None) };
    let read = if path == Path::new("-") {
        if how.stdin {
            return Err(Failure::new(Code::BadUsage, "`--params-file -` and `-i` both want stdin"));
        }
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = read.map_err(|error| Failure::new(Code::BadUsage, format!("read `{}`: {error}", path.display())))?;
    parse_json(&text).map(Some)
}

/// The stream in a result, where its type has one.
fn stream_of<'v>(value: &'v Value, command: &Command) -> Option<&'v Value> {
    match &command.result {
        Some(Type::Stream) => Some(value),
        Some(Type::Record(fields)) => fields.iter().find(|field| field.ty == Type::Stream).and_then(|field| value.get(&field.name)),
        _ => None,
    }
}

/// As many bytes came as the result says; then they may have their name. That they are the right ones the receipt's
/// digest has shown already.
fn whole(value: &Value, command: &Command, lanes: &Lanes) -> Result<(), Failure> {
    if let Some((bytes, _)) = stream_of(value, command).and_then(Value::as_stream)
        && bytes != lanes.result_bytes()
    {
        return Err(Failure::new(Code::Truncated, format!("{} of {bytes} bytes arrived", lanes.result_bytes())));
    }
    lanes.keep_file()
}

fn show(context: &Context, command: &Command, finished: &Finished, lanes: &Lanes, out: Option<&Path>) -> u8 {
    let error_type = command.error.as_ref().and_then(Option::as_ref);
    if context.out.json {
        context.out.json(&finished_json(command, finished, lanes, out.is_some()));
    } else {
        match &finished.result {
            // With `--out -` stdout is the bytes'.
            Ok(value) if out == Some(Path::new("-")) => context.out.talk(&result_text(value, command.result.as_ref())),
            Ok(value) => context.out.data(&result_text(value, command.result.as_ref())),
            Err(failure) => context.out.talk(&failure_text(failure, error_type)),
        }
    }
    finished.result.as_ref().map_or_else(|failure| failure.code.exit(), |_| 0)
}

/// The contract's shape of a call.
pub(super) fn finished_json(command: &Command, finished: &Finished, lanes: &Lanes, saved: bool) -> Json {
    let (stdout, stderr) = lanes.kept();
    let error_type = command.error.as_ref().and_then(Option::as_ref);
    let result = match &finished.result {
        Ok(value) if saved => value.to_json(command.result.as_ref()),
        Ok(value) => with_bytes(value, command, lanes.kept_result().unwrap_or_default()),
        Err(_) => Json::Null,
    };
    json!({
        "ok": finished.result.is_ok(),
        "result": result,
        "error": finished.result.as_ref().err().map(|failure| failure.to_json(error_type)),
        "stdout": lane_json(stdout),
        "stderr": lane_json(stderr),
        "receipt": receipt_json(finished.receipt.as_ref()),
    })
}

/// The result with its stream's bytes in place, in base64.
fn with_bytes(value: &Value, command: &Command, bytes: &[u8]) -> Json {
    use base64::Engine as _;
    let encoded = || Json::String(base64::engine::general_purpose::STANDARD.encode(bytes));
    match &command.result {
        Some(Type::Stream) => encoded(),
        ty => {
            let mut json = value.to_json(ty.as_ref());
            if let Some(Type::Record(fields)) = ty
                && let Some(field) = fields.iter().find(|field| field.ty == Type::Stream)
            {
                json[&field.name] = encoded();
            }
            json
        }
    }
}

/// The same shape for a call that never was.
pub(super) fn failed_json(failure: &Failure) -> Json {
    json!({"ok": false, "result": null, "error": failure.to_json(None), "stdout": "", "stderr": "", "receipt": null})
}

/// A call of the agent's own commands or of one pack's, without lanes of interest: its typed result.
pub(super) async fn plain(context: &Context, drive: Drive, deadline: Option<Duration>) -> Result<Value, Failure> {
    let mut lanes = Lanes::new(false, None)?;
    finish(context.out, drive, &mut lanes, false, deadline).await.result
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use outhaul_protocol::inner::Lane;
    use outhaul_protocol::types::{Field, IntType};

    fn snap() -> Command {
        let field = |name: &str, ty| Field { name: name.into(), ty, doc: None };
        Command {
            name: "camera.snap".into(),
            doc: None,
            params: vec![],
            result: Some(Type::Record(vec![field("width", Type::Int(IntType::U32)), field("image", Type::Stream)])),
            error: Some(None),
        }
    }

    fn lanes(bytes: &'static [u8]) -> Lanes {
        let mut lanes = Lanes::new(false, None).expect("lanes");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(lanes.take(Lane::Result, Bytes::from_static(bytes))).expect("takes");
        runtime.block_on(lanes.take(Lane::Stdout, Bytes::from_static(b"hi\n"))).expect("takes");
        lanes
    }

    fn photo(bytes: u64) -> Value {
        Value::Map(vec![("width".into(), Value::Int(640)), ("image".into(), Value::stream(bytes, [0; 32]))])
    }

    #[test]
    fn bytes_are_in_json_or_in_the_file() {
        let finished = Finished { result: Ok(photo(3)), receipt: None };
        let kept = finished_json(&snap(), &finished, &lanes(b"abc"), false);
        assert_eq!(
            kept,
            json!({"ok": true, "result": {"width": 640, "image": "YWJj"}, "error": null, "stdout": "hi\n", "stderr": "", "receipt": null})
        );
        let saved = finished_json(&snap(), &finished, &lanes(b"abc"), true);
        assert_eq!(saved["result"]["image"], json!({"bytes": 3, "sha256": "00".repeat(32)}));
        let stream = Command { result: Some(Type::Stream), ..snap() };
        let finished = Finished { result: Ok(Value::stream(3, [0; 32])), receipt: None };
        assert_eq!(finished_json(&stream, &finished, &lanes(b"abc"), false)["result"], json!("YWJj"));
    }

    #[test]
    fn a_stream_that_is_cut_is_no_success() {
        assert!(whole(&photo(3), &snap(), &lanes(b"abc")).is_ok());
        assert_eq!(whole(&photo(4), &snap(), &lanes(b"abc")).expect_err("cut").code, Code::Truncated);
    }

    #[test]
    fn a_failure_has_the_whole_shape() {
        let finished = Finished { result: Err(Failure::new(Code::NodeOffline, "x")), receipt: None };
        let json = finished_json(&snap(), &finished, &Lanes::new(false, None).expect("lanes"), false);
        insta::assert_snapshot!(json.to_string(), @r#"{"error":{"code":"node_offline","detail":null,"hint":null,"message":"x"},"ok":false,"receipt":null,"result":null,"stderr":"","stdout":""}"#);
    }

    #[test]
    fn parameters_come_from_one_place() {
        let how = How { params: Some("{\"a\":1}".into()), ..How::default() };
        assert_eq!(said_json(&how).expect("reads"), Some(json!({"a": 1})));
        assert_eq!(said_json(&How { params: Some("{".into()), ..How::default() }).expect_err("cut").code, Code::BadUsage);
        let how = How { params_file: Some("-".into()), stdin: true, ..How::default() };
        assert_eq!(said_json(&how).expect_err("both").code, Code::BadUsage);
    }
}
