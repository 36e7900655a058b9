//! `call`: a pack reaches another pack's commands as far as it was granted, and hears what came of it; streams in all directions. Here one
//! host has both packs; whose policy the called one runs under is the agent's business and tested there.

use std::sync::Arc;

use bytes::Bytes;
use outhaul_host::power::call::{self, Asked, CallError, Others, Work};
use outhaul_host::{CallIo, CallRequest, Grants, Lane, Pack, Power};
use outhaul_protocol::error::Code;
use outhaul_protocol::value::{Value, params_from_json, parse_json};
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Caller, Ended, all, pack};

/// Another pack of this machine, with everything granted.
#[derive(Debug)]
pub(crate) struct Beside(pub(crate) Arc<Pack>);

impl Others for Beside {
    fn prepare(&self, asked: Asked) -> Result<Work, CallError> {
        let Asked { command, params, output, input } = asked;
        let unknown = || CallError::Unknown(format!("no `{command}` here"));
        let known = self.0.command(&command).ok_or_else(unknown)?.clone();
        let params = parse_json(&params).and_then(|json| params_from_json(&json, &known));
        let request = CallRequest {
            command,
            params: params.map_err(|failure| CallError::BadParams(failure.message))?,
            grants: Arc::new(all()),
            io: CallIo { output, input },
            deadline: None,
            cancel: CancellationToken::new(),
            label: "nested".into(),
            output_limit: 1 << 30,
            shared_only: false,
            others: None,
        };
        let pack = self.0.clone();
        Ok(Box::pin(async move { Ok(pack.call(request).await?.to_json(known.result.as_ref()).to_string()) }))
    }
}

async fn caller(other: &str, command: &str, params: Json, granted: &[&str]) -> Caller {
    let call: call::Grant = serde_json::from_value(json!(granted)).expect("a grant");
    let beside = Beside(pack(other).await);
    Caller::new(&pack("chain").await, &format!("chain.{command}"), params, 4).with(|request| {
        request.grants = Arc::new(Grants { call, ..Grants::default() });
        request.others = Some(Arc::new(beside));
    })
}

async fn chain(other: &str, command: &str, params: Json, granted: &[&str]) -> Ended {
    caller(other, command, params, granted).await.run().await
}

fn asking(command: &str, params: Json) -> Json {
    json!({ "command": command, "params": params.to_string() })
}

fn field<'v>(value: &'v Value, name: &str) -> &'v Value {
    value.get(name).expect(name)
}

#[tokio::test]
async fn another_packs_answer_is_collected_whole() {
    assert_eq!(pack("chain").await.powers(), [Power::Output, Power::Call]);
    let counted = chain("flow", "collect", asking("flow.count", json!({"bytes": 600})), &["flow.count"]).await;
    let value: Json = serde_json::from_str(field(counted.value(), "value").to_json(None).as_str().expect("text")).expect("JSON");
    assert_eq!((&value["name"], &value["data"]["bytes"]), (&json!("600 bytes"), &json!(600)));
    let bytes: Vec<u8> = (0..600u32).map(|n| (n % 251) as u8).collect();
    assert_eq!(field(counted.value(), "data"), &Value::Bytes(bytes));
    let two = chain("flow", "collect", asking("flow.two", json!({})), &["flow.*"]).await;
    assert_eq!(
        (field(two.value(), "stdout"), field(two.value(), "stderr")),
        (&Value::Bytes(b"out\n".into()), &Value::Bytes(b"err\n".into()))
    );
    let events = chain("flow", "collect", asking("flow.events", json!({"n": 3})), &["*"]).await;
    let Value::Array(events) = field(events.value(), "events") else { panic!("a list") };
    assert_eq!(events.len(), 3);
    assert_eq!(field(&events[2], "json"), &Value::Text("{\"n\":2}".into()));
}

#[tokio::test]
async fn streams_go_through_in_every_direction() {
    let caller = caller("flow", "forward", asking("flow.cat", json!({})), &["flow.cat"]).await;
    let Caller { pack, request, mut outputs, input } = caller;
    let sent: Vec<u8> = (0..1 << 20u32).map(|n| (n % 251) as u8).collect();
    let send = async {
        for piece in sent.chunks(50_000) {
            input.send(Bytes::copy_from_slice(piece)).await.expect("taken");
        }
        drop(input);
    };
    let take = async {
        let mut taken = Vec::new();
        while let Some(output) = outputs.recv().await {
            let outhaul_host::Output::Data { lane: Lane::Stdout, bytes } = output else { panic!("{output:?}") };
            taken.extend_from_slice(&bytes);
        }
        taken
    };
    let (result, (), taken) = tokio::join!(pack.call(request), send, take);
    assert_eq!(result.expect("ended"), Value::Text(format!("{}", sent.len())));
    assert!(taken == sent);
    let events = chain("flow", "forward", asking("flow.events", json!({"n": 2})), &["*"]).await;
    let line = |n: u32| format!("{{\"name\":\"tick\",\"json\":{{\"n\":{n}}}}}\n");
    assert_eq!(events.text(Lane::Stderr), line(0) + &line(1));
}

#[tokio::test]
async fn what_goes_wrong_there_is_told_and_what_fits_not_is_not_begun() {
    let detail = async |other, asked, granted: &[&str]| {
        let ended = chain(other, "collect", asked, granted).await;
        assert_eq!(ended.code(), Code::CommandFailed, "{:?}", ended.result);
        ended.failure().detail.as_ref().expect("a detail").to_json(None)
    };
    let trapped = detail("hostile", asking("hostile.trap", json!({})), &["*"]).await;
    assert_eq!(trapped["failed"]["code"], "trap", "{trapped}");
    let unknown = detail("echo", asking("echo.nothing", json!({})), &["*"]).await;
    assert_eq!(unknown["unknown"], "no `echo.nothing` here", "{unknown}");
    let bad = detail("flow", asking("flow.count", json!({"byte": 1})), &["*"]).await;
    assert!(bad["bad_params"].as_str().is_some_and(|text| text.contains("byte")), "{bad}");
    for params in ["", "[]", "{\"bytes\": 1, \"bytes\": 2}", "nonsense"] {
        let bad = detail("flow", json!({ "command": "flow.count", "params": params }), &["*"]).await;
        assert!(bad["bad_params"].is_string(), "{params}: {bad}");
    }
    let much = detail("hostile", asking("hostile.flood", json!({"total": 5_000_000})), &["*"]).await;
    assert!(much["limit"].as_str().is_some_and(|text| text.contains("`start` gives it as streams")), "{much}");
}

#[tokio::test]
async fn calls_at_once_are_few_and_those_let_go_end() {
    let nine = chain("flow", "together", json!({"command": "flow.hold", "params": "{}", "times": 9}), &["*"]).await;
    let detail = nine.failure().detail.as_ref().expect("a detail").to_json(None);
    assert!(detail["limit"].as_str().is_some_and(|text| text.starts_with("8 calls")), "{detail}");
    let five = chain("flow", "together", json!({"command": "flow.two", "params": "{}", "times": 5}), &["*"]).await;
    assert_eq!(five.value(), &Value::Int(5));
    // They would hold for ever, and their places with them.
    let gone = chain("flow", "abandon", json!({"command": "flow.hold", "params": "{}", "times": 8}), &["*"]).await;
    assert_eq!(gone.value(), &Value::Int(8));
}

#[tokio::test]
async fn what_is_not_granted_is_denied_whatever_the_pack_makes_of_it() {
    let sentence = "this machine's policy does not let pack `chain` call `flow.two`; on that machine: agent allow chain call flow.two";
    for (command, params) in
        [("collect", asking("flow.two", json!({}))), ("forward", asking("flow.two", json!({}))), ("quiet", json!({"command": "flow.two"}))]
    {
        let ended = chain("flow", command, params, &["flow.count"]).await;
        assert_eq!((ended.code(), ended.failure().message.as_str()), (Code::Denied, sentence), "{command}");
    }
    let unsigned = caller("flow", "quiet", json!({"command": "flow.two"}), &["*"]).await.with(|request| request.shared_only = true);
    let unsigned = unsigned.run().await;
    assert_eq!((unsigned.code(), unsigned.failure().message.contains("for signed calls only")), (Code::Denied, true));
}
