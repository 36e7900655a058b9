//! Deployments as documents: nodes follow them by themselves, whoever of node, relay and operator was away or killed, and
//! no relay invents one, brings an older one back or shows two.

mod wear;

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use outhaul_home::Home;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::frame::Frame;
use outhaul_protocol::objects::{Deployment, DeploymentDocument, Grant, Target};
use outhaul_protocol::signed::Signed;
use outhaul_protocol::time::Time;
use outhaul_relay::operator::{Fleet, Room, now};
use outhaul_tests::outsider::{fleet_key, grant};
use outhaul_tests::process::Process;
use outhaul_tests::stage::{Node, Stage, pack};
use serde_json::Value;

use crate::hostile::{Scene, runtime};

const OLD: &str = "hello";
const NEW: &str = "next: hello";

fn file(name: &str) -> String {
    pack(name).to_str().unwrap().to_owned()
}

/// What `echo.say` makes of it: which version answers.
fn say(stage: &Stage, node: &str) -> Result<String> {
    let answer = stage.run(&["--json", "invoke", node, "echo.say", "text=hello"])?.json()?;
    Ok(answer["result"].as_str().or(answer["error"]["code"].as_str()).unwrap_or_default().to_owned())
}

/// What a node states, once it has dealt with a serial.
fn stated(stage: &Stage, node: &str, name: &str, serial: u64) -> Result<Value> {
    let (name, serial) = (format!("name={name}"), format!("serial={serial}"));
    let arguments = ["--json", "--relay", &stage.url, "invoke", node, "pack.status", &name, &serial, "wait_ms=30000"];
    let answer = stage.run(&arguments)?.json()?;
    ensure!(answer["ok"] == true, "{answer}");
    Ok(answer["result"][0].clone())
}

/// Waits for several lines, in whatever order they come.
fn all_of(process: &mut Process, wanted: &[&str]) -> Result<()> {
    let open = Cell::new(wanted.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    process.wait_until(&wanted.join(" and "), |line| {
        let mut left = open.take();
        left.retain(|text| !line.text().contains(text.as_str()));
        let done = left.is_empty();
        open.set(left);
        done
    })?;
    Ok(())
}

#[test]
fn a_node_that_was_off_converges_by_itself_when_it_comes() -> Result<()> {
    let stage = Stage::start()?;
    let _one = stage.node("bench-1")?;
    let mut two = stage.paired("bench-2")?;
    let ran = stage.run(&["pack", "deploy", &file("fixtures/echo"), "--to", "all"])?.ok()?;
    assert!(
        ran.stdout.contains("bench-1: echo 0.1.0") && ran.stderr.contains("bench-2 is not connected: it follows when it comes"),
        "{ran:?}"
    );
    assert_eq!(say(&stage, "bench-1")?, OLD);
    stage.run(&["pack", "deploy", &file("fixtures/echo-next"), "--to", "all"])?.ok()?;
    // It was off for both, and goes to the newest at once.
    two.start()?;
    let state = stated(&stage, "bench-2", "echo", 2)?;
    assert_eq!((&state["state"], &state["serial"]), (&Value::from("applied"), &Value::from(2)), "{state}");
    assert_eq!((say(&stage, "bench-1")?, say(&stage, "bench-2")?), (NEW.to_owned(), NEW.to_owned()));
    // What it is told directly stands, also after a start, until the next document.
    stage.run(&["pack", "remove", "bench-2", "echo"])?.ok()?;
    two.stop()?;
    two.start()?;
    assert_eq!(say(&stage, "bench-2")?, "unknown_command");
    let shown = stage.run(&["pack", "status", "echo"])?.ok()?.stdout;
    assert!(shown.starts_with("echo: deployment 2, signed") && shown.contains("by you"), "{shown}");
    stage.run(&["pack", "rollback", "echo", "--to", "all"])?.ok()?;
    assert_eq!((say(&stage, "bench-1")?, say(&stage, "bench-2")?), (OLD.to_owned(), OLD.to_owned()));
    stage.run(&["pack", "remove", "echo", "--to", "all"])?.ok()?;
    assert_eq!(say(&stage, "bench-1")?, "unknown_command");
    let json = stage.run(&["--json", "pack", "status"])?.ok()?.json()?;
    assert_eq!((&json[0]["serial"], &json[0]["nodes"][1]["running"]), (&Value::from(4), &Value::Null), "{json}");
    Ok(())
}

#[test]
fn labels_say_who_is_meant_also_later_and_a_typing_mistake_changes_nothing() -> Result<()> {
    let stage = Stage::start()?;
    let (_one, mut two) = (stage.node("bench-1")?, stage.node("bench-2")?);
    let ran = stage.run(&["pack", "deploy", &file("fixtures/echo"), "--to", "role=edge"])?.exits(4)?;
    assert!(ran.stderr.contains("no node is selected by role=edge"), "{}", ran.stderr);
    assert!(!stage.home.path().join("relay/packs").read_dir()?.any(|_| true), "not a byte was sent");
    stage.run(&["nodes", "label", "bench-1", "role=edge"])?.ok()?;
    stage.run(&["pack", "push", &file("fixtures/echo")])?.ok()?;
    stage.run(&["pack", "deploy", "echo@0.1", "--to", "role=edge"])?.ok()?;
    assert_eq!((say(&stage, "bench-1")?, say(&stage, "bench-2")?), (OLD.to_owned(), "unknown_command".to_owned()));
    // The label comes to another node: it follows without another word.
    stage.run(&["nodes", "label", "bench-2", "role=edge"])?.ok()?;
    two.agent()?.wait_until("done", |line| line.text().contains("deployment done") && line.text().contains("Version("))?;
    assert_eq!(stated(&stage, "bench-2", "echo", 1)?["state"], "applied");
    assert_eq!(say(&stage, "bench-2")?, OLD);
    // A version that is known is also sent directly.
    stage.run(&["pack", "remove", "bench-2", "echo"])?.ok()?;
    stage.run(&["pack", "deploy", "echo@0.1.0", "bench-2"])?.ok()?;
    assert_eq!(say(&stage, "bench-2")?, OLD);
    stage.run(&["pack", "deploy", "echo@9", "bench-2"])?.exits(2)?;
    Ok(())
}

#[test]
fn a_relay_from_a_backup_brings_no_older_deployment_back() -> Result<()> {
    let mut stage = Stage::start()?;
    let mut node = stage.node("bench-1")?;
    stage.run(&["pack", "deploy", &file("fixtures/echo"), "--to", "all"])?.ok()?;
    let listen = stage.listen();
    let db = stage.home.path().join("relay/relay.db");
    stage.relay.take().unwrap().stop()?;
    let backup = std::fs::read(&db)?;
    stage.start_relay(&listen)?;
    node.agent()?.wait_for("connected")?;
    stage.run(&["pack", "deploy", &file("fixtures/echo-next"), "--to", "all"])?.ok()?;
    stage.relay.take().unwrap().stop()?;
    std::fs::write(&db, backup)?;
    stage.start_relay(&listen)?;
    all_of(node.agent()?, &["refused a deployment", "connected"])?;
    assert_eq!(say(&stage, "bench-1")?, NEW);
    let state = stated(&stage, "bench-1", "echo", 2)?;
    assert_eq!((&state["serial"], &state["refused"]["code"]), (&Value::from(2), &Value::from("replayed")), "{state}");
    // Neither does a home that only knows what that relay tells: the node says what it follows.
    std::fs::remove_dir_all(stage.home.path().join("operator/deployments"))?;
    let ran = stage.run(&["pack", "deploy", &file("fixtures/echo"), "--to", "all", "--downgrade"])?.ok()?;
    assert!(ran.stderr.contains("deployment 3 of echo is published"), "{}", ran.stderr);
    assert_eq!(say(&stage, "bench-1")?, OLD);
    Ok(())
}

/// Documents signed by the stage's operator.
struct Forge {
    room: Room,
    fleet: Fleet,
    chain: Vec<Blob>,
}

impl Forge {
    fn of(stage: &Stage) -> Result<Self> {
        let room = Room::of(&Home::find(Some(stage.home.path().to_owned()))?);
        let (fleet, chain) = (room.fleet()?, room.chain()?);
        Ok(Forge { room, fleet, chain })
    }

    /// Takes a pack out of all nodes.
    fn document(&self, name: &str, serial: u64, nodes: &str) -> Result<DeploymentDocument> {
        let key = self.room.key()?;
        let said = Deployment {
            iss: key.id(),
            aud: self.fleet.key.id(),
            iat: now(),
            name: name.into(),
            serial,
            previous: None,
            targets: vec![Target { nodes: vec![nodes.into()], release: None, before: None }],
        };
        Ok(DeploymentDocument { document: Blob(Signed::sign(&key, &said).into_bytes()), chain: self.chain.clone() })
    }

    /// The same under a grant that the fleet key gave otherwise.
    fn under(&self, stage: &Stage, name: &str, change: impl FnOnce(&mut Grant)) -> Result<DeploymentDocument> {
        let chain = vec![grant(&fleet_key(stage.home.path())?, self.room.key()?.public(), change)];
        Ok(DeploymentDocument { chain, ..self.document(name, 1, "*")? })
    }
}

#[test]
fn a_hostile_relay_neither_invents_nor_edits_nor_repeats_a_deployment() -> Result<()> {
    runtime()?.block_on(async {
        let scene = Scene::new(&["bench-1"]).await?;
        let (stage, id) = (&scene.stage, scene.nodes[0].1);
        let forge = Forge::of(stage)?;
        let inject = |document: &DeploymentDocument| {
            let (signed, chain) = (document.document.clone(), document.chain.clone());
            scene.hostile.inject(&id, Frame::Notice { signed, kind: "deployment".into(), chain }.encode())
        };
        let ended = |grant: &mut Grant| (grant.iat, grant.exp, grant.rights.packs) = (Time(1), Time(2), true);
        let mut forged = forge.document("forged", 1, "*")?;
        *forged.document.0.last_mut().context("bytes")? ^= 1;
        let mut edited = forge.document("edited", 1, "bench-9")?;
        let at = edited.document.0.windows(7).position(|part| part == b"bench-9").context("the name")?;
        edited.document.0[at..at + 7].copy_from_slice(b"bench-1");
        for (name, document, code) in [
            ("forged", forged, "bad_signature"),
            ("edited", edited, "bad_signature"),
            ("ended", forge.under(stage, "ended", ended)?, "expired"),
            ("weak", forge.under(stage, "weak", |_| ())?, "not_granted"),
            (
                "others",
                forge.under(stage, "others", |grant| (grant.rights.packs, grant.nodes) = (true, vec!["bench-9".into()]))?,
                "not_granted",
            ),
        ] {
            ensure!(inject(&document));
            let state = stated(stage, "bench-1", name, 1)?;
            ensure!(state["state"] == "none" && state["serial"] == 0, "{name} was taken: {state}");
            ensure!(state["refused"]["code"] == code && state["refused"]["serial"] == 1, "{name}: {state}");
        }
        // A genuine one, then the one before it, then another of its serial.
        ensure!(inject(&forge.document("echo", 5, "*")?));
        ensure!(stated(stage, "bench-1", "echo", 5)?["state"] == "applied");
        for (again, code) in [(forge.document("echo", 4, "*")?, "replayed"), (forge.document("echo", 5, "bench-1")?, "bad_signature")] {
            ensure!(inject(&again));
            // Judged in turn with what comes behind it.
            ensure!(inject(&forge.under(stage, &format!("behind-{code}").replace('_', "-"), |_| ())?));
            stated(stage, "bench-1", &format!("behind-{code}").replace('_', "-"), 1)?;
            let state = stated(stage, "bench-1", "echo", 5)?;
            ensure!(state["serial"] == 5 && state["state"] == "applied" && state["refused"]["code"] == code, "{state}");
            ensure!(state["conflict"].is_string() == (code == "bad_signature"), "{state}");
        }
        // One it holds back reaches whoever the operator reaches.
        let ran = stage.run(&["--relay", &stage.url, "pack", "remove", "held-back", "--to", "all"])?.ok()?;
        ensure!(ran.stdout.contains("bench-1: held-back is removed"), "{ran:?}");
        ensure!(stated(stage, "bench-1", "held-back", 1)?["state"] == "applied");
        scene.all_is_well("bench-1").await?;
        Ok(())
    })
}

#[test]
fn canaries_that_do_not_do_well_stop_a_deployment_and_get_back_what_they_had() -> Result<()> {
    let stage = Stage::start()?;
    let names = ["bench-1", "bench-2", "bench-3"];
    let _nodes = names.iter().map(|name| stage.node(name)).collect::<Result<Vec<Node>>>()?;
    let says = || names.iter().map(|name| say(&stage, name)).collect::<Result<Vec<String>>>();
    stage.run(&["pack", "deploy", &file("fixtures/echo"), "--to", "all"])?.ok()?;
    let next = file("fixtures/echo-next");
    let canary = |health: &str| stage.run(&["pack", "deploy", &next, "--to", "all", "--canary", "34%", "--health", health]);
    let ran = canary("echo.nothing")?.exits(2)?;
    assert!(
        ran.stderr.contains("first on 2 of 3 nodes") && ran.stderr.contains("stopped after 2 of 3 nodes, and taken back there"),
        "{}",
        ran.stderr
    );
    assert_eq!(says()?, [OLD, OLD, OLD]);
    let json = stage.run(&["--json", "pack", "status", "echo"])?.ok()?.json()?;
    let states = json[0]["nodes"].as_array().unwrap();
    assert!(json[0]["serial"] == 3 && states.iter().all(|node| node["state"] == "applied" && node["serial"] == 3), "{json}");
    // With a command that answers it goes through.
    canary("system.info")?.ok()?;
    assert_eq!(says()?, [NEW, NEW, NEW]);
    // A pack that was not there before is taken out again.
    let ran = stage.run(&["pack", "deploy", &file("thermal"), "--to", "all", "--canary", "1%", "--health", "thermal.nothing"])?;
    assert_ne!(ran.code, 0);
    let json = stage.run(&["--json", "pack", "status", "thermal"])?.ok()?.json()?;
    assert!(json[0]["nodes"].as_array().unwrap().iter().all(|node| node["running"].is_null()), "{json}");
    Ok(())
}

#[test]
fn a_publisher_whom_a_node_does_not_trust_fails_there_with_its_sentence_and_is_tried_again() -> Result<()> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    let own = stage.run(&["--json", "publisher", "show"])?.ok()?.json()?["key"].as_str().unwrap().to_owned();
    node.run(&["trust", "remove", &own])?.ok()?;
    let ran = stage.run(&["pack", "deploy", &file("fixtures/echo"), "--to", "all"])?.exits(3)?;
    assert!(ran.stderr.contains("whose packs this machine's owner refuses"), "{}", ran.stderr);
    let shown = stage.run(&["pack", "status", "echo"])?.ok()?.stdout;
    assert!(shown.contains("failed") && shown.contains("whose packs this machine's owner refuses (denied)"), "{shown}");
    let mut node = node;
    node.run(&["trust", "publisher", &own])?.ok()?;
    node.agent()?.wait_for("deployment done")?;
    assert_eq!(stated(&stage, "bench-1", "echo", 1)?["state"], "applied");
    assert_eq!(say(&stage, "bench-1")?, OLD);
    Ok(())
}
