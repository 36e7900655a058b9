//! Machines that take it for another time than it is, as whole processes: one whose clock says 1970, one at 2099. What
//! counts is the later of its clock and what it knows to have passed; see `protocol::time`.

use anyhow::{Context, Result, ensure};
use outhaul_protocol::keys::SecretKey;
use outhaul_protocol::time::Time;
use outhaul_tests::faketime::{FakeClock, IN_1970, IN_2099, real_time};
use outhaul_tests::hostile::Hostile;
use outhaul_tests::outsider::{Outsider, fleet_key};
use outhaul_tests::process::{Process, Ran};
use outhaul_tests::stage::{Node, Stage};
use outhaul_tests::tools;

use crate::hostile::runtime;
use crate::middle::end_of;

/// Seconds that a machine's own clock and ours may differ without anything being wrong.
const SLACK: u64 = 120;

/// Runs a test with a clock that can be set, where there is one.
fn with_clock(test: &str, play: impl FnOnce(&FakeClock) -> Result<()>) -> Result<()> {
    match FakeClock::find() {
        Ok(clock) => play(&clock),
        Err(missing) => tools::skip(test, &missing),
    }
}

/// `agent pair` by that clock, with a new code of this stage.
fn pair(stage: &Stage, node: &Node, clock: &FakeClock) -> Result<(Ran, i32, String)> {
    let (maker, code) = stage.pair_new(&[])?;
    let command = node.command(&["pair", "--relay", &stage.url, "--code", &code, "--name", &node.name])?;
    let ran = Ran::of(clock.on(command).output()?);
    let (status, said) = end_of(maker)?;
    Ok((ran, status, said))
}

/// `agent run` by that clock, connected; what it said of the clock.
fn start(node: &mut Node, clock: &FakeClock) -> Result<bool> {
    let mut agent = Process::start(clock.on(node.command(&["run"])?))?;
    agent.wait_for("connected")?;
    let warned = agent.transcript().contains("clock cannot be right");
    node.agent = Some(agent);
    Ok(warned)
}

/// A call that is answered; when it began, by its receipt.
fn answered(stage: &Stage) -> Result<u64> {
    let ran = stage.run(&["--json", "invoke", "bench-1", "system.info"])?.ok()?.json()?;
    ensure!(ran["receipt"]["outcome"] == "done", "{ran}");
    ran["receipt"]["started_at"].as_u64().context("a time")
}

#[test]
fn a_machine_at_1970_pairs_links_and_answers() -> Result<()> {
    with_clock("a_machine_at_1970_pairs_links_and_answers", |clock| {
        clock.set(IN_1970)?;
        let before = real_time();
        let stage = Stage::start()?;
        let mut node = Node::new("bench-1")?;
        let (ran, status, said) = pair(&stage, &node, clock)?;
        ran.ok()?;
        ensure!(status == 0, "{said}");
        ensure!(start(&mut node, clock)?, "it does not say that its clock is wrong");
        // It knows what the fleet signed when it paired: no receipt of its is from before that, or from the future.
        let first = answered(&stage)?;
        ensure!((before..=real_time()).contains(&first), "{first}");
        let nodes = stage.run(&["--json", "nodes"])?.ok()?.json()?;
        ensure!(nodes[0]["status"] == "online", "{nodes}");
        // Restarted with an empty battery once more, it has lost nothing of that.
        node.stop()?;
        ensure!(start(&mut node, clock)?);
        ensure!((first..=real_time()).contains(&answered(&stage)?));
        // And with the clock set right it goes by that.
        clock.set_right()?;
        ensure!(answered(&stage)?.abs_diff(real_time()) <= SLACK);
        Ok(())
    })
}

#[test]
fn a_machine_at_1970_does_not_take_every_tls_certificate_for_too_new() -> Result<()> {
    with_clock("a_machine_at_1970_does_not_take_every_tls_certificate_for_too_new", |clock| {
        clock.set(IN_1970)?;
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let folder = tempfile::tempdir()?;
        let (certificate, key) = (folder.path().join("tls.pem"), folder.path().join("tls.key"));
        std::fs::write(&certificate, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
        let stage = Stage::start_with(&["--tls-cert", &certificate, "--tls-key", &key])?;
        std::fs::write(stage.home.path().join("operator/operator.toml"), format!("ca = {certificate:?}\n"))?;
        let mut node = Node::new("bench-1")?;
        let (maker, code) = stage.pair_new(&[])?;
        let command = node.command(&["pair", "--relay", &stage.url, "--code", &code, "--name", "bench-1", "--ca", &certificate])?;
        Ran::of(clock.on(command).output()?).ok()?;
        ensure!(end_of(maker)?.0 == 0);
        ensure!(start(&mut node, clock)?);
        answered(&stage)?;
        Ok(())
    })
}

#[test]
fn a_low_clock_makes_no_expired_grant_good() -> Result<()> {
    with_clock("a_low_clock_makes_no_expired_grant_good", |clock| {
        clock.set(IN_1970)?;
        let mut stage = Stage::start()?;
        let mut node = Node::new("bench-1")?;
        pair(&stage, &node, clock)?.0.ok()?;
        // The relay would turn an expired grant away itself: one that lets everybody in takes its place.
        let listen = stage.listen();
        stage.relay.take().context("runs")?.stop()?;
        runtime()?.block_on(async {
            let hostile = Hostile::start(&listen, outhaul_home::read_secret_key(&stage.home.path().join("relay/relay.key"))?).await?;
            start(&mut node, clock)?;
            let (fleet, key): (SecretKey, SecretKey) =
                (fleet_key(stage.home.path())?, outhaul_home::read_secret_key(&node.file("agent.key"))?);
            let now = real_time();
            let ended = |iat: u64, exp: u64| Outsider::granted(&fleet, |grant| (grant.iat, grant.exp) = (Time(iat), Time(exp)));
            for (who, code) in [
                (ended(now - 2 * SLACK, now + SLACK), "done"),
                // After the machine's own clock, and before what it knows.
                (ended(IN_1970, now - 86_400), "expired"),
                (ended(now - 86_400, now - 3600), "expired"),
            ] {
                let went = who.call(&hostile, &stage.url, fleet.id(), &key, "node.ping").await?;
                ensure!(went.code() == code, "{went:?}");
            }
            node.agent()?.wait_for("code=expired")?;
            Ok(())
        })
    })
}

#[test]
fn a_machine_at_2099_says_so_and_mends_when_its_clock_is_set() -> Result<()> {
    with_clock("a_machine_at_2099_says_so_and_mends_when_its_clock_is_set", |clock| {
        let stage = Stage::start()?;
        let mut node = Node::new("bench-1")?;
        pair(&stage, &node, clock)?.0.ok()?;
        clock.set(IN_2099)?;
        ensure!(start(&mut node, clock)?, "it does not say that its clock is wrong");
        // It is there, and every grant is past its time to it; whoever asks learns what time it has.
        ensure!(stage.run(&["--json", "nodes"])?.ok()?.json()?[0]["status"] == "online");
        for command in [&["invoke", "bench-1", "system.info"][..], &["ping", "bench-1"]] {
            let ran = stage.run(&[&["--json"], command].concat())?.exits(7)?;
            let error = &ran.json()?["error"];
            let hint = error["hint"].as_str().unwrap_or_default();
            ensure!(error["code"] == "expired" && hint.contains("`bench-1` says 2099-01-01"), "{error}");
        }
        let log = node.agent()?.wait_for("opening refused")?;
        ensure!(log.text().contains("code=expired") && log.text().contains("expired at 20"), "{}", log.text());
        // Set right while it runs, it answers, and its receipts have the time.
        clock.set_right()?;
        ensure!(answered(&stage)?.abs_diff(real_time()) <= SLACK);
        // The wild date has left nothing on the disk.
        node.stop()?;
        ensure!(!start(&mut node, clock)?, "{}", node.agent()?.transcript());
        ensure!(answered(&stage)?.abs_diff(real_time()) <= SLACK);
        Ok(())
    })
}

#[test]
fn a_machine_at_2099_does_not_pair_and_both_ends_say_why() -> Result<()> {
    with_clock("a_machine_at_2099_does_not_pair_and_both_ends_say_why", |clock| {
        clock.set(IN_2099)?;
        let stage = Stage::start()?;
        let node = Node::new("bench-1")?;
        let (ran, status, said) = pair(&stage, &node, clock)?;
        let ran = ran.exits(7)?;
        ensure!(ran.stderr.contains("expired at 20") && ran.stderr.contains("check this machine's clock"), "{}", ran.stderr);
        ensure!(!node.file("pins").exists() && !node.file("agent.toml").exists());
        ensure!(status == 8 && said.contains("gave up: expired") && said.contains("`bench-1`"), "{status}: {said}");
        clock.set_right()?;
        let (ran, status, _) = pair(&stage, &node, clock)?;
        ran.ok()?;
        ensure!(status == 0);
        Ok(())
    })
}
