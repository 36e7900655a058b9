//! How a call's ending is shown: the result or the failure, for people or as the contract's JSON.

use std::path::Path;

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::inner::Lane;
use outhaul_protocol::types::{Command, Type};
use outhaul_protocol::value::Value;
use serde_json::{Value as Json, json};

use crate::lanes::Lanes;
use crate::output::{Output, failure_text, lane_json, result_text};

/// A call that came to its end.
#[derive(Debug)]
pub struct Ending<'a> {
    /// what was called
    pub command: &'a Command,
    /// the result, or why there is none
    pub result: &'a Result<Value, Failure>,
    /// where its output went
    pub lanes: &'a Lanes,
    /// where the result's bytes went, if anywhere
    pub out: Option<&'a Path>,
    /// the node's word as JSON, or null
    pub receipt: Json,
}

impl Ending<'_> {
    /// Shows it; gives the exit status.
    pub fn show(&self, output: Output) -> u8 {
        let error_type = self.command.error.as_ref().and_then(Option::as_ref);
        if output.json {
            output.json(&self.json());
        } else {
            match self.result {
                Ok(Value::Bytes(bytes)) if self.out.is_some() => output.talk(&format!("{} bytes", bytes.len())),
                // With `--out -` stdout is the bytes'.
                Ok(value) if self.out == Some(Path::new("-")) => output.talk(&result_text(value, self.command.result.as_ref())),
                Ok(value) => output.data(&result_text(value, self.command.result.as_ref())),
                Err(failure) => output.talk(&failure_text(failure, error_type)),
            }
        }
        self.result.as_ref().map_or_else(|failure| failure.code.exit(), |_| 0)
    }

    /// The contract's shape of a call.
    #[must_use]
    pub fn json(&self) -> Json {
        let (stdout, stderr) = self.lanes.kept();
        let error_type = self.command.error.as_ref().and_then(Option::as_ref);
        json!({
            "ok": self.result.is_ok(),
            "result": self.result_json(),
            "error": self.result.as_ref().err().map(|failure| failure.to_json(error_type)),
            "stdout": lane_json(stdout),
            "stderr": lane_json(stderr),
            "receipt": self.receipt,
        })
    }

    /// The result as JSON, its stream's bytes in place unless they went elsewhere; null where there is none.
    #[must_use]
    pub fn result_json(&self) -> Json {
        match self.result {
            Ok(value) if self.out.is_some() => value.to_json(self.command.result.as_ref()),
            Ok(value) => with_bytes(value, self.command, self.lanes.kept_result().unwrap_or_default()),
            Err(_) => Json::Null,
        }
    }
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
#[must_use]
pub fn failed_json(failure: &Failure) -> Json {
    json!({"ok": false, "result": null, "error": failure.to_json(None), "stdout": "", "stderr": "", "receipt": null})
}

/// As many bytes came as the result says; then they may have their name. Whether they are the right ones is the receipt's
/// to say, where there is one.
pub async fn whole(value: &Value, command: &Command, lanes: &mut Lanes) -> Result<(), Failure> {
    // Bytes that are the whole result go where a stream's would.
    if let (Some(Type::Bytes), Value::Bytes(bytes)) = (&command.result, value)
        && lanes.has_place()
    {
        lanes.take(Lane::Result, bytes.clone().into()).await?;
        lanes.drain().await?;
    }
    if let Some((bytes, _)) = stream_of(value, command).and_then(Value::as_stream)
        && bytes != lanes.result_bytes()
    {
        return Err(Failure::new(Code::Truncated, format!("{} of {bytes} bytes arrived", lanes.result_bytes())));
    }
    lanes.keep_file()
}

/// The stream in a result, where its type has one.
fn stream_of<'v>(value: &'v Value, command: &Command) -> Option<&'v Value> {
    match &command.result {
        Some(Type::Stream) => Some(value),
        Some(Type::Record(fields)) => fields.iter().find(|field| field.ty == Type::Stream).and_then(|field| value.get(&field.name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
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

    fn json(command: &Command, result: Result<Value, Failure>, lanes: &Lanes, out: Option<&Path>) -> Json {
        Ending { command, result: &result, lanes, out, receipt: Json::Null }.json()
    }

    #[test]
    fn bytes_are_in_json_or_in_the_file() {
        let kept = json(&snap(), Ok(photo(3)), &lanes(b"abc"), None);
        assert_eq!(
            kept,
            json!({"ok": true, "result": {"width": 640, "image": "YWJj"}, "error": null, "stdout": "hi\n", "stderr": "", "receipt": null})
        );
        let saved = json(&snap(), Ok(photo(3)), &lanes(b"abc"), Some(Path::new("x")));
        assert_eq!(saved["result"]["image"], json!({"bytes": 3, "sha256": "00".repeat(32)}));
        let stream = Command { result: Some(Type::Stream), ..snap() };
        assert_eq!(json(&stream, Ok(Value::stream(3, [0; 32])), &lanes(b"abc"), None)["result"], json!("YWJj"));
    }

    #[test]
    fn a_stream_that_is_cut_is_no_success() {
        let whole = |photo: &Value| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(whole(photo, &snap(), &mut lanes(b"abc")))
        };
        assert!(whole(&photo(3)).is_ok());
        assert_eq!(whole(&photo(4)).expect_err("cut").code, Code::Truncated);
    }

    #[test]
    fn a_failure_has_the_whole_shape() {
        let json = json(&snap(), Err(Failure::new(Code::NodeOffline, "x")), &Lanes::new(false, None).expect("lanes"), None);
        insta::assert_snapshot!(json.to_string(), @r#"{"error":{"code":"node_offline","detail":null,"hint":null,"message":"x"},"ok":false,"receipt":null,"result":null,"stderr":"","stdout":""}"#);
    }

    #[test]
    fn bytes_that_are_the_result_have_their_file_too() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("token");
        let command = Command { result: Some(Type::Bytes), ..snap() };
        let mut lanes = Lanes::new(true, Some(&path)).expect("a place");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(whole(&Value::Bytes(b"abc".into()), &command, &mut lanes)).expect("written");
        assert_eq!(std::fs::read(&path).expect("there"), b"abc");
    }
}
