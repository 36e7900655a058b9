//! Whose packs a machine takes: signed ones of publishers it trusts, and nothing that was stripped, forged, swapped,
//! made older, or revoked on the way. What was granted stays with who it was granted to.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use outhaul_tests::packs::renamed;
use outhaul_tests::process::{Line, Ran, binary};
use outhaul_tests::stage::{Node, Stage, command, pack};
use serde_json::Value;

/// Somebody else who makes packs.
struct Publisher {
    home: tempfile::TempDir,
    key: String,
    fingerprint: String,
}

impl Publisher {
    fn new() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let shown = run_in(home.path(), &["--json", "publisher", "show"])?.ok()?.json()?;
        let text = |name: &str| shown[name].as_str().map(str::to_owned).with_context(|| format!("{name}: {shown}"));
        Ok(Publisher { key: text("key")?, fingerprint: text("fingerprint")?, home })
    }

    /// A copy of a pack with this publisher's signature beside it.
    fn signed(&self, component: &Path) -> Result<PathBuf> {
        let path = self.home.path().join(component.file_name().context("a name")?);
        std::fs::copy(component, &path)?;
        run_in(self.home.path(), &["pack", "sign", text(&path)])?.ok()?;
        Ok(path)
    }
}

fn run_in(home: &Path, arguments: &[&str]) -> Result<Ran> {
    let mut run = command(&binary("relay")?, home);
    run.args(arguments);
    Ok(Ran::of(run.output()?))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn deploy(stage: &Stage, path: &Path, extra: &[&str]) -> Result<Ran> {
    stage.run(&[&["--json", "pack", "deploy", text(path), "bench-1"], extra].concat())
}

/// The refusal of a deploy that did not succeed.
fn refusal(ran: &Ran) -> Result<Value> {
    let json = ran.json()?;
    let error = if json.is_array() { json[0]["error"].clone() } else { json["error"].clone() };
    anyhow::ensure!(error["code"].is_string(), "it was taken: {json}");
    Ok(error)
}

fn refused(ran: Ran, code: &str, exit: i32) -> Result<Value> {
    let error = refusal(&ran)?;
    anyhow::ensure!(error["code"] == code && ran.code == exit, "{code} was wanted, with {exit}: {} {error}", ran.code);
    Ok(error)
}

/// The agent's own install, without what the command line checks before.
fn install(stage: &Stage, path: &Path, signature: Option<&Path>) -> Result<Ran> {
    let bytes = std::fs::read(path)?;
    let (digest, size) = (format!("digest={}", outhaul_protocol::keys::sha256(&bytes)), format!("size={}", bytes.len()));
    let signature = signature.map(|path| format!("signature=@{}", text(path)));
    let mut arguments = vec!["--json", "invoke", "bench-1", "pack.install", &digest, &size];
    arguments.extend(signature.as_deref());
    stage.run(&arguments)
}

fn invoke(stage: &Stage, arguments: &[&str]) -> Result<Value> {
    stage.run(&[&["--json", "invoke", "bench-1"], arguments].concat())?.json()
}

fn code(stage: &Stage, command: &str) -> Result<String> {
    Ok(invoke(stage, &[command])?["error"]["code"].as_str().unwrap_or("none").to_owned())
}

/// A pack's versions on the node, as `pack list` has them.
fn listed(stage: &Stage, name: &str) -> Result<Vec<Value>> {
    let all = stage.run(&["--json", "pack", "list", "bench-1"])?.ok()?.json()?;
    Ok(all.as_array().context("a list")?.iter().filter(|pack| pack["name"] == name).cloned().collect())
}

fn scene() -> Result<(Stage, Node)> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    Ok((stage, node))
}

#[test]
fn what_is_deployed_is_signed_with_this_homes_key_and_that_is_said() -> Result<()> {
    let (stage, _node) = scene()?;
    let own = stage.run(&["--json", "publisher", "show"])?.ok()?.json()?;
    let ran = stage.run(&["pack", "deploy", text(&pack("thermal")), "bench-1"])?.ok()?;
    let said = format!("signed thermal 0.1.0 with this home's key: publisher {}", own["fingerprint"].as_str().unwrap());
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    assert_eq!(invoke(&stage, &["thermal.summary"])?["ok"], true);
    assert_eq!(listed(&stage, "thermal")?[0]["publisher"], own["key"]);
    assert!(!pack("thermal").with_extension("wasm.cose").exists(), "nothing is left beside the component");
    Ok(())
}

#[test]
fn a_machine_paired_by_a_code_the_relay_kept_trusts_the_same_publisher() -> Result<()> {
    let stage = Stage::start()?;
    let made = stage.run(&["--json", "pair", "new", "--detach"])?.ok()?.json()?;
    let mut node = Node::new("bench-1")?;
    node.run(&["pair", "--relay", &stage.url, "--code", made["code"].as_str().unwrap(), "--name", "bench-1"])?.ok()?;
    node.start()?;
    deploy(&stage, &pack("thermal"), &[])?.ok()?;
    Ok(())
}

#[test]
fn nothing_but_a_trusted_signature_over_exactly_this_component_lets_it_in() -> Result<()> {
    let (stage, _node) = scene()?;
    let folder = tempfile::tempdir()?;
    let (thermal, echo) = (folder.path().join("thermal.wasm"), folder.path().join("echo.wasm"));
    std::fs::copy(pack("thermal"), &thermal)?;
    std::fs::copy(pack("fixtures/echo"), &echo)?;
    for file in [&thermal, &echo] {
        stage.run(&["pack", "sign", text(file)])?.ok()?;
        stage.run(&["pack", "verify", text(file)])?.ok()?;
    }
    let beside = |file: &Path| PathBuf::from(format!("{}.cose", file.display()));
    let bare = refused(deploy(&stage, &thermal, &["--unsigned"])?, "bad_signature", 7)?;
    assert_eq!(bare["message"], "the pack comes without a publisher's signature, and unsigned packs are refused");
    assert_eq!(bare["hint"], "sign it with `relay pack sign FILE` and deploy it again");
    let good = std::fs::read(beside(&thermal))?;
    let (forged, other) = (folder.path().join("forged"), Publisher::new()?);
    let mut bytes = good.clone();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&forged, bytes)?;
    let unknown = beside(&other.signed(&thermal)?);
    // Around the command line's own checks: the relay has the bytes, and the agent alone judges.
    refused(install(&stage, &thermal, None)?, "bad_signature", 7)?;
    refused(install(&stage, &thermal, Some(&forged))?, "bad_signature", 7)?;
    let swapped = refused(install(&stage, &thermal, Some(&beside(&echo)))?, "bad_signature", 7)?;
    assert!(swapped["message"].as_str().unwrap().contains("is for component"), "{swapped}");
    let stranger = refused(install(&stage, &thermal, Some(&unknown))?, "bad_key", 7)?;
    assert!(stranger["message"].as_str().unwrap().contains(&other.fingerprint), "{stranger}");
    assert_eq!(code(&stage, "thermal.summary")?, "unknown_command");
    // The command line tells a stale signature before anything is sent.
    std::fs::copy(beside(&echo), beside(&thermal))?;
    let stale = refused(deploy(&stage, &thermal, &[])?, "bad_signature", 7)?;
    assert!(stale["hint"].as_str().unwrap().contains("relay pack sign"), "{stale}");
    assert_eq!(stage.run(&["pack", "verify", text(&thermal)])?.code, 7);
    std::fs::write(beside(&thermal), good)?;
    deploy(&stage, &thermal, &[])?.ok()?;
    assert_eq!(invoke(&stage, &["thermal.summary"])?["ok"], true);
    // What came with the agent needs nobody's word.
    deploy(&stage, &pack("gpu"), &["--unsigned"])?.ok()?;
    Ok(())
}

#[test]
fn a_relay_that_serves_other_bytes_than_the_digest_ships_nothing() -> Result<()> {
    let (stage, _node) = scene()?;
    let _other = stage.node("bench-2")?;
    stage.run(&["pack", "deploy", text(&pack("thermal")), "bench-2"])?.ok()?;
    let bytes = std::fs::read(pack("thermal"))?;
    let kept = stage.home.path().join("relay/packs").join(outhaul_protocol::keys::sha256(&bytes).to_string());
    let mut evil = std::fs::read(&kept)?;
    let at = evil.len() / 2;
    evil[at] ^= 1;
    std::fs::write(&kept, evil)?;
    refused(deploy(&stage, &pack("thermal"), &[])?, "digest_mismatch", 8)?;
    assert_eq!(code(&stage, "thermal.summary")?, "unknown_command");
    Ok(())
}

#[test]
fn the_machines_owner_trusts_a_publisher_and_takes_that_back() -> Result<()> {
    let (stage, mut node) = scene()?;
    let acme = Publisher::new()?;
    let thermal = acme.signed(&pack("thermal"))?;
    let error = refused(deploy(&stage, &thermal, &[])?, "bad_key", 7)?;
    assert!(error["hint"].as_str().unwrap().contains("agent trust publisher KEY"), "{error}");
    node.run(&["trust", "publisher", &acme.key, "--name", "acme"])?.ok()?;
    deploy(&stage, &thermal, &[])?.ok()?;
    node.stop()?;
    node.start()?;
    assert_eq!(invoke(&stage, &["thermal.summary"])?["ok"], true, "verified again at the start");
    node.run(&["trust", "remove", "acme"])?.ok()?;
    node.agent()?.wait_for("a pack stops answering")?;
    assert_eq!(code(&stage, "thermal.summary")?, "unknown_command");
    let told = listed(&stage, "thermal")?;
    assert!(told[0]["refused"].as_str().unwrap().contains("does not trust"), "{told:?}");
    node.stop()?;
    node.start()?;
    assert_eq!(code(&stage, "thermal.summary")?, "unknown_command", "nor after a start");
    let shown = node.run(&["policy", "show"])?.ok()?.stdout;
    assert!(shown.contains("it does not answer"), "{shown}");
    Ok(())
}

#[test]
fn operators_change_whom_a_machine_trusts_but_not_over_its_owners_head() -> Result<()> {
    let (stage, node) = scene()?;
    let acme = Publisher::new()?;
    let thermal = acme.signed(&pack("thermal"))?;
    stage.run(&["publisher", "trust", &acme.key, "--name", "acme", "bench-1"])?.ok()?;
    deploy(&stage, &thermal, &[])?.ok()?;
    let list = invoke(&stage, &["pack.publishers"])?;
    let names: Vec<&Value> = list["result"].as_array().unwrap().iter().map(|publisher| &publisher["name"]).collect();
    assert!(names.contains(&&Value::from("acme")) && names.len() == 2, "{list}");
    // One that is paired from here later knows it too.
    let _later = stage.node("bench-2")?;
    stage.run(&["pack", "deploy", text(&thermal), "bench-2"])?.ok()?;
    stage.run(&["publisher", "distrust", "acme", "bench-1"])?.ok()?;
    assert_eq!(code(&stage, "thermal.summary")?, "unknown_command", "at once");
    refused(deploy(&stage, &thermal, &[])?, "bad_key", 7)?;
    // The owner refuses the fleet's own publisher: no call takes that back.
    let own = stage.run(&["--json", "publisher", "show"])?.ok()?.json()?["key"].as_str().unwrap().to_owned();
    node.run(&["trust", "remove", &own])?.ok()?;
    refused(deploy(&stage, &pack("thermal"), &[])?, "denied", 3)?;
    let ran = stage.run(&["publisher", "trust", &own, "bench-1"])?.exits(3)?;
    assert!(ran.stderr.contains("this machine's owner refuses publisher"), "{}", ran.stderr);
    node.run(&["trust", "publisher", &own])?.ok()?;
    deploy(&stage, &pack("thermal"), &[])?.ok()?;
    Ok(())
}

#[test]
fn an_older_version_comes_back_only_on_purpose() -> Result<()> {
    let (stage, _node) = scene()?;
    deploy(&stage, &pack("fixtures/echo-next"), &[])?.ok()?;
    let error = refused(deploy(&stage, &pack("fixtures/echo"), &[])?, "replayed", 7)?;
    assert!(error["hint"].as_str().unwrap().contains("--downgrade"), "{error}");
    stage.run(&["pack", "remove", "bench-1", "echo"])?.ok()?;
    refused(deploy(&stage, &pack("fixtures/echo"), &[])?, "replayed", 7)?;
    deploy(&stage, &pack("fixtures/echo"), &["--downgrade"])?.ok()?;
    assert_eq!(invoke(&stage, &["echo.say", "text=hello"])?["result"], "hello");
    Ok(())
}

#[test]
fn a_new_key_goes_on_where_the_old_one_stopped_and_a_revoked_one_ends() -> Result<()> {
    let (stage, mut node) = scene()?;
    deploy(&stage, &pack("fixtures/greedy"), &[])?.ok()?;
    deploy(&stage, &pack("fixtures/echo"), &[])?.ok()?;
    node.run(&["allow", "greedy", "process", "id"])?.ok()?;
    assert_eq!(invoke(&stage, &["greedy.try_it"])?["ok"], true);
    let rotated = stage.run(&["--json", "publisher", "rotate"])?.ok()?.json()?;
    let old = rotated["replaced"].as_str().unwrap().to_owned();
    deploy(&stage, &pack("fixtures/echo-next"), &[])?.ok()?;
    let newer = renamed(&pack("fixtures/greedy"), stage.home.path(), "greedy", "0.2.0")?;
    deploy(&stage, &newer, &[])?.ok()?;
    assert_eq!(invoke(&stage, &["greedy.try_it"])?["ok"], true, "the grant is the publisher's, whichever key it signs with");
    assert_eq!(listed(&stage, "greedy")?[0]["publisher"], rotated["key"]);
    // The old key: what it vouched for comes back, nothing new.
    stage.run(&["pack", "rollback", "bench-1", "echo"])?.ok()?;
    let file = stage.home.path().join("operator").read_dir()?.flatten().map(|entry| entry.path());
    let kept = file.into_iter().find(|path| text(path).contains("publisher-")).context("the old key")?;
    let next = renamed(&pack("fixtures/echo"), stage.home.path(), "echo", "0.9.0")?;
    stage.run(&["pack", "sign", text(&next), "--key", text(&kept)])?.ok()?;
    refused(deploy(&stage, &next, &[])?, "bad_key", 7)?;
    // Revoked, it stands for nothing at all, and what answered by it stops.
    stage.run(&["publisher", "revoke", &old])?.ok()?;
    node.agent()?.wait_for("a pack stops answering")?;
    assert_eq!(invoke(&stage, &["echo.say", "text=hello"])?["error"]["code"], "unknown_command");
    refused(deploy(&stage, &next, &[])?, "revoked", 3)?;
    assert_eq!(invoke(&stage, &["greedy.try_it"])?["ok"], true, "the new key's packs go on");
    node.stop()?;
    node.start()?;
    assert_eq!(invoke(&stage, &["echo.say", "text=hello"])?["error"]["code"], "unknown_command");
    deploy(&stage, &pack("fixtures/echo-next"), &[])?.ok()?;
    let own = rotated["key"].as_str().unwrap();
    stage.run(&["publisher", "revoke", own])?.exits(2)?;
    Ok(())
}

#[test]
fn a_call_under_way_ends_with_its_packs_publisher() -> Result<()> {
    let (stage, _node) = scene()?;
    let acme = Publisher::new()?;
    stage.run(&["publisher", "trust", &acme.key, "--name", "acme", "bench-1"])?.ok()?;
    deploy(&stage, &acme.signed(&pack("fixtures/flow"))?, &[])?.ok()?;
    let mut held = stage.begin(&["invoke", "bench-1", "flow.hold"])?;
    held.wait_until("holding", |line| matches!(line, Line::Out(text) if text.contains("holding")))?;
    stage.run(&["publisher", "revoke", "acme"])?.ok()?;
    let (status, said) = held.finish()?;
    assert_eq!(status.code(), Some(3), "{said:?}");
    Ok(())
}

#[test]
fn powers_stay_with_the_publisher_and_a_version_that_asks_for_more_waits() -> Result<()> {
    let (stage, node) = scene()?;
    let acme = Publisher::new()?;
    stage.run(&["publisher", "trust", &acme.key, "bench-1"])?.ok()?;
    deploy(&stage, &pack("fixtures/greedy"), &[])?.ok()?;
    node.run(&["allow", "greedy", "process", "id"])?.ok()?;
    assert_eq!(invoke(&stage, &["greedy.try_it"])?["ok"], true);
    let newer = renamed(&pack("fixtures/greedy"), stage.home.path(), "greedy", "0.2.0")?;
    deploy(&stage, &newer, &[])?.ok()?;
    assert_eq!(invoke(&stage, &["greedy.try_it"])?["ok"], true, "a new version keeps what was granted");
    // The same bytes under another's signature are another's pack.
    deploy(&stage, &acme.signed(&newer)?, &[])?.ok()?;
    assert_eq!(code(&stage, "greedy.try_it")?, "denied", "another publisher's pack of that name gets nothing");
    // A pack that the owner has spoken about comes back asking for more.
    deploy(&stage, &pack("thermal"), &[])?.ok()?;
    node.run(&["allow", "thermal", "system"])?.ok()?;
    stage.run(&["pack", "remove", "bench-1", "greedy"])?.ok()?;
    let wider = renamed(&pack("fixtures/greedy"), stage.home.path(), "thermal", "2.0.0")?;
    let ran = stage.run(&["pack", "deploy", text(&wider), "bench-1"])?.ok()?;
    assert!(ran.stderr.contains("`process`, which older versions did not, and waits"), "{}", ran.stderr);
    let shown = node.run(&["policy", "show"])?.ok()?.stdout;
    assert!(shown.contains("process  waiting, new in this version"), "{shown}");
    let described = stage.run(&["--json", "nodes", "describe", "bench-1"])?.ok()?.json()?;
    let thermal = described["packs"].as_array().unwrap().iter().find(|pack| pack["name"] == "thermal").unwrap();
    assert_eq!(thermal["powers"], serde_json::json!([{"name": "process", "state": "waiting"}]), "{thermal}");
    node.run(&["deny", "thermal", "process"])?.ok()?;
    assert!(!node.run(&["policy", "show"])?.ok()?.stdout.contains("waiting"));
    Ok(())
}

#[test]
fn a_look_into_a_pack_says_who_signed_it_and_whether_that_holds() -> Result<()> {
    let (acme, stranger) = (Publisher::new()?, tempfile::tempdir()?);
    let file = acme.signed(&pack("thermal"))?;
    let look = |home: &Path| -> Result<(String, Value)> {
        let shown = run_in(home, &["pack", "inspect", text(&file)])?.ok()?.stdout;
        let line = shown.lines().find(|line| line.starts_with("signed ")).context("a line about it")?.to_owned();
        Ok((line, run_in(home, &["--json", "pack", "inspect", text(&file)])?.ok()?.json()?["signature"].clone()))
    };
    let (line, json) = look(acme.home.path())?;
    assert_eq!(line, format!("signed     by this home's publisher {}", acme.fingerprint));
    assert_eq!((&json["state"], &json["fingerprint"]), (&"holds".into(), &acme.fingerprint.as_str().into()));
    let (line, json) = look(stranger.path())?;
    assert!(line.contains("it says, who is not known here"), "{line}");
    assert_eq!((&json["state"], &json["fingerprint"]), (&"unknown_publisher".into(), &acme.fingerprint.as_str().into()));
    // Another build of the same pack, to which the signature was carried over; and one that was tampered with.
    let (wasm, cose) = (std::fs::read(&file)?, file.with_extension("wasm.cose"));
    std::fs::write(&file, [&wasm[..], &[0, 5, 4, b'n', b'e', b'x', b't']].concat())?;
    for home in [acme.home.path(), stranger.path()] {
        let (line, json) = look(home)?;
        assert!(line.starts_with("signed     no: ") && line.contains("the signature is for component"), "{line}");
        assert_eq!(json["state"], "broken");
    }
    std::fs::write(&file, &wasm)?;
    let mut signature = std::fs::read(&cose)?;
    *signature.last_mut().context("bytes")? ^= 1;
    std::fs::write(&cose, signature)?;
    assert!(look(acme.home.path())?.0.contains("no: the pack's signature does not hold"));
    std::fs::remove_file(&cose)?;
    assert_eq!(look(acme.home.path())?.0, "signed     not signed");
    Ok(())
}
