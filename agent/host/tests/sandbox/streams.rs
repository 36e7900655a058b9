//! Streams of results, of output and of input, made by hosts and by guests.

use bytes::Bytes;
use outhaul_host::{Lane, Output};
use outhaul_protocol::error::Code;
use outhaul_protocol::value::Value;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{Caller, call, pack};

fn counting(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|n| u8::try_from(n % 251).expect("small")).collect()
}

#[tokio::test]
async fn a_results_stream_goes_over_its_lane_and_leaves_length_and_digest() {
    let pack = pack("flow").await;
    for bytes in [0, 1, 100_000, 5_000_000] {
        let ended = call(&pack, "flow.count", json!({"bytes": bytes})).await;
        let sent = counting(bytes);
        let stream = Value::stream(bytes, Sha256::digest(&sent).into());
        assert_eq!(ended.value(), &Value::Map(vec![("name".into(), format!("{bytes} bytes").into()), ("data".into(), stream.clone())]));
        assert!(ended.lane(Lane::Result) == sent);
        let ended = call(&pack, "flow.bare", json!({"bytes": bytes})).await;
        assert_eq!(ended.value(), &stream);
    }
}

#[tokio::test]
async fn a_results_stream_ends_the_call_at_the_ceiling() {
    let pack = pack("flow").await;
    let ended = Caller::new(&pack, "flow.count", json!({"bytes": 1_000_000}), 4).with(|request| request.output_limit = 300_000).run().await;
    assert_eq!(ended.code(), Code::LimitOutput);
    assert_eq!(ended.lane(Lane::Result), &counting(300_000)[..]);
}

#[tokio::test]
async fn what_a_guest_pipes_arrives_whole_and_waits_for_its_reader() {
    let pack = pack("flow").await;
    let ended = Caller::new(&pack, "flow.pipe_guest", json!({"bytes": 3_000_001}), 1).run().await;
    assert_eq!(ended.value(), &Value::Int(3_000_001));
    assert!(ended.lane(Lane::Stdout) == counting(3_000_001));
    let ended =
        Caller::new(&pack, "flow.pipe_guest", json!({"bytes": 1_000_000}), 4).with(|request| request.output_limit = 70_000).run().await;
    assert_eq!(ended.code(), Code::LimitOutput);
    assert_eq!(ended.lane(Lane::Stdout).len(), 70_000);
}

#[tokio::test]
async fn two_lanes_and_events_are_told_apart() {
    let pack = pack("flow").await;
    let ended = call(&pack, "flow.two", json!({})).await;
    assert_eq!((ended.text(Lane::Stdout).as_str(), ended.text(Lane::Stderr).as_str()), ("out\n", "err\n"));
    let ended = call(&pack, "flow.events", json!({"n": 3})).await;
    let event = |n| Output::Event { name: "tick".into(), json: format!("{{\"n\":{n}}}") };
    assert_eq!(ended.outputs, [event(0), event(1), event(2)]);
}

#[tokio::test]
async fn the_callers_input_passes_by_the_guest_or_through_it() {
    let pack = pack("flow").await;
    for command in ["flow.cat", "flow.swallow"] {
        let Caller { request, mut outputs, input, .. } = Caller::new(&pack, command, json!({}), 2);
        let feed = async move {
            for piece in counting(1_000_000).chunks(70_000) {
                input.send(Bytes::copy_from_slice(piece)).await.expect("taken");
            }
        };
        let take = async {
            let mut taken = Vec::new();
            while let Some(Output::Data { bytes, .. }) = outputs.recv().await {
                taken.extend_from_slice(&bytes);
            }
            taken
        };
        let (result, (), taken) = tokio::join!(pack.call(request), feed, take);
        assert_eq!(result, Ok(Value::Int(1_000_000)), "{command}");
        assert!(if command == "flow.cat" { taken == counting(1_000_000) } else { taken.is_empty() });
    }
}

#[tokio::test]
async fn a_call_without_end_is_cancelled_at_once() {
    let pack = pack("flow").await;
    let Caller { request, mut outputs, .. } = Caller::new(&pack, "flow.hold", json!({}), 4);
    let cancel = request.cancel.clone();
    let caller = async {
        let said = outputs.recv().await;
        assert_eq!(said, Some(Output::Data { lane: Lane::Stdout, bytes: Bytes::from_static(b"holding\n") }));
        cancel.cancel();
        assert_eq!(outputs.recv().await, None, "the queue closes with the call");
    };
    let (result, ()) = tokio::join!(pack.call(request), caller);
    assert_eq!(result.expect_err("cancelled").code, Code::Cancelled);
}

#[tokio::test]
async fn a_call_that_waits_in_the_host_ends_at_its_deadline_too() {
    let pack = pack("flow").await;
    let ended = Caller::new(&pack, "flow.hold", json!({}), 4)
        .with(|request| request.deadline = Some(std::time::Duration::from_millis(50)))
        .run()
        .await;
    assert_eq!(ended.code(), Code::Deadline);
}
