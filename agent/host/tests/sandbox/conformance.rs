//! The conformance pack calls every function that the WIT of this version has: with its power granted, without, and in a call that has no
//! signature of its own. What the WIT gains and the pack does not call fails here.

use std::path::Path;
use std::sync::Arc;

use outhaul_host::power::{containers, kv, location, screen};
use outhaul_host::{Grants, Host, HostConfig, Pack, Power};
use outhaul_protocol::error::Code;
use serde_json::json;
use wit_parser::{FunctionKind, Resolve, SourceMap};

use crate::neighbours::Beside;
use crate::support::{Caller, Ended, all, config, pack, wasm};

/// Every function as the pack knows it: `interface.function`, a resource's with the resource's name before it.
fn functions() -> Vec<(Power, String)> {
    let (mut resolve, mut files) = (Resolve::default(), SourceMap::default());
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/v0.1/host");
    for file in std::fs::read_dir(wit).expect("the WIT of this version") {
        let path = file.expect("an entry").path();
        files.push_str(&path.display().to_string(), std::fs::read_to_string(&path).expect("WIT"));
    }
    let group = files.parse().unwrap_or_else(|(_, error)| panic!("{error}"));
    let package = resolve.push_group(group).expect("resolves");
    let mut all = Vec::new();
    for (interface, id) in &resolve.packages[package].interfaces {
        let power = Power::parse(interface).expect("each interface is a power");
        for function in resolve.interfaces[*id].functions.values() {
            let resource = |id: &wit_parser::TypeId| resolve.types[*id].name.clone().expect("named");
            let name = match &function.kind {
                FunctionKind::Freestanding | FunctionKind::AsyncFreestanding => function.name.clone(),
                FunctionKind::Method(id) | FunctionKind::AsyncMethod(id) => format!("{}.{}", resource(id), function.item_name()),
                other => panic!("{other:?} of {}", function.name),
            };
            all.push((power, format!("{interface}.{name}")));
        }
    }
    all
}

async fn conformance(folder: &tempfile::TempDir) -> Arc<Pack> {
    let kv = Some(folder.path().join("kv"));
    let containers = containers::Config { socket: Some("/nowhere/docker.sock".into()), ..containers::Config::default() };
    let host = Host::new(HostConfig { kv, containers, seat: crate::seat::alone(), ..config() }).expect("a host");
    host.load(wasm("conformance")).await.expect("loads")
}

/// Everything there is, as far as this machine has it.
fn granted() -> Grants {
    Grants {
        kv: Some(kv::Grant { max_kib: 8, owner: "name-conformance".into() }),
        secrets: serde_json::from_value(json!(["token"])).expect("a grant"),
        call: serde_json::from_value(json!(["echo.say"])).expect("a grant"),
        containers: Some(Arc::new(serde_json::from_value(json!({"images": ["busybox:*"]})).expect("a grant"))),
        location: Some(location::Grant { coarse: true }),
        notify: true,
        screen: Some(screen::Grant { all: true, displays: Vec::new() }),
        ..all()
    }
}

async fn call(pack: &Arc<Pack>, name: &str, grants: Grants, shared_only: bool) -> Ended {
    let beside = Beside(crate::support::pack("echo").await);
    let caller = Caller::new(pack, "conformance.call", json!({ "name": name }), 4).with(|request| {
        request.grants = Arc::new(grants);
        request.others = Some(Arc::new(beside));
        request.shared_only = shared_only;
    });
    caller.run().await
}

/// What may come of a granted power on a machine that lacks what it is for.
fn lacking(power: Power) -> &'static [&'static str] {
    match power {
        Power::Gpu => &["NoDriver"],
        Power::Containers => &["NoRuntime"],
        Power::Notify | Power::Screen => &["Unavailable"],
        _ => &[],
    }
}

#[tokio::test]
async fn every_function_is_called_and_does_its_work_when_it_is_granted() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = conformance(&folder).await;
    let functions = functions();
    let mut powers: Vec<Power> = functions.iter().map(|(power, _)| *power).collect();
    powers.sort_unstable();
    powers.dedup();
    assert_eq!(pack.powers(), powers, "it imports every interface");
    assert_eq!(powers, Power::ALL.into_iter().filter(|power| !power.is_wasi()).collect::<Vec<_>>(), "every power has its interface");
    for (power, name) in functions {
        let ended = call(&pack, &name, granted(), false).await;
        let said = ended.result.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        let said = said.to_json(None);
        let said = said.as_str().expect("text");
        assert!(said == "ok" || lacking(power).contains(&said), "{name}: {said}");
    }
}

#[tokio::test]
async fn every_function_is_refused_when_it_is_not_granted_and_says_how_to_grant_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = conformance(&folder).await;
    for (power, name) in functions() {
        let ended = call(&pack, &name, Grants::default(), false).await;
        if matches!(power, Power::Output | Power::Log) {
            assert_eq!(ended.value(), &"ok".into(), "{name}");
            continue;
        }
        assert_eq!(ended.code(), Code::Denied, "{name}: {:?}", ended.result);
        let wanted = format!("on that machine: agent allow conformance {power}");
        assert!(ended.failure().message.contains(&wanted), "{name}: {}", ended.failure().message);
    }
    assert!(!folder.path().join("kv").exists(), "a refusal leaves nothing behind");
}

#[tokio::test]
async fn a_call_without_a_signature_gets_what_is_shared_of_each_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = conformance(&folder).await;
    for (power, name) in functions() {
        let ended = call(&pack, &name, granted(), true).await;
        if power.is_shared() {
            assert!(ended.result.is_ok(), "{name}: {:?}", ended.result);
        } else {
            assert_eq!(ended.code(), Code::Denied, "{name}: {:?}", ended.result);
            assert!(ended.failure().message.contains("for signed calls only"), "{name}: {}", ended.failure().message);
        }
    }
}

#[tokio::test]
async fn what_no_version_has_is_no_function_of_the_pack() {
    let ended = call(&pack("conformance").await, "teleport.now", granted(), false).await;
    assert_eq!(ended.code(), Code::CommandFailed);
}
