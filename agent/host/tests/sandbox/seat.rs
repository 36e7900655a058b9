//! `location`, `notify` and `screen`, without a desktop: what is granted and what is not, whatever the pack makes of it.

use std::sync::Arc;

use outhaul_host::power::{location, screen, seat};
use outhaul_host::{Grants, Host, HostConfig, Pack, Power};
use outhaul_protocol::error::Code;
use outhaul_protocol::value::Value;
use serde_json::{Value as Json, json};

use crate::support::{Caller, Ended, config, wasm};

/// A machine whose place is known and that has neither a session nor a screen.
pub(crate) fn alone() -> seat::Config {
    let settings = |text: Json| serde_json::from_value(text).expect("settings");
    seat::Config {
        location: settings(json!({"fixed": {"latitude": 52.5163, "longitude": 13.3777, "accuracy": 5}})),
        notify: serde_json::from_value(json!({"bus": "unix:path=/nowhere/bus"})).expect("settings"),
        screen: serde_json::from_value(json!({"display": "/nowhere/X0"})).expect("settings"),
    }
}

async fn seated() -> Arc<Pack> {
    let seat = alone();
    Host::new(HostConfig { seat, ..config() }).expect("a host").load(wasm("seat")).await.expect("loads")
}

async fn call(pack: &Arc<Pack>, command: &str, params: Json, grants: Grants) -> Ended {
    Caller::new(pack, &format!("seat.{command}"), params, 4).with(|request| request.grants = Arc::new(grants)).run().await
}

fn granted() -> Grants {
    Grants {
        location: Some(location::Grant { coarse: false }),
        notify: true,
        screen: Some(screen::Grant { all: true, displays: Vec::new() }),
        ..Grants::default()
    }
}

fn message() -> Json {
    json!({"title": "Backup", "body": "is done", "urgency": "low"})
}

#[tokio::test]
async fn a_place_is_known_as_well_as_it_is_granted() {
    let pack = seated().await;
    assert_eq!(pack.powers(), [Power::Location, Power::Notify, Power::Screen]);
    let place = |ended: &Ended| ["latitude", "longitude", "accuracy", "altitude"].map(|name| ended.value().get(name).cloned());
    let exact = call(&pack, "where", json!({}), granted()).await;
    assert_eq!(place(&exact), [Value::Float(52.5163), Value::Float(13.3777), Value::Float(5.0), Value::Null].map(Some));
    let coarse = Grants { location: Some(location::Grant { coarse: true }), ..granted() };
    let rounded = call(&pack, "where", json!({}), coarse).await;
    assert_eq!(place(&rounded), [Value::Float(52.5), Value::Float(13.4), Value::Float(10_000.0), Value::Null].map(Some));
}

#[tokio::test]
async fn where_there_is_no_desktop_the_error_says_so() {
    let pack = seated().await;
    for (command, params) in [("tell", message()), ("displays", json!({})), ("snap", json!({}))] {
        let ended = call(&pack, command, params, granted()).await;
        assert_eq!(ended.code(), Code::CommandFailed, "{command}");
        assert!(ended.failure().message.starts_with("unavailable: "), "{}", ended.failure().message);
    }
    let long = json!({"title": "x".repeat(121), "body": "", "urgency": "low"});
    assert!(call(&pack, "tell", long, granted()).await.failure().message.starts_with("limit: "));
}

#[tokio::test]
async fn what_is_not_granted_is_denied_whatever_the_pack_makes_of_it() {
    let pack = seated().await;
    let asked =
        [("where", json!({}), "location"), ("tell", message(), "notify"), ("displays", json!({}), "screen"), ("snap", json!({}), "screen")];
    let quiet = ["location", "notify", "screen"].map(|power| ("quiet", json!({"power": power}), power));
    for (command, params, power) in asked.into_iter().chain(quiet) {
        let ended = call(&pack, command, params.clone(), Grants::default()).await;
        assert_eq!(ended.code(), Code::Denied, "{command}");
        let sentence = format!("this machine's policy does not let pack `seat` use `{power}`; on that machine: agent allow seat {power}");
        assert_eq!(ended.failure().message, sentence);
        let unsigned = Caller::new(&pack, &format!("seat.{command}"), params, 4)
            .with(|request| (request.grants, request.shared_only) = (Arc::new(granted()), true))
            .run()
            .await;
        assert_eq!(unsigned.code(), Code::Denied, "{command}");
        assert!(unsigned.failure().message.contains(&format!("`{power}` is for signed calls only")), "{}", unsigned.failure().message);
    }
    let some = Grants { screen: Some(screen::Grant { all: false, displays: vec!["HDMI-1".into()] }), ..Grants::default() };
    let ended = call(&pack, "snap", json!({"display": "DP-1"}), some).await;
    assert_eq!(ended.code(), Code::Denied);
    let sentence = "this machine's policy does not let pack `seat` see display `DP-1`; on that machine: agent allow seat screen DP-1";
    assert_eq!(ended.failure().message, sentence);
}
