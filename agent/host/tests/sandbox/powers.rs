//! Each power: works when granted, refused when not, and the refusal is the call's ending whatever the pack makes of it.

use std::sync::Arc;

use bytes::Bytes;
use outhaul_host::power::process;
use outhaul_host::{Grants, Lane, Output};
use outhaul_protocol::error::Code;
use outhaul_protocol::value::Value;
use serde_json::{Value as Json, json};

use crate::support::{Caller, Ended, all, call, pack};

async fn denied(name: &str, command: &str, params: Json, grants: Grants) -> String {
    let pack = pack(name).await;
    let ended = Caller::new(&pack, command, params, 4).with(|request| request.grants = Arc::new(grants)).run().await;
    assert_eq!(ended.code(), Code::Denied, "{:?}", ended.result);
    ended.failure().message.clone()
}

#[tokio::test]
async fn a_swallowed_refusal_ends_the_call_all_the_same() {
    let sentence = "this machine's policy does not let pack `greedy` run `id`; on that machine: agent allow greedy process id";
    assert_eq!(denied("greedy", "greedy.try_it", json!({}), Grants::default()).await, sentence);
    assert_eq!(denied("greedy", "greedy.which_it", json!({}), Grants::default()).await, sentence);
    let sentence = denied("greedy", "greedy.try_it", json!({}), all()).await;
    assert!(sentence.contains("`id`") && sentence.ends_with("agent allow greedy process id"), "{sentence}");
    let pack = pack("greedy").await;
    let ended = Caller::new(&pack, "greedy.idle", json!({}), 4).with(|request| request.grants = Arc::new(Grants::default())).run().await;
    assert_eq!(ended.value(), &"ok".into());
}

#[tokio::test]
async fn what_is_not_granted_is_denied_power_by_power() {
    let line = |pack: &str, power: &str| format!("on that machine: agent allow {pack} {power}");
    assert!(denied("system", "system.info", json!({}), Grants::default()).await.ends_with(&line("system", "system")));
    assert!(denied("gpu", "gpu.list", json!({}), Grants::default()).await.ends_with(&line("gpu", "gpu")));
    assert!(denied("camera", "camera.list", json!({}), Grants::default()).await.ends_with(&line("camera", "camera")));
    assert!(denied("camera", "camera.snap", json!({}), Grants::default()).await.ends_with(&line("camera", "camera")));
    assert!(denied("thermal", "thermal.summary", json!({}), Grants::default()).await.ends_with(&line("thermal", "system")));
}

#[tokio::test]
async fn a_call_without_a_signature_gets_only_what_is_shared() {
    let unsigned = async |name: &str, command: &str, params: Json| {
        let pack = pack(name).await;
        Caller::new(&pack, command, params, 4).with(|request| request.shared_only = true).run().await
    };
    let refused = |ended: Ended| {
        assert_eq!(ended.code(), Code::Denied);
        assert!(ended.failure().message.contains("for signed calls only"), "{}", ended.failure().message);
    };
    refused(unsigned("system", "system.run", json!({"argv": ["uname"]})).await);
    refused(unsigned("system", "system.which", json!({"program": "uname"})).await);
    refused(unsigned("camera", "camera.list", json!({})).await);
    assert!(unsigned("system", "system.info", json!({})).await.result.is_ok());
}

#[tokio::test]
async fn the_machines_figures_are_read() {
    let pack = pack("system").await;
    let info = call(&pack, "system.info", json!({})).await;
    let info = info.value().to_json(pack.command("system.info").expect("known").result.as_ref());
    assert_eq!(info["os"]["arch"], json!(std::env::consts::ARCH));
    assert!(info["memory"]["total"].as_u64().is_some_and(|total| total > 0));
    let thermal = crate::support::pack("thermal").await;
    assert!(call(&thermal, "thermal.summary", json!({})).await.result.is_ok());
}

#[tokio::test]
async fn gpus_are_listed_or_said_not_to_be_there() {
    let pack = pack("gpu").await;
    let ended = call(&pack, "gpu.list", json!({})).await;
    match &ended.result {
        Ok(Value::Array(list)) => assert!(!list.is_empty()),
        Err(failure) => assert_eq!((failure.code, failure.message.starts_with("no_driver: ")), (Code::CommandFailed, true), "{failure:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_picture_is_a_stream_that_never_enters_the_guest() {
    let pack = pack("camera").await;
    let params = json!({"device": "test-pattern", "max_width": 640});
    let ended = call(&pack, "camera.snap", params).await;
    let photo = ended.value();
    assert_eq!(photo.get("media_type"), Some(&"image/jpeg".into()));
    let (bytes, _) = photo.get("data").and_then(Value::as_stream).expect("a stream");
    let sent = ended.lane(Lane::Result);
    assert_eq!(sent.len() as u64, bytes);
    assert!(sent.starts_with(&[0xff, 0xd8]) && sent.ends_with(&[0xff, 0xd9]));
}

#[tokio::test]
async fn a_program_runs_with_its_output_and_its_ending() {
    let pack = pack("system").await;
    let ended = call(&pack, "system.run", json!({"argv": ["uname", "-s"]})).await;
    assert_eq!(ended.text(Lane::Stdout), "Linux\n");
    assert_eq!(ended.value().get("exit_code"), Some(&Value::Int(0)));
    assert_eq!(ended.value().get("stdout_bytes"), Some(&Value::Int(6)));
    let ended = call(&pack, "system.run", json!({"argv": ["sh", "-c", "echo oops >&2; exit 3"]})).await;
    assert_eq!(ended.text(Lane::Stderr), "oops\n");
    assert_eq!(ended.value().get("exit_code"), Some(&Value::Int(3)));
    assert_eq!(ended.value().get("success"), Some(&Value::Bool(false)));
    let ended = call(&pack, "system.run", json!({"argv": ["sh", "-c", "kill -TERM $$"]})).await;
    assert_eq!(ended.value().get("signal"), Some(&Value::Int(15)));
    let ended = call(&pack, "system.which", json!({"program": "uname"})).await;
    assert!(matches!(ended.value(), Value::Text(path) if path.ends_with("/uname")));
}

#[tokio::test]
async fn a_program_reads_what_the_caller_sends() {
    let pack = pack("system").await;
    let Caller { request, mut outputs, input, .. } = Caller::new(&pack, "system.run", json!({"argv": ["cat"]}), 2);
    let sent: Vec<u8> = (0..2_000_000u32).map(|n| u8::try_from(n % 253).expect("small")).collect();
    let feed = async {
        for piece in sent.chunks(50_000) {
            input.send(Bytes::copy_from_slice(piece)).await.expect("taken");
        }
        drop(input);
    };
    let take = async {
        let mut taken = Vec::new();
        while let Some(Output::Data { bytes, .. }) = outputs.recv().await {
            taken.extend_from_slice(&bytes);
        }
        taken
    };
    let (result, (), taken) = tokio::join!(pack.call(request), feed, take);
    assert_eq!(result.expect("ran").get("success"), Some(&Value::Bool(true)));
    assert!(taken == sent);
}

#[tokio::test]
async fn much_output_comes_through_a_small_queue() {
    let pack = pack("system").await;
    let bytes = 100u64 << 20;
    let Caller { request, mut outputs, .. } =
        Caller::new(&pack, "system.run", json!({"argv": ["head", "-c", bytes.to_string(), "/dev/zero"]}), 2);
    let take = async {
        let mut total = 0;
        while let Some(Output::Data { bytes, .. }) = outputs.recv().await {
            total += bytes.len() as u64;
        }
        total
    };
    let (result, total) = tokio::join!(pack.call(request), take);
    assert_eq!(result.expect("ran").get("stdout_bytes"), Some(&Value::Int(bytes.into())));
    assert_eq!(total, bytes);
}

#[tokio::test]
async fn output_over_the_ceiling_kills_the_program_and_says_truncated() {
    let pack = pack("system").await;
    let ended = Caller::new(&pack, "system.run", json!({"argv": ["cat", "/dev/zero"]}), 4)
        .with(|request| request.output_limit = 1 << 20)
        .run()
        .await;
    assert_eq!(ended.value().get("truncated"), Some(&Value::Bool(true)));
    assert_eq!(ended.value().get("stdout_bytes"), Some(&Value::Int(1 << 20)));
    assert_eq!(ended.value().get("signal"), Some(&Value::Int(9)));
}

#[tokio::test]
async fn a_cancelled_call_leaves_no_program() {
    let pack = pack("system").await;
    let argv = ["sh", "-c", "echo $$; sleep 1000 & sleep 1000"];
    let Caller { request, mut outputs, .. } = Caller::new(&pack, "system.run", json!({"argv": argv}), 4);
    let cancel = request.cancel.clone();
    let caller = async {
        let Some(Output::Data { bytes, .. }) = outputs.recv().await else { panic!("its number") };
        cancel.cancel();
        String::from_utf8(bytes.to_vec()).expect("text").trim().to_owned()
    };
    let (result, pid) = tokio::join!(pack.call(request), caller);
    assert_eq!(result.expect_err("cancelled").code, Code::Cancelled);
    let begun = std::time::Instant::now();
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{pid} lives");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_programs_time_is_policys() {
    let pack = pack("system").await;
    let grant = process::Grant { allow: vec!["sleep".into()], max_secs: Some(0), ..process::Grant::default() };
    let ended = Caller::new(&pack, "system.run", json!({"argv": ["sleep", "1000"]}), 4)
        .with(|request| request.grants = Arc::new(Grants { process: Some(grant), ..Grants::default() }))
        .run()
        .await;
    assert_eq!(ended.code(), Code::CommandFailed);
    assert!(ended.failure().message.starts_with("limit: "), "{}", ended.failure().message);
}

#[tokio::test]
async fn a_program_that_does_not_read_its_input_ends_while_the_caller_still_may_write() {
    let pack = pack("system").await;
    let Caller { request, mut outputs, input, .. } = Caller::new(&pack, "system.run", json!({"argv": ["uname"]}), 4);
    input.send(Bytes::from_static(b"nobody reads this")).await.expect("room");
    let take = async { while outputs.recv().await.is_some() {} };
    let (result, ()) = tokio::join!(pack.call(request), take);
    assert_eq!(result.expect("ran").get("success"), Some(&Value::Bool(true)));
    assert!(input.is_closed());
}
