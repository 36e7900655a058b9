//! Pairing by code and by approval, and what a guesser gets.

use anyhow::Result;
use outhaul_tests::process::Process;
use outhaul_tests::stage::{Node, Stage};

#[test]
fn the_right_code_pairs_and_the_node_is_listed() -> Result<()> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    let nodes = stage.run(&["--json", "nodes"])?.ok()?.json()?;
    let listed = &nodes[0];
    assert_eq!(listed["name"], "bench-1");
    assert_eq!(listed["status"], "online");
    assert_eq!(listed["platform"], format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH));
    for field in ["id", "hostname", "connected_at", "last_seen"] {
        assert!(!listed[field].is_null(), "{field}");
    }
    let capabilities: Vec<&str> = listed["capabilities"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(capabilities, ["camera", "gpu", "system"]);
    let status = node.run(&["status"])?.ok()?;
    assert!(status.stdout.contains("bench-1"), "{}", status.stdout);
    Ok(())
}

#[test]
fn a_wrong_code_pairs_nothing_and_leaves_nothing_behind() -> Result<()> {
    let stage = Stage::start()?;
    let (maker, code) = stage.pair_new(&[])?;
    let wrong = if code == "111111" { "222222" } else { "111111" };
    let node = Node::new("bench-1")?;
    let ran = node.run(&["pair", "--relay", &stage.url, "--code", wrong])?;
    assert_ne!(ran.code, 0, "{}", ran.stdout);
    assert!(ran.stderr.contains("code"), "{}", ran.stderr);
    assert!(!node.file("agent.toml").exists() || !std::fs::read_to_string(node.file("agent.toml"))?.contains("relay ="));
    let run = node.run(&["run"])?;
    assert_eq!(run.code, 3, "{}", run.stderr);
    // One wrong try does not burn the code for the right machine.
    node.run(&["pair", "--relay", &stage.url, "--code", &code, "--name", "bench-1"])?.ok()?;
    maker.finish()?;
    Ok(())
}

#[test]
fn three_wrong_guesses_end_a_code() -> Result<()> {
    let stage = Stage::start()?;
    let (mut maker, code) = stage.pair_new(&[])?;
    let wrong = if code == "111111" { "222222" } else { "111111" };
    let node = Node::new("guesser")?;
    for _ in 0..3 {
        assert_ne!(node.run(&["pair", "--relay", &stage.url, "--code", wrong])?.code, 0);
    }
    // The maker notices and makes a new code; the old one is worth nothing now, though it was the right one.
    maker.wait_for("code")?;
    let ran = node.run(&["pair", "--relay", &stage.url, "--code", &code])?;
    assert_ne!(ran.code, 0, "{}", ran.stdout);
    Ok(())
}

#[test]
fn a_code_works_once() -> Result<()> {
    let stage = Stage::start()?;
    let (maker, code) = stage.pair_new(&[])?;
    let first = Node::new("first")?;
    first.run(&["pair", "--relay", &stage.url, "--code", &code, "--name", "first"])?.ok()?;
    maker.finish()?;
    let second = Node::new("second")?;
    let ran = second.run(&["pair", "--relay", &stage.url, "--code", &code, "--name", "second"])?;
    assert_ne!(ran.code, 0);
    let nodes = stage.run(&["--json", "nodes"])?.ok()?.json()?;
    assert_eq!(nodes.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
fn a_code_past_its_time_is_refused() -> Result<()> {
    let stage = Stage::start()?;
    let (maker, code) = stage.pair_new(&["--ttl", "1"])?;
    // The maker ends by itself when the code does; that is the event waited for.
    let (status, _) = maker.finish()?;
    assert!(!status.success());
    let node = Node::new("late")?;
    assert_ne!(node.run(&["pair", "--relay", &stage.url, "--code", &code])?.code, 0);
    Ok(())
}

#[test]
fn without_a_code_the_machine_waits_for_approval() -> Result<()> {
    let stage = Stage::start()?;
    let node = Node::new("kiosk")?;
    let mut guest = Process::start(node.command(&["pair", "--relay", &stage.url, "--name", "kiosk"])?)?;
    let shown = guest.wait_until("six digits", |line| six_digits(line.text()).is_some())?;
    let digits = six_digits(shown.text()).unwrap();
    let pending = wait_for_pending(&stage)?;
    stage.run(&["pair", "approve", &pending, "--code", &digits])?.ok()?;
    let (status, said) = guest.finish()?;
    assert!(status.success(), "{said:?}");
    let nodes = stage.run(&["--json", "nodes"])?.ok()?.json()?;
    assert_eq!(nodes[0]["name"], "kiosk");
    Ok(())
}

#[test]
fn approval_with_other_digits_pairs_nothing() -> Result<()> {
    let stage = Stage::start()?;
    let node = Node::new("kiosk")?;
    let mut guest = Process::start(node.command(&["pair", "--relay", &stage.url])?)?;
    let shown = guest.wait_until("six digits", |line| six_digits(line.text()).is_some())?;
    let digits = six_digits(shown.text()).unwrap();
    let wrong = if digits == "111111" { "222222" } else { "111111" };
    let pending = wait_for_pending(&stage)?;
    assert_ne!(stage.run(&["pair", "approve", &pending, "--code", wrong])?.code, 0);
    let nodes = stage.run(&["--json", "nodes"])?.ok()?.json()?;
    assert_eq!(nodes.as_array().map(Vec::len), Some(0));
    Ok(())
}

#[test]
fn a_rejected_machine_is_told_and_forgotten() -> Result<()> {
    let stage = Stage::start()?;
    let node = Node::new("stranger")?;
    let mut guest = Process::start(node.command(&["pair", "--relay", &stage.url])?)?;
    guest.wait_until("six digits", |line| six_digits(line.text()).is_some())?;
    let pending = wait_for_pending(&stage)?;
    stage.run(&["pair", "reject", &pending])?.ok()?;
    let (status, said) = guest.finish()?;
    assert!(!status.success(), "{said:?}");
    Ok(())
}

#[test]
fn a_code_the_relay_keeps_pairs_without_a_waiting_operator() -> Result<()> {
    let stage = Stage::start()?;
    let made = stage.run(&["--json", "pair", "new", "--detach"])?.ok()?.json()?;
    let code = made["code"].as_str().unwrap();
    let node = Node::new("bench-2")?;
    node.run(&["pair", "--relay", &stage.url, "--code", code, "--name", "bench-2"])?.ok()?;
    let nodes = stage.run(&["--json", "nodes"])?.ok()?.json()?;
    assert_eq!(nodes[0]["name"], "bench-2");
    Ok(())
}

/// The first word of six digits.
fn six_digits(text: &str) -> Option<String> {
    let digits: String = text.chars().map(|letter| if letter.is_ascii_digit() { letter } else { ' ' }).collect();
    digits.split_whitespace().find(|word| word.len() == 6).map(str::to_owned)
}

/// The name of the one pending request. The guest shows its digits once the relay has taken it up.
fn wait_for_pending(stage: &Stage) -> Result<String> {
    let listed = stage.run(&["--json", "pair", "list"])?.ok()?.json()?;
    let request = listed[0]["request"].as_str().map(str::to_owned);
    request.ok_or_else(|| anyhow::anyhow!("nothing is pending: {listed}"))
}
