//! `relay run`: a remote program as if it were here.

use std::io::{Read, Write};
use std::process::Stdio;

use anyhow::{Context, Result};
use outhaul_tests::stage::Stage;

fn allowed(stage: &Stage, programs: &[&str]) -> Result<outhaul_tests::Node> {
    let node = stage.node("bench-1")?;
    node.run(&[&["allow", "system", "process"], programs].concat())?.ok()?;
    Ok(node)
}

#[test]
fn nothing_runs_unasked_and_the_refusal_says_how() -> Result<()> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    let ran = stage.run(&["run", "bench-1", "--", "uname", "-a"])?.exits(255)?;
    assert!(ran.stderr.contains("agent allow system process uname"), "{}", ran.stderr);
    // As the hint says, on the machine itself; the running agent sees it at the next call.
    node.run(&["allow", "system", "process", "uname"])?.ok()?;
    let ran = stage.run(&["run", "bench-1", "--", "uname", "-s"])?.ok()?;
    assert_eq!(ran.stdout, "Linux\n");
    node.run(&["deny", "system", "process", "uname"])?.ok()?;
    stage.run(&["run", "bench-1", "--", "uname", "-s"])?.exits(255)?;
    Ok(())
}

#[test]
fn exit_status_signal_and_streams_are_the_programs_own() -> Result<()> {
    let stage = Stage::start()?;
    let _node = allowed(&stage, &["sh"])?;
    let ran = stage.run(&["run", "bench-1", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])?.exits(7)?;
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    stage.run(&["run", "bench-1", "--", "sh", "-c", "kill -TERM $$"])?.exits(128 + 15)?;
    let ran = stage.run(&["--json", "run", "bench-1", "--", "sh", "-c", "echo hi; exit 3"])?;
    let json = ran.json()?;
    assert_eq!(json["result"]["exit_code"], 3);
    assert_eq!(json["stdout"], "hi\n");
    Ok(())
}

#[test]
fn input_is_forwarded_to_its_end() -> Result<()> {
    let stage = Stage::start()?;
    let _node = allowed(&stage, &["cat", "wc"])?;
    let mut run = stage.command(&["run", "bench-1", "--", "cat"])?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let sent: Vec<u8> = (0..3_000_000u32).map(|at| ((at * 31) >> 3) as u8).collect();
    let mut stdin = run.stdin.take().context("piped")?;
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy));
    let mut got = Vec::new();
    run.stdout.take().context("piped")?.read_to_end(&mut got)?;
    writer.join().unwrap()?;
    assert!(run.wait()?.success());
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    Ok(())
}

#[test]
fn output_comes_as_it_is_produced() -> Result<()> {
    let stage = Stage::start()?;
    let _node = allowed(&stage, &["sh"])?;
    // The program waits for a line after each it says: were output held back, this would never end.
    let mut run = stage.begin(&["run", "bench-1", "--", "sh", "-c", "for i in 1 2 3; do echo say $i; read x; done"])?;
    for at in 1..=3 {
        run.wait_for(&format!("say {at}"))?;
        run.say("on")?;
    }
    let (status, _) = run.finish()?;
    assert!(status.success());
    Ok(())
}

#[test]
fn a_lost_link_is_not_the_end_of_the_input() -> Result<()> {
    let mut stage = Stage::start()?;
    let _node = allowed(&stage, &["sh"])?;
    let mut run = stage.begin(&["run", "bench-1", "--", "sh", "-c", "echo begun; read line; echo got $line"])?;
    run.wait_for("begun")?;
    stage.restart_relay()?;
    run.wait_for("the link is back")?;
    run.say("more")?;
    let (status, said) = run.finish()?;
    assert!(status.success() && said.iter().any(|line| line.text() == "got more"), "{said:?}");
    Ok(())
}

#[test]
fn three_hundred_megabytes_arrive_byte_for_byte_through_bounded_memory() -> Result<()> {
    const BYTES: usize = 300_000_000;
    let mut stage = Stage::start()?;
    let mut node = allowed(&stage, &["sh"])?;
    let script = format!("yes 0123456789abcdef | head -c {BYTES}");
    let mut run = stage.command(&["run", "bench-1", "--", "sh", "-c", &script])?.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = run.stdout.take().context("piped")?;
    let line = b"0123456789abcdef\n";
    let (mut total, mut buffer) = (0usize, vec![0u8; 1 << 16]);
    loop {
        let read = stdout.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        for (at, byte) in buffer[..read].iter().enumerate() {
            anyhow::ensure!(*byte == line[(total + at) % line.len()], "byte {} is wrong", total + at);
        }
        total += read;
    }
    assert_eq!((total, run.wait()?.success()), (BYTES, true));
    let (relay, agent) = (stage.relay()?.peak_kib()?, node.agent()?.peak_kib()?);
    assert!(relay < 64 << 10, "the relay's peak was {relay} KiB");
    assert!(agent < 128 << 10, "the agent's peak was {agent} KiB");
    Ok(())
}

#[test]
fn what_a_caller_passes_never_widens_what_is_allowed() -> Result<()> {
    let stage = Stage::start()?;
    let node = allowed(&stage, &["uname"])?;
    let out = node.home.path().join("proof");
    let denied: &[&[&str]] = &[
        &["run", "bench-1", "--", "./uname"],
        &["run", "bench-1", "--", "/tmp/uname"],
        &["run", "bench-1", "--", "sh", "-c", "uname"],
        &["run", "bench-1", "--", "env", "uname"],
        &["run", "bench-1", "--env", "LD_PRELOAD=/tmp/evil.so", "--", "uname"],
        &["run", "bench-1", "--env", "PATH=/tmp", "--", "uname"],
        &["run", "bench-1", "--cwd", "/root", "--", "uname"],
    ];
    for arguments in denied {
        let ran = stage.run(arguments)?.exits(255)?;
        assert!(ran.stdout.is_empty(), "{arguments:?} said {}", ran.stdout);
    }
    // An approval among the parameters is no parameter at all.
    let ran = stage.run(&["--json", "invoke", "bench-1", "system.run", "--params", r#"{"argv":["id"],"approved":true}"#])?.exits(2)?;
    assert_eq!(ran.json()?["error"]["code"], "bad_params");
    assert!(!out.exists());
    Ok(())
}
