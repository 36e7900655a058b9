//! A component of another language's usual kind: it prints, and there is nothing for it to find.

use outhaul_host::Lane;
use outhaul_protocol::error::Code;
use outhaul_protocol::value::Value;
use serde_json::json;

use crate::support::{Caller, call, pack};

#[tokio::test]
async fn what_it_prints_is_the_calls_output() {
    let pack = pack("wasi").await;
    let ended = call(&pack, "wasi_hello.greet", json!({"name": "Ada"})).await;
    assert_eq!(ended.value(), &"hello Ada".into());
    assert_eq!((ended.text(Lane::Stdout).as_str(), ended.text(Lane::Stderr).as_str()), ("hello Ada\n", "greeted Ada\n"));
}

#[tokio::test]
async fn there_are_no_files_and_no_environment() {
    let pack = pack("wasi").await;
    for path in ["/etc/passwd", "etc/passwd", ".", "/proc/self/environ"] {
        let ended = call(&pack, "wasi_hello.peek", json!({"path": path})).await;
        assert_eq!(ended.code(), Code::CommandFailed, "{path}");
    }
    assert_eq!(call(&pack, "wasi_hello.env", json!({})).await.value(), &Value::Array(Vec::new()));
}

#[tokio::test]
async fn long_output_waits_and_ends_at_the_ceiling() {
    let pack = pack("wasi").await;
    let name = "x".repeat(400_000);
    let ended = Caller::new(&pack, "wasi_hello.greet", json!({"name": name}), 1).run().await;
    assert!(ended.result.is_ok());
    assert_eq!((ended.lane(Lane::Stdout).len(), ended.lane(Lane::Stderr).len()), (400_007, 400_009));
    let ended = Caller::new(&pack, "wasi_hello.greet", json!({"name": name}), 1).with(|request| request.output_limit = 100_000).run().await;
    assert_eq!(ended.code(), Code::LimitOutput);
    assert_eq!(ended.lane(Lane::Stdout).len(), 100_000);
}
