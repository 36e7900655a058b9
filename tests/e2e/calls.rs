//! Calls: what they answer, what refuses them, that they do not stand in each other's way, and that they really end.

use std::time::{Duration, Instant};

use anyhow::Result;
use outhaul_tests::process::Process;
use outhaul_tests::stage::{Stage, pack};

#[test]
fn node_commands_answer() -> Result<()> {
    let stage = Stage::start()?;
    let _node = stage.node("bench-1")?;
    stage.run(&["ping", "bench-1"])?.ok()?;
    let status = stage.run(&["--json", "invoke", "bench-1", "node.status"])?.ok()?.json()?;
    assert_eq!(status["ok"], true);
    for field in ["cpu_percent", "memory_percent", "uptime_secs"] {
        assert!(status["result"][field].is_number(), "{field}: {status}");
    }
    Ok(())
}

#[test]
fn an_answer_carries_a_receipt_of_the_node() -> Result<()> {
    let stage = Stage::start()?;
    let _node = stage.node("bench-1")?;
    let first = stage.run(&["--json", "invoke", "bench-1", "system.info"])?.ok()?.json()?;
    let second = stage.run(&["--json", "invoke", "bench-1", "system.info"])?.ok()?.json()?;
    assert_eq!(first["receipt"]["command"], "system.info");
    assert_eq!(first["receipt"]["evidence"], "signed");
    assert_eq!(first["receipt"]["outcome"], "done");
    let number = |ran: &serde_json::Value| ran["receipt"]["number"].as_u64().unwrap();
    assert_eq!(number(&second), number(&first) + 1);
    assert!(first["result"]["memory"]["total"].as_u64().unwrap() > 0);
    Ok(())
}

#[test]
fn the_long_form_of_invoke_and_json_parameters_are_accepted() -> Result<()> {
    let stage = Stage::start()?;
    let _node = stage.node("bench-1")?;
    let ran = stage.run(&["--json", "nodes", "invoke", "--node", "bench-1", "--command", "gpu.metrics", "--params", "{}"])?;
    // Without a driver that is the command's own honest error; with one it is a list.
    assert!(ran.code == 0 || ran.json()?["error"]["code"] == "command_failed", "{}{}", ran.stdout, ran.stderr);
    Ok(())
}

#[test]
fn mistakes_are_told_with_the_way_out() -> Result<()> {
    let stage = Stage::start()?;
    let _node = stage.node("bench-1")?;
    for (arguments, code, exit) in [
        (vec!["invoke", "bench-1", "gpu.lst"], "unknown_command", 2),
        (vec!["invoke", "bench-1", "gpu.metrics", "uid=x"], "bad_params", 2),
        (vec!["invoke", "bench-1", "system.run"], "bad_params", 2),
        (vec!["invoke", "nobody", "gpu.list"], "unknown_node", 4),
    ] {
        let ran = stage.run(&[&["--json"], arguments.as_slice()].concat())?.exits(exit)?;
        let json = ran.json()?;
        assert_eq!(json["error"]["code"], code, "{json}");
        assert_eq!(json["ok"], false);
    }
    Ok(())
}

#[test]
fn an_offline_node_is_said_to_be_offline() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.node("bench-1")?;
    // A proper stop says goodbye; the relay has heard it when the agent's process is gone.
    node.stop()?;
    let ran = stage.run(&["--json", "invoke", "bench-1", "system.info"])?.exits(4)?;
    assert_eq!(ran.json()?["error"]["code"], "node_offline");
    let nodes = stage.run(&["--json", "nodes"])?.ok()?.json()?;
    assert_eq!(nodes[0]["status"], "offline");
    Ok(())
}

#[test]
fn a_long_call_delays_neither_another_nor_a_ping() -> Result<()> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    node.run(&["allow", "system", "process", "sleep", "sh"])?.ok()?;
    let mut long = stage.begin(&["run", "bench-1", "--", "sh", "-c", "echo begun; sleep 60"])?;
    long.wait_for("begun")?;
    let began = Instant::now();
    stage.run(&["ping", "bench-1"])?.ok()?;
    stage.run(&["invoke", "bench-1", "system.info"])?.ok()?;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    Ok(())
}

/// Whether a process of this pid lives.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}

/// Waits until a process is gone.
pub(crate) fn gone(pid: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while lives(pid) && Instant::now() < deadline {
        std::thread::yield_now();
    }
    !lives(pid)
}

fn shell_with_child(stage: &Stage, extra: &[&str]) -> Result<(Process, String)> {
    let script = "sleep 300 & echo child $!; wait";
    let arguments = [extra, &["run", "bench-1", "--", "sh", "-c", script]].concat();
    let mut run = stage.begin(&arguments)?;
    let line = run.wait_for("child")?;
    let pid = line.text().split_whitespace().nth(1).unwrap().to_owned();
    assert!(lives(&pid));
    Ok((run, pid))
}

#[test]
fn ctrl_c_ends_the_remote_process_group() -> Result<()> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    node.run(&["allow", "system", "process", "sh"])?.ok()?;
    let (run, pid) = shell_with_child(&stage, &[])?;
    run.signal(libc::SIGINT);
    let (status, _) = run.finish()?;
    assert_eq!(status.code(), Some(130));
    assert!(gone(&pid), "the remote child still runs");
    Ok(())
}

#[test]
fn ctrl_c_before_the_node_has_answered_still_ends_the_program_there() -> Result<()> {
    let stage = Stage::start()?;
    let mut node = stage.node("bench-1")?;
    node.run(&["allow", "system", "process", "sh"])?.ok()?;
    let file = node.home.path().join("pid");
    // The program's first deed is to stop the agent, which has not said a word about the call yet.
    let script = format!("kill -STOP $PPID; echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300", file.display());
    let run = stage.begin(&["run", "bench-1", "--", "sh", "-c", &script])?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !file.exists() {
        anyhow::ensure!(Instant::now() < deadline, "the program never began");
        std::thread::yield_now();
    }
    let pid = std::fs::read_to_string(&file)?.trim().to_owned();
    run.signal(libc::SIGINT);
    node.agent()?.signal(libc::SIGCONT);
    let (status, _) = run.finish()?;
    assert_eq!(status.code(), Some(130));
    assert!(gone(&pid), "the program goes on");
    Ok(())
}

#[test]
fn a_deadline_ends_the_remote_process_group() -> Result<()> {
    let stage = Stage::start()?;
    let node = stage.node("bench-1")?;
    node.run(&["allow", "system", "process", "sh"])?.ok()?;
    let (run, pid) = shell_with_child(&stage, &["--timeout", "2s"])?;
    let (status, said) = run.finish()?;
    assert_eq!(status.code(), Some(255), "{said:?}");
    assert!(gone(&pid), "the remote child still runs");
    Ok(())
}

#[test]
fn a_pack_that_never_ends_is_cancelled() -> Result<()> {
    let stage = Stage::start()?;
    let _node = stage.node("bench-1")?;
    let flow = pack("fixtures/flow");
    stage.run(&["pack", "deploy", flow.to_str().unwrap(), "bench-1"])?.ok()?;
    let mut hold = stage.begin(&["invoke", "bench-1", "flow.hold"])?;
    hold.wait_for("holding")?;
    hold.signal(libc::SIGINT);
    let (status, _) = hold.finish()?;
    assert_eq!(status.code(), Some(130));
    stage.run(&["ping", "bench-1"])?.ok()?;
    Ok(())
}
