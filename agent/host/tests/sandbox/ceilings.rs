//! A pack that hurts itself hurts its own call: memory, time, stack, output, and the calls beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outhaul_host::{Grants, Lane};
use outhaul_protocol::error::Code;
use serde_json::json;

use crate::support::{Caller, MEMORY, all, call, pack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_spins_ends_at_its_callers_deadline_or_at_policys() {
    let pack = pack("hostile").await;
    let spin = async |deadline: u64, policy: Option<u64>| {
        let begun = Instant::now();
        let ended = Caller::new(&pack, "hostile.spin", json!({}), 4)
            .with(|request| {
                request.deadline = Some(Duration::from_millis(deadline));
                request.grants = Arc::new(Grants { time: policy.map(Duration::from_millis), ..all() });
            })
            .run()
            .await;
        assert!(begun.elapsed() < Duration::from_secs(5));
        ended.failure().clone()
    };
    let failure = spin(100, None).await;
    assert_eq!((failure.code, failure.message.as_str()), (Code::Deadline, "`hostile.spin` did not end within 0.1 s"));
    assert_eq!(spin(60_000, Some(100)).await.code, Code::LimitTime);
}

#[tokio::test]
async fn calls_beside_a_spinning_guest_go_on_even_on_one_thread() {
    let (hostile, echo) = (pack("hostile").await, pack("echo").await);
    let spin = Caller::new(&hostile, "hostile.spin", json!({}), 4);
    let cancel = spin.request.cancel.clone();
    let beside = async {
        for _ in 0..20 {
            assert_eq!(call(&echo, "echo.say", json!({"text": "x"})).await.value(), &"x".into());
        }
        cancel.cancel();
    };
    let (ended, ()) = tokio::join!(spin.run(), beside);
    assert_eq!(ended.code(), Code::Cancelled);
}

#[tokio::test]
async fn a_guest_that_eats_memory_is_told_how_much_there_is() {
    let pack = pack("hostile").await;
    let ended = call(&pack, "hostile.eat", json!({})).await;
    assert_eq!(ended.code(), Code::LimitMemory);
    assert!(ended.failure().message.contains(&format!("the {} MiB of memory", MEMORY >> 20)), "{}", ended.failure().message);
}

#[tokio::test]
async fn recursion_and_traps_are_told_by_name() {
    let pack = pack("hostile").await;
    let ended = call(&pack, "hostile.recurse", json!({"from": 0})).await;
    assert_eq!(
        (ended.code(), ended.failure().message.as_str()),
        (Code::Trap, "pack `hostile` 0.1.0 trapped in `hostile.recurse`: call stack exhausted")
    );
    let ended = call(&pack, "hostile.trap", json!({})).await;
    let sentence = "pack `hostile` 0.1.0 trapped in `hostile.trap`: wasm `unreachable` instruction executed";
    assert_eq!((ended.code(), ended.failure().message.as_str()), (Code::Trap, sentence));
    assert_eq!(call(&pack, "hostile.well", json!({})).await.value(), &"well".into());
}

#[tokio::test]
async fn values_larger_than_a_crossing_may_be_are_refused_before_they_are_built() {
    let pack = pack("hostile").await;
    for command in ["hostile.huge", "hostile.huge_text", "hostile.greedy_host"] {
        let ended = call(&pack, command, json!({})).await;
        assert_eq!(ended.code(), Code::LimitMemory, "{command}: {}", ended.failure().message);
        assert!(ended.failure().message.contains("handed over more than 16 MiB at once"), "{}", ended.failure().message);
    }
}

#[tokio::test]
async fn output_ends_at_its_ceiling_and_not_a_byte_later() {
    let pack = pack("hostile").await;
    let limit = 1_000_000;
    let ended =
        Caller::new(&pack, "hostile.flood", json!({"total": 4_000_000}), 4).with(|request| request.output_limit = limit).run().await;
    assert_eq!(ended.code(), Code::LimitOutput);
    assert_eq!(ended.lane(Lane::Stdout).len() as u64, limit);
    let ended = Caller::new(&pack, "hostile.flood", json!({"total": limit}), 4).with(|request| request.output_limit = limit).run().await;
    assert_eq!(ended.value(), &outhaul_protocol::value::Value::Int(limit.into()));
}

#[tokio::test]
async fn a_full_queue_makes_the_pack_wait() {
    let pack = pack("hostile").await;
    let caller = Caller::new(&pack, "hostile.flood", json!({"total": 10 << 20}), 2);
    let (mut outputs, call) = (caller.outputs, pack.call(caller.request));
    tokio::pin!(call);
    // Nobody takes anything: the call gets as far as the queue, and no further however often it is asked.
    for _ in 0..1000 {
        assert!(futures_poll(call.as_mut()).await.is_none());
    }
    assert_eq!(outputs.len(), 2);
    let take = async {
        let mut total = 0;
        while let Some(output) = outputs.recv().await {
            let outhaul_host::Output::Data { bytes, .. } = output else { panic!("data") };
            assert!(bytes.len() <= 256 << 10);
            total += bytes.len();
        }
        total
    };
    let (result, total) = tokio::join!(call, take);
    assert!(result.is_ok());
    assert_eq!(total, 10 << 20);
}

/// Polls once, after letting others run.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    tokio::task::yield_now().await;
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_caller_who_leaves_closes_the_output() {
    let pack = pack("hostile").await;
    let Caller { outputs, request, .. } = Caller::new(&pack, "hostile.flood", json!({"total": 10 << 20}), 2);
    drop(outputs);
    let failure = pack.call(request).await.expect_err("closed");
    assert_eq!((failure.code, failure.detail), (Code::CommandFailed, Some("cancelled".into())));
}

#[tokio::test]
async fn the_log_takes_a_flood_and_keeps_a_trickle() {
    let pack = pack("hostile").await;
    assert!(call(&pack, "hostile.log_flood", json!({"lines": 10_000})).await.result.is_ok());
}

#[tokio::test]
async fn all_slots_taken_is_busy_and_passes() {
    let host = outhaul_host::Host::new(outhaul_host::HostConfig { calls: 1, ..crate::support::config() }).expect("a host");
    let (flow, echo) =
        (host.load(crate::support::wasm("flow")).await.expect("loads"), host.load(crate::support::wasm("flow")).await.expect("loads"));
    let hold = Caller::new(&flow, "flow.hold", json!({}), 4);
    let cancel = hold.request.cancel.clone();
    let Caller { mut outputs, request, .. } = hold;
    let beside = async {
        // It holds a slot once it has said so.
        outputs.recv().await.expect("holding");
        assert_eq!(call(&echo, "flow.two", json!({})).await.code(), Code::Busy);
        cancel.cancel();
    };
    let (ended, ()) = tokio::join!(flow.call(request), beside);
    assert_eq!(ended.expect_err("cancelled").code, Code::Cancelled);
    assert!(call(&echo, "flow.two", json!({})).await.result.is_ok());
}
