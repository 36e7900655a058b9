//! `kv`: values outlive calls, versions and agents, belong to one pack, and have a quota.

use std::sync::Arc;

use outhaul_host::power::kv;
use outhaul_host::{Grants, Host, HostConfig, Pack, Power};
use outhaul_protocol::error::Code;
use outhaul_protocol::value::Value;
use serde_json::{Value as Json, json};

use crate::support::{Caller, Ended, config, wasm};

/// A host that keeps values below a folder, and the fixture in it.
async fn keeper(dir: &tempfile::TempDir) -> Arc<Pack> {
    let host = Host::new(HostConfig { kv: Some(dir.path().join("kv")), ..config() }).expect("a host");
    host.load(wasm("kv")).await.expect("loads")
}

async fn call(pack: &Arc<Pack>, command: &str, params: Json, grant: Option<(&str, u64)>) -> Ended {
    let kv = grant.map(|(owner, max_kib)| kv::Grant { max_kib, owner: owner.into() });
    Caller::new(pack, &format!("keep.{command}"), params, 4)
        .with(|request| request.grants = Arc::new(Grants { kv, ..Grants::default() }))
        .run()
        .await
}

const MINE: Option<(&str, u64)> = Some(("name-kv", 8));

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("folder")
}

#[tokio::test]
async fn a_value_outlives_its_call_and_the_agent() {
    let dir = folder();
    let pack = keeper(&dir).await;
    assert_eq!(pack.powers(), [Power::Kv]);
    assert_eq!(call(&pack, "get", json!({"key": "a"}), MINE).await.value(), &Value::Null);
    assert!(call(&pack, "put", json!({"key": "a", "value": "aGVsbG8="}), MINE).await.result.is_ok());
    let again = keeper(&dir).await;
    assert_eq!(call(&again, "get", json!({"key": "a"}), MINE).await.value(), &Value::Bytes(b"hello".to_vec()));
    assert_eq!(call(&again, "keys", json!({"prefix": ""}), MINE).await.value(), &Value::Array(vec!["a".into()]));
    assert_eq!(call(&again, "remove", json!({"key": "a"}), MINE).await.value(), &Value::Bool(true));
    assert_eq!(call(&again, "get", json!({"key": "a"}), MINE).await.value(), &Value::Null);
}

#[tokio::test]
async fn another_owner_finds_nothing() {
    let dir = folder();
    let pack = keeper(&dir).await;
    assert!(call(&pack, "put", json!({"key": "a", "value": "aGVsbG8="}), MINE).await.result.is_ok());
    assert_eq!(call(&pack, "get", json!({"key": "a"}), Some(("name-other", 8))).await.value(), &Value::Null);
}

#[tokio::test]
async fn calls_side_by_side_lose_no_count() {
    let dir = folder();
    let pack = keeper(&dir).await;
    let count = || call(&pack, "count", json!({"key": "n"}), MINE);
    let ended = tokio::join!(count(), count(), count(), count());
    for ended in [ended.0, ended.1, ended.2, ended.3] {
        assert!(ended.result.is_ok(), "{:?}", ended.result);
    }
    assert_eq!(call(&pack, "count", json!({"key": "n"}), MINE).await.value(), &Value::Int(5));
}

#[tokio::test]
async fn the_quota_is_an_error_of_its_own() {
    let dir = folder();
    let pack = keeper(&dir).await;
    for params in
        [json!({"key": "a", "bytes": 9000}), json!({"key": "a", "bytes": 10_000_000}), json!({"key": "k".repeat(300), "bytes": 1})]
    {
        let ended = call(&pack, "fill", params, MINE).await;
        assert_eq!(ended.code(), Code::CommandFailed);
        assert!(ended.failure().message.starts_with("quota: "), "{}", ended.failure().message);
    }
    assert!(call(&pack, "fill", json!({"key": "a", "bytes": 8000}), MINE).await.result.is_ok());
    // More than the host takes in one crossing.
    assert_eq!(call(&pack, "fill", json!({"key": "a", "bytes": 40_000_000}), MINE).await.code(), Code::LimitMemory);
}

#[tokio::test]
async fn what_is_not_granted_is_denied_whatever_the_pack_makes_of_it() {
    let dir = folder();
    let pack = keeper(&dir).await;
    for (command, params) in
        [("get", json!({"key": "a"})), ("keys", json!({"prefix": ""})), ("count", json!({"key": "a"})), ("quiet", json!({}))]
    {
        let ended = call(&pack, command, params, None).await;
        assert_eq!(ended.code(), Code::Denied, "{command}");
        let sentence = "this machine's policy does not let pack `kv` use `kv`; on that machine: agent allow kv kv";
        assert_eq!(ended.failure().message, sentence);
    }
    let unsigned = Caller::new(&pack, "keep.quiet", json!({}), 4).with(|request| request.shared_only = true).run().await;
    assert_eq!(unsigned.code(), Code::Denied);
    assert!(!dir.path().join("kv").exists(), "a refusal leaves nothing behind");
}
